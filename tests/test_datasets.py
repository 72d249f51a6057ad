"""Drawn data sets: layout, repeatability, and a cache that repairs itself."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import critters, datasets
from helpers.datasets import drawing

PETS = ["cat", "dog"]
ROOT = Path(datasets.__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for every test, also for the processes that it starts."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "cache"


@pytest.fixture
def draws(monkeypatch):
    """A list that grows by one entry whenever this process draws a picture."""
    calls, draw = [], critters.draw
    monkeypatch.setattr(critters, "draw", lambda *a, **k: calls.append(a) or draw(*a, **k))
    return calls


def small(**request):
    return datasets.drawn(PETS, **{"size": 32, **request})


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def hashes(folder):
    return [
        hashlib.sha256(np.asarray(Image.open(p)).tobytes()).hexdigest()
        for p in folder.rglob("*.png")
    ]


def start(code, **options):
    """Start another Python; its standard output stays open until its last worker has ended.

    It draws in two processes, lest a many-core machine be done before it is stopped, and hears
    Ctrl-C even if this run was started in the background, where a shell turns it off.
    """
    setup = "import os, signal; os.cpu_count = lambda: 2; "
    setup += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", setup + "from helpers import critters, datasets\n" + code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def wait_for(pattern, folder):
    until = time.monotonic() + 30
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < until, f"no {pattern} in {folder}"
        time.sleep(0.005)
    return found[0]


# --- what is drawn ------------------------------------------------------------------------------


def test_layout_and_counts(cache):
    folder = datasets.drawn(["dog", "cat", "fox"], train=6, test=3, size=40, seed=7)
    assert folder.parent == cache
    name = f"critters-v{critters.VERSION}-cat-dog-fox-crayon-40px-6-0-3-seed7-"
    assert folder.name.startswith(name)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "test", "train"]
    assert sorted(files(folder)) == sorted(
        [f"train/{s}/0000{i}.png" for s in ("cat", "dog", "fox") for i in (0, 1)]
        + [f"test/{s}/00000.png" for s in ("cat", "dog", "fox")]
    )
    with Image.open(folder / "train/cat/00000.png") as picture:
        assert (picture.size, picture.mode, picture.format) == ((40, 40), "RGB", "PNG")


def test_manifest_holds_request_and_checksums():
    folder = small(train=4, validation=2, seed=3)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["request"] == {
        "species": PETS,
        "counts": {"train": 4, "validation": 2, "test": 0},
        "style": "crayon",
        "size": 32,
        "seed": 3,
        "version": critters.VERSION,
    }
    assert manifest["pictures"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in files(folder).items()
    }


def test_keras_reads_it():
    keras = pytest.importorskip("keras")
    folder = small(train=10)
    data = keras.utils.image_dataset_from_directory(
        folder / "train", image_size=(32, 32), batch_size=10, shuffle=False, label_mode="binary"
    )
    pictures, labels = next(iter(data))
    assert data.class_names == PETS
    assert labels.numpy().ravel().tolist() == [0] * 5 + [1] * 5
    first = np.asarray(Image.open(folder / "train/cat/00000.png"))
    assert np.array_equal(pictures[0].numpy(), first)


def test_default_cache_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert small(train=2).parent == tmp_path / ".cache" / "transfer-learning-course"


def test_order_of_species_does_not_matter(draws):
    assert small(train=4) == datasets.drawn(["dog", "cat"], train=4, size=32)
    assert len(draws) == 4


def test_many_species_have_a_short_name_of_their_own():
    one = datasets.drawn(critters.SOURCE[:6], train=6, size=32)
    other = datasets.drawn(critters.SOURCE[1:7], train=6, size=32)
    assert one.name.startswith(f"critters-v{critters.VERSION}-6-species-crayon-32px-6-0-0-seed0-")
    assert one != other
    assert sorted(p.name for p in (other / "train").iterdir()) == sorted(critters.SOURCE[1:7])


# --- what a picture depends on ------------------------------------------------------------------


def test_smaller_request_holds_the_first_pictures_of_a_larger_one():
    few, many = files(small(train=6, test=2)), files(small(train=20, validation=8, test=4))
    assert len(few) == 8
    assert few == {name: many[name] for name in few}


def test_same_request_gives_the_same_bytes(monkeypatch, tmp_path):
    first = files(small(train=10))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "another"))
    assert files(small(train=10)) == first


def test_no_two_pictures_are_the_same():
    folders = [small(train=20, validation=20, test=20), small(train=20, seed=1)]
    folders.append(small(train=20, style="ink"))
    every = [digest for folder in folders for digest in hashes(folder)]
    assert len(set(every)) == len(every) == 100


def test_no_two_pictures_share_a_random_stream(monkeypatch):
    streams = []

    def draw(species, rng, size, style):
        streams.append(int(rng.integers(2**62)))
        return Image.new("RGB", (size, size))

    monkeypatch.setattr(critters, "draw", draw)
    for request in ({}, {"seed": 1}, {"style": "ink"}):
        small(train=4, validation=4, test=4, **request)
    assert len(set(streams)) == len(streams) == 36
    # The lessons' numbers rest on these streams: to change them, raise critters.VERSION.
    assert streams[0] == 3671537756073292028


def test_worker_processes_draw_the_same_pictures(monkeypatch, tmp_path, draws):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    by_workers = files(small(train=200))
    assert not draws
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "another"))
    assert files(small(train=200)) == by_workers
    assert len(draws) == 200


# --- a cache that repairs itself ----------------------------------------------------------------


def cut_short(folder):
    path = folder / "train/cat/00002.png"
    path.write_bytes(path.read_bytes()[:-9])


def change_one_byte(folder):
    path = folder / "train/cat/00002.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_request(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


DAMAGE = {
    "none": (lambda folder: None, 0),
    "cut short": (cut_short, 1),
    "one byte changed": (change_one_byte, 1),
    "emptied": (lambda folder: (folder / "train/dog/00001.png").write_bytes(b""), 1),
    "deleted": (lambda folder: (folder / "train/dog/00000.png").unlink(), 1),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), 8),
    "manifest cut short": (lambda folder: os.truncate(folder / "manifest.json", 300), 8),
    "binary manifest": (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\x00"), 8),
    "list as manifest": (lambda folder: (folder / "manifest.json").write_text("[1, 2]"), 8),
    "empty manifest": (lambda folder: (folder / "manifest.json").write_text("{}"), 8),
    "another's manifest": (other_request, 8),
}


@pytest.mark.parametrize("damage, redrawn", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_redrawn(damage, redrawn, draws):
    folder = small(train=8)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    draws.clear()
    damage(folder)
    assert small(train=8) == folder
    assert len(draws) == redrawn
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert not (folder / ".unfinished").exists()


def test_killed_drawing_resumes(cache, tmp_path, monkeypatch):
    request = dict(train=600, size=32)
    process = start(f"datasets.drawn({PETS}, **{request})")
    folder = wait_for("*/manifest.json", cache).parent
    process.kill()
    process.communicate(timeout=30)  # its workers have ended as well
    kept = json.loads((folder / "manifest.json").read_text())["pictures"]
    changed = {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert 0 < len(kept) <= len(files(folder)) < 600
    (folder / ".unfinished" / "12345").write_bytes(b"half a picture")

    assert small(**request) == folder
    assert changed == {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert not (folder / ".unfinished").exists()
    resumed = files(folder)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "another"))
    assert resumed == files(small(**request))


def test_workers_leave_ctrl_c_to_their_parent(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    try:
        results = list(drawing._map(signal.raise_signal, [signal.SIGINT] * 200))
    except KeyboardInterrupt:
        pytest.fail("a worker was interrupted")
    assert results == [None] * 200


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_stops_workers_and_keeps_what_was_drawn(cache):
    process = start(f"datasets.drawn({PETS}, train=600, size=32)", start_new_session=True)
    folder = wait_for("*/manifest.json", cache).parent
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "SpawnProcess" not in err  # one traceback, none from a worker
    recorded = json.loads((folder / "manifest.json").read_text())["pictures"]
    assert 0 < len(recorded) < 600
    assert not (folder / ".unfinished").exists()


def test_two_processes_draw_once(cache, tmp_path):
    log, go = tmp_path / "draws", tmp_path / "go"
    code = f"""
import pathlib, time
draw, end = critters.draw, time.monotonic() + 15
def wait_then_draw(*a, **k):
    while not pathlib.Path({str(go)!r}).exists() and time.monotonic() < end:
        time.sleep(0.01)
    with open({str(log)!r}, "a") as log:
        log.write("x")
    return draw(*a, **k)
critters.draw = wait_then_draw
print(datasets.drawn({PETS}, train=60, size=32))
"""
    first = start(code)
    folder = wait_for("critters-*/.unfinished", cache).parent
    second = start(code)
    line = second.stdout.readline()
    go.touch()
    assert line == f"Waiting for another notebook to finish writing {folder.name} ...\n"
    assert (finish(first), finish(second)) == (f"{folder}\n", f"{folder}\n")
    assert log.read_text() == "x" * 60
    assert len(files(folder)) == 60


# --- where it runs, and what it prints ----------------------------------------------------------


def test_unguarded_script(tmp_path):
    """Workers run neither the script that they serve nor TensorFlow; no bar in a log file."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from helpers import datasets\n"
        f"folder = datasets.drawn({PETS}, train=200, size=32)\n"
        "assert folder is sys.modules['__main__'].folder\n"
        "print(len(list(folder.rglob('*.png'))), {'tensorflow', 'keras'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr, run.returncode) == ("200 set()\n", "", 0)


def test_notebook_shows_a_bar_while_drawing_and_nothing_after():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    code = f"folder = datasets.drawn({PETS}, train=200, size=32)"
    sources = ["from helpers import datasets", code, code]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    nbclient.NotebookClient(book, kernel_name="python3").execute()
    _, cold, warm = (cell.outputs for cell in book.cells)
    assert {output.name for output in cold} == {"stdout"}
    assert "Drawing" in cold[0].text
    assert warm == []


# --- what cannot be done ------------------------------------------------------------------------


def test_full_disk_is_one_sentence_and_keeps_what_was_drawn(monkeypatch, draws):
    write = Path.write_bytes

    def write_until_full(path, content):
        if len(draws) > 5:
            write(path, content[:50])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError) as error:
            small(train=8)
    text = str(error.value)
    assert text.startswith("Cannot write pictures to ")
    assert "(No space left on device)" in text and "COURSE_CACHE" in text
    folder = Path(text.removeprefix("Cannot write pictures to ").split(" (")[0])
    assert len(files(folder)) == 5
    assert not (folder / ".unfinished").exists()
    small(train=8)
    assert len(files(folder)) == 8


def test_a_file_in_place_of_the_cache(cache):
    cache.write_text("not a folder")
    with pytest.raises(OSError, match=r"Cannot write pictures to .*cache.*COURSE_CACHE"):
        small(train=2)


def test_no_permission(monkeypatch):
    def mkdir(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(OSError, match=r"\(Permission denied\).*COURSE_CACHE"):
        small(train=2)


def test_an_error_in_a_worker_keeps_what_the_others_drew(cache, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    folder = small(train=400, seed=5)
    for path in folder.rglob("*.png"):
        path.unlink()
    obstacle = folder / "train/dog/00150.png"
    obstacle.mkdir(parents=True)
    with pytest.raises(OSError, match="COURSE_CACHE"):
        small(train=400, seed=5)
    recorded = json.loads((folder / "manifest.json").read_text())["pictures"]
    assert len(recorded) > 300
    obstacle.rmdir()
    assert len(files(small(train=400, seed=5))) == 400


@pytest.mark.parametrize(
    "name",
    ["train/cat/mine.png", "train/cat/MINE.JPG", "train/cat/.hidden/a.png", "train/fox/a.gif"],
)
def test_a_strange_picture_is_named_and_kept(name):
    folder = small(train=4)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"mine")
    with pytest.raises(RuntimeError, match="is not one of the pictures made here") as error:
        small(train=4)
    assert str(folder / "train") in str(error.value)
    assert (folder / name).read_bytes() == b"mine"


def test_a_strange_class_is_named():
    folder = small(train=4)
    (folder / "train" / "fox").mkdir()
    with pytest.raises(RuntimeError, match="fox is not one of"):
        small(train=4)


def test_files_that_keras_skips_do_no_harm(draws):
    folder = small(train=4)
    (folder / "train" / ".DS_Store").write_bytes(b"")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    small(train=4)
    assert len(draws) == 4


BAD = [
    (dict(species=["cat", "dogg"], train=2), "unknown species 'dogg': did you mean 'dog'?"),
    (dict(species=["cat", 3], train=2), "unknown species 3"),
    (dict(species="cat", train=2), "species is 'cat': give a list, such as ['cat', 'dog']."),
    (dict(species=[], train=2), "species is []: give a list, such as ['cat', 'dog']."),
    (dict(species=["cat", "cat"], train=2), "species names 'cat' more than once"),
    (dict(train=2, style="crayons"), "unknown style 'crayons': did you mean 'crayon'?"),
    (dict(train=401), "train is 401: 2 species cannot share it evenly, ask for 402."),
    (dict(train=2, test=1), "test is 1: 2 species cannot share it evenly, ask for 2."),
    (dict(train=-2), "train is -2: give a whole number, 0 or more."),
    (dict(validation=2.0), "validation is 2.0: give a whole number, 0 or more."),
    (dict(train=True), "train is True: give a whole number, 0 or more."),
    (dict(train="2"), "train is '2': give a whole number, 0 or more."),
    (dict(), "train, validation and test are all 0: ask for at least one picture."),
    (dict(train=2, size=31), "size is 31: choose a side between 32 and 512 pixels."),
    (dict(train=2, size=513), "size is 513: choose a side between 32 and 512 pixels."),
    (dict(train=2, size=96.0), "size is 96.0: give a whole number, 0 or more."),
    (dict(train=2, seed=-1), "seed is -1: give a whole number, 0 or more."),
    (dict(train=2, seed=None), "seed is None: give a whole number, 0 or more."),
]


@pytest.mark.parametrize("request_, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_one_sentence(request_, message, cache):
    with pytest.raises(ValueError) as error:
        datasets.drawn(**{"species": PETS, **request_})
    assert str(error.value).startswith(message)
    assert not cache.exists()


def test_numpy_numbers_are_numbers(draws):
    assert small(train=np.int64(4), seed=np.int32(1), size=np.uint8(32)) == small(train=4, seed=1)
    assert len(draws) == 4
