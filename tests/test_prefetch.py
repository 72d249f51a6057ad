"""`helpers.prefetch`: the libraries download from a server on this machine, which may misbehave."""

import errno
import functools
import hashlib
import http.server
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NO_NETWORK, TESTBED
from keras.src.applications import densenet, mobilenet_v2, resnet, vgg16, vgg19
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image

from helpers import downloads, prefetch, tracks

ROOT = Path(__file__).parents[1]
PAGE = b"\n<!DOCTYPE html><html><body>Please log in to the network.</body></html>"
KERNELS = "_weights_tf_dim_ordering_tf_kernels"
MOBILENET = f"mobilenet_v2{KERNELS}_1.0_160_no_top.h5"
ZIP = "photos.zip"
ALL_NETWORKS = tracks.NETWORKS.copy()  # most tests leave out some


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, each through `answer(handler, content)`; keeps the names in `asked`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.files, self.asked, self.answer = {}, [], whole

    def handle_error(self, *_):
        """The client has gone, as some tests want it."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0].strip("/")
        self.server.asked.append(name)
        self.server.answer(self, self.server.files.get(name, b"content"))

    def log_message(self, *_):
        pass


def whole(handler, content):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def status(code):
    return lambda handler, content: handler.send_error(code)


def page(handler, content):
    whole(handler, PAGE)


def broken_off(handler, content):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def cut_without_a_word(handler, content):
    handler.send_response(200)  # without a length nobody can tell that this is half of it
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def other_content(handler, content):
    whole(handler, bytes(len(content)))


def stopped_by_the_user(handler, content):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    broken_off(handler, content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three things to fetch: weights as Keras keeps them, a small module, four photos."""
    folder = tmp_path_factory.mktemp("files")
    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(160, 160, 3)
    )
    with h5py.File(folder / "weights.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)

    module = tf.Module()
    module.variable = tf.Variable(np.random.default_rng(0).random(10_000, np.float32))
    tf.saved_model.save(module, f"{folder}/module")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder / "module", arcname=".")

    photos = io.BytesIO()
    with zipfile.ZipFile(photos, "w") as archive:
        for name in ("Cat/0", "Cat/1", "Dog/0", "Dog/1"):
            pixels, jpeg = np.random.default_rng(0).integers(256, size=(32, 32, 3)), io.BytesIO()
            Image.fromarray(pixels.astype("uint8")).save(jpeg, "jpeg")
            archive.writestr(f"PetImages/{name}.jpg", jpeg.getvalue())
    return {
        MOBILENET: (folder / "weights.h5").read_bytes(),
        "module": packed.getvalue(),
        ZIP: photos.getvalue(),
    }


@pytest.fixture
def server(files, monkeypatch):
    """A server from which the libraries download what `files` has, and VGG16 by its checksum."""
    checksums = pytest.importorskip("tensorflow_datasets.core.download.checksums")
    from tensorflow_datasets.image_classification import cats_vs_dogs

    server = Server()
    server.files = files
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "RETRIES", 0)
    monkeypatch.setattr(tracks, "HUB_MODULES", {"mobilenet_v2": f"{server.url}module"})
    names = ("mobilenet_v2", "vgg16")
    monkeypatch.setattr(tracks, "NETWORKS", {name: tracks.NETWORKS[name] for name in names})
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", server.url)
    monkeypatch.setattr(vgg16, "WEIGHTS_PATH_NO_TOP", f"{server.url}vgg16{KERNELS}_notop.h5")
    monkeypatch.setattr(cats_vs_dogs, "_URL", server.url + ZIP)
    monkeypatch.setattr(cats_vs_dogs, "_NUM_CORRUPT_IMAGES", 0)
    known = checksums.UrlInfo(
        size=len(files[ZIP]), checksum=hashlib.sha256(files[ZIP]).hexdigest(), filename=ZIP
    )
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: {server.url + ZIP: known})
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def set_back(monkeypatch):
    """What prefetch sets for its own process stays in the test."""
    for name in [*prefetch.VARIABLES, "TFHUB_DOWNLOAD_PROGRESS"]:
        monkeypatch.setenv(name, "")
    timeout = socket.getdefaulttimeout()
    yield
    socket.setdefaulttimeout(timeout)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder to fill. Keras is imported already: it is told as if it were not."""
    folder = tmp_path / "class room"
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(folder / "keras_home"))
    return folder


@pytest.fixture
def without_vgg16(server, monkeypatch):
    """The three parts for which the server has a file that is right."""
    monkeypatch.delitem(tracks.NETWORKS, "vgg16")


def left_in(folder):
    """What a later run, or a library, could take for something; Keras' settings and the
    note that the hub's library leaves beside a module are none of it."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_file() or path.name.startswith("incomplete") or ".tmp" in path.name)
        and path.name != "keras.json"
        and not path.name.endswith(".descriptor.txt")
    ]


def reasons(err):
    return dict(re.findall(r"^(\S+).* is missing: (.*)$", err, re.M))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (status(403), "the server answers HTTP 403: try another network, a proxy may forbid it."),
        (status(404), "the server answers HTTP 404: try another network, a proxy may forbid it."),
        (status(500), "the server answers HTTP 500: try again later."),
        (page, "(a web page came in its place|what came is no module).*prox.*: .*log in"),
        (broken_off, "the connection broke off in the middle of it: run this again."),
    ],
    ids=["403", "404", "500", "page", "broken_off"],
)
def test_a_bad_answer_is_one_sentence_and_leaves_nothing(server, folder, capsys, answer, sentence):
    server.answer = answer
    assert prefetch.main(folder) == 1
    found = reasons(capsys.readouterr().err)
    assert found.keys() == {"mobilenet_v2", "vgg16", f"{server.url}module", "cats_vs_dogs"}
    assert [s for s in found.values() if not re.match(sentence, s)] == []
    assert left_in(folder) == []


@pytest.mark.parametrize("answer", [cut_without_a_word, other_content])
def test_what_only_the_content_gives_away(server, folder, capsys, answer):
    server.answer = answer
    assert prefetch.main(folder) == 1
    found = reasons(capsys.readouterr().err)
    checksum = "what came has the wrong checksum: run this again, or try another network."
    assert found["vgg16"] == found["cats_vs_dogs"] == checksum
    if answer is cut_without_a_word:
        broken = "the connection broke off in the middle of it: run this again."
        assert found["mobilenet_v2"] == found[f"{server.url}module"] == broken
    else:
        assert re.match(r"what came cannot be read \(.+\): run this again", found["mobilenet_v2"])
        assert found[f"{server.url}module"].startswith("what came cannot be read (")
    assert left_in(folder) == []


def test_no_connection(server, folder, capsys):
    server.shutdown()
    server.socket.close()
    taken = socket.socket()  # bound, not listening: refused from now on, and nobody else gets it
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(server.server_address)
    weights = folder / "keras_home" / "models" / MOBILENET
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"half a file")
    assert prefetch.main(folder) == 1
    found = reasons(capsys.readouterr().err)
    assert len(found) == 4
    for sentence in found.values():
        assert re.match(r"no connection \(Connection refused\): connect to the netw", sentence)
    assert left_in(folder) == []
    taken.close()


@pytest.mark.usefixtures("without_vgg16")
def test_a_silent_server(server, folder, capsys, monkeypatch):
    done = threading.Event()
    server.answer = lambda handler, content: done.wait(20)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    assert prefetch.main(folder) == 1
    done.set()
    found = reasons(capsys.readouterr().err)
    assert len(found) == 3
    assert all("no connection (timed out)" in sentence for sentence in found.values())


@pytest.mark.usefixtures("without_vgg16")
def test_complete_files_stay_and_damaged_ones_come_again(server, folder, capsys, files):
    assert prefetch.main(folder) == 0
    out, err = capsys.readouterr()
    assert "missing" not in err
    data, home, cache = (folder / below for below in prefetch.VARIABLES.values())
    for name, path in zip(prefetch.VARIABLES, (data, home, cache), strict=True):
        assert f"\nexport {name}='{path}'\n" in out
    assert f"make lab FOLDER='{folder}'" in out and "\nexport COURSE_TRACK=photos\n" in out
    assert re.search(r"All 3 are complete in .*class room: \d+\.\d MB", out)
    assert sorted(server.asked) == sorted(files)
    assert not (data / "downloads" / "cats_vs_dogs").exists()
    everything = sorted(left_in(folder))

    server.asked.clear()
    assert prefetch.main(folder) == 0
    assert server.asked == []

    # What a process leaves that was killed while it downloaded, and what a bad disk does.
    weights = home / "models" / MOBILENET
    os.truncate(weights, 5_000_000)
    [module] = [path for path in cache.iterdir() if path.is_dir()]
    shutil.rmtree(module / "variables")
    (cache / f"{module.name}.lock").write_text("other.1.abc")
    (cache / f"{module.name}.abc.tmp").mkdir()
    [records] = data.glob("cats_vs_dogs/*/*tfrecord*")
    os.truncate(records, 1000)
    (records.parents[1] / "incomplete.ABC_4.0.1").mkdir()
    (data / "downloads" / "cats_vs_dogs" / "photos.zip.tmp.abc").mkdir(parents=True)
    others = data / "downloads" / "manual" / "mine.zip"
    others.parent.mkdir()
    others.touch()
    assert prefetch.main(folder) == 0
    assert sorted(server.asked) == sorted(files)
    assert sorted(left_in(folder)) == sorted([*everything, str(others.relative_to(folder))])


@pytest.mark.usefixtures("without_vgg16")
@pytest.mark.parametrize("part", range(3))
def test_ctrl_c_leaves_nothing_half_written(server, folder, capsys, monkeypatch, part):
    monkeypatch.setattr(os, "_exit", sys.exit)
    one = prefetch._parts(folder)[part]
    monkeypatch.setattr(prefetch, "_parts", lambda folder: [one])
    server.answer = stopped_by_the_user
    with pytest.raises(SystemExit) as stopped:
        prefetch.main(folder)
    assert stopped.value.code == 130
    assert "run this again to go on" in capsys.readouterr().err
    assert left_in(folder) == []


@pytest.mark.usefixtures("without_vgg16")
def test_a_full_disk(server, folder, capsys, monkeypatch):
    def urlretrieve(url, path, _):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def copy(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    def never(*_, **__):
        return False

    monkeypatch.setattr(keras.src.utils.file_utils, "urlretrieve", urlretrieve)
    monkeypatch.setattr("tensorflow_hub.resolver.DownloadManager.download_and_uncompress", copy)
    monkeypatch.setattr("tensorflow_datasets.core.utils.has_sufficient_disk_space", never)
    assert prefetch.main(folder) == 1
    found = reasons(capsys.readouterr().err)
    assert len(found) == 3
    for sentence in found.values():
        assert sentence.startswith("the disk is full: make room")
    assert left_in(folder) == []


@pytest.mark.usefixtures("without_vgg16")
def test_without_tensorflow_datasets_its_photos_stay(server, folder, capsys, monkeypatch):
    photos = folder / "tensorflow_datasets" / "cats_vs_dogs" / "4.0.1"
    photos.mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    server.answer = status(404)
    assert prefetch.main(folder) == 1
    found = reasons(capsys.readouterr().err)["cats_vs_dogs"]
    assert found.startswith("the package tensorflow_datasets is not installed: python -m pip")
    assert photos.exists()


def test_keras_asks_for_the_files_that_are_named(server, folder, capsys, monkeypatch):
    monkeypatch.setattr(tracks, "NETWORKS", ALL_NETWORKS)
    for module, name in (
        (resnet, "BASE_WEIGHTS_PATH"),
        (vgg19, "WEIGHTS_PATH_NO_TOP"),
        (densenet, "DENSENET121_WEIGHT_PATH_NO_TOP"),
    ):
        file = getattr(module, name).rpartition("/")[2]
        monkeypatch.setattr(module, name, server.url + file)
    server.answer = status(404)
    prefetch.main(folder)
    named = re.findall(r"\((\S+\.h5)\) is missing", capsys.readouterr().err)
    assert len(named) == len(ALL_NETWORKS)
    assert sorted(named) == sorted(name for name in server.asked if name.endswith(".h5"))


def test_a_folder_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert prefetch.main(tmp_path / "file") == 1
    err = capsys.readouterr().err
    assert err == f"Cannot write to {tmp_path / 'file'} (Not a directory): name another folder.\n"


def test_the_command_keeps_what_the_test_bed_has(tmp_path):
    if not TESTBED.exists():
        pytest.skip(f"{TESTBED} is not there: it has real photos and weights")
    folder = tmp_path / "class room"
    shutil.copytree(TESTBED, folder, copy_function=shutil.copyfile)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "helpers.prefetch", str(folder)]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | NO_NETWORK, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert reasons(run.stderr).keys() == ALL_NETWORKS.keys() - {"mobilenet_v2"}
    assert "Traceback" not in run.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture
def lab(tmp_path):
    """`make lab` in a copy of the course whose Python only tells what it is asked."""
    course = tmp_path / "course"
    (course / ".venv" / "bin").mkdir(parents=True)
    for name in (
        "Makefile",
        "requirements.lock",
        "requirements-photos.lock",
        "pyproject.toml",
        "ipython_kernel_config.py",
        "jupyterlab_overrides.json",
    ):
        shutil.copy(ROOT / name, course)
    python = course / ".venv" / "bin" / "python"
    names = " ".join(f'"${name}"' for name in ("COURSE_TRACK", *prefetch.VARIABLES))
    python.write_text(f'#!/bin/sh\ntest "$1" = -c && exit\nprintf "%s|" "$@" {names}\necho\n')
    python.chmod(0o755)
    (course / ".venv" / "installed-in").write_text(f"{course}\n")
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COURSE_TRACK", "FOLDER", *prefetch.VARIABLES)
        and not name.startswith(("MAKE", "MFLAGS"))  # of the make that runs this test
    }
    return functools.partial(
        subprocess.run, cwd=course, env=clean, capture_output=True, text=True, timeout=60
    )


def test_make_lab_sets_the_variables_of_a_folder(lab, tmp_path):
    folder = tmp_path / "class room"
    below = [str(folder / name) for name in prefetch.VARIABLES.values()]
    (folder / "keras_home").mkdir(parents=True)
    for given in (str(folder), "../class room"):
        run = lab(["make", "PYTHON=false", "lab", f"FOLDER={given}"])
        assert run.returncode == 0, run.stderr
        jupyter = run.stdout.splitlines()[-1].split("|")
        assert jupyter[-6:-1] == ["notebooks/00_start_here.ipynb", "photos", *below]
        # installed by the first, so that the second needs no network
        assert ("requirements-photos.lock" in run.stdout) == (given == str(folder))


def test_make_lab_without_a_folder(lab):
    run = lab(["make", "PYTHON=false", "lab"])
    assert run.stdout.splitlines()[-1].endswith("notebooks/00_start_here.ipynb|||||")
    assert "requirements-photos.lock" not in run.stdout
    assert (
        "requirements-photos.lock"
        in lab(["make", "PYTHON=false", "lab", "COURSE_TRACK=photos"]).stdout
    )


def test_make_lab_refuses_what_is_no_such_folder(lab, tmp_path):
    run = lab(["make", "PYTHON=false", "lab", f"FOLDER={tmp_path / 'no such'}"])
    assert run.returncode != 0
    assert f"'{tmp_path / 'no such'}' is not a folder that python -m helpers.prefetch" in run.stdout
    assert "jupyterlab" not in run.stdout
