"""Photos of cats and dogs: a fifth of `cats_vs_dogs` of TensorFlow Datasets, as files."""

import functools
import json
import os
import shutil
from pathlib import Path
from textwrap import shorten
from unittest import mock

import numpy as np

from helpers import downloads
from helpers.datasets.cache import (
    UNFINISHED,
    check_counts,
    keeping,
    refuse_strangers,
    sha256,
    write,
)

SHARE = "20%"  # of the data set; the article takes as much
SPLITS = {"train": (0, 0.5), "validation": (0.5, 0.65), "test": (0.65, 1)}  # of each animal
DOWNLOADS = "downloads/cats_vs_dogs"  # in TFDS_DATA_DIR: the zip from which the data set is made


def cats_vs_dogs(*, train=0, validation=0, test=0, seed=0):
    """Photos in the layout of `drawn`: `train/cat/00000.jpg`, ..., JPEG as published, any size.

    Which photo is in which split is settled once, whatever the seed: none is ever in two. Where
    fewer photos are there than asked for, it takes those and says so.

    Args:
        train, validation, test: number of photos in each split, half of them cats.
        seed: whole number; another seed takes other photos of the split first.

    Returns:
        `pathlib.Path` of the folder in the cache.

    Raises:
        ValueError: a request that cannot be met, or a damaged data set.
        FileNotFoundError: the data set is neither in TFDS_DATA_DIR nor to be had.
        OSError: the cache folder is full or cannot be written to.
        RuntimeError: the folder also holds pictures that were not written here.
    """
    counts = {"train": train, "validation": validation, "test": test}
    check_counts(counts, seed=seed)
    for split, count in counts.items():
        if count % 2:
            raise ValueError(f"{split} is {count}: ask for an even number, half cats, half dogs.")
    builder = _builder()
    total = builder.info.splits["train"].num_examples
    numbers = "-".join(map(str, counts.values()))
    with keeping(f"photos-{builder.info.version}-{total}-{numbers}-seed{seed}") as folder:
        manifest = _read_whole(folder)
        if manifest is None:
            _write_photos(folder, builder, counts, seed)
            manifest = _read_whole(folder)
    for sentence in manifest["short"]:
        print(sentence)
    return folder


def prepared(place):
    """The builder of the data set in the folder `place`; downloaded where it is not there yet."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    builder = tfds.builder("cats_vs_dogs", data_dir=place)
    get = functools.partialmethod(requests.Session.get, timeout=downloads.TIMEOUT)  # it names none
    with (
        mock.patch.object(downloader, "MAX_RETRIES", downloads.RETRIES),
        mock.patch.object(requests.Session, "get", get),
    ):
        builder.download_and_prepare()
    return builder


def scraps(place):
    """Folders in `place` that a download which ended early has left."""
    place = Path(place)
    return [*place.glob(f"{DOWNLOADS}/*.tmp.*"), *place.glob("cats_vs_dogs/incomplete.*")]


def _builder():
    place = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        return prepared(place)
    except Exception as error:  # of tfds, requests, zipfile, TensorFlow or the disk
        left = scraps(place)
        files = [file for folder in left for file in folder.rglob("*") if file.is_file()]
        reason, way = downloads.why(error, files)
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        raise FileNotFoundError(
            f"The photos cats_vs_dogs are not in {place} and cannot be downloaded ({reason}): "
            f"{way}, or {downloads.HANDED_OUT}."
        ) from None


def _read_whole(folder):
    """The manifest of a folder in the cache; None if anything is missing or damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        recorded = manifest["photos"].items()
        whole = all(sha256((folder / name).read_bytes()) == digest for name, digest in recorded)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    refuse_strangers(folder, manifest["photos"])
    return manifest if whole and isinstance(manifest.get("short"), list) else None


def _write_photos(folder, builder, counts, seed):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    data = builder.as_dataset(
        split=f"train[:{SHARE}]", decoders={"image": tfds.decode.SkipDecoding()}
    )
    try:
        photos = list(tfds.as_numpy(data))
    except tf.errors.OpError as error:
        raise ValueError(
            f"The photos in {builder.data_dir} are damaged ({shorten(error.message, 80)}): delete "
            "that folder and run this again, or take a whole one from your instructor."
        ) from None
    animals = {
        animal: list(dict.fromkeys(p["image"] for p in photos if p["label"] == label))  # no copies
        for label, animal in enumerate(("cat", "dog"))
    }
    each = min(map(len, animals.values()))
    recorded, short = {}, []
    (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        first, end = (round(each * share) for share in SPLITS[split])
        order = first + np.random.default_rng(seed).permutation(end - first)
        if count > 2 * len(order):
            short.append(
                f"{count} {split} photos were asked for, the {SHARE} of cats_vs_dogs have "
                f"{2 * len(order)}: all are taken."
            )
        for animal, all_photos in animals.items():
            if count:
                (folder / split / animal).mkdir(parents=True, exist_ok=True)
            for i, place in enumerate(order[: count // 2]):
                name = f"{split}/{animal}/{i:05d}.jpg"
                write(folder, name, all_photos[place])
                recorded[name] = sha256(all_photos[place])
    manifest = {"photos": recorded, "short": short}
    write(folder, "manifest.json", json.dumps(manifest, indent=1).encode())
    shutil.rmtree(folder / UNFINISHED)
