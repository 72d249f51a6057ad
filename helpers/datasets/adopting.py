"""Own pictures: a folder of class folders, as clean RGB pictures in the course cache."""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import unicodedata
import warnings
from numbers import Integral, Real
from pathlib import Path
from textwrap import shorten

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.datasets.cache import (
    UNFINISHED,
    keeping,
    progress,
    refuse_strangers,
    root,
    sha256,
    write,
)

VERSION = 1  # raise it when a file gives another picture than before
LONGEST = 512  # pixels, the longer side: larger pictures are shrunk, none is enlarged
SHORTEST = 8  # pixels, the shorter side, after that
LARGEST = 120_000_000  # pixels that are read at all: a phone's 108 million pass, bombs do not
TOO_LARGE = f"more than {LARGEST // 10**6} million pixels"
# Not all that Pillow knows: it takes text for a picture now and then, and EPS runs a program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
ENDINGS = {
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # and whatever begins with a dot
SPLITS = {  # the names that a folder of a split may have
    "train": "train",
    "training": "train",
    "training_set": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
    "test_set": "test",
}


@dataclasses.dataclass
class _Picture:
    path: Path
    name: str  # below the student's folder: "cat/Minka.png"
    label: str
    split: str
    file: str = ""  # SHA-256 of the file
    adopted: str = ""  # SHA-256 of the file in the cache: the same for copies in other formats


class _Refused(Exception):
    """A picture that can be read but is not wanted; the text says why."""


def adopt(folder, *, validation=0.2, test=0.2, seed=0):
    """Read a folder of own pictures into the cache, once, and return their folder there.

    `folder` holds one folder a class: `cat/Minka.png`, ...; pictures in folders inside it count
    for the class. Or it holds `train/`, `validation/`, `test/` with the class folders in each:
    then these splits are kept, and one that is missing is taken out of `train/`.

    Read are JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF, whatever the file's ending; of several
    frames the first. They are turned upright, put on white where transparent, and shrunk to 512
    pixels. The same picture twice is kept once, so it is never in two splits (the test copy stays,
    then the validation copy); a picture that is in two classes is left out of both. The rest of
    what is left out (damaged, under 8 or over 120 million pixels, no picture) is printed with the
    reason. Files that begin with a dot, `Thumbs.db`, `desktop.ini` and `__MACOSX` are ignored.

    Which split a picture goes to depends on its content, the seed and the number of pictures in
    its class, not on names. Nothing is written to `folder`. The same names and contents give the
    same result, which is made again only if a file of it is missing or damaged.

    Args:
        folder: path of the pictures.
        validation, test: share of each class, 0 to below 1, rounded down, but 1 picture at least;
            0 for none. A split that `folder` already has is kept as it is.
        seed: whole number, 0 or more; another seed gives another split.

    Returns:
        `pathlib.Path` of a folder with `train/cat/00000.jpg` (RGB), ..., `validation/`, `test/`,
        and `manifest.json`: `pictures` has each one's `source`, `left_out` the reasons.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not such a folder, a class without pictures, or too few for the splits.
        OSError: the cache folder is full or cannot be written to.
        RuntimeError: the folder in the cache also holds pictures that were not adopted.
    """
    shares = {"validation": validation, "test": test}
    _check(shares, seed)
    folder = Path(folder).expanduser().absolute()
    given, places, pictures, left_out = _scan(folder)
    with progress("Looking", len(pictures)) as bar:
        for picture in pictures:
            try:
                with picture.path.open("rb") as file:
                    picture.file = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                picture.file = error.strerror  # reading it will say so again
            bar.update()
    shares = {s: float(share) for s, share in shares.items() if share and s not in given}
    request = [VERSION, shares, int(seed), sorted(places.values()), sorted(left_out.items())]
    request += [[p.name, p.file] for p in pictures]
    request = sha256(json.dumps(request).encode())
    with keeping(f"own-{len({label for _, label in places})}-classes-{request[:12]}") as kept:
        manifest = _read_whole(kept, request)
        if manifest is None:
            _make(kept, request, pictures, left_out, places, shares, seed)
            manifest = _read_whole(kept, request)
        refuse_strangers(kept, manifest["pictures"])
    print(_summary(kept, manifest))
    return kept


def _check(shares, seed):
    for name, share in shares.items():
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share < 1:
            raise ValueError(f"{name} is {share!r}: give a share from 0 to below 1, such as 0.2.")
    if sum(shares.values()) >= 1:
        parts = " and ".join(f"{name}={share}" for name, share in shares.items())
        raise ValueError(f"{parts} leave nothing to train on: let them add up to less than 1.")
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}: give a whole number, 0 or more.")


# --- what is there ------------------------------------------------------------------------------


def _scan(folder):
    """What is in a folder of class folders.

    Returns:
        The names of the splits that it has, such as ["train", "test"]; a dictionary with the
        folder of each split and class, `("test", "cat"): "test/cat"`; the files as `_Picture`s;
        a dictionary with the reason for each file that is not among them.
    """
    advice = "give a folder that holds one folder of pictures for each class"
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}: {advice}.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: {advice}; if it is an archive, unpack it first.")
    if root().resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"The course's cache, {root()}, is inside {folder}, where nothing is to be written: "
            "set the environment variable COURSE_CACHE to a folder elsewhere."
        )
    given = _given_splits(folder)
    classes, pictures, left_out = set(), [], {}
    for split, place in (given or {"train": folder}).items():
        for path in _visible(place):
            if path.is_dir():
                label = _shown(path.name)
                classes.add(label)
                for file in _files(path, left_out, folder):
                    name = _shown(file.relative_to(folder).as_posix())
                    if problem := _problem(file):
                        left_out[name] = problem
                    else:
                        pictures.append(_Picture(file, name, label, split))
            elif path.is_symlink() or path.suffix.lower() in ENDINGS:
                name = _shown(path.relative_to(folder).as_posix())
                left_out[name] = _problem(path) or "not in the folder of a class"
    if len(classes) < 2:
        found = f"the folder of one class only, {min(classes)}" if classes else "no folder"
        if classes and any(path.is_dir() for path in (folder / min(classes)).glob("*")):
            found += f" (did you mean {folder / min(classes)}?)"
        raise ValueError(f"{folder} holds {found}: {advice}, of two classes or more.")
    names = {}
    for label in sorted(classes):
        other = names.setdefault(label.casefold(), label)
        if other != label:
            raise ValueError(
                f"The classes {other} and {label} in {folder} differ only in upper and lower "
                "case: give them the same name, or two that differ more."
            )
    places = {("train", label): label for label in sorted(classes)}
    if given:
        places = {(s, c): f"{_shown(given[s].name)}/{c}" for s in given for c in sorted(classes)}
    return list(given), places, sorted(pictures, key=lambda p: p.name), left_out


def _given_splits(folder):
    """The folders of splits by name; none if the folder holds those of classes."""
    names = [path.name for path in _visible(folder) if path.is_dir()]
    splits = [name for name in names if name.lower() in SPLITS]
    if len(splits) < 2 and splits != names:
        return {}  # in a folder with car and plane, train is a class
    if others := [name for name in names if name not in splits]:
        raise ValueError(
            f"{folder} holds the splits {' and '.join(splits)} but also {others[0]}: "
            "move that elsewhere."
        )
    given = {SPLITS[name.lower()]: folder / name for name in splits}
    if len(given) < len(splits):
        raise ValueError(f"{folder} holds {', '.join(splits)}: make one folder of each split.")
    if given and "train" not in given:
        raise ValueError(f"{folder} holds {', '.join(splits)}, but no train: add that folder.")
    return given


def _visible(folder):
    return sorted(path for path in folder.iterdir() if not _is_clutter(path.name))


def _is_clutter(name):
    return name.startswith(".") or name.lower() in CLUTTER


def _files(place, left_out, folder):
    """All files in the folder of a class, and the links in it to folders; hidden ones not."""

    def unreadable(error):
        left_out[_shown(Path(error.filename).relative_to(folder).as_posix())] = error.strerror

    for parent, folders, files in os.walk(place, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_clutter(name)]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in files + links if not _is_clutter(name))


def _problem(path):
    """Why a file need not be opened, or ""."""
    try:
        if path.is_dir():
            return "a link to a folder, which is not followed"
        if path.is_symlink() and not path.exists():
            return "a link that leads nowhere"
        if not path.is_file():
            return "not a file"
        return "" if path.stat().st_size else "an empty file"
    except OSError as error:
        return error.strerror


def _shown(name):
    """A file's name, the same on every system, and such that it can be printed and stored."""
    name = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name)
    return unicodedata.normalize("NFC", name)


# --- from files to pictures ---------------------------------------------------------------------


def _make(kept, request, pictures, left_out, places, shares, seed):
    """Read all pictures into the cache."""
    unfinished = kept / UNFINISHED
    unfinished.mkdir(exist_ok=True)
    left_out = dict(left_out)
    read = []
    try:
        with progress("Reading", len(pictures)) as bar:
            for picture in pictures:
                try:
                    content = clean(picture.path)
                except ValueError as reason:
                    left_out[picture.name] = str(reason)
                else:
                    picture.adopted = sha256(content)
                    write(kept, f"{UNFINISHED}/{picture.adopted}.jpg", content)
                    read.append(picture)
                bar.update()
        used = _once(read, left_out)
        for place in sorted(places.keys() - {(p.split, p.label) for p in used}):
            raise ValueError(_none(places[place], left_out))
        _split(used, shares, seed)
        recorded, numbers = {}, {}
        for picture in used:
            place = f"{picture.split}/{picture.label}"
            numbers[place] = numbers.get(place, -1) + 1
            name = f"{place}/{numbers[place]:05d}.jpg"
            (kept / place).mkdir(parents=True, exist_ok=True)
            (unfinished / f"{picture.adopted}.jpg").replace(kept / name)
            recorded[name] = {"source": picture.name, "sha256": picture.adopted}
        manifest = {"request": request, "pictures": dict(sorted(recorded.items()))}
        manifest["left_out"] = dict(sorted(left_out.items()))
        write(kept, "manifest.json", json.dumps(manifest, indent=1).encode())
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def clean(path):
    """One picture, clean, as the bytes of a JPEG file; ValueError says why there is none."""
    try:
        return _clean(path)
    except Exception as error:  # broken files make Pillow raise errors of every kind
        raise ValueError(_reason(error, path)) from None


def _clean(path):
    ignoring = warnings.catch_warnings(action="ignore")  # of odd metadata: the picture counts
    with ignoring, Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > LARGEST:
            raise _Refused(TOO_LARGE)
        size = image.size
        # Not JPEG's own, quicker way to shrink: a copy in another format would look different.
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            image = _eight_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    image.thumbnail((LONGEST, LONGEST))
    if min(image.size) < SHORTEST:
        raise _Refused(f"too small or too narrow, {size[0]} × {size[1]} pixels")
    image.info = {}  # such as a GIF's comment, which would go into the file
    # JPEG: a photo takes a third of PNG's room and opens faster, and all classes get the same
    # traces of compression. At 95, with full colours, the difference cannot be seen.
    content = io.BytesIO()
    image.save(content, "jpeg", quality=95, subsampling=0)
    return content.getvalue()


def _eight_bits(image):
    """Grey with more than 8 bits, scaled by the range of its numbers.

    That is 0..65535 for 16 bits. For floats and long integers it is the narrowest of 0..1, 0..255
    and 0..65535 that holds them all, else from the smallest to the largest.
    """
    values = np.nan_to_num(np.asarray(image, "float32"), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    tops = (65535,) if ";16" in image.mode else (1, 255, 65535)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is None:
        values, top = values - low, high - low or 1
    return Image.fromarray((values / top * 255).round().astype("uint8"))


def _reason(error, path):
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC, which Pillow cannot read: export it as JPEG"
    if isinstance(error, Image.DecompressionBombError):
        return TOO_LARGE
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read"
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return f"cannot be read: {shorten(text, 80, placeholder=' ...')}"


def _once(pictures, left_out):
    """Those to keep: each picture once, and none that is in two classes."""
    same, kept = {}, []
    order = ("test", "validation", "train")  # of two copies, the first in this order stays
    for picture in sorted(pictures, key=lambda p: (order.index(p.split), p.name)):
        same.setdefault(picture.adopted, []).append(picture)
    for first, *others in same.values():
        first.file = min(p.file for p in (first, *others))  # its split depends on no file's name
        stranger = next((p for p in others if p.label != first.label), None)
        if stranger is None:
            kept.append(first)
            left_out |= {p.name: f"the same picture as {first.name}" for p in others}
        else:
            for picture in (first, *others):
                other = stranger if picture.label == first.label else first
                left_out[picture.name] = f"in two classes: the same picture as {other.name}"
    return sorted(kept, key=lambda p: p.name)


def _none(place, left_out):
    """The sentence about a folder without a picture that can be used."""
    lost = {name: why for name, why in left_out.items() if f"{name}/".startswith(f"{place}/")}
    why = next((f" ({len(lost)} left out; {name}: {why})" for name, why in lost.items()), "")
    return f"{place} has no picture that can be used{why}: put some in, or remove the class."


def _split(pictures, shares, seed):
    """Move a share of each class from train to the splits that are missing."""
    for label in sorted({picture.label for picture in pictures}):
        rest = [p for p in pictures if (p.label, p.split) == (label, "train")]
        rest.sort(key=lambda p: sha256(f"{seed}/{p.file}".encode()))
        counts = {s: max(1, int(share * len(rest) + 1e-9)) for s, share in shares.items()}
        if sum(counts.values()) >= len(rest):
            wanted = " and ".join(f"{split}={share}" for split, share in shares.items())
            raise ValueError(
                f"{label} has {len(rest)} picture{'s' * (len(rest) > 1)} to train on, too few "
                f"for {wanted} besides: put more in, or set a share to 0."
            )
        for split, count in counts.items():
            for picture in rest[:count]:
                picture.split = split
            rest = rest[count:]


# --- what was made ------------------------------------------------------------------------------


def _read_whole(kept, request):
    """The manifest of a folder in the cache; None if anything is missing or damaged."""
    try:
        manifest = json.loads((kept / "manifest.json").read_bytes())
        recorded = {name: picture["sha256"] for name, picture in manifest["pictures"].items()}
        if manifest["request"] != request or not isinstance(manifest["left_out"], dict):
            return None
        whole = all(sha256((kept / name).read_bytes()) == s for name, s in recorded.items())
        return manifest if whole else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _summary(kept, manifest):
    counts = {}
    for name in manifest["pictures"]:
        split, label, _ = name.split("/")
        counts.setdefault(label, dict.fromkeys(SPLITS.values(), 0))[split] += 1
    lines = [
        f"{label}: " + ", ".join(f"{count} {split}" for split, count in splits.items() if count)
        for label, splits in sorted(counts.items())
    ]
    text = [f"{len(manifest['pictures'])} pictures of {len(counts)} classes"]
    text += _first_ten(lines, kept)
    if left_out := manifest["left_out"]:
        text.append(f"Left out: {len(left_out)}")
        text += _first_ten([f"{name}: {reason}" for name, reason in left_out.items()], kept)
    return "\n".join(text)


def _first_ten(lines, kept):
    more = [f"and {len(lines) - 10} more: see {kept / 'manifest.json'}"] if len(lines) > 10 else []
    return [f"  {line}" for line in lines[:10] + more]
