"""The small network of lesson 07, and the table of its transfers."""

import keras
import numpy as np
import pytest

from helpers import critters, small_cnn


def test_the_backbone_is_small_and_warms_up_quickly():
    network = small_cnn.backbone()
    assert network.output.shape == (None, 256)
    assert 100_000 < network.count_params() < 1_000_000
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 5 and {x.momentum for x in norms} == {0.9}


def test_no_source_holds_the_target():
    for species in small_cnn.SPECIES.values():
        assert not set(species) & set(critters.HELD_OUT)
    far, cousins = set(small_cnn.SPECIES["far"]), set(small_cnn.SPECIES["cousins"])
    assert len(far) == len(cousins) and far < set(critters.SOURCE)


def test_some_of_each():
    labels = np.repeat([0, 1, 2], 10)
    chosen = small_cnn.some_of_each(labels, 12, seed=1)
    assert len(set(chosen)) == 12 and (np.bincount(labels[chosen]) == 4).all()
    assert np.array_equal(chosen, small_cnn.some_of_each(labels, 12, seed=1))
    assert not np.array_equal(chosen, small_cnn.some_of_each(labels, 12, seed=2))
    for count in (13, 33):
        with pytest.raises(ValueError, match=f"{count} cannot be shared"):
            small_cnn.some_of_each(labels, count, seed=1)


def test_the_learning_rate_rises_and_falls():
    rate = small_cnn.learning_rate(100)
    values = [float(rate(step)) for step in (0, 5, 10, 50, 100)]
    assert values[0] < values[1] < values[2] == pytest.approx(small_cnn.PEAK)
    assert values[2] > values[3] > values[4] == pytest.approx(0, abs=1e-9)


def test_batches_flip_and_go_on():
    pictures = np.random.default_rng(0).integers(0, 255, (8, 4, 4, 3), "uint8")
    flipped = 0
    for some, labels in small_cnn.batches(pictures, np.arange(8), 0).take(3).as_numpy_iterator():
        assert len(some) == small_cnn.BATCH
        for picture, label in zip(some, labels, strict=True):
            mirrored = np.array_equal(picture, pictures[label][:, ::-1])
            assert mirrored or np.array_equal(picture, pictures[label])
            flipped += mirrored
    assert 0.2 < flipped / (3 * small_cnn.BATCH) < 0.8


@pytest.fixture
def few_drawings(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(small_cnn, "TEST", 60)


def test_pretrain_learns_and_repeats_itself(few_drawings):
    species = ("frog", "giraffe")
    first, accuracy = small_cnn.pretrain(species, 120, steps=100, seed=1)
    assert accuracy > 0.7
    again, same = small_cnn.pretrain(species, 120, steps=100, seed=1)
    assert same == pytest.approx(accuracy, abs=0.05)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05)


def test_fewer_drawings_take_as_many_steps(few_drawings, monkeypatch):
    steps = []
    monkeypatch.setattr(
        keras.Sequential, "fit", lambda model, data, **options: steps.append(options)
    )
    for pictures in (20, 60):
        small_cnn.pretrain(("frog", "giraffe"), pictures, steps=40, drawn=60)
    assert [(o["epochs"], o["steps_per_epoch"]) for o in steps] == [(1, 40)] * 2


def test_transfer_is_the_accuracy_of_a_line(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    pictures = rng.integers(0, 100, (200, 48, 48, 3), "uint8")
    pictures[labels == 1] += 100
    network = keras.Sequential([keras.Input((48, 48, 3)), keras.layers.GlobalAveragePooling2D()])
    monkeypatch.setattr(small_cnn, "_cats_and_dogs", lambda style: [(pictures, labels)] * 2)
    assert small_cnn.transfer(network, draws=2) == 1
    coin = (pictures, rng.integers(0, 2, 200))
    monkeypatch.setattr(small_cnn, "_cats_and_dogs", lambda style: [(pictures, labels), coin])
    assert 0.35 < small_cnn.transfer(network, draws=2) < 0.65
