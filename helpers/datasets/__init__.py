"""Folders of pictures, one folder a class, for `keras.utils.image_dataset_from_directory`.

They are made once and kept in the folder that the environment variable `COURSE_CACHE` names, else
in `~/.cache/transfer-learning-course`.
"""

from helpers.datasets.adopting import adopt
from helpers.datasets.cats_vs_dogs import cats_vs_dogs
from helpers.datasets.drawing import drawn

__all__ = ["adopt", "cats_vs_dogs", "drawn"]
