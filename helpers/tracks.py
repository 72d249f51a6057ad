"""The two tracks of the course: where data, weights and picture sizes come from.

`COURSE_TRACK=critters` (the default) is the drawn world with the course's own weights;
`COURSE_TRACK=photos` is Cats vs Dogs with ImageNet weights. A notebook asks the track and writes
plain Keras with the answers; it never has two code paths.
"""

import dataclasses
import functools
import os
from pathlib import Path

import h5py

from helpers import critters, datasets, downloads, pretrained

NAMES = ("critters", "photos")
DRAWN_ONLY = "# drawn world only"  # a cell that begins so is skipped on the photos track
NETWORKS = {  # by the names that `weights` takes: as keras.applications calls them
    "mobilenet_v2": "MobileNetV2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "densenet121": "DenseNet121",
}
HUB_MODULES = {
    "mobilenet_v2": "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4",
}


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

    def animals(self, *, train=0, validation=0, test=0, seed=0) -> Path:
        """The same for more than two classes: fox, lion, raccoon, tiger and wolf."""
        return datasets.drawn(
            critters.COUSINS, train=train, validation=validation, test=test, seed=seed
        )

    def weights(self, network) -> str:
        """For `keras.applications.…(weights=…, include_top=False)`: here a file, checked."""
        return pretrained.weights(network)

    def hub_module(self, network) -> str:
        """For `HubLayer`: here a folder, checked. Pictures in 0..1."""
        return pretrained.hub_module(network)

    def source(self, network) -> str:
        """What a network learnt from before it came here, for a sentence."""
        record = pretrained.record(network)
        species = record["species"]
        return (
            f"{record['pictures']['train']:,} labelled drawings of {len(species)} species: "
            + ", ".join(species)
        )

    def claim(self, holds, sentence):
        """What the text says of these pictures; raises AssertionError if it does not hold."""
        if not holds:
            raise AssertionError(sentence)


@dataclasses.dataclass(frozen=True)
class Photos:
    """Photos of cats and dogs, and networks that were pre-trained on ImageNet."""

    name: str = "photos"
    image_size: tuple = (160, 160)
    hub_size: tuple = (224, 224)
    vgg16_size: tuple = (96, 96)

    def cats_and_dogs(self, *, train=0, validation=0, test=0, seed=0) -> Path:
        """As in `Critters`; where fewer photos are there than asked for, it says so."""
        return datasets.cats_vs_dogs(train=train, validation=validation, test=test, seed=seed)

    animals = cats_and_dogs  # there are photos of no others

    def weights(self, network) -> str:
        """For `keras.applications.…(weights=…, include_top=False)`: "imagenet", or a file.

        The weights are in KERAS_HOME already, or Keras downloads them now. Raises
        FileNotFoundError if it cannot, ValueError for a file that holds no weights.
        """
        critters.check_known("network", network, tuple(NETWORKS))
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        file = home / "models" / weights_file(network)
        if not file.exists():
            _download(network, file)
        if not file.exists():
            raise FileNotFoundError(
                f"Keras keeps the weights of {network} elsewhere than in {file}: set KERAS_HOME "
                "to a folder that you can write to, before Jupyter starts."
            )
        try:
            h5py.File(file).close()
        except OSError:
            raise ValueError(
                f"{file} is not a file of weights, perhaps a proxy's page or half a download: "
                f"delete it and run this again, or {downloads.HANDED_OUT}."
            ) from None
        # Keras looks only in a KERAS_HOME that it can write to
        return "imagenet" if os.access(home, os.W_OK) else str(file)

    def hub_module(self, network) -> str:
        """For `HubLayer`: the handle of a module of TensorFlow Hub. Pictures in 0..1."""
        critters.check_known("network", network, tuple(HUB_MODULES))
        return HUB_MODULES[network]

    def source(self, network) -> str:
        """As in `Critters`; the numbers as published (Russakovsky et al., 2015)."""
        return "1,281,167 labelled photos of 1,000 classes, 120 breeds of dogs among them: ImageNet"

    def claim(self, holds, sentence):
        """What the text says of drawings: where it does not hold for photos, say so."""
        if not holds:
            print(f"On these photos it came out otherwise; with drawings: {sentence}.")


def current():
    """The track that the environment variable `COURSE_TRACK` names; critters if it is not set.

    Raises ValueError for an unknown track.
    """
    name = os.environ.get("COURSE_TRACK") or "critters"
    critters.check_known("COURSE_TRACK", name, NAMES)
    if name == "critters":
        return Critters()
    return _photos()


def drawn_world():
    """The critters track for lessons and exercises about the drawn world, whatever the track."""
    if os.environ.get("COURSE_TRACK") == "photos":
        print("This notebook is about the drawn world: it uses drawings on the photos track, too.")
    return Critters()


@functools.cache  # said once
def _photos():
    print("Track: photos. Where the text says drawing, read photo; its numbers are of drawings.")
    _skip_drawn_only_cells()
    return Photos()


def weights_file(network):
    """What Keras calls the file of a network's ImageNet weights without the top."""
    ending = "_1.0_160_no_top" if network == "mobilenet_v2" else "_notop"  # 160: Photos.image_size
    return f"{network}_weights_tf_dim_ordering_tf_kernels{ending}.h5"


def _download(network, file):
    import keras  # here, because it takes seconds and drawings need none of it

    try:
        shape = (*Photos.image_size, 3)
        getattr(keras.applications, NETWORKS[network])(include_top=False, input_shape=shape)
    except Exception as error:  # of urllib or Keras
        reason, way = downloads.why(error, [file] if file.exists() else [])
        file.unlink(missing_ok=True)  # what came is not what was asked for
        raise FileNotFoundError(
            f"The ImageNet weights of {network} are not at {file} and cannot be downloaded "
            f"({reason}): {way}, or {downloads.HANDED_OUT}."
        ) from None


def _skip_drawn_only_cells():
    """In a notebook: let cells that begin with DRAWN_ONLY say that they are skipped."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell:
        shell.input_transformers_cleanup.append(_skip)


def _skip(lines):
    """An input transformer of IPython: "# drawn world only: why" becomes a printed sentence."""
    if not lines or not lines[0].startswith(DRAWN_ONLY):
        return lines
    reason = lines[0].strip().removeprefix(DRAWN_ONLY).removeprefix(":").strip()
    return [f"print({'Skipped on the photos track: ' + reason + '.'!r})\n"] if reason else []
