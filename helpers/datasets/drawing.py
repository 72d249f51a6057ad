"""Drawn pictures, one folder a class."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import types
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from helpers import critters
from helpers.datasets.cache import (
    UNFINISHED,
    check_counts,
    keeping,
    progress,
    refuse_strangers,
    sha256,
    write,
)


def drawn(species, *, train=0, validation=0, test=0, style="crayon", size=96, seed=0):
    """Draw a data set, or what the cache lacks of it, and return its folder.

    Picture i of a class depends on seed, style, split, species and i alone: a small data set holds
    the first pictures of a larger one, and splits share none. Every call compares every file with
    its SHA-256 in `manifest.json` and draws again what is missing or damaged.

    Args:
        species: list of names in `critters.ANATOMY`.
        train, validation, test: number of pictures in each split, all species together.
        style: one of `critters.STYLES`.
        size: side of the square pictures in pixels, 32 to 512.
        seed: whole number, 0 or more; another seed gives other pictures.

    Returns:
        `pathlib.Path` of a folder with `train/cat/00000.png` (RGB), ..., `validation/`, `test/`;
        a split of 0 pictures has no folder.

    Raises:
        ValueError: a request that cannot be met.
        OSError: the cache folder is full or cannot be written to.
        RuntimeError: the folder also holds pictures that were not drawn.
    """
    counts = {"train": train, "validation": validation, "test": test}
    _check(species, counts, style, size, seed)
    counts = {split: int(count) for split, count in counts.items()}
    request = dict(species=sorted(species), counts=counts, style=style, size=int(size))
    request.update(seed=int(seed), version=critters.VERSION)
    names = "-".join(request["species"]) if len(species) <= 5 else f"{len(species)}-species"
    name = f"critters-v{critters.VERSION}-{names}-{style}-{size}px-{train}-{validation}-{test}"
    name += f"-seed{seed}-{hashlib.sha256(json.dumps(request).encode()).hexdigest()[:8]}"
    with keeping(name) as folder:
        _complete(folder, request)
    return folder


def _check(species, counts, style, size, seed):
    if isinstance(species, str) or not species:
        raise ValueError(f"species is {species!r}: give a list, such as ['cat', 'dog'].")
    for name in species:
        critters.check_known("species", name, tuple(critters.ANATOMY))
        if list(species).count(name) > 1:
            raise ValueError(f"species names {name!r} more than once: name each species once.")
    critters.check_known("style", style, critters.STYLES)
    check_counts(counts, size=size, seed=seed)
    if not 32 <= size <= 512:
        raise ValueError(f"size is {size}: choose a side between 32 and 512 pixels.")
    for split, count in counts.items():
        if rest := count % len(species):
            more = count - rest + len(species)
            why = f"{len(species)} species cannot share it evenly"
            raise ValueError(f"{split} is {count}: {why}, ask for {more}.")


def _complete(folder, request):
    """Draw the pictures that the manifest does not vouch for: all, the rest, or a damaged few."""
    pictures = [
        f"{split}/{species}/{i:05d}.png"
        for split, count in request["counts"].items()
        for species in request["species"]
        for i in range(count // len(request["species"]))
    ]
    refuse_strangers(folder, pictures)
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        recorded = {**manifest["pictures"]} if manifest["request"] == request else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # absent or damaged
        recorded = {}
    whole = {p: sha256((folder / p).read_bytes()) for p in recorded if (folder / p).is_file()}
    whole = {p: digest for p, digest in whole.items() if digest == recorded[p]}
    missing = [p for p in pictures if p not in whole]
    if not missing:
        return

    def record():
        manifest = {"request": request, "pictures": dict(sorted(whole.items()))}
        write(folder, "manifest.json", json.dumps(manifest, indent=1).encode())

    for parent in {(folder / p).parent for p in missing} | {folder / UNFINISHED}:
        parent.mkdir(parents=True, exist_ok=True)
    try:
        with progress("Drawing", len(missing)) as bar:
            draw = partial(_draw, folder, request["style"], request["size"], request["seed"])
            for picture, digest in _map(draw, missing):
                whole[picture] = digest
                bar.update()
                if len(whole) % 200 == 0:
                    record()
    finally:
        try:
            record()
        finally:
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _draw(folder, style, size, seed, picture):
    """Draw one picture, such as "train/cat/00000.png"; return this name and the file's SHA-256."""
    key = hashlib.sha256(f"{seed}/{style}/{picture}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key))
    content = io.BytesIO()
    image = critters.draw(picture.split("/")[1], rng, size=size, style=style)
    image.save(content, "png", compress_level=1)
    write(folder, picture, content.getvalue())
    return picture, sha256(content.getvalue())


def _map(draw, pictures):
    """`map(draw, pictures)`, on all processor cores where that is worth starting processes."""
    workers = min(os.cpu_count() or 1, len(pictures) // 64, 61)  # 61: the most on Windows
    if workers < 2:
        yield from map(draw, pictures)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker) as pool:
        # A worker would import __main__, and so run a student's script (and its TensorFlow) again.
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            results = pool.map(draw, pictures, chunksize=8)
        finally:
            sys.modules["__main__"] = main
        yield from results


def _start_worker():
    """Leave Ctrl-C to the parent process, and end with it even when it is killed."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
