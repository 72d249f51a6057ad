"""The folder in which data sets are kept, and how they are written there."""

import contextlib
import hashlib
import os
import sys
from numbers import Integral
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

KERAS_READS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
UNFINISHED = ".unfinished"  # folder of the files that are being written


def root():
    """The folder of all data sets."""
    cache = os.environ.get("COURSE_CACHE") or "~/.cache/transfer-learning-course"
    return Path(cache).expanduser().absolute()


@contextlib.contextmanager
def keeping(name):
    """Hold the folder of one data set; others that want it wait.

    Raises OSError, with what to do, if anything inside cannot be written.
    """
    folder = root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        try:
            locked = lock.acquire(timeout=2)
        except Timeout:
            print(f"Waiting for another notebook to finish writing {name} ...", flush=True)
            locked = lock.acquire()
        with locked:
            yield folder
    except OSError as error:
        raise OSError(
            f"Cannot write pictures to {folder} ({error.strerror or error}): make room there, or "
            "set the environment variable COURSE_CACHE to a folder that you can write to."
        ) from error


def check_counts(counts, **others):
    """Raise ValueError unless all are whole numbers from 0 on and some split gets pictures."""
    for name, number in {**counts, **others}.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 0:
            raise ValueError(f"{name} is {number!r}: give a whole number, 0 or more.")
    if not any(counts.values()):
        raise ValueError("train, validation and test are all 0: ask for at least one picture.")


def write(folder, name, content):
    """Write under a temporary name, then rename: a file is whole or absent."""
    temporary = folder / UNFINISHED / str(os.getpid())
    temporary.write_bytes(content)
    temporary.replace(folder / name)


def refuse_strangers(folder, pictures):
    """Raise if Keras would read pictures or classes that do not belong there."""
    expected = {*pictures, *(parent.as_posix() for p in pictures for parent in Path(p).parents)}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        is_class = path.is_dir() and not path.name.startswith(".")
        if name not in expected and (is_class or name.lower().endswith(KERAS_READS)):
            raise RuntimeError(
                f"{path} is not one of the pictures made here, but Keras would read it as one: "
                "move it out of this folder, then run this again."
            )


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def progress(what, total):
    """A bar for whoever watches; nothing in a test, a log or a stored notebook."""
    shown = hasattr(sys, "ps1") or sys.stdout.isatty()  # ps1: in a notebook or at a prompt
    quiet = not shown or "TQDM_DISABLE" in os.environ  # tqdm's own switch
    return tqdm(total=total, desc=what, leave=False, file=sys.stdout, disable=quiet)
