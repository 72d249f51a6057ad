import pytest

from helpers import pretrained, tracks


def test_critters_is_the_default(monkeypatch):
    for value in (None, "", "critters"):
        monkeypatch.delenv("COURSE_TRACK", raising=False)
        if value is not None:
            monkeypatch.setenv("COURSE_TRACK", value)
        assert tracks.current().name == "critters"


def test_photos_says_that_it_is_to_come(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "photos")
    with pytest.raises(NotImplementedError, match="unset COURSE_TRACK"):
        tracks.current()


def test_unknown_track_names_the_nearest(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "criters")
    with pytest.raises(ValueError, match="'criters'.*'critters'"):
        tracks.current()


def test_pictures_lie_in_class_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    track = tracks.current()
    pets = track.cats_and_dogs(train=4, test=2)
    assert sorted(p.name for p in (pets / "train").iterdir()) == ["cat", "dog"]
    cousins = track.five_classes(train=5)
    assert len(list((cousins / "train").glob("*/*.png"))) == 5
    assert pets != track.cats_and_dogs(train=4, test=2, seed=1)


def test_weights_are_the_shipped_ones():
    track = tracks.current()
    assert track.weights("mobilenet_v2") == pretrained.weights("mobilenet_v2")
    assert track.hub_module("mobilenet_v2") == pretrained.hub_module("mobilenet_v2")
