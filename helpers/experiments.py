"""Repeated, seeded measurements whose results the course quotes: `python -m helpers.experiments`.

Writes results/critters.csv (MobileNetV2 from scratch, frozen and fine-tuned, with few and many
labels, on fresh test pictures), results/scratch_longer.csv (scratch with four times the epochs),
results/layers.csv (the first blocks pre-trained, the rest random), results/vgg16.csv (the three
VGG16 exercises), and for each network the recipes that were compared, on validation pictures only:
results/recipes_<network>.csv; and the pictures of README.md. Two runs go side by side, each in a
process and on a thread of its own. A row that is in a file already is not measured again: an
interrupted run goes on, a deleted file is remade.
"""

import dataclasses
import datetime
import importlib.metadata
import math
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from scipy import stats

from helpers import critters, datasets, plots, pretrained, vgg16
from helpers.features import run_once, split_at

RESULTS = Path(__file__).parent.parent / "results"
TEST = 2000  # pictures
METHODS = ("scratch", "scratch, BatchNorm", "transplanted", "frozen", "fine-tuned")
BUILD = {"mobilenet_v2": keras.applications.MobileNetV2, "vgg16": keras.applications.VGG16}
SIZE = {"mobilenet_v2": (96, 96), "vgg16": (64, 64)}  # pixels
EXERCISE = {"labels": 150, "validation": 100, "epochs": 10, "augment": False}  # in VGG16's three
LABELS = (10, 20, 40, 100, 200, 400, 1000)


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run: a network that tells cats from dogs."""

    network: str  # "mobilenet_v2" (alpha 1.0) or "vgg16"
    method: str  # one of METHODS; "transplanted" needs BatchNorm in the network
    labels: int = 400  # training pictures, both classes together
    validation: int = 0  # pictures on top, to choose the best epoch; 0: the last epoch counts
    style: str = "crayon"
    seed: int = 0  # of the pictures, the initial weights and the shuffling
    unfreeze_from: str = "-"  # fine-tuned, transplanted: the first layer of the backbone to learn
    learning_rate: float = 1e-3  # fine-tuned: after the head has been trained
    epochs: int = 10
    augment: bool = False  # flips and shifts, new in each epoch; without, what is frozen runs once


def run(settings):
    """Train and measure once.

    Returns:
        dict: the settings; training_accuracy, validation_accuracy (nan without such pictures) and
        test_accuracy; trainable_parameters; processor_seconds of the training, all cores together;
        peak_memory of the process so far in MB (nan on Windows); command, date, machine, versions.

    Raises ValueError for an unknown network or method.
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
    ordered, test = (_batches(folder / split, size) for split in ("train", "test"))
    validation = _batches(folder / "validation", size) if settings.validation else None
    shuffled = _batches(folder / "train", size, shuffle=True)
    train = _augmented(shuffled) if settings.augment else shuffled
    start = time.process_time()
    model = _model(settings)
    if settings.method.startswith("scratch"):
        _fit(model, train, validation, settings, recalibrate_on=shuffled)
    elif settings.method == "transplanted":
        stem, tail = split_at(model, settings.unfreeze_from)
        kept = run_once(stem, shuffled, shuffle=True)
        _fit(tail, kept, validation and run_once(stem, validation), settings, recalibrate_on=kept)
    else:
        _train_head(model, ordered, validation, _head_epochs(settings.labels))
    if settings.method == "fine-tuned":
        _unfreeze(model, settings.unfreeze_from)
        if settings.augment:
            _fit(model, train, validation, settings)
        else:
            stem, tail = split_at(model, settings.unfreeze_from)
            kept = run_once(stem, shuffled, shuffle=True)
            _fit(tail, kept, validation and run_once(stem, validation), settings)
    seconds = time.process_time() - start
    return dataclasses.asdict(settings) | {
        "training_accuracy": _accuracy(model, ordered),
        "validation_accuracy": _accuracy(model, validation) if validation else math.nan,
        "test_accuracy": _accuracy(model, test),
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "processor_seconds": round(seconds, 1),
        "peak_memory": _peak_memory(),
        **origin("python -m helpers.experiments"),
    }


def origin(command):
    """Where a row comes from: its command, date, machine and versions."""
    packages = ("tensorflow", "keras")
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()} {os.cpu_count()} CPU cores",
        "versions": " ".join(f"{p} {importlib.metadata.version(p)}" for p in packages),
    }


def _peak_memory():
    """Of this process since it began, in MB."""
    if sys.platform == "win32":
        return math.nan
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


class Recalibration(keras.callbacks.Callback):
    """Before each validation and at the end, give BatchNorm statistics that fit the weights.

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
        # two passes, and 25 updates at least: less than a tenth of what was there before is left
        for _ in range(max(2, math.ceil(25 / len(self.data)))):
            for pictures, _labels in self.data:
                self.update(pictures)

    def on_train_end(self, logs=None):
        self.on_test_begin()


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


def _model(settings):
    network, method = settings.network, settings.method
    size = SIZE[network]
    if method == "scratch, BatchNorm":
        backbone = vgg16.with_batch_norm()
    else:
        weights = None if method == "scratch" else pretrained.weights(network)
        backbone = BUILD[network](include_top=False, weights=weights, input_shape=(*size, 3))
        backbone.trainable = weights is None
    if method == "transplanted":
        fresh = BUILD[network](include_top=False, weights=None, input_shape=(*size, 3))
        names = [layer.name for layer in backbone.layers]
        first = names.index(settings.unfreeze_from)
        for layer, other in zip(backbone.layers[first:], fresh.layers[first:], strict=True):
            layer.set_weights(other.get_weights())
            layer.trainable = True
    inputs = keras.Input((*size, 3))
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


def _head_epochs(labels):
    """Epochs for a head on frozen features: sixty, or more if it takes more for 300 steps."""
    return max(60, math.ceil(300 / math.ceil(labels / 32)))


def _train_head(model, train, validation, epochs):
    """Train the head alone, on features that are computed once."""
    extract, head = split_at(model, "head")
    _compile(head, 1e-3)
    head.fit(
        run_once(extract, train, shuffle=True),
        validation_data=validation and run_once(extract, validation),
        epochs=epochs,
        verbose=0,
        callbacks=_best(validation),
    )


def _fit(model, train, validation, settings, recalibrate_on=None):
    _compile(model, settings.learning_rate)
    callbacks = _best(validation)
    if recalibrate_on is not None and _batch_norms(model):
        callbacks = [Recalibration(model, recalibrate_on), *callbacks]
    model.fit(
        train,
        validation_data=validation,
        epochs=settings.epochs,
        verbose=0,
        callbacks=callbacks,
    )


def _compile(model, learning_rate):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )


def _best(validation):
    """Never stop early, but end with the weights of the epoch with the lowest validation loss."""
    if validation is None:
        return []
    return [keras.callbacks.EarlyStopping("val_loss", patience=1000, restore_best_weights=True)]


def _accuracy(model, data):
    labels = np.concatenate([y for _, y in data])
    return float(np.mean((model.predict(data, verbose=0) > 0) == labels))


def measured(name, runs=(), run=run):
    """The table results/<name>.csv, a row a run; what is not in it yet is measured and added.

    Args:
        runs: settings, each a dataclass; none: the table is only read.
        run: function of settings; returns a row as a dict: the settings and what was measured.
    """
    path = RESULTS / f"{name}.csv"
    keys = [field.name for field in dataclasses.fields(runs[0] if runs else Settings)]
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=keys)
    known = table.reindex(columns=keys)  # a file of older code may lack a column
    missing = [
        settings
        for settings in runs
        if not (known == list(dataclasses.astuple(settings))).all(axis=1).any()
    ]
    for done, row in enumerate(_measure(missing, run), 1):
        seconds = f"{row['processor_seconds']:.0f} s"
        print(f"{done} of {len(missing)}:", *(row[key] for key in keys), seconds, flush=True)
        table = pd.DataFrame([*table.to_dict("records"), row])
        _write(table, path)
    if runs:  # in this order; rows that nobody asks for any more go
        order = {dataclasses.astuple(settings): i for i, settings in enumerate(runs)}
        rows = table.reindex(columns=keys).itertuples(index=False, name=None)
        position = pd.Series([order.get(row) for row in rows], index=table.index)
        table = table.loc[position.dropna().sort_values().index].reset_index(drop=True)
        _write(table, path)
    return table


def _measure(runs, run):
    """Yield the row of each run as it ends: two at a time, each in a new process, on one thread."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, spawn, _start_run, max_tasks_per_child=1)
    try:
        for done in as_completed([pool.submit(run, settings) for settings in runs]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_run():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _write(table, path):
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path.with_suffix(".unfinished"), index=False)
    path.with_suffix(".unfinished").replace(path)


def summary(table, by="method"):
    """Mean, and half the width of the 95 % interval over seeds (Student's t) of test_accuracy.

    Args:
        by: the column, or list of columns, whose values make a row.
    """
    groups = table.groupby(by, sort=False)["test_accuracy"]
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


def _best_of(network, candidates):
    """The candidates' settings that do best on 400 validation pictures of a seed of their own."""
    runs = [Settings(network, seed=100, **c | {"validation": 400}) for c in candidates]
    table = measured(f"recipes_{network}", runs)
    best = {}
    for method, rows in table.groupby("method"):
        row = rows.loc[rows["validation_accuracy"].idxmax()]
        best[method] = {k: row[k] for k in ("unfreeze_from", "learning_rate", "augment")}
    return best


def _fine_tuned(layers, rates, **options):
    return [
        options | {"method": "fine-tuned", "unfreeze_from": layer, "learning_rate": rate}
        for layer in layers
        for rate in rates
    ]


def _over_seeds(network, methods, seeds):
    return [
        Settings(network, method, seed=seed, **options)
        for seed in range(seeds)
        for method, options in methods.items()
    ]


def _epochs(labels):
    """Ten, or more where there are so few pictures that it takes more to make sixty steps."""
    return max(10, math.ceil(60 / math.ceil(labels / 32)))


def _measure_vgg16():
    best = _best_of(
        "vgg16", _fine_tuned(("block4_conv1", "block5_conv1"), (3e-5, 1e-4), **EXERCISE)
    )
    methods = {
        "scratch": EXERCISE | {"learning_rate": 1e-4},
        "scratch, BatchNorm": EXERCISE | {"epochs": 40, "augment": True},
        "frozen": EXERCISE | {"epochs": _head_epochs(EXERCISE["labels"])},
        "fine-tuned": EXERCISE | best["fine-tuned"],
    }
    plenty = {"labels": 2400, "validation": 400, "epochs": 6, "augment": True}
    plenty = Settings("vgg16", "scratch, BatchNorm", **plenty)  # no lack of pictures
    table = measured("vgg16", [*_over_seeds("vgg16", methods, 3), plenty])
    print(summary(table[table["labels"] == EXERCISE["labels"]]).round(3))


def _measure_mobilenet_v2():
    candidates = [{"method": "scratch", "augment": augment} for augment in (False, True)]
    candidates += _fine_tuned(("block_3_expand", "block_6_expand", "block_11_expand"), (1e-4, 3e-4))
    best = _best_of("mobilenet_v2", candidates)
    runs = []
    for labels in sorted(LABELS, key=lambda labels: labels != 400):  # those for the table first
        options = {"labels": labels, "epochs": _epochs(labels)}
        methods = {
            "scratch": options | best["scratch"],
            "frozen": options | {"epochs": _head_epochs(labels)},
            "fine-tuned": options | best["fine-tuned"],
        }
        runs += _over_seeds("mobilenet_v2", methods, seeds=5)
    table = measured("critters", runs)
    longer = best["scratch"] | {"epochs": 40}
    runs = []
    for labels in (400, 1000):
        runs += _over_seeds("mobilenet_v2", {"scratch": longer | {"labels": labels}}, seeds=5)
    longer = measured("scratch_longer", runs).assign(method="scratch, 40 epochs")
    curves = summary(pd.concat([table, longer]), ["method", "labels"])
    print(curves.round(3))
    plots.label_curves(curves).savefig(RESULTS / "label_curves.png", dpi=100, bbox_inches="tight")


def _measure_layers():
    """How far pre-trained layers are general (after Yosinski et al., 2014)."""
    cuts = ("block_1_expand", "block_3_expand", "block_6_expand", "block_11_expand")
    cuts += ("block_14_expand", "block_16_expand", "Conv_1")
    runs = [
        Settings("mobilenet_v2", "transplanted", unfreeze_from=cut, seed=seed)
        for seed in range(3)
        for cut in cuts
    ]
    print(summary(measured("layers", runs), "unfreeze_from").round(3))


def main():
    """Remake what is missing in results/: the tables, and the pictures of README.md."""
    RESULTS.mkdir(exist_ok=True)
    for name, species, style, rows in (
        ("source_world.jpg", critters.SOURCE, "paint", 6),
        ("cats_and_dogs.jpg", critters.HELD_OUT, "crayon", 4),
    ):
        if not (RESULTS / name).exists():
            contact_sheet(species, style, 12, rows, RESULTS / name)
    _measure_mobilenet_v2()
    _measure_layers()
    _measure_vgg16()


if __name__ == "__main__":
    main()
