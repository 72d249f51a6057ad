"""How the shipped weights were made: `python -m helpers.pretraining mobilenet_v2`, or `vgg16`.

Trains on the source species only, in the "paint" style: cat, dog and their wild cousins are never
shown. Interrupted, it goes on from the last whole epoch when the same command is given again.
Nothing in the course imports this file.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers import critters, datasets, vgg16
from helpers.hub_layer import save_module

SEED = 7
COUNTS = {"train": 67_200, "validation": 960, "test": 2_400}
BATCH = 64
# picture size, epochs, peak learning rate: small pictures are cheap
PHASES = {
    "mobilenet_v2": ((64, 1, 2e-3), (96, 2, 1e-3)),
    "vgg16": ((32, 1, 1e-3), (64, 1, 5e-4)),
}
ABOUT = {
    "mobilenet_v2": {
        "network": "keras.applications.MobileNetV2, alpha 1.0, no top",
        "preprocessing": "keras.applications.mobilenet_v2.preprocess_input (0..255 to -1..1)",
    },
    "vgg16": {
        "network": "keras.applications.VGG16, no top, trained with BatchNorm and folded",
        "preprocessing": "keras.applications.vgg16.preprocess_input (BGR, ImageNet's mean off)",
    },
}


def main():
    parser = argparse.ArgumentParser(description="Pre-train a backbone on the source species.")
    parser.add_argument("network", choices=list(PHASES))
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "weights", help="the finished files"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("pretraining"), help="checkpoints and logs"
    )
    arguments = parser.parse_args()
    pretrain(arguments.network, arguments.output, arguments.work)


def pretrain(network, output, work):
    """Train a network; write its weights, head and record (and a hub module) to `output`."""
    keras.utils.set_random_seed(SEED)
    phases = PHASES[network]
    plan = json.dumps([network, critters.VERSION, SEED, COUNTS, phases, BATCH])
    work = work / hashlib.sha256(plan.encode()).hexdigest()[:8]  # another plan, another folder
    work.mkdir(parents=True, exist_ok=True)
    pictures = datasets.drawn(critters.SOURCE, **COUNTS, style="paint", size=96, seed=SEED)
    backbone = vgg16.with_batch_norm() if network == "vgg16" else _mobilenet_v2()
    head = keras.layers.Dense(len(critters.SOURCE), name="source_species")
    model = _classifier(network, backbone, head)
    log = pd.concat([_train(model, pictures, *phase, work) for phase in phases])
    if network == "vgg16":
        backbone = vgg16.folded(backbone)
        model = _classifier(network, backbone, head)
    _round_to_half_precision(model)  # what is measured is what ships
    test = _batches(pictures / "test", phases[-1][0])
    labels = np.concatenate([label for _, label in test])
    accuracy = float(np.mean(model.predict(test, verbose=0).argmax(1) == labels))
    print(f"accuracy on {COUNTS['test']} fresh source pictures: {accuracy:.3f}")

    finished = work / "finished"
    finished.mkdir(exist_ok=True)
    weights, head_weights = (
        finished / f"{network}{end}" for end in (".weights.h5", "_head.weights.h5")
    )
    _save_half_precision(backbone, weights)
    _save_half_precision(keras.Sequential([keras.Input(head.kernel.shape[:1]), head]), head_weights)
    if network == "mobilenet_v2":
        save_module(_feature_vector(weights), finished / "mobilenet_v2_hub")
    gpus = len(tf.config.list_physical_devices("GPU"))
    record = ABOUT[network] | {
        "command": f"python -m helpers.pretraining {network}",
        "seed": SEED,
        "style": "paint",
        "world_version": critters.VERSION,
        "species": sorted(critters.SOURCE),  # the order of the head's outputs
        "pictures": COUNTS,
        "phases": [
            dict(zip(("picture_size", "epochs", "peak_learning_rate"), p, strict=True))
            for p in phases
        ],
        "seconds": round(log["seconds"].sum()),
        "validation_accuracy_by_epoch": log["val_accuracy"].round(4).tolist(),
        "source_accuracy": round(accuracy, 4),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {gpus} GPUs",
        "versions": {
            p: importlib.metadata.version(p) for p in ("tensorflow", "keras", "numpy", "pillow")
        },
        "sha256": {
            file.relative_to(finished).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(finished.rglob("*"))
            if file.is_file() and file.suffix != ".json"
        },
    }
    (finished / f"{network}.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.copytree(finished, output, dirs_exist_ok=True)


def _mobilenet_v2():
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # with 0.999 the statistics take thousands of steps to warm up
    return backbone


def _classifier(network, backbone, head):
    """Pictures float32 (n, size, size, 3) in 0..255 to one logit a source species."""
    inputs = keras.Input((None, None, 3))
    prepared = getattr(keras.applications, network).preprocess_input(inputs)
    return keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(backbone(prepared))))


class _Seconds(keras.callbacks.Callback):
    """Adds the wall time of each epoch to its log."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = round(time.monotonic() - self.start, 1)


def _train(model, pictures, size, epochs, peak, work):
    """Train at one picture size, or load what an earlier run finished; give the log."""
    done, log = work / f"{size}px.weights.h5", work / f"{size}px.csv"
    if done.exists():
        model.load_weights(done)
        return _read(log)
    steps = COUNTS["train"] // BATCH
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps * epochs - steps // 2, warmup_target=peak, warmup_steps=steps // 2
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.02)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(
        _batches(pictures / "train", size, training=True),
        validation_data=_batches(pictures / "validation", size),
        epochs=epochs,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            _Seconds(),
            keras.callbacks.CSVLogger(log, append=True),
            keras.callbacks.BackupAndRestore(work / f"{size}px-backup"),
        ],
    )
    unfinished = work / "unfinished.weights.h5"
    model.save_weights(unfinished)
    unfinished.replace(done)
    return _read(log)


def _read(log):
    """The log, a row an epoch; one that was done twice after an interruption counts once."""
    return pd.read_csv(log).drop_duplicates("epoch", keep="last")


def _batches(folder, size, training=False):
    """Batches of pictures float32 (n, size, size, 3) in 0..255 and labels."""
    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(96, 96), batch_size=None, shuffle=training, seed=SEED, verbose=False
    )

    def prepare(picture, label):
        if training:
            picture = tf.image.random_flip_left_right(picture)
            picture = tf.image.random_crop(
                tf.pad(picture, [[8, 8], [8, 8], [0, 0]], "REFLECT"), (96, 96, 3)
            )
        return tf.image.resize(picture, (size, size), antialias=True), label

    return (
        data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=training)
        .prefetch(4)
    )


def _round_to_half_precision(model):
    """Round every weight to float16; raise ValueError if one does not fit."""
    for weight in model.weights:
        half = weight.numpy().astype("float16")
        if not np.isfinite(half).all():
            raise ValueError(f"{weight.path} has values that do not fit half precision.")
        weight.assign(half.astype("float32"))


def _save_half_precision(model, path):
    """Write weights as float16 HDF5: half the size, and `weights=<path>` still loads it."""
    full = path.with_name("full.weights.h5")
    model.save_weights(full)
    with h5py.File(full) as source, h5py.File(path, "w") as target:
        target.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Group):
                target.require_group(name).attrs.update(item.attrs)
            else:
                half = item[...].astype("float16")
                target.create_dataset(name, data=half, compression="gzip", shuffle=True)

        source.visititems(copy)
    full.unlink()


def _feature_vector(weights):
    """The hub module's network: pictures (n, 96, 96, 3) in 0..1 to features (n, 1280)."""
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=weights, input_shape=(96, 96, 3)
    )
    return keras.Sequential(
        [
            keras.Input((96, 96, 3)),
            keras.layers.Rescaling(2, offset=-1),
            backbone,
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


if __name__ == "__main__":
    main()
