"""Repeated, seeded measurements whose results the course quotes: `python -m helpers.experiments`.

Writes results/recipes.csv (fine-tuning recipes, compared on validation pictures only) and
results/critters.csv (scratch, frozen and fine-tuned, on fresh test pictures). A row that is in the
file already is not measured again: an interrupted run goes on, a deleted file is remade.
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

from helpers import critters, datasets, pretrained

RESULTS = Path(__file__).parent.parent / "results"
VALIDATION, TEST = 400, 2000  # pictures
METHODS = ("scratch", "frozen", "fine-tuned")
HEAD = {"learning_rate": 1e-3, "epochs": 60}  # how a head is trained on frozen features
STAGES = ("block_1_expand", "block_6_expand")  # where fine-tuning may begin


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run: a MobileNetV2 (alpha 1.0) that tells cats from dogs."""

    method: str  # "scratch", "frozen" or "fine-tuned"
    labels: int = 400  # training pictures, both classes together; validation pictures come on top
    style: str = "crayon"
    seed: int = 0  # of the pictures, the initial weights and the shuffling
    unfreeze_from: str = "-"  # fine-tuned: the first layer of the backbone that learns
    learning_rate: float = 1e-3  # fine-tuned: after the head has been trained
    epochs: int = 12


def run(settings):
    """Train and measure once.

    Returns:
        dict: the settings, validation_accuracy, test_accuracy, trainable_parameters, seconds
        (training only), date, machine and versions.
    """
    critters.check_known("method", settings.method, METHODS)
    keras.utils.set_random_seed(settings.seed)
    folder = datasets.drawn(
        ("cat", "dog"),
        train=settings.labels,
        validation=VALIDATION,
        test=TEST,
        style=settings.style,
        seed=1000 + settings.seed,
    )
    ordered, validation, test = (_batches(folder / s) for s in ("train", "validation", "test"))
    shuffled = _batches(folder / "train", shuffle=True)
    start = time.monotonic()
    if settings.method == "scratch":
        model = _model(weights=None)
        _fit(model, shuffled, validation, settings, [Recalibration(shuffled)])
    else:
        model = _model(weights=pretrained.weights("mobilenet_v2"))
        _train_head(model, ordered, validation)
        if settings.method == "fine-tuned":
            _unfreeze(model, settings.unfreeze_from)
            _fit(model, shuffled, validation, settings)
    seconds = time.monotonic() - start
    return dataclasses.asdict(settings) | {
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

    def __init__(self, data):
        super().__init__()
        self.data = data

    def set_model(self, model):
        super().set_model(model)
        for layer in _batch_norms(model):
            layer.momentum = 0.9
        self.update = tf.function(lambda pictures: model(pictures, training=True))

    def on_test_begin(self, logs=None):
        for _ in range(2):
            for pictures, _labels in self.data:
                self.update(pictures)


def _batches(folder, shuffle=False):
    return keras.utils.image_dataset_from_directory(
        folder,
        image_size=(96, 96),
        label_mode="binary",
        batch_size=32,
        shuffle=shuffle,
        verbose=False,
    )


def _model(weights):
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=weights, input_shape=(96, 96, 3)
    )
    backbone.trainable = weights is None
    inputs = keras.Input((96, 96, 3))
    features = keras.layers.GlobalAveragePooling2D()(
        backbone(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    )
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(features))


def _batch_norms(model):
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    return [
        layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _unfreeze(model, first):
    """Let the backbone learn from layer `first` on; BatchNorm layers stay as they are."""
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    backbone.trainable = True
    names = [layer.name for layer in backbone.layers]
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= names.index(first) and not isinstance(
            layer, keras.layers.BatchNormalization
        )


def _train_head(model, train, validation):
    """Train the head alone, on features that are computed once."""
    extract = keras.Model(model.input, model.layers[-2].output)
    features = [
        (extract.predict(data, verbose=0), np.concatenate([y for _, y in data]))
        for data in (train, validation)
    ]
    head = keras.Sequential([keras.Input(features[0][0].shape[1:]), model.layers[-1]])
    _compile(head, HEAD["learning_rate"])
    head.fit(
        *features[0],
        validation_data=features[1],
        epochs=HEAD["epochs"],
        batch_size=32,
        verbose=0,
        callbacks=[_best()],
    )


def _fit(model, train, validation, settings, callbacks=()):
    augment = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(0.08, 0.08)]
    )
    train = train.map(lambda pictures, labels: (augment(pictures, training=True), labels))
    _compile(model, settings.learning_rate)
    model.fit(
        train.prefetch(2),
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
        if not (table[keys] == list(dataclasses.astuple(settings))).all(axis=1).any():
            row = run(settings)
            print(
                f"{settings}: validation {row['validation_accuracy']:.4f}, {row['seconds']:.0f} s",
                flush=True,
            )
            table = pd.DataFrame([*table.to_dict("records"), row])
            _write(table, path)
    if runs:  # in this order; rows that nobody asks for any more go
        order = {dataclasses.astuple(settings): i for i, settings in enumerate(runs)}
        rows = table[keys].itertuples(index=False, name=None)
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


def main():
    """Remake what is missing in results/: the tables and the two contact sheets of README.md."""
    RESULTS.mkdir(exist_ok=True)
    for name, species, style, rows in (
        ("source_world.jpg", critters.SOURCE, "paint", 6),
        ("cats_and_dogs.jpg", critters.HELD_OUT, "crayon", 4),
    ):
        if not (RESULTS / name).exists():
            contact_sheet(species, style, 12, rows, RESULTS / name)
    recipes = measured(
        "recipes",
        [
            Settings("fine-tuned", seed=100, unfreeze_from=stage, learning_rate=rate)
            for stage in STAGES
            for rate in (1e-4, 3e-4)
        ],
    )
    best = recipes.loc[recipes["validation_accuracy"].idxmax()]
    chosen = {"unfreeze_from": best["unfreeze_from"], "learning_rate": best["learning_rate"]}
    methods = {"scratch": {}, "frozen": HEAD, "fine-tuned": chosen}
    runs = [Settings(m, seed=s, **options) for s in range(3) for m, options in methods.items()]
    print(summary(measured("critters", runs)).round(3))


if __name__ == "__main__":
    main()
