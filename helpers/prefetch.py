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
import re
import shlex
import shutil
import socket
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from helpers import tracks

VARIABLES = {  # the libraries' own: where each looks, below FOLDER
    "TFDS_DATA_DIR": "tensorflow_datasets",
    "KERAS_HOME": "keras_home",
    "TFHUB_CACHE_DIR": "tfhub_cache",
}
TIMEOUT = 60  # seconds without a byte after which a server counts as silent
RETRIES = 3  # of tensorflow_datasets: seconds in all, where its own 10 are minutes
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
    socket.setdefaulttimeout(TIMEOUT)
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
        scraps = functools.partial(_all, cache, f"{name}.lock", f"{name}.*.tmp")
        modules.append(Part(handle, cache / name, functools.partial(_module, handle), scraps))
    cats = Part(
        "cats_vs_dogs (tensorflow_datasets)",
        data / "cats_vs_dogs",
        functools.partial(_photos, data),
        functools.partial(_all, data, "downloads/**/*.tmp.*", "cats_vs_dogs/incomplete.*"),
    )
    return [*modules, *networks, cats]


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
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    builder = tfds.builder("cats_vs_dogs", data_dir=data)
    get = functools.partialmethod(requests.Session.get, timeout=TIMEOUT)  # tfds names none
    with (
        mock.patch.object(downloader, "MAX_RETRIES", RETRIES),
        mock.patch.object(requests.Session, "get", get),
    ):
        builder.download_and_prepare()
    split = builder.info.splits["train"]
    expected = split.num_bytes + 16 * split.num_examples  # a TFRecord adds two lengths and sums
    found = sum(os.path.getsize(path) for path in split.filepaths)
    if found != expected:
        raise ValueError(f"{found:,} bytes, not {expected:,}")
    shutil.rmtree(data / "downloads", ignore_errors=True)  # the zip, 0.8 GB


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
        page = any(map(_is_page, _files(part.path, *part.scraps())))
        _remove(*part.scraps(), *([] if isinstance(error, UNRELATED) else [part.path]))
        return _reason(error, page)


def _all(folder, *patterns):
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _files(*paths):
    return [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]


def _remove(*paths):
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_page(file):
    with file.open("rb") as content:
        return content.read(100).lstrip().startswith(b"<")


def _reason(error, page):
    """Why a download failed and the way out, as one sentence."""
    chain = []
    while error:
        chain, error = [*chain, error], error.__cause__ or error.__context__
    text = " ".join(map(str, chain))
    found = re.search(r"HTTP code: (\d+)|HTTP Error (\d+)|too many (\d+) error", text)
    if found:
        status = next(filter(None, found.groups()))
        way = "again later" if status >= "500" else "another network, a proxy may forbid it"
        return f"the server answers HTTP {status}: try {way}."
    for e in chain:
        if isinstance(e, ModuleNotFoundError):
            way = "python -m pip install -r requirements-photos.lock"
            return f"the package {e.name} is not installed: {way}."
    full = any(getattr(e, "errno", 0) == errno.ENOSPC for e in chain)
    if full or "No space left" in text or "Not enough disk space" in text:
        return "the disk is full: make room for 4 GB or name a folder on another disk."
    if page or "valid module" in text and "unexpected end" not in text:
        return (
            "a web page came in its place, as proxies and logins send them: "
            "open a web site in a browser to log in, or try another network."
        )
    if re.search("retrieval incomplete|IncompleteRead|unexpected end of data", text):
        return "the connection broke off in the middle of it: run this again."
    if "checksum" in text or "file hash" in text:
        return "what came has the wrong checksum: run this again, or try another network."
    if isinstance(chain[0], PermissionError):
        return "it cannot be written (Permission denied): name another folder."
    network = (urllib.error.URLError, ConnectionError, TimeoutError, socket.gaierror)
    if any(isinstance(e, network) for e in chain) or "Max retries" in text:
        why = getattr(chain[-1], "strerror", None) or chain[-1]
        return f"no connection ({why}): connect to the network, or set HTTPS_PROXY to your proxy."
    line = text.strip().partition("\n")[0] or type(chain[0]).__name__
    return f"what came cannot be read ({line}): run this again, or try another network."


def _size(path):
    return f"{sum(file.stat().st_size for file in _files(path)) / 1e6:,.1f} MB"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("Usage: python -m helpers.prefetch FOLDER")
    sys.exit(main(sys.argv[1]))
