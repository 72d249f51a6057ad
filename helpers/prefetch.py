"""`python -m helpers.prefetch FOLDER`: all that the photos track needs, for a room without network.

Needs a network, 4 GB of room while it works, and the packages of requirements-photos.lock. Each
library downloads with its own code into its own layout. What is complete is kept, what is not is
removed and fetched again; one file that fails does not stop the others. "Complete" means that a
lesson can use it: networks and modules are loaded, the files of the data set are measured.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from helpers import downloads, tracks
from helpers.datasets.cats_vs_dogs import DOWNLOADS, prepared, scraps

VARIABLES = {  # the libraries' own: where each looks, below FOLDER
    "TFDS_DATA_DIR": "tensorflow_datasets",
    "KERAS_HOME": "keras_home",
    "TFHUB_CACHE_DIR": "tfhub_cache",
}
UNRELATED = (ImportError, MemoryError, PermissionError)  # the files may be complete: they stay


@dataclasses.dataclass
class Part:
    """One thing to fetch."""

    name: str
    path: Path  # where its library keeps it
    load: Callable  # downloads it unless it is at `path`, then raises unless it is whole
    scraps: Callable = list  # gives the paths of what a download that ended early has left


def main(folder):
    """Fill `folder`; return the exit code: 0 if it is complete, else 1."""
    folder = Path(folder).expanduser().absolute()
    try:
        for name, below in VARIABLES.items():
            os.environ[name] = str(folder / below)  # Keras reads it when it is imported
            (folder / below).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / below, os.W_OK):  # Keras would write elsewhere
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        print(f"Cannot write to {folder} ({error.strerror}): name another folder.", file=sys.stderr)
        return 1
    socket.setdefaulttimeout(downloads.TIMEOUT)
    parts, missing = _parts(folder), []
    for number, part in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {part.name}", flush=True)
        problem = _fetch(part)
        if problem:
            print(f"{part.name} is missing: {problem}", file=sys.stderr, flush=True)
            missing.append(part.name)
        else:
            print(f"    complete, {_size(part.path)}", flush=True)
    if missing:
        print(f"\nMissing in {folder}, for the reasons above:", *missing, sep="\n  ")
        print("The rest is complete and stays. When you have seen to the reasons, run this again.")
        return 1
    print(f"\nAll {len(parts)} are complete in {folder}: {_size(folder)}. Before Jupyter starts:\n")
    print("export COURSE_TRACK=photos")
    for name in VARIABLES:
        print(f"export {name}={shlex.quote(os.environ[name])}")
    print(f"\nor, which does the same: make lab FOLDER={shlex.quote(str(folder))}")
    return 0


def _parts(folder):
    """What there is to fetch, the largest last."""
    data, home, cache = (folder / below for below in VARIABLES.values())
    networks, modules = [], []
    for network in tracks.NETWORKS:
        file = tracks.weights_file(network)
        load = functools.partial(_network, network)
        networks.append(Part(f"{network} ({file})", home / "models" / file, load))
    for handle in tracks.HUB_MODULES.values():
        name = hashlib.sha1(handle.encode()).hexdigest()  # what the hub's library calls it
        left = functools.partial(_left_of_module, cache, name)
        modules.append(Part(handle, cache / name, functools.partial(_module, handle), left))
    photos = Part(
        "cats_vs_dogs (tensorflow_datasets)",
        data / "cats_vs_dogs",
        functools.partial(_photos, data),
        functools.partial(scraps, data),
    )
    return [*modules, *networks, photos]


def _network(name):
    import keras

    network = getattr(keras.applications, tracks.NETWORKS[name])
    shape = (*tracks.Photos.image_size, 3)
    network(weights="imagenet", include_top=False, input_shape=shape)


def _module(handle):
    from helpers.hub_layer import hub

    os.environ["TFHUB_DOWNLOAD_PROGRESS"] = "1"
    hub.load(hub.resolve(handle))


def _photos(data):
    split = prepared(data).info.splits["train"]
    expected = split.num_bytes + 16 * split.num_examples  # a TFRecord adds two lengths and sums
    found = sum(os.path.getsize(path) for path in split.filepaths)
    if found != expected:
        raise ValueError(f"{found:,} bytes, not {expected:,}")
    shutil.rmtree(data / DOWNLOADS, ignore_errors=True)  # the zip, 0.8 GB


def _fetch(part):
    """Complete one part; what is damaged is fetched again. Return why it is missing, if it is."""
    tries = 2 if part.path.exists() else 1
    try:
        _remove(*part.scraps())
        while True:
            try:
                part.load()
                return None
            except Exception as error:
                tries -= 1
                if not tries or isinstance(error, UNRELATED):
                    raise
            print("    what is there is damaged: fetched again", flush=True)
            _remove(part.path)
    except KeyboardInterrupt:
        _remove(*part.scraps())
        print(f"\nStopped in {part.name}: run this again to go on.", file=sys.stderr, flush=True)
        os._exit(130)  # threads of tensorflow_datasets would download on
    except Exception as error:
        reason, way = downloads.why(error, _files(part.path, *part.scraps()))
        _remove(*part.scraps(), *([] if isinstance(error, UNRELATED) else [part.path]))
        return f"{reason}: {way}."


def _left_of_module(cache, name):
    return [*cache.glob(f"{name}.lock"), *cache.glob(f"{name}.*.tmp")]


def _files(*paths):
    return [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]


def _remove(*paths):
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _size(path):
    return f"{sum(file.stat().st_size for file in _files(path)) / 1e6:,.1f} MB"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("Usage: python -m helpers.prefetch FOLDER")
    sys.exit(main(sys.argv[1]))
