"""Handing in answers to secret pictures, saving what was trained, serving it to the grader."""

import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers.checks import handing_in
from helpers.checks.handing_in import HandIn, misnaming, save_fits, serve_fits
from helpers.features import split_at

L = keras.layers
SIZE = 8
hand_in = HandIn("set/notebook", size=SIZE, points=20)
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0, 255, (12, SIZE, SIZE, 3)).astype("float32"), np.arange(12) % 2


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    for name in ("COURSE_GRADING", "NBGRADER_EXECUTION", "COURSE_SECRET", "COURSE_HANDED_IN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.Model, "fit", keras.Model.fit)  # what serve_fits changes goes back


@pytest.fixture
def graded(monkeypatch, tmp_path):
    """The environment of a graded notebook: five pictures, twice as wide as the model's."""
    for name in ("secret", "handed_in"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"COURSE_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("COURSE_GRADING", "1")
    pictures = RNG.integers(0, 256, (5, 2 * SIZE, 2 * SIZE, 3)).astype("uint8")
    np.save(tmp_path / "secret" / "notebook.npy", pictures)
    return tmp_path / "handed_in"


def network(outputs=1, rate=1e-3, channels=4, frozen=False, compiled=True):
    """Convolution, BatchNorm, head; the convolution may be frozen."""
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            L.Rescaling(1 / 255),
            L.Conv2D(channels, 3),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(outputs),
        ]
    )
    model.layers[1].trainable = not frozen
    if compiled:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def train(model, epochs=2, **options):
    return model.fit(X, Y, batch_size=6, epochs=epochs, verbose=0, **options)


def said(capsys, *answers):
    capsys.readouterr()
    assert hand_in(*answers) is None
    return capsys.readouterr().out


# --- handing in ---


def test_at_home_it_says_what_will_happen(capsys, tmp_path):
    text = said(capsys, network(compiled=False))
    assert text.startswith("✓ Ready.") and "200 pictures" in text and "20 points" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answers", [(None,), (None, None), (network(), None)])
def test_open_answers(capsys, monkeypatch, answers):
    assert said(capsys, *answers).startswith("Not answered yet")
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not answered yet"):
        hand_in(*answers)


def test_photos_are_not_what_is_graded(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_TRACK", "photos")
    text = said(capsys, network(compiled=False), keras.callbacks.History())
    assert "COURSE_TRACK=critters" in text and "Ready" not in text
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()
    HandIn("set/notebook", size=SIZE, points=20, drawn_world=True)(network(compiled=False))
    assert "Ready" in capsys.readouterr().out, "there it is drawings on either track"


WRONG = {
    r"should have the shape .* they have \(., 3\)": lambda: network(3),
    "are not finite": lambda: lambda pictures: np.full(len(pictures), np.nan),
    "stops with ZeroDivisionError": lambda: lambda pictures: 1 / 0,
    "stops with TypeError": lambda: "a model",
    "stops with ValueError": lambda: keras.Sequential([keras.Input((5,)), L.Dense(1)]),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_models_that_cannot_answer(capsys, monkeypatch, graded, sentence):
    model = WRONG[sentence]()
    with pytest.raises(AssertionError, match=sentence):
        hand_in(model)
    assert list(graded.iterdir()) == []
    monkeypatch.delenv("COURSE_SECRET")
    monkeypatch.delenv("COURSE_GRADING")
    assert said(capsys, model).startswith("✗ Not yet. ")


def test_answers_are_written_while_grading(capsys, graded, tmp_path):
    model = network()
    assert "5 pictures" in said(capsys, model, train(model))
    assert [path.name for path in graded.iterdir()] == ["notebook.npy"]
    answers = np.load(graded / "notebook.npy", allow_pickle=False)
    assert answers.dtype == "float32" and answers.shape == (5, 1)
    pictures = np.load(tmp_path / "secret" / "notebook.npy").astype("float32")
    smaller = keras.ops.image.resize(pictures, (SIZE, SIZE))
    np.testing.assert_allclose(answers, model(smaller, training=False), rtol=1e-4, atol=1e-5)
    assert list(tmp_path.glob("*.npz")) == [], "what is graded keeps nothing"


def test_a_function_may_answer_and_several_kinds(graded):
    hand_in(lambda pictures: [0, 1, 1, 0, 1])
    assert np.load(graded / "notebook.npy").tolist() == [0, 1, 1, 0, 1]
    HandIn("set/notebook", size=SIZE, kinds=3, points=20)(network(3))
    assert np.load(graded / "notebook.npy").shape == (5, 3)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fails(self, target):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="no room"):
        handing_in._write(tmp_path / "a.npy", b"abc")
    assert list(tmp_path.iterdir()) == []


def test_misnaming():
    labels = np.array([0, 1] * 5)

    def text(answers):
        return misnaming(answers and (lambda pictures: np.array(answers)), X[:10], labels, 0.8)

    assert text([0, 1] * 5) is None
    assert text([0, 1] * 4 + [1, 1]) is None
    assert "0.500 of these drawings" in text([0] * 10)
    assert "Are cats 0" in text([1, 0] * 5)
    assert "found 0.5" in text([0, 0.5] * 5)
    assert "found (10, 1)" in text([[0], [1]] * 5)
    assert "it is a list" in misnaming([], X[:10], labels, 0.8)


# --- saving what was trained, serving it ---


def test_what_was_trained_is_kept_at_home(capsys, tmp_path):
    model = network()
    text = said(capsys, model, train(model))
    assert "hand in that file as well" in text
    assert [path.name for path in tmp_path.iterdir()] == ["notebook.fit.npz"]
    with np.load("notebook.fit.npz", allow_pickle=False) as file:  # no pickle in it
        assert all(file[name].dtype != object for name in file)


def test_nothing_is_kept_beside_the_solutions(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(handing_in, "SOLUTIONS", tmp_path)
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    model = network()
    said(capsys, model, train(model))
    assert list((tmp_path / "set").iterdir()) == []


def test_what_cannot_be_kept_stops_nobody(capsys, monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr(handing_in, "_write", fails)
    model = network()
    text = said(capsys, model, train(model))
    assert text.startswith("✓ Ready.") and "cannot be kept (no room)" in text


def fit_again(monkeypatch, model, epochs=2, **options):
    """What `fit` returns once saved trainings are served, and whether it trained."""
    real, trained = keras.Model.fit, []

    @functools.wraps(real)
    def fit(*args, **kwargs):
        trained.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", fit)
    serve_fits()
    return train(model, epochs, **options), bool(trained)


def test_a_saved_training_is_served(monkeypatch, capsys):
    model = network()
    history = train(model, validation_data=(X, Y))
    save_fits([history], "notebook.fit.npz")
    again = network()
    found, trained = fit_again(monkeypatch, again, validation_data=(X, Y))
    assert not trained
    assert isinstance(found, keras.callbacks.History) and found.model is again.history.model
    assert (found.epoch, found.history) == (history.epoch, history.history)
    assert found.params == history.params
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    assert int(again.optimizer.iterations) == 4
    assert "Saved trainings: 1." in capsys.readouterr().out
    train(again, epochs=3)  # another call trains on from there
    assert not all(map(np.array_equal, model.get_weights(), again.get_weights()))
    assert np.isfinite(again.evaluate(X, Y, verbose=0)).all()


@pytest.mark.parametrize(
    "other, options",
    [
        (dict(), dict(epochs=3)),
        (dict(), dict(epochs=3, initial_epoch=1)),
        (dict(), dict(validation_data=(X, Y))),
        (dict(), dict(callbacks=[keras.callbacks.TerminateOnNaN()])),
        (dict(rate=1e-4), {}),
        (dict(channels=5), {}),
        (dict(frozen=True), {}),
    ],
)
def test_another_training_is_not_served(monkeypatch, other, options):
    save_fits([train(network())], "notebook.fit.npz")
    history, trained = fit_again(monkeypatch, network(**other), **options)
    assert trained
    assert len(history.epoch) == options.get("epochs", 2) - options.get("initial_epoch", 0)


def test_frozen_numbers_have_to_be_the_same(monkeypatch):
    model, same, other = (network(frozen=True) for _ in range(3))
    same.set_weights(model.get_weights())
    save_fits([train(model)], "notebook.fit.npz")
    with np.load("notebook.fit.npz") as file:
        assert all(file[name].shape != (3, 3, 3, 4) for name in file), "what is frozen is not kept"
    assert not fit_again(monkeypatch, same)[1]
    assert fit_again(monkeypatch, other)[1]


def test_a_training_that_ended_early_trains_again(monkeypatch):
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: setattr(model, *STOP))
    model = network()
    assert train(model, callbacks=[stop]).epoch == [0]
    save_fits([model.history], "notebook.fit.npz")
    assert fit_again(monkeypatch, network())[1]


STOP = "stop_training", True


def test_the_tail_of_a_model_is_served(monkeypatch):
    model, again = network(compiled=False), network(compiled=False)
    again.set_weights(model.get_weights())
    tails = []
    for whole in (model, again):
        tails.append(split_at(whole, whole.layers[2].name)[1])
        tails[-1].compile("sgd", "mse")
    features = RNG.normal(size=(12, *tails[0].input_shape[1:]))
    save_fits([tails[0].fit(features, Y, verbose=0)], "notebook.fit.npz")
    serve_fits()
    tails[1].fit(features, Y, verbose=0)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


def test_large_arrays_are_rounded(monkeypatch):
    monkeypatch.setattr(handing_in, "LARGE", 100)
    model, again = network(), network()
    save_fits([train(model)], "notebook.fit.npz")
    assert not fit_again(monkeypatch, again)[1]
    for exact, found in zip(model.get_weights(), again.get_weights(), strict=True):
        if exact.size < 100:
            assert np.array_equal(exact, found)
        else:
            largest = np.abs(exact).reshape(-1, exact.shape[-1]).max(axis=0)
            assert (np.abs(found - exact) <= 0.501 * largest / 127).all()
            assert not np.array_equal(exact, found)


def without_arrays():
    with np.load("notebook.fit.npz") as file:
        np.savez("notebook.fit.npz", fits=file["fits"])


def pickled():
    np.savez("notebook.fit.npz", fits=np.array([print, "a"], dtype=object), allow_pickle=True)


def of_strange_records():
    np.savez("notebook.fit.npz", fits=np.array(json.dumps([{"state": 1}])))


def cut_off():
    path = Path("notebook.fit.npz")
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    "damage",
    [
        lambda: Path("notebook.fit.npz").unlink(),
        lambda: Path("notebook.fit.npz").write_bytes(b""),
        lambda: Path("notebook.fit.npz").write_text("no file of numpy"),
        cut_off,
        without_arrays,
        pickled,
        of_strange_records,
    ],
)
def test_without_a_whole_file_it_trains(monkeypatch, capsys, damage):
    save_fits([train(network())], "notebook.fit.npz")
    damage()
    history, trained = fit_again(monkeypatch, network())
    assert trained and len(history.epoch) == 2
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[-1] == "Saved trainings: 0." and len(lines) == 1 + Path("notebook.fit.npz").exists()
    )


def test_what_is_no_training_is_not_kept():
    save_fits([1, "history", keras.callbacks.History()], "notebook.fit.npz")
    with np.load("notebook.fit.npz") as file:
        assert json.loads(str(file["fits"])) == []


def test_odd_calls_of_fit_fail_as_ever():
    serve_fits()
    with pytest.raises(TypeError, match="unexpected keyword"):
        network().fit(X, Y, epoch=2)
    with pytest.raises(ValueError, match="compile"):
        network(compiled=False).fit(X, Y)
