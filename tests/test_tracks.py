"""The tracks: what each offers, and what it says where something is missing."""

import errno
import os
import socket
import sys

import h5py
import keras
import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers import pretrained, tracks


@pytest.fixture
def photos(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "photos")
    tracks._photos.cache_clear()
    yield tracks.current()
    tracks._photos.cache_clear()


@pytest.fixture
def keras_home(monkeypatch, tmp_path):
    """An empty one. Keras is imported already: it is told as if it were not."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_critters_is_the_default(monkeypatch):
    for value in (None, "", "critters"):
        monkeypatch.delenv("COURSE_TRACK", raising=False)
        if value is not None:
            monkeypatch.setenv("COURSE_TRACK", value)
        assert tracks.current().name == "critters"


def test_photos_says_once_what_it_is(photos, capsys):
    assert tracks.current().name == "photos" and photos.image_size == (160, 160)
    assert capsys.readouterr().out == ""


def test_unknown_track_names_the_nearest(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "criters")
    with pytest.raises(ValueError, match="'criters'.*'critters'"):
        tracks.current()


@pytest.mark.parametrize("ask", ["weights", "hub_module"])
def test_unknown_network_names_the_nearest(photos, ask):
    with pytest.raises(ValueError, match="'mobilenet_v3'.*'mobilenet_v2'"):
        getattr(photos, ask)("mobilenet_v3")


def test_pictures_lie_in_class_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    track = tracks.current()
    pets = track.cats_and_dogs(train=4, test=2)
    assert sorted(p.name for p in (pets / "train").iterdir()) == ["cat", "dog"]
    assert len(list((track.animals(train=5) / "train").glob("*/*.png"))) == 5
    assert pets != track.cats_and_dogs(train=4, test=2, seed=1)


def test_weights_are_the_shipped_ones():
    track = tracks.current()
    assert track.weights("mobilenet_v2") == pretrained.weights("mobilenet_v2")
    assert track.hub_module("mobilenet_v2") == pretrained.hub_module("mobilenet_v2")


@pytest.mark.parametrize("network", tracks.NETWORKS)
def test_weights_that_lie_in_keras_home_are_not_fetched(
    photos, network, monkeypatch, tmp_path, no_network
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = tmp_path / "models" / tracks.weights_file(network)
    file.parent.mkdir()
    h5py.File(file, "w").close()
    assert photos.weights(network) == "imagenet"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as on a read-only share
    assert photos.weights(network) == str(file)


def test_a_page_in_place_of_weights_is_named(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / tracks.weights_file("vgg16")
    with h5py.File(file, "w") as weights:
        weights["kernel"] = range(10_000)
    for content in (b"<html>Log in first", file.read_bytes()[:9000]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="vgg16_.* is not a file of weights.*delete it"):
            photos.weights("vgg16")


@pytest.mark.parametrize("network", tracks.NETWORKS)
def test_weights_that_cannot_be_had_are_named(photos, network, keras_home, no_network):
    with pytest.raises(FileNotFoundError) as caught:
        photos.weights(network)
    sentence = str(caught.value)
    assert f"weights of {network} are not at {keras_home}" in sentence
    assert "connect to the network" in sentence and "make lab FOLDER=" in sentence
    assert len(sentence) < 400 and "\n" not in sentence


def test_a_full_disk_is_no_matter_of_the_network(photos, keras_home, monkeypatch):
    def urlretrieve(url, path, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keras.src.utils.file_utils, "urlretrieve", urlretrieve)
    with pytest.raises(FileNotFoundError, match="disk is full.*make room") as caught:
        photos.weights("vgg16")
    assert "connect" not in str(caught.value)


def test_weights_that_keras_keeps_elsewhere_are_named(photos, keras_home, monkeypatch):
    monkeypatch.setattr(tracks, "_download", lambda network, file: None)
    with pytest.raises(FileNotFoundError, match=f"elsewhere than in {keras_home}.*set KERAS_HOME"):
        photos.weights("vgg16")


def test_both_tracks_say_what_a_network_learnt_from(photos):
    drawn = tracks.Critters().source("mobilenet_v2")
    assert "67,200 labelled drawings of 24 species: bat, " in drawn
    assert "ImageNet" in photos.source("mobilenet_v2")


def test_photos_that_cannot_be_had_are_named(photos, monkeypatch, tmp_path, no_network):
    pytest.importorskip("tensorflow_datasets", reason="the extra `photos` is not installed")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        photos.cats_and_dogs(train=2)
    sentence = str(caught.value)
    assert f"cats_vs_dogs are not in {tmp_path}" in sentence and "make lab FOLDER=" in sentence
    assert len(sentence) < 400 and "\n" not in sentence


def test_a_claim_about_drawings_stops_there_and_is_reported_on_photos(photos, capsys):
    with pytest.raises(AssertionError, match="it should cost something"):
        tracks.Critters().claim(False, "it should cost something")
    photos.claim(True, "it should cost something")
    assert capsys.readouterr().out == ""
    photos.claim(False, "it should cost something")
    assert "otherwise; with drawings: it should cost something." in capsys.readouterr().out


@pytest.mark.parametrize("track", tracks.NAMES)
def test_cells_about_the_drawn_world_are_skipped_on_photos_only(
    track, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("COURSE_TRACK", track)
    tracks._photos.cache_clear()
    monkeypatch.setattr(sys, "ps1", "", raising=False)  # the shell sets it for good
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # where it writes
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    tracks.current()
    capsys.readouterr()
    cells = ["# drawn world only: it has other styles\na = 1", "# drawn world only\nb = 1", "c = 1"]
    for cell in cells:
        assert shell.run_cell(cell).success
    names = {"a", "b", "c"} & shell.user_ns.keys()
    said = capsys.readouterr().out
    tracks._photos.cache_clear()
    if track == "photos":
        assert names == {"c"} and said == "Skipped on the photos track: it has other styles.\n"
    else:
        assert names == {"a", "b", "c"} and said == ""


def test_the_drawn_world_is_there_on_either_track(monkeypatch, capsys):
    assert tracks.drawn_world().name == "critters" and capsys.readouterr().out == ""
    monkeypatch.setenv("COURSE_TRACK", "photos")
    assert tracks.drawn_world().name == "critters"
    assert capsys.readouterr().out.count(".") == 1
