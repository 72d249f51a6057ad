"""A network small enough to pre-train in a minute: `python -m helpers.small_cnn`.

Writes results/sources.csv: how well its features serve cats and dogs, by the number of drawings it
was pre-trained on, their species and their style. Every run takes the same number of gradient
steps, so runs with fewer distinct drawings see each of them more often and cost the same.
"""

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import critters, datasets, experiments

SIZE = 48  # pixels
CHANNELS = (16, 32, 64, 128, 256)  # of the blocks
STEPS, BATCH, PEAK = 600, 32, 2e-3  # gradient steps, drawings a step, the highest learning rate
TEST = 1200  # new drawings of the source species
DRAWN = 15_360  # paintings of the 24 species; smaller runs choose among them
SPECIES = {
    "source": critters.SOURCE,
    "cousins": critters.COUSINS,  # close to cat and dog
    "far": ("crocodile", "duck", "elephant", "frog", "owl"),  # no pads, no whiskers, other mouths
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One pre-training."""

    species: str  # a name in SPECIES
    pictures: int  # distinct drawings, all species together
    style: str = "paint"
    seed: int = 0  # of the initial weights, the shuffling, and the choice where more are drawn
    steps: int = STEPS


def backbone():
    """Drawings (n, 48, 48, 3) in 0..255 to features (n, 256); the weights are random."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for i, channels in enumerate(CHANNELS):
        window, stride = (5, 2) if i == 0 else (3, 1)
        x = keras.layers.Conv2D(
            channels, window, strides=stride, padding="same", use_bias=False, name=f"conv{i + 1}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{i + 1}")(x)
        x = keras.layers.ReLU(name=f"relu{i + 1}")(x)
        if 0 < i < len(CHANNELS) - 1:
            x = keras.layers.MaxPooling2D(name=f"pool{i + 1}")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="average")(x))


def pretrain(species, pictures, *, style="paint", seed=0, steps=STEPS, drawn=0):
    """Train a new backbone to name the given species.

    Args:
        species: list of names in `critters.ANATOMY`.
        pictures: distinct drawings, all species together, chosen by the seed among
            `max(pictures, drawn)`.
        steps: gradient steps, however few the drawings.

    Returns:
        the backbone, and the accuracy with its head on `TEST` new drawings of the same species.
    """
    keras.utils.set_random_seed(seed)
    count = max(pictures, drawn)
    folder = datasets.drawn(species, train=count, test=TEST, style=style, size=SIZE)
    x, y = load(folder / "train")
    chosen = some_of_each(y, pictures, seed)
    x, y = x[chosen], y[chosen]
    network = backbone()
    model = keras.Sequential([network, keras.layers.Dense(len(species))])
    model.compile(
        keras.optimizers.Adam(learning_rate(steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    data = batches(x, y, seed)  # shuffled already
    model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    x, y = load(folder / "test")
    return network, float(np.mean(model.predict(x, verbose=0).argmax(1) == y))


def learning_rate(steps):
    """A tenth of the way up, then down to zero along a cosine."""
    return keras.optimizers.schedules.CosineDecay(
        PEAK / 10, steps - steps // 10, warmup_target=PEAK, warmup_steps=steps // 10
    )


def batches(x, y, seed):
    """Batches without an end, shuffled, each drawing flipped or not."""
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed).repeat()
    return (
        data.batch(BATCH)
        .map(lambda x, y: (tf.image.random_flip_left_right(tf.cast(x, "float32")), y))
        .prefetch(2)
    )


def transfer(network, *, style="crayon", labels=100, draws=5):
    """Accuracy on 1,000 cats and dogs of a linear probe on the network's features.

    The mean over several draws of the labelled drawings; the same for every network.
    """
    (x, y), (x_test, y_test) = _cats_and_dogs(style)
    train, test = (network.predict(x, batch_size=100, verbose=0) for x in (x, x_test))
    accuracies = []
    for seed in range(draws):
        chosen = some_of_each(y, labels, seed)
        line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
        accuracies.append(line.fit(train[chosen], y[chosen]).score(test, y_test))
    return float(np.mean(accuracies))


def load(folder):
    """All drawings of a folder of class folders, uint8 (n, 48, 48, 3), and labels (n,)."""
    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), shuffle=False, verbose=False
    )
    pairs = list(data.as_numpy_iterator())
    pictures = np.concatenate([x for x, _ in pairs])
    return pictures.round().astype("uint8"), np.concatenate([y for _, y in pairs])


def some_of_each(labels, count, seed):
    """Indices of `count` entries, equally many of each label, by a seed."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    each = count // len(classes)
    if each * len(classes) != count or each > min(np.bincount(labels)[classes]):
        raise ValueError(f"{count} cannot be shared evenly among {len(classes)} classes.")
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:each] for c in classes])


def _cats_and_dogs(style):
    folder = datasets.drawn(critters.HELD_OUT, train=400, test=1000, style=style)
    return load(folder / "train"), load(folder / "test")


def run(settings):
    """Pre-train and measure once; a dict of settings, accuracies, cost and origin."""
    species = SPECIES[settings.species]
    start = time.process_time()  # of one core; without drawing, which other processes do
    network, source_accuracy = pretrain(
        species,
        settings.pictures,
        style=settings.style,
        seed=settings.seed,
        steps=settings.steps,
        drawn=DRAWN if (settings.species, settings.style) == ("source", "paint") else 0,
    )
    seconds = time.process_time() - start
    return dataclasses.asdict(settings) | {
        "source_accuracy": source_accuracy,
        "test_accuracy": transfer(network),  # crayon
        "paint_accuracy": transfer(network, style="paint"),
        "processor_seconds": round(seconds, 1),
        **experiments.origin("python -m helpers.small_cnn"),
    }


def main():
    """Measure what is missing in results/sources.csv."""
    runs = []
    for seed in range(6):
        runs += [Settings("source", pictures, seed=seed) for pictures in (240, 960, 3840, DRAWN)]
        runs += [Settings(species, 3840, seed=seed) for species in ("cousins", "far")]
        runs.append(Settings("source", 3840, style="crayon", seed=seed))
    table = experiments.measured("sources", runs, run)
    print(experiments.summary(table, ["species", "style", "pictures"]).round(3))


if __name__ == "__main__":
    main()
