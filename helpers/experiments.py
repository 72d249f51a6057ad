"""Repeated, seeded measurements whose results the course quotes: `python -m helpers.experiments`.

Writes results/critters.csv (MobileNetV2 from scratch, frozen and fine-tuned, on fresh test
pictures), results/vgg16.csv (the three VGG16 exercises, likewise), and for each network the
fine-tuning recipes that were compared, on validation pictures only: results/recipes_vgg16.csv. A
row that is in a file already is not measured again: an interrupted run goes on, a deleted file is
remade.
"""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from scipy import stats

from helpers import critters, datasets, pretrained, vgg16
from helpers.features import run_once, split_at

RESULTS = Path(__file__).parent.parent / "results"
TEST = 2000  # pictures
METHODS = ("scratch", "scratch, BatchNorm", "frozen", "fine-tuned")
BUILD = {"mobilenet_v2": keras.applications.MobileNetV2, "vgg16": keras.applications.VGG16}
SIZE = {"mobilenet_v2": (96, 96), "vgg16": (64, 64)}  # pixels
HEAD = {"learning_rate": 1e-3, "epochs": 60}  # how a head is trained on frozen features
EXERCISE = {"labels": 150, "validation": 100, "epochs": 10, "augment": False}  # in VGG16's three


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run: a network that tells cats from dogs."""

    network: str  # "mobilenet_v2" (alpha 1.0) or "vgg16"
    method: str  # "scratch", "frozen", "fine-tuned", for vgg16 also "scratch, BatchNorm"
    labels: int = 400  # training pictures, both classes together
    validation: int = 400  # pictures on top, to choose the best epoch
    style: str = "crayon"
    seed: int = 0  # of the pictures, the initial weights and the shuffling
    unfreeze_from: str = "-"  # fine-tuned: the first layer of the backbone that learns
    learning_rate: float = 1e-3  # fine-tuned: after the head has been trained
    epochs: int = 12
    augment: bool = True  # flips and shifts, new in each epoch; without, what is frozen runs once


def run(settings):
    """Train and measure once.

    Returns:
        dict: the settings, training_accuracy, validation_accuracy, test_accuracy,
        trainable_parameters, seconds (training only), date, machine and versions.
    """
    critters.check_known("network", settings.network, tuple(BUILD))
    critters.check_known("method", settings.method, METHODS)
    keras.utils.set_random_seed(settings.seed)
    folder = datasets.drawn(
        ("cat", "dog"),
        train=settings.labels,
        validation=settings.validation,
        test=TEST,
        style=settings.style,
        seed=1000 + settings.seed,
    )
    size = SIZE[settings.network]
    ordered, validation, test = (
        _batches(folder / s, size) for s in ("train", "validation", "test")
    )
    shuffled = _batches(folder / "train", size, shuffle=True)
    train = _augmented(shuffled) if settings.augment else shuffled
    start = time.monotonic()
    model = _model(settings.network, settings.method)
    if settings.method.startswith("scratch"):
        recalibration = [Recalibration(model, shuffled)] if _batch_norms(model) else []
        _fit(model, train, validation, settings, recalibration)
    else:
        _train_head(model, ordered, validation)
    if settings.method == "fine-tuned":
        _unfreeze(model, settings.unfreeze_from)
        if settings.augment:
            _fit(model, train, validation, settings)
        else:
            stem, tail = split_at(model, settings.unfreeze_from)
            kept = run_once(stem, train, shuffle=True), run_once(stem, validation)
            _fit(tail, *kept, settings)
    seconds = time.monotonic() - start
    return dataclasses.asdict(settings) | {
        "training_accuracy": _accuracy(model, ordered),
        "validation_accuracy": _accuracy(model, validation),
        "test_accuracy": _accuracy(model, test),
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()} {os.cpu_count()} CPU cores",
        "versions": " ".join(
            f"{p} {importlib.metadata.version(p)}" for p in ("tensorflow", "keras")
        ),
    }


class Recalibration(keras.callbacks.Callback):
    """Before each validation, give BatchNorm statistics that fit the present weights.

    With the momentum of 0.999 that MobileNetV2 brings, the statistics of a short training are still
    those of initialisation, and a good network looks like a coin.
    """

    def __init__(self, model, data):
        super().__init__()
        self.data = data
        for layer in _batch_norms(model):
            layer.momentum = 0.9
        self.update = tf.function(lambda pictures: model(pictures, training=True))

    def on_test_begin(self, logs=None):
        for _ in range(2):
            for pictures, _labels in self.data:
                self.update(pictures)


def _batches(folder, size, shuffle=False):
    return keras.utils.image_dataset_from_directory(
        folder,
        image_size=size,
        label_mode="binary",
        batch_size=32,
        shuffle=shuffle,
        verbose=False,
    )


def _augmented(data):
    augment = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(0.08, 0.08)]
    )
    return data.map(lambda pictures, labels: (augment(pictures, training=True), labels)).prefetch(2)


def _model(network, method):
    if method == "scratch, BatchNorm":
        backbone = vgg16.with_batch_norm()
    else:
        weights = None if method == "scratch" else pretrained.weights(network)
        backbone = BUILD[network](
            include_top=False, weights=weights, input_shape=(*SIZE[network], 3)
        )
        backbone.trainable = weights is None
    inputs = keras.Input((*SIZE[network], 3))
    prepared = getattr(keras.applications, network).preprocess_input(inputs)
    features = keras.layers.GlobalAveragePooling2D()(backbone(prepared))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(features))


def _backbone(model):
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def _batch_norms(model):
    layers = _backbone(model).layers
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _unfreeze(model, first):
    """Let the backbone learn from layer `first` on; BatchNorm layers stay as they are."""
    backbone = _backbone(model)
    backbone.trainable = True
    names = [layer.name for layer in backbone.layers]
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= names.index(first) and not isinstance(
            layer, keras.layers.BatchNormalization
        )


def _train_head(model, train, validation):
    """Train the head alone, on features that are computed once."""
    extract, head = split_at(model, "head")
    _compile(head, HEAD["learning_rate"])
    head.fit(
        run_once(extract, train, shuffle=True),
        validation_data=run_once(extract, validation),
        epochs=HEAD["epochs"],
        verbose=0,
        callbacks=[_best()],
    )


def _fit(model, train, validation, settings, callbacks=()):
    _compile(model, settings.learning_rate)
    model.fit(
        train,
        validation_data=validation,
        epochs=settings.epochs,
        verbose=0,
        callbacks=[*callbacks, _best()],
    )


def _compile(model, learning_rate):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )


def _best():
    """Never stop early, but end with the weights of the epoch with the lowest validation loss."""
    return keras.callbacks.EarlyStopping("val_loss", patience=1000, restore_best_weights=True)


def _accuracy(model, data):
    labels = np.concatenate([y for _, y in data])
    return float(np.mean((model.predict(data, verbose=0) > 0) == labels))


def measured(name, runs=()):
    """The table results/<name>.csv, a row a run; what is not in it yet is measured and added."""
    path = RESULTS / f"{name}.csv"
    keys = [field.name for field in dataclasses.fields(Settings)]
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=keys)
    for settings in runs:
        known = table.reindex(columns=keys)  # a file of older code may lack a column
        if not (known == list(dataclasses.astuple(settings))).all(axis=1).any():
            row = run(settings)
            print(
                f"{settings}: validation {row['validation_accuracy']:.4f}, {row['seconds']:.0f} s",
                flush=True,
            )
            table = pd.DataFrame([*table.to_dict("records"), row])
            _write(table, path)
    if runs:  # in this order; rows that nobody asks for any more go
        order = {dataclasses.astuple(settings): i for i, settings in enumerate(runs)}
        rows = table.reindex(columns=keys).itertuples(index=False, name=None)
        position = pd.Series([order.get(row) for row in rows], index=table.index)
        table = table.loc[position.dropna().sort_values().index].reset_index(drop=True)
        _write(table, path)
    return table


def _write(table, path):
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path.with_suffix(".unfinished"), index=False)
    path.with_suffix(".unfinished").replace(path)


def summary(table):
    """Mean, and half the width of the 95 % interval over seeds of the test accuracy."""
    groups = table.groupby("method", sort=False)["test_accuracy"]
    mean, n = groups.mean(), groups.count()
    return pd.DataFrame(
        {"mean": mean, "interval": stats.t.ppf(0.975, n - 1) * groups.std() / n**0.5}
    )


def contact_sheet(species, style, columns, rows, path):
    """Write a JPEG of drawings of the given species, in turn."""
    sheet = Image.new("RGB", (96 * columns, 96 * rows))
    for i in range(columns * rows):
        picture = critters.draw(
            species[i % len(species)], np.random.default_rng([1, i]), style=style
        )
        sheet.paste(picture, (96 * (i % columns), 96 * (i // columns)))
    sheet.save(path, quality=85)


def _chosen(network, layers, rates, **options):
    """The fine-tuning recipe that does best on validation pictures of a seed of its own."""
    candidates = [
        Settings(
            network,
            "fine-tuned",
            seed=100,
            **options | {"validation": 400, "unfreeze_from": layer, "learning_rate": rate},
        )
        for layer in layers
        for rate in rates
    ]
    table = measured(f"recipes_{network}", candidates)
    best = table.loc[table["validation_accuracy"].idxmax()]
    return options | {name: best[name] for name in ("unfreeze_from", "learning_rate")}


def main():
    """Remake what is missing in results/: the tables and the two contact sheets of README.md."""
    RESULTS.mkdir(exist_ok=True)
    for name, species, style, rows in (
        ("source_world.jpg", critters.SOURCE, "paint", 6),
        ("cats_and_dogs.jpg", critters.HELD_OUT, "crayon", 4),
    ):
        if not (RESULTS / name).exists():
            contact_sheet(species, style, 12, rows, RESULTS / name)
    vgg16_methods = {
        "scratch": EXERCISE | {"learning_rate": 1e-4},
        "scratch, BatchNorm": EXERCISE | {"epochs": 40, "augment": True},
        "frozen": EXERCISE | HEAD,
        "fine-tuned": _chosen("vgg16", ("block4_conv1", "block5_conv1"), (3e-5, 1e-4), **EXERCISE),
    }
    plenty = Settings("vgg16", "scratch, BatchNorm", labels=2400, epochs=6)  # no lack of pictures
    table = measured("vgg16", [*_over_seeds("vgg16", vgg16_methods), plenty])
    print(summary(table[table["labels"] == EXERCISE["labels"]]).round(3))
    mobilenet_methods = {
        "scratch": {},
        "frozen": HEAD,
        "fine-tuned": _chosen("mobilenet_v2", ("block_1_expand", "block_6_expand"), (1e-4, 3e-4)),
    }
    print(summary(measured("critters", _over_seeds("mobilenet_v2", mobilenet_methods))).round(3))


def _over_seeds(network, methods):
    return [
        Settings(network, method, seed=seed, **options)
        for seed in range(3)
        for method, options in methods.items()
    ]


if __name__ == "__main__":
    main()
