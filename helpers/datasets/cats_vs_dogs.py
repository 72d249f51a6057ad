"""Photos of cats and dogs: a fifth of `cats_vs_dogs` of TensorFlow Datasets, as files."""

import json
import os
import shutil

import numpy as np

from helpers.datasets.cache import UNFINISHED, keeping, reason, sha256, write

SHARE = "20%"  # of the data set; the article takes as much
SPLITS = {"train": (0, 0.5), "validation": (0.5, 0.65), "test": (0.65, 1)}  # of each animal


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
        ValueError: an odd or negative number.
        ModuleNotFoundError: TensorFlow Datasets is not installed.
        FileNotFoundError: the data set is neither in TFDS_DATA_DIR nor to be had.
        ValueError: the data set is damaged.
        OSError: the cache folder is full or cannot be written to.
    """
    counts = {"train": train, "validation": validation, "test": test}
    for split, count in counts.items():
        if count < 0 or count % 2:
            raise ValueError(f"{split} is {count}: ask for an even number, half cats, half dogs.")
    builder = _builder()
    total = builder.info.splits["train"].num_examples
    numbers = "-".join(map(str, counts.values()))
    with keeping(f"photos-{builder.info.version}-{total}-{numbers}-seed{seed}") as folder:
        if not _complete(folder):
            shutil.rmtree(folder)
            _write_photos(folder, builder, counts, seed)
        manifest = json.loads((folder / "manifest.json").read_bytes())
    for sentence in manifest["short"]:
        print(sentence)
    return folder


def _builder():
    """The data set, prepared; downloaded where it is not there yet."""
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import downloader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The photos track needs the package {error.name}: "
            "python -m pip install -r requirements-photos.lock"
        ) from error
    downloader.MAX_RETRIES = 3  # its own 10 make three minutes of waiting where no network is
    place = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        builder = tfds.builder("cats_vs_dogs", data_dir=place)
        builder.download_and_prepare()
    except Exception as error:  # of tfds, requests, zipfile, TensorFlow or the disk
        raise FileNotFoundError(
            f"The photos cats_vs_dogs are not in {place} and cannot be downloaded "
            f"({reason(error)}): connect to the network, or start with the folder that your "
            "instructor handed out, `make lab FOLDER=…`."
        ) from None
    return builder


def _complete(folder):
    try:
        recorded = json.loads((folder / "manifest.json").read_bytes())["photos"]
        return all(sha256((folder / name).read_bytes()) == s for name, s in recorded.items())
    except (FileNotFoundError, ValueError, KeyError):
        return False


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
            f"The photos in {builder.data_dir} are damaged ({reason(error)}): delete that folder "
            "and run this again, or take a whole one from your instructor."
        ) from None
    animals = {
        animal: [photo["image"] for photo in photos if photo["label"] == label]
        for label, animal in enumerate(("cat", "dog"))
    }
    each = min(map(len, animals.values()))
    recorded, short = {}, []
    (folder / UNFINISHED).mkdir(parents=True)
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
                (folder / split / animal).mkdir(parents=True)
            for i, place in enumerate(order[: count // 2]):
                name = f"{split}/{animal}/{i:05d}.jpg"
                write(folder, name, all_photos[place])
                recorded[name] = sha256(all_photos[place])
    manifest = {"photos": recorded, "short": short}
    write(folder, "manifest.json", json.dumps(manifest, indent=1).encode())
    (folder / UNFINISHED).rmdir()
