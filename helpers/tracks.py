"""The two tracks of the course: where data, weights and picture sizes come from.

`COURSE_TRACK=critters` (the default) is the drawn world with the course's own weights. A notebook
asks the track and writes plain Keras with the answers; it never has two code paths.
"""

import dataclasses
import os
from pathlib import Path

from helpers import critters, datasets, pretrained

NAMES = ("critters", "photos")


@dataclasses.dataclass(frozen=True)
class Critters:
    """Drawn animals, and networks that were pre-trained on other species."""

    name: str = "critters"
    image_size: tuple = (96, 96)  # pixels, height and width, for `image_dataset_from_directory`
    hub_size: tuple = (96, 96)  # pixels that the hub module expects
    vgg16_size: tuple = (64, 64)  # pixels: VGG16 is slow, smaller pictures keep it bearable

    def cats_and_dogs(self, *, train=0, validation=0, test=0, seed=0) -> Path:
        """Folder with `train/`, `validation/`, `test/`; in each `cat/` (0) and `dog/` (1)."""
        return datasets.drawn(
            critters.HELD_OUT, train=train, validation=validation, test=test, seed=seed
        )

    def five_classes(self, *, train=0, validation=0, test=0, seed=0) -> Path:
        """The same for fox, lion, raccoon, tiger and wolf."""
        return datasets.drawn(
            critters.COUSINS, train=train, validation=validation, test=test, seed=seed
        )

    def weights(self, network) -> str:
        """For `keras.applications.…(weights=…, include_top=False)`: here a file, checked."""
        return pretrained.weights(network)

    def hub_module(self, network) -> str:
        """For `HubLayer`: here a folder, checked. Pictures in 0..1."""
        return pretrained.hub_module(network)


def current():
    """The track that the environment variable `COURSE_TRACK` names; critters if it is not set.

    Raises ValueError for an unknown track, NotImplementedError for photos.
    """
    name = os.environ.get("COURSE_TRACK") or "critters"
    critters.check_known("COURSE_TRACK", name, NAMES)
    if name == "photos":
        raise NotImplementedError(
            "The photos track is not in the course yet: unset COURSE_TRACK or set it to critters."
        )
    return Critters()
