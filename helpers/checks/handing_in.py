"""Handing in: the notebook's model names pictures that are drawn when it is graded.

The labels of these pictures stay outside the kernel in which a submission runs, so nothing that it
prints or patches can raise this score (see `helpers.grading.secret`). At home `hand_in` also saves
what was trained, in `<notebook>.fit.npz`, and the grader serves that in place of training again.
Both are plain NumPy files without pickles.

Variables of the environment, set while a notebook is graded:
    COURSE_SECRET: folder with `<notebook>.npy`, uint8 (n, size, size, 3), the pictures.
    COURSE_HANDED_IN: folder that takes `<notebook>.npy`, float32 (n,), (n, 1) or (n, kinds).
"""

import functools
import inspect
import io
import json
import os
import re
import zlib
from pathlib import Path

import keras
import numpy as np

from helpers.checks import SOLUTIONS, _reason, _say
from helpers.checks.probes import ask, leaves

LARGE = 100_000  # numbers in an array from which on it is saved as 8-bit whole numbers


class HandIn:
    """What the last check of a notebook does with its model: `check.hand_in(model, history)`.

    Args:
        notebook: such as "vgg16/1_classify".
        size: side in pixels of the square pictures that the model takes, 0 to 255.
        kinds: number of classes. With two, a model may give one number a picture.
        points: what naming all pictures well is worth, for the sentence that says so.
        pictures: how many there will be, likewise.
        drawn_world: whether the notebook stays with drawings on the photos track.
    """

    def __init__(self, notebook, *, size, kinds=2, points, pictures=200, drawn_world=False):
        self.notebook, self.size, self.kinds = notebook, size, kinds
        self.points, self.pictures, self.drawn_world = points, pictures, drawn_world

    def __call__(self, model, *histories):
        """Let a Keras model, or a function from pictures to outputs, name the pictures.

        `histories` are what its long trainings returned, each the last one of its model: what they
        trained is saved at home.
        """
        if model is None or any(history is None for history in histories):
            return _say("Not answered yet: answer the tasks above and run the cell again.")
        name = self.notebook.split("/")[-1]
        secret = os.environ.get("COURSE_SECRET")
        if os.environ.get("COURSE_TRACK") == "photos" and not (secret or self.drawn_world):
            return print(
                "Drawn pictures are what is graded: before you hand this notebook in, run it once "
                "with the environment variable COURSE_TRACK=critters."
            )
        if secret:
            pictures = np.load(Path(secret, f"{name}.npy"), allow_pickle=False)
        else:
            pictures = np.random.default_rng(0).integers(0, 256, (3, self.size, self.size, 3))
        try:
            outputs = self._ask(model, pictures)
        except Exception as error:
            return _say(f"✗ Not yet. The model stops with {type(error).__name__}: {_reason(error)}")
        if problem := self._wrong(outputs, len(pictures)):
            return _say(f"✗ Not yet. {problem}")
        if secret:
            content = io.BytesIO()
            np.save(content, outputs, allow_pickle=False)
            _write(Path(os.environ["COURSE_HANDED_IN"], f"{name}.npy"), content.getvalue())
            return print(f"✓ Handed in: the model's answers to {len(pictures)} pictures.")
        print(
            f"✓ Ready. When this is graded, your model names {self.pictures} pictures that nobody "
            f"has seen yet, for up to {self.points} points."
        )
        if not histories or SOLUTIONS in Path.cwd().parents:  # there the notebooks stay alone
            return None
        try:
            save_fits(histories, f"{name}.fit.npz")
        except Exception as error:
            return print(f"What it learnt cannot be kept ({_reason(error)}): it will train again.")
        return print(f"What it learnt is kept in {name}.fit.npz: hand in that file as well.")

    def _ask(self, model, pictures):
        pictures = np.asarray(pictures, "float32")
        if pictures.shape[1] != self.size:  # as Keras does when it loads a folder of pictures
            resized = keras.ops.image.resize(pictures, (self.size, self.size))
            pictures = keras.ops.convert_to_numpy(resized)
        if not isinstance(model, keras.Model):
            return np.asarray(model(pictures), "float32")
        batches = [ask(model, pictures[i : i + 50]) for i in range(0, len(pictures), 50)]
        return np.concatenate(batches).astype("float32")  # quicker than predict, which traces first

    def _wrong(self, outputs, n):
        right = [(n, self.kinds)] + [(n,), (n, 1)] * (self.kinds == 2)
        if outputs.shape not in right:
            return (
                f"For {n} pictures the answers should have the shape "
                f"{' or '.join(map(str, right))}, they have {outputs.shape}."
            )
        if not np.isfinite(outputs).all():
            return "Some of the answers are not finite: did the loss become nan in training?"
        return None


def misnaming(classify, pictures, labels, least):
    """What is wrong with a function that names pictures: 0 or 1 for each; None if it is right."""
    if not callable(classify):
        return f"`classify` should be a function, it is a {type(classify).__name__}."
    answers = np.asarray(classify(pictures.copy()))
    if answers.shape != labels.shape:
        return f"For {len(labels)} drawings expected {labels.shape}, found {answers.shape}."
    if not np.isin(answers, (0, 1)).all():
        return f"Expected 0 or 1 for each drawing, found {answers[~np.isin(answers, (0, 1))][0]:g}."
    accuracy = np.mean(answers == labels)
    if accuracy >= least:
        return None
    why = "Does a drawing go the same way, step by step, as those that were learnt from?"
    if accuracy < 1 - least:
        why = "Are cats 0 and dogs 1?"
    return f"{accuracy:.3f} of these drawings are named rightly, at least {least} is wanted. {why}"


def save_fits(histories, path):
    """Save what was trained: of each `keras.callbacks.History` its numbers and its model's weights.

    A model's weights are those of its layers that can learn. Arrays of `LARGE` and more are rounded
    to 8 bits, each output channel with a scale of its own.
    """
    records, arrays = [], {}
    for history in histories:
        model = getattr(history, "model", None)
        if not isinstance(model, keras.Model) or not model.compiled or not history.epoch:
            continue  # the checks have told
        weights, state = _state(model)
        state["epochs"] = [history.epoch[0], history.params["epochs"]]
        state["watched"] = any(key.startswith("val_") for key in history.history)
        numbers = {key: [float(v) for v in values] for key, values in history.history.items()}
        records.append(
            dict(
                state=state,
                epoch=[int(epoch) for epoch in history.epoch],
                history=numbers,
                params=history.params,
                steps=int(model.optimizer.iterations),
            )
        )
        for i, weight in enumerate(weights):
            _pack(arrays, f"{len(records) - 1}.{i}", keras.ops.convert_to_numpy(weight))
    content = io.BytesIO()
    np.savez_compressed(content, fits=np.array(json.dumps(records)), **arrays)
    _write(Path(path), content.getvalue())


def serve_fits(folder="."):
    """From now on `fit` serves what the `*.fit.npz` of a folder hold, and trains the rest.

    A saved training is served to a model with the same layers and frozen numbers, compiled alike,
    and for the same epochs; nothing else tells that it was not trained here.
    """
    fits = []
    for path in sorted(Path(folder).glob("*.fit.npz")):
        try:
            fits += _load(path)
        except Exception as error:
            print(f"{path.name} cannot be read ({_reason(error)}): training instead.")
    print(f"Saved trainings: {len(fits)}.")
    train = keras.Model.fit
    parameters = inspect.signature(train)

    @functools.wraps(train)
    def fit(self, *args, **kwargs):
        try:
            asked = parameters.bind(self, *args, **kwargs)
            asked.apply_defaults()
            saved = _matching(fits, self, asked.arguments)
        except Exception:  # whatever is odd about this model or call, training will tell
            saved = None
        return _serve(self, *saved) if saved else train(self, *args, **kwargs)

    keras.Model.fit = fit


def _matching(fits, model, asked):
    """The saved training that this call of `fit` asks for, as (record, arrays); None: train."""
    if not fits or asked["callbacks"]:
        return None
    state = _state(model)[1]
    state["epochs"] = [asked["initial_epoch"], asked["epochs"]]
    state["watched"] = asked["validation_data"] is not None or bool(asked["validation_split"])
    for record, arrays in fits:
        if record["state"] == state and record["epoch"] == list(range(*state["epochs"])):
            return record, arrays
    return None


def _serve(model, record, arrays):
    for weight, array in zip(_state(model)[0], arrays, strict=True):
        weight.assign(array)
    model.optimizer.iterations.assign(record["steps"])
    history = keras.callbacks.History()
    history.set_model(model)
    history.set_params(record["params"])
    history.epoch, history.history = list(record["epoch"]), dict(record["history"])
    model.history = history
    return history


def _state(model):
    """The weights of the layers that can learn, and what tells this model from others.

    Raises ValueError for a model with weights outside its layers.
    """
    layers = [layer for layer in dict.fromkeys(leaves(model)) if layer.weights]
    learning = [layer for layer in layers if layer.trainable_weights]
    if sum(len(layer.weights) for layer in layers) != len(model.weights):
        raise ValueError("the model has weights outside its layers")
    frozen = 0
    for layer in layers:
        if layer not in learning:
            for weight in layer.get_weights():
                frozen = zlib.crc32(np.ascontiguousarray(weight), frozen)
    compiled = json.dumps(model.get_compile_config(), sort_keys=True, default=str)
    return [weight for layer in learning for weight in layer.weights], dict(
        layers=[[type(x).__name__, [list(w.shape) for w in x.weights]] for x in learning],
        frozen=frozen,
        compiled=re.sub(r'("name": "\w+?)_\d+"', r'\1"', compiled),  # adam_2 is an Adam again
    )


def _pack(arrays, name, array):
    """Add an array as it is, or a large one as 8-bit numbers and the scales of its channels."""
    if array.size < LARGE or not np.isfinite(array).all():
        arrays[name] = array
        return
    scale = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0) / 127
    arrays[name] = np.round(array / np.where(scale == 0, 1, scale)).astype("int8")
    arrays[f"{name}.scale"] = scale.astype("float32")


def _load(path):
    """What `save_fits` saved: a list of (record, arrays)."""
    with np.load(path, allow_pickle=False) as file:
        fits = []
        for number, record in enumerate(json.loads(str(file["fits"]))):
            arrays = []
            while (name := f"{number}.{len(arrays)}") in file:
                array = file[name]
                if f"{name}.scale" in file:
                    array = array * file[f"{name}.scale"]
                arrays.append(array)
            shapes = [shape for _, shapes in record["state"]["layers"] for shape in shapes]
            if [list(array.shape) for array in arrays] != shapes:
                raise ValueError("its arrays are not those of its layers")
            fits.append((record, arrays))
    return fits


def _write(path, content):
    """Under a temporary name, then renamed: a file is whole or absent."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
