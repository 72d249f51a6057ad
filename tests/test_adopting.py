"""Own pictures: what each kind of file gets, the splits, and what cannot be done."""

import errno
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from helpers import datasets
from helpers.datasets import adopting

ROOT = Path(datasets.__file__).parents[2]
SIZE = (64, 48)  # of the test picture: width, height
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (20, 160, 60), (40, 60, 200), (230, 210, 40)
UPRIGHT = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right
WHITE, BLACK = (255,) * 3, (0,) * 3
ORIENTATION = 0x0112  # the tag of EXIF and of TIFF


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for every test."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def own(tmp_path):
    """The folder of a student."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def quarters(mark, size=SIZE, colours=UPRIGHT):
    """Four colours, and in the middle a grey mark, which makes pictures differ."""
    image = Image.new("RGB", size)
    width, height = size
    for i, colour in enumerate(colours):
        image.paste(
            colour, (i % 2 * width // 2, i // 2 * height // 2, width, (i // 2 + 1) * height)
        )
    image.paste((mark,) * 3, (width * 3 // 8, height * 3 // 8, width * 5 // 8, height * 5 // 8))
    return image


def content(kind, mark, **options):
    file = io.BytesIO()
    quarters(mark).save(file, kind, **options)
    return file.getvalue()


def put(folder, *names):
    """Files with a picture each; its mark is the number in its name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        quarters(int("".join(c for c in path.stem if c.isdigit()))).save(path)


def many(folder, *classes, count=10):
    for i, label in enumerate(classes):
        put(folder, *(f"{label}/{count * i + k}.png" for k in range(count)))


def manifest(kept):
    return json.loads((kept / "manifest.json").read_text("utf-8"))


def sources(kept):
    """The file of the student behind each picture: `{"cat/1.png": "train/cat/00000.jpg"}`."""
    return {picture["source"]: name for name, picture in manifest(kept)["pictures"].items()}


def left_out(kept):
    return manifest(kept)["left_out"]


def splits(kept):
    """`{"cat/1.png": "train"}`"""
    return {source: name.split("/")[0] for source, name in sources(kept).items()}


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the corpus: awkward files, and what each gets ----------------------------------------------

CORPUS = {}  # name: (makes this file, what it gets)
# It gets (size, four colours), or it is left out for a reason, or ignored (None).
GOOD = (SIZE, UPRIGHT)
GREYS = tuple((round(0.299 * r + 0.587 * g + 0.114 * b),) * 3 for r, g, b in UPRIGHT)
LEVELS = tuple((level,) * 3 for level in (0, 85, 170, 255))
ON_WHITE = (RED, GREEN, WHITE, YELLOW)
NO_PICTURE = "not a picture that can be read"
LINUX = sys.platform == "linux"


def case(name, outcome=GOOD, only_if=True):
    def add(make):
        if only_if:
            CORPUS[name] = (make, outcome)

    return add


def saved(name, outcome=GOOD, change=lambda image: image, **options):
    mark = 2 * len(CORPUS)  # an even number, each once
    assert mark < 256
    case(name, outcome)(lambda path: change(quarters(mark)).save(path, **options))


def written(name, outcome, content):
    case(name, outcome)(lambda path: path.write_bytes(content))


def in_mode(mode):
    return lambda image: image.convert(mode)


def numbers(dtype, *values):
    """Turn the picture into a grey one with these numbers in its quarters."""

    def change(image):
        small = np.asarray(values, dtype).reshape(2, 2)
        large = small.repeat(24, axis=0).repeat(32, axis=1)
        large[20:28, 28:36] = values[1 + len(CORPUS) % 2]
        return Image.fromarray(large)

    return change


def clear(image):
    """Make the blue quarter transparent; what is behind it is black."""
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 24, 32, 48))
    image = Image.composite(image, Image.new("RGB", SIZE), alpha)
    image.putalpha(alpha)
    return image


def turned(method):
    return lambda image: image.transpose(Image.Transpose[method])


def orientation(number):
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def large_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "0" * 10_000_000, zip=True)
    return text


def empty_png(width, height):
    """The beginning of a PNG that claims to be this large."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


# Formats, endings, names
saved("plain.png")
saved("plain.jpg")
saved("progressive.jpeg", progressive=True)
saved("OLD CAMERA.JPG")
saved("plain.webp", lossless=True)
saved("plain.bmp")
saved("plain.tif")
saved("plain.gif")
saved("plain.avif", quality=100)
saved("no_ending", format="PNG")
saved("a_png.jpg", format="PNG")
saved("a_webp.jpg", format="WEBP", lossless=True)
saved("a_jpeg.png", format="JPEG")
saved("a_picture.txt", format="PNG")
saved("Kätzchen 猫 🐈.png")
saved(unicodedata.normalize("NFD", "Señor Muß.png"))
case("two\nlines.png", only_if=LINUX)(lambda path: quarters(207).save(path))
case(os.fsdecode(b"latin-\xe9.png"), only_if=LINUX)(lambda path: quarters(209).save(path))
saved("kittens/inner/one.png")
# Frames: the first counts
second = Image.new("RGB", SIZE, "black")
saved("animated.gif", save_all=True, append_images=[second])
saved("animated.webp", save_all=True, append_images=[second], lossless=True)
saved("animated.png", save_all=True, append_images=[second])
saved("pages.tiff", save_all=True, append_images=[second])
saved("two_views.mpo", save_all=True, append_images=[second])
# Modes
saved("grey.png", (SIZE, GREYS), in_mode("L"))
saved("grey.jpg", (SIZE, GREYS), in_mode("L"))
saved("palette.png", change=lambda image: image.quantize())
saved("bits.png", (SIZE, (BLACK, WHITE, BLACK, WHITE)), numbers("bool", 0, 1, 0, 1))
saved("cmyk.jpg", change=in_mode("CMYK"))
saved("cmyk.tif", change=in_mode("CMYK"))
saved("ycbcr.tif", change=in_mode("YCbCr"))
saved("clear.png", (SIZE, ON_WHITE), clear)
saved("clear.webp", (SIZE, ON_WHITE), clear, lossless=True)
saved("clear.tif", (SIZE, ON_WHITE), clear)
saved("clear.gif", (SIZE, ON_WHITE), clear)
saved("clear_palette.png", (SIZE, ON_WHITE), lambda image: clear(image).quantize())
saved("clear_colour.png", (SIZE, ON_WHITE), transparency=BLUE)
saved("clear_grey.png", (SIZE, (*GREYS[:2], WHITE, GREYS[3])), lambda im: clear(im).convert("LA"))
saved("16_bits.png", (SIZE, LEVELS), numbers("uint16", 0, 21845, 43690, 65535))
saved(
    "16_bits_dark.png",
    (SIZE, (BLACK, BLACK, (1,) * 3, (1,) * 3)),
    numbers("uint16", 0, 100, 200, 255),
)
saved("16_bits.tif", (SIZE, LEVELS[::-1]), numbers(">u2", 65535, 43690, 21845, 0))
saved("32_bits.tif", (SIZE, (*LEVELS[1:], BLACK)), numbers("int32", 85, 170, 255, 0))
saved("floats.tif", (SIZE, (WHITE, BLACK, *LEVELS[1:3])), numbers("float32", 1, 0, 1 / 3, 2 / 3))
saved(
    "heights.tif",
    (SIZE, (LEVELS[2], LEVELS[1], BLACK, WHITE)),
    numbers("float32", 100, 0, -100, 200),
)
saved("holes.tif", (SIZE, (BLACK, BLACK, WHITE, WHITE)), numbers("float32", "nan", 0, 255, 255))
saved("negative.tif", (SIZE, (BLACK,) * 4), numbers("float32", -5, -5, -5, -5))
# Metadata
saved("turned.jpg", change=turned("ROTATE_90"), exif=orientation(6))
saved("turned.webp", change=turned("ROTATE_270"), exif=orientation(8), lossless=True)
saved("turned.tif", change=turned("ROTATE_90"), tiffinfo={ORIENTATION: 6})
saved("upside_down.png", change=turned("ROTATE_180"), exif=orientation(3))
saved("mirrored.jpg", change=turned("FLIP_LEFT_RIGHT"), exif=orientation(2))
saved("no_such_turn.jpg", exif=orientation(99))
saved("broken_exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
saved("talkative.gif", comment=b"x" * 70_000)
saved("talkative.png", "cannot be read: ", pnginfo=large_text())
# Sizes
saved("photo.jpg", ((512, 384), UPRIGHT), lambda image: image.resize((4000, 3000), 0))
saved("strip.png", ((512, 26), UPRIGHT), lambda image: image.resize((2000, 100), 0))
saved("smallest.png", ((8, 8), UPRIGHT), lambda image: image.resize((8, 8), 0))
saved("dot.png", "too small or too narrow, 1 × 1 pixels", lambda image: image.resize((1, 1)))
saved("line.png", "too small or too narrow, 2000 × 20 pixels", lambda im: im.resize((2000, 20)))
saved("huge.png", "more than 120 million pixels", lambda im: im.convert("1").resize((10960, 10960)))
written("bomb.png", "more than 120 million pixels", empty_png(50_000, 50_000))
written(
    "bomb.bmp",
    "more than 120 million pixels",
    b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 10**5, 10**5, 1, 24, *[0] * 6),
)
# Damaged, or no pictures
written("empty.jpg", "an empty file", b"")
written("text.jpg", NO_PICTURE, b"To be or not to be")
written("page.png", NO_PICTURE, b"<!DOCTYPE html><html>404 Not Found</html>")
written("drawing.svg", NO_PICTURE, b"<svg xmlns='http://www.w3.org/2000/svg'></svg>")
written(
    "print.eps", NO_PICTURE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n"
)
written("clip.mp4", NO_PICTURE, b"\0\0\0\x18ftypmp42" + b"\0" * 100)
written(
    "phone.heic",
    "HEIC, which Pillow cannot read: export it as JPEG",
    b"\0\0\0\x18ftypheic" + b"\0" * 90,
)
written("short.jpg", "cannot be read: image file is truncated", content("jpeg", 1)[:-50])
written("short.png", "cannot be read: image file is truncated", content("png", 1)[:-100])
written("short.webp", "cannot be read: ", content("webp", 1)[:-20])
written("short.gif", "cannot be read: image file is truncated", content("gif", 1)[:-100])
written("short.tif", "cannot be read: ", content("tiff", 1)[:-500])
written("short.bmp", "cannot be read: image file is truncated", content("bmp", 1)[:-50])
written("only_begun.png", "cannot be read: ", content("png", 1)[:20])
written("half_filled.png", "cannot be read: ", empty_png(64, 48))
# Clutter is ignored, links and other things are followed or named
written(".DS_Store", None, b"\0\0\0\1Bud1")
written("._plain.png", None, b"\0\5\x16\7")
written("Thumbs.db", None, b"\xd0\xcf\x11\xe0")
written("desktop.ini", None, b"[.ShellClassInfo]")
saved("__MACOSX/plain.png", None)
saved(".hidden/plain.png", None)
case("link_out.png", only_if=LINUX)(lambda path: path.symlink_to("../../outside/201.png"))
case("nowhere.png", "a link that leads nowhere", LINUX)(lambda path: path.symlink_to("../gone.png"))
case("circle.png", "a link that leads nowhere", LINUX)(lambda path: path.symlink_to(path))
case("folder_link", "a link to a folder, which is not followed", LINUX)(
    lambda path: path.symlink_to("..")
)
case("pipe.png", "not a file", LINUX)(os.mkfifo if LINUX else None)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory):
    """The corpus as the class cat, adopted once, and what was printed."""
    folder = tmp_path_factory.mktemp("corpus")
    put(folder, "outside/201.png", "own/dog/203.png", "own/dog/205.png")
    for name, (make, _) in CORPUS.items():
        path = folder / "own/cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    before = files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_CACHE", str(folder / "cache"))
        with warnings.catch_warnings(action="error"):
            kept = datasets.adopt(folder / "own", validation=0, test=0)
    shutil.move(folder / "cache", folder.parent / "corpus-cache")
    assert files(folder) == before
    return folder.parent / "corpus-cache" / kept.name


def assert_shows(pixels, size, colours):
    """Each quarter has its colour, to what the eye tells."""
    assert pixels.shape == (size[1], size[0], 3)
    for i, colour in enumerate(colours):
        row, column = size[1] * (1 + 6 * (i // 2)) // 8, size[0] * (1 + 6 * (i % 2)) // 8
        difference = np.abs(pixels[row, column].astype(int) - colour).max()
        assert difference <= 20, f"quarter {i} is {pixels[row, column]}, not {colour}"


def test_the_corpus_is_large():
    assert len(CORPUS) >= 25


@pytest.mark.parametrize("name", CORPUS, ids=ascii)
def test_corpus(name, adopted):
    outcome = CORPUS[name][1]
    source = adopting._shown(f"cat/{name}")
    if outcome is None:
        assert source not in {**sources(adopted), **left_out(adopted)}
    elif isinstance(outcome, str):
        assert left_out(adopted)[source].startswith(outcome)
        assert source not in sources(adopted)
    else:
        assert source not in left_out(adopted)
        path = adopted / sources(adopted)[source]
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert_shows(np.asarray(image), *outcome)
        tf = pytest.importorskip("tensorflow")  # reads it as Keras does
        read = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
        assert_shows(read.numpy(), *outcome)


def test_keras_reads_the_corpus(adopted):
    keras = pytest.importorskip("keras")
    data = keras.utils.image_dataset_from_directory(
        adopted / "train", image_size=SIZE[::-1], batch_size=None, shuffle=False, verbose=False
    )
    assert data.class_names == ["cat", "dog"]
    read = {
        Path(path).relative_to(adopted).as_posix(): picture
        for path, (picture, _) in zip(data.file_paths, data, strict=True)
    }
    good = [
        adopting._shown(f"cat/{name}") for name, (_, outcome) in CORPUS.items() if outcome == GOOD
    ]
    assert len(good) > 25
    for source in good:
        assert_shows(read[sources(adopted)[source]].numpy(), *GOOD)


def test_a_picture_is_found_by_its_source(adopted):
    names = sources(adopted)
    assert len(names) == len(manifest(adopted)["pictures"])
    assert all(name.isascii() for name in names.values())
    assert sorted(names.values()) == [
        *(f"train/cat/{i:05d}.jpg" for i in range(len(names) - 2)),
        "train/dog/00000.jpg",
        "train/dog/00001.jpg",
    ]
    assert sorted(p.name for p in adopted.iterdir()) == ["manifest.json", "train"]


# --- the splits ---------------------------------------------------------------------------------


def count(kept):
    places = [name.rsplit("/", 1)[0] for name in manifest(kept)["pictures"]]
    return {place: places.count(place) for place in dict.fromkeys(places)}


def test_each_class_is_split_by_its_shares(own):
    many(own, "cat", "dog", count=10)
    for i in range(15, 20):
        (own / f"dog/{i}.png").unlink()
    kept = datasets.adopt(own, validation=0.2, test=0.3)
    assert count(kept) == {
        "test/cat": 3,
        "test/dog": 1,
        "train/cat": 5,
        "train/dog": 3,
        "validation/cat": 2,
        "validation/dog": 1,
    }


def test_a_share_of_nothing_makes_no_folder(own):
    many(own, "cat", "dog")
    assert count(datasets.adopt(own, validation=0, test=0)) == {"train/cat": 10, "train/dog": 10}


def test_decimal_shares_are_exact(own):
    many(own, "cat", "dog", count=100)
    assert count(datasets.adopt(own, validation=0, test=0.29))["test/cat"] == 29


def test_the_split_depends_on_content_and_seed_not_on_names(own):
    many(own, "cat", "dog")
    before = {
        (own / name).read_bytes(): split for name, split in splits(datasets.adopt(own)).items()
    }
    for path in list(own.rglob("*.png")):
        path.rename(path.with_name(f"{99 - int(path.stem)} renamed.png"))
    after = {
        (own / name).read_bytes(): split for name, split in splits(datasets.adopt(own)).items()
    }
    assert after == before
    other = datasets.adopt(own, seed=1)
    assert {(own / name).read_bytes(): s for name, s in splits(other).items()} != before


def test_a_split_is_no_run_of_names(own):
    many(own, "cat", "dog", count=20)
    test = [
        int(Path(s).stem) for s, split in splits(datasets.adopt(own)).items() if split == "test"
    ]
    cats = sorted(number for number in test if number < 20)
    assert len(cats) == 4 and cats[-1] - cats[0] > 3


def test_given_splits_are_kept(own):
    put(own, "Train/cat/1.png", "Train/dog/2.png", "val/cat/3.png", "val/dog/4.png")
    put(own, "test/cat/5.png", "test/dog/6.png", "test/dog/7.png")
    kept = datasets.adopt(own, validation=0.9, test=0)  # shares of splits that are there: unused
    assert splits(kept) == {
        "Train/cat/1.png": "train",
        "Train/dog/2.png": "train",
        "val/cat/3.png": "validation",
        "val/dog/4.png": "validation",
        "test/cat/5.png": "test",
        "test/dog/6.png": "test",
        "test/dog/7.png": "test",
    }
    assert kept == datasets.adopt(own)


def test_a_missing_split_is_taken_out_of_train(own):
    many(own / "train", "cat", "dog")
    put(own, "test/cat/100.png", "test/dog/101.png")
    kept = datasets.adopt(own, validation=0.3)
    assert count(kept) == {
        "test/cat": 1,
        "test/dog": 1,
        "train/cat": 7,
        "train/dog": 7,
        "validation/cat": 3,
        "validation/dog": 3,
    }
    assert {s.split("/")[0] for s, split in splits(kept).items() if split != "test"} == {"train"}


def test_train_may_be_a_class(own):
    many(own, "car", "plane", "train")
    assert count(datasets.adopt(own))["test/train"] == 2


def test_a_drawn_data_set_can_be_adopted():
    drawn = datasets.drawn(["cat", "dog"], train=6, validation=2, test=4, size=32)
    kept = datasets.adopt(drawn)
    assert sources(kept).keys() == manifest(drawn)["pictures"].keys()
    assert left_out(kept) == {}


# --- the same picture twice ---------------------------------------------------------------------


def test_copies_are_kept_once(own):
    many(own, "cat", "dog", count=5)
    shutil.copy(own / "cat/2.png", own / "cat/z copy.png")
    quarters(2).save(own / "cat/in another format.bmp")
    kept = datasets.adopt(own)
    assert left_out(kept) == {
        "cat/in another format.bmp": "the same picture as cat/2.png",
        "cat/z copy.png": "the same picture as cat/2.png",
    }
    assert len(sources(kept)) == 10


@pytest.mark.skipif(not LINUX, reason="other systems allow no such names, or take them as one")
def test_copies_whose_names_print_alike(own):
    many(own, "cat", "dog", count=5)
    for name in ("\1.png", "\2.png"):
        quarters(50).save(own / "cat" / name)
    kept = datasets.adopt(own)
    assert left_out(kept) == {"cat/\ufffd.png": "the same picture as cat/\ufffd.png"}
    assert len(sources(kept)) == 11


def test_the_split_of_copies_depends_on_no_name(own):
    many(own, "cat", "dog", count=12)
    for name in ("0", "3", "7"):
        quarters(int(name)).save(own / f"cat/{name}.bmp")
    before = splits(datasets.adopt(own))
    for name in ("0", "3", "7"):
        (own / f"cat/{name}.bmp").rename(own / f"cat/z{name}.bmp")
    after = splits(datasets.adopt(own))
    for name in ("0", "3", "7"):
        assert after[f"cat/{name}.png"] == before[f"cat/{name}.bmp"]


def test_no_copy_in_two_splits(own):
    many(own / "train", "cat", "dog")
    put(own, "test/cat/100.png", "test/dog/101.png", "validation/cat/102.png")
    put(own, "validation/dog/103.png")
    put(own, "train/cat/100.png", "train/cat/102.png", "validation/cat/100.png")
    put(own, "train/dog/103.png")
    kept = datasets.adopt(own)
    assert left_out(kept) == {
        "train/cat/100.png": "the same picture as test/cat/100.png",
        "train/cat/102.png": "the same picture as validation/cat/102.png",
        "train/dog/103.png": "the same picture as validation/dog/103.png",
        "validation/cat/100.png": "the same picture as test/cat/100.png",
    }
    contents = [(kept / name).read_bytes() for name in sources(kept).values()]
    assert len(set(contents)) == len(contents) == 24


def test_a_picture_in_two_classes_is_in_neither(own, capsys):
    many(own, "cat", "dog", count=5)
    put(own, "dog/3.png", "dog/z3.png")
    kept = datasets.adopt(own)
    assert left_out(kept) == {
        "cat/3.png": "in two classes: the same picture as dog/3.png",
        "dog/3.png": "in two classes: the same picture as cat/3.png",
        "dog/z3.png": "in two classes: the same picture as cat/3.png",
    }
    assert "  cat/3.png: in two classes: the same picture as dog/3.png\n" in capsys.readouterr().out


# --- once, and again when needed ----------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """A list that grows by one entry whenever a picture is read."""
    calls, clean = [], adopting.clean
    monkeypatch.setattr(adopting, "clean", lambda path: calls.append(path) or clean(path))
    return calls


def test_adopted_once(own, reads, capsys):
    many(own, "cat", "dog")
    kept = datasets.adopt(own)
    first = capsys.readouterr()
    assert len(reads) == 20
    before = files(kept)
    assert datasets.adopt(str(own)) == kept
    assert capsys.readouterr() == first
    assert len(reads) == 20
    assert files(kept) == before


def test_the_same_content_elsewhere_is_the_same_data_set(own, reads):
    many(own, "cat", "dog", count=5)
    kept = datasets.adopt(own)
    moved = own.rename(own.with_name("moved"))
    for path in moved.rglob("*.png"):
        os.utime(path, (0, 0))
    assert datasets.adopt(moved) == kept
    assert len(reads) == 10


CHANGES = {
    "another picture": lambda own: put(own, "cat/50.png"),
    "one less": lambda own: (own / "cat/0.png").unlink(),
    "another name": lambda own: (own / "cat/0.png").rename(own / "cat/50.png"),
    "another class": lambda own: (own / "cat/0.png").rename(own / "dog/0.png"),
    "another content": lambda own: quarters(50).save(own / "cat/0.png"),
    "a text": lambda own: (own / "cat/a.txt").write_text("a"),
    "an empty file": lambda own: (own / "cat/a.png").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_makes_a_new_data_set(change, own):
    many(own, "cat", "dog", count=5)
    kept = datasets.adopt(own)
    before = files(kept)
    change(own)
    assert datasets.adopt(own) != kept
    assert files(kept) == before


@pytest.mark.parametrize("other", [{"seed": 1}, {"test": 0.4}, {"validation": 0}], ids=str)
def test_other_splits_make_a_new_data_set(other, own):
    many(own, "cat", "dog", count=5)
    assert datasets.adopt(own) != datasets.adopt(own, **other)


def cut_short(kept):
    path = kept / "train/cat/00001.jpg"
    path.write_bytes(path.read_bytes()[:-9])


def another_request(kept):
    record = manifest(kept)
    record["request"] = "0" * 64
    (kept / "manifest.json").write_text(json.dumps(record))


DAMAGE = {
    "cut short": cut_short,
    "deleted": lambda kept: (kept / "train/dog/00000.jpg").unlink(),
    "a split deleted": lambda kept: shutil.rmtree(kept / "test"),
    "no manifest": lambda kept: (kept / "manifest.json").unlink(),
    "manifest cut short": lambda kept: os.truncate(kept / "manifest.json", 300),
    "binary manifest": lambda kept: (kept / "manifest.json").write_bytes(b"\xff\x00"),
    "list as manifest": lambda kept: (kept / "manifest.json").write_text("[1, 2]"),
    "empty manifest": lambda kept: (kept / "manifest.json").write_text("{}"),
    "another's manifest": another_request,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_repaired(damage, own):
    many(own, "cat", "dog", count=5)
    kept = datasets.adopt(own)
    before = files(kept)
    damage(kept)
    assert datasets.adopt(own) == kept
    assert files(kept) == before


def test_a_strange_picture_is_named_and_kept(own):
    many(own, "cat", "dog", count=5)
    kept = datasets.adopt(own)
    stranger = kept / "train/cat/mine.png"
    quarters(1).save(stranger)
    with pytest.raises(RuntimeError, match="mine.png is not one of"):
        datasets.adopt(own)
    assert stranger.exists()


def test_the_own_folder_is_only_read(own):
    many(own, "cat", "dog", count=5)
    (own / "cat/broken.jpg").write_bytes(b"broken")
    for path in [*own.rglob("*"), own]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat() for path in [own, *own.rglob("*")]}
    datasets.adopt(own)
    after = {path: path.stat() for path in [own, *own.rglob("*")]}
    for path in [own, *own.rglob("*")]:
        path.chmod(0o755)
    assert {path: s.st_mtime_ns for path, s in after.items()} == {
        path: s.st_mtime_ns for path, s in before.items()
    }


# --- what is printed ----------------------------------------------------------------------------


def test_summary(own, capsys):
    many(own, "Kätzchen", "dog", count=5)
    (own / "dog/notes.txt").write_text("all dogs are friends")
    put(own, "1.png")
    (own / "README.md").write_text("only pictures are missed here")
    datasets.adopt(own, validation=0)
    assert capsys.readouterr().out == (
        "10 pictures of 2 classes\n"
        "  Kätzchen: 4 train, 1 test\n"
        "  dog: 4 train, 1 test\n"
        "Left out: 2\n"
        "  1.png: not in the folder of a class\n"
        "  dog/notes.txt: not a picture that can be read\n"
    )


def test_long_lists_are_cut(own, capsys):
    many(own, *(f"species {i:02d}" for i in range(11)), count=2)
    for i in range(22):
        (own / f"species 00/{i:02d}.txt").write_text("no picture")
    kept = datasets.adopt(own, validation=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "22 pictures of 11 classes"
    assert lines[10] == "  species 09: 1 train, 1 test"
    assert lines[11] == f"  and 1 more: see {kept / 'manifest.json'}"
    assert lines[12:14] == ["Left out: 22", "  species 00/00.txt: not a picture that can be read"]
    assert lines[23:] == [f"  and 12 more: see {kept / 'manifest.json'}"]


def test_names_of_every_script_are_classes(own):
    keras = pytest.importorskip("keras")
    labels = ["Κουτάβι", "кот", "猫", unicodedata.normalize("NFD", "Kätzchen")]
    many(own, *labels, count=4)
    kept = datasets.adopt(own)
    data = keras.utils.image_dataset_from_directory(kept / "train", verbose=False)
    assert data.class_names == sorted(unicodedata.normalize("NFC", label) for label in labels)
    assert len(data.file_paths) == 8


# --- what cannot be done ------------------------------------------------------------------------

TWO = ("cat", "dog")


def empty_class(own):
    many(own, "cat", count=5)
    (own / "dog").mkdir()


def unreadable_class(own):
    many(own, "cat", count=5)
    for i in (1, 2):
        (own / "dog").mkdir(exist_ok=True)
        (own / f"dog/{i}.jpg").write_bytes(b"broken")


def only_clutter(own):
    many(own, "cat", count=5)
    put(own, "dog/.1.png")


def no_class(own):
    put(own, "1.png", "2.png")


def cases_of_a_letter(own):
    many(own, "cat", "dog", "Cat")


def a_class_without_test(own):
    many(own / "train", *TWO)
    put(own, "val/cat/100.png", "val/dog/101.png", "test/cat/102.png")


def all_copies(own):
    many(own / "train", *TWO, count=2)
    many(own / "test", *TWO, count=2)


def empty_class_of_a_split(own):
    many(own / "train", *TWO)
    put(own, "val/cat/100.png")
    (own / "val/dog").mkdir()
    (own / "val/dog/1.jpg").write_bytes(b"broken")


BAD = {
    "one class": (
        lambda own: many(own, "cat"),
        "{own} holds the folder of one class only, cat: give a folder that holds one folder of "
        "pictures for each class, of two classes or more.",
    ),
    "no class": (no_class, "{own} holds no folder: give a folder that holds one folder of"),
    "nothing": (lambda own: None, "{own} holds no folder: give a folder that holds one folder"),
    "empty class": (
        empty_class,
        "dog has no picture that can be used: put some in, or remove the class.",
    ),
    "unreadable class": (
        unreadable_class,
        "dog has no picture that can be used (2 left out; dog/1.jpg: not a picture that can be "
        "read): put some in, or remove the class.",
    ),
    "only clutter": (only_clutter, "dog has no picture that can be used: put some in"),
    "no pictures at all": (
        lambda own: [(own / label).mkdir() for label in TWO],
        "cat has no picture that can be used: put some in",
    ),
    "too few": (
        lambda own: [many(own, "cat", "dog", count=2)],
        "cat has 2 pictures to train on, too few for validation=0.2 and test=0.2 besides: put "
        "more in, or set a share to 0.",
    ),
    "one picture each": (
        lambda own: many(own, "cat", "dog", count=1),
        "cat has 1 picture to train on, too few for validation=0.2",
    ),
    "upper and lower case": (
        cases_of_a_letter,
        "The classes Cat and cat in {own} differ only in upper and lower case: give them",
    ),
    "a class without test": (
        a_class_without_test,
        "test/dog has no picture that can be used: put some in, or remove the class.",
    ),
    "all copies": (
        all_copies,
        "train/cat has no picture that can be used (2 left out; train/cat/0.png: the same "
        "picture as test/cat/0.png): put some in, or remove the class.",
    ),
    "empty class of a split": (
        empty_class_of_a_split,
        "val/dog has no picture that can be used (1 left out; val/dog/1.jpg: not a picture",
    ),
    "no train": (
        lambda own: [many(own / "test", *TWO), many(own / "val", *TWO)],
        "{own} holds test, val, but no train: add that folder.",
    ),
    "a split twice": (
        lambda own: [many(own / split, *TWO) for split in ("train", "val", "validation")],
        "{own} holds train, val, validation: make one folder of each split.",
    ),
    "a class beside splits": (
        lambda own: [many(own / split, *TWO) for split in ("train", "test", "more")],
        "{own} holds the splits test and train but also more: move that elsewhere.",
    ),
}


@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD)
def test_an_unfit_folder_is_one_sentence(make, message, own, cache):
    make(own)
    before = files(own)
    with pytest.raises(ValueError) as error:
        datasets.adopt(own)
    assert str(error.value).startswith(message.format(own=own))
    assert not str(error.value)[:-1].count(". ") and str(error.value).endswith(".")
    assert files(own) == before
    assert not list(cache.rglob("*.jpg"))


REQUESTS = [
    (dict(test=1), "test is 1: give a share from 0 to below 1, such as 0.2."),
    (dict(test=-0.1), "test is -0.1: give a share from 0 to below 1, such as 0.2."),
    (dict(test="0.2"), "test is '0.2': give a share from 0 to below 1, such as 0.2."),
    (dict(test=float("nan")), "test is nan: give a share from 0 to below 1, such as 0.2."),
    (dict(validation=20), "validation is 20: give a share from 0 to below 1, such as 0.2."),
    (dict(validation=True), "validation is True: give a share from 0 to below 1, such as 0.2."),
    (
        dict(validation=0.5, test=0.5),
        "validation=0.5 and test=0.5 leave nothing to train on: let them add up to less than 1.",
    ),
    (dict(seed=-1), "seed is -1: give a whole number, 0 or more."),
    (dict(seed=0.5), "seed is 0.5: give a whole number, 0 or more."),
]


@pytest.mark.parametrize("request_, message", REQUESTS, ids=[message for _, message in REQUESTS])
def test_an_impossible_request_is_one_sentence(request_, message, own, cache):
    with pytest.raises(ValueError) as error:
        datasets.adopt(own, **request_)
    assert str(error.value) == message
    assert not cache.exists()


def test_numpy_numbers_are_numbers(own):
    many(own, "cat", "dog", count=5)
    same = datasets.adopt(own, validation=np.float64(0.2), test=np.float64(0.2), seed=np.int64(0))
    assert same == datasets.adopt(own)


def test_no_such_folder(own, cache):
    with pytest.raises(FileNotFoundError) as error:
        datasets.adopt(own / "pets")
    assert str(error.value) == (
        f"There is no folder {own / 'pets'}: give a folder that holds one folder of pictures for "
        "each class."
    )
    assert not cache.exists()


def test_a_file_in_place_of_the_folder(own):
    archive = own / "pets.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pets.zip is a file: give a folder .*unpack it first\."):
        datasets.adopt(archive)


def test_a_cache_inside_the_folder(own, monkeypatch):
    many(own, "cat", "dog")
    monkeypatch.setenv("COURSE_CACHE", str(own / "cache"))
    with pytest.raises(ValueError, match="inside .*own, where nothing is to be written.*elsewhere"):
        datasets.adopt(own)
    assert not (own / "cache").exists()


def test_a_file_that_may_not_be_read(own, monkeypatch):
    many(own, "cat", "dog", count=5)
    forbidden, open_ = own / "cat/3.png", open

    def opening(path, *rest, **options):
        if Path(path) == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_(path, *rest, **options)

    monkeypatch.setattr("builtins.open", opening)
    monkeypatch.setattr(Path, "open", opening)
    kept = datasets.adopt(own)
    assert left_out(kept) == {"cat/3.png": "cannot be read: Permission denied"}


def test_a_class_that_may_not_be_read(own, monkeypatch):
    many(own, "cat", "dog", count=5)
    scan = os.scandir

    def forbid(path):
        if path in (own / "dog", str(own / "dog")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(ValueError, match=r"dog has no .* \(1 left out; dog: Permission denied\)"):
        datasets.adopt(own)


def test_full_disk_is_one_sentence_and_leaves_nothing_half_done(own, monkeypatch, reads):
    many(own, "cat", "dog", count=5)
    write = Path.write_bytes

    def write_until_full(path, content):
        if len(reads) > 5:
            write(path, content[:50])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError) as error:
            datasets.adopt(own)
    text = str(error.value)
    assert text.startswith("Cannot write pictures to ")
    assert "(No space left on device)" in text and "COURSE_CACHE" in text
    folder = Path(text.removeprefix("Cannot write pictures to ").split(" (")[0])
    assert files(folder) == {}
    assert len(sources(datasets.adopt(own))) == 10


def test_a_file_in_place_of_the_cache(own, cache):
    many(own, "cat", "dog", count=5)
    cache.write_text("not a folder")
    with pytest.raises(OSError, match=r"Cannot write pictures to .*cache.*COURSE_CACHE"):
        datasets.adopt(own)


def test_a_stopped_adoption_starts_again(own, monkeypatch, cache):
    many(own, "cat", "dog", count=5)
    with monkeypatch.context() as stopped:
        stopped.setattr(adopting, "_once", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            datasets.adopt(own)
    assert not list(cache.rglob("*.jpg"))
    assert len(sources(datasets.adopt(own))) == 10


def test_nothing_of_tensorflow_is_needed(own):
    many(own, "cat", "dog", count=5)
    code = f"import sys; from helpers import datasets; datasets.adopt({str(own)!r})\n"
    code += "print({'tensorflow', 'keras'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert run.stdout.splitlines()[0] == "10 pictures of 2 classes", run.stderr
    assert run.stdout.splitlines()[-1] == "set()"
