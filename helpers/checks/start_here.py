"""Checks of lesson 00 and its exercises: a head on a frozen backbone, honestly measured."""

import keras
import numpy as np

from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import ask, entering

NOTEBOOK = "start_here/start_here"

hand_in = HandIn(NOTEBOOK, size=96, points=40)


@task(
    NOTEBOOK,
    hint="Lesson 00 did it with four layers, one after the other: one that rescales, the backbone, "
    "one that averages places away, and the head. What did it set before it put them together?",
)
def new_head(model, backbone):
    if not isinstance(model, keras.Model):
        return f"Expected a Keras model, found a {type(model).__name__}. Look at keras.Sequential."
    if model is backbone:
        return "That is the backbone alone. Build a model that holds it and adds a head."
    pictures = _noise(backbone.input_shape)
    entered, output = entering(model, backbone, pictures), ask(model, pictures)
    if entered is None:
        return "Your model does not use `backbone`: put this very object among its layers."
    low, high = entered.min(), entered.max()
    if high - low < 0.1:
        return (
            f"Expected numbers from -1 to 1 to enter the backbone, found {low:.3f} to {high:.3f}. "
            "Are the pictures rescaled twice?"
        )
    if max(abs(low + 1), abs(high - 1)) > 0.05:
        return (
            "Expected numbers from -1 to 1 to enter the backbone, found "
            f"{low:.4g} to {high:.4g}. Look at how lesson 00 rescales 0..255."
        )
    if output.ndim > 2:
        places = " × ".join(str(n) for n in output.shape[1:])
        return (
            f"Expected one number a picture, found {places}. The backbone answers for several "
            "places of a picture: which layer comes between it and the head?"
        )
    if output.shape[1:] != (1,):
        found = int(np.prod(output.shape[1:]))
        return (
            f"Expected one number a picture in the shape ({len(pictures)}, 1), found {found} in "
            f"{output.shape}. A single logit tells two classes apart: look at the last layer."
        )
    if backbone.trainable_weights:
        learning = _count(backbone.trainable_weights)
        return (
            f"Expected no number of the backbone to learn, found {learning:,} that would. "
            "Look at `backbone.trainable`."
        )
    if not model.trainable_weights:
        return (
            "Expected the head to learn, found nothing in the model that may. "
            "Freeze the backbone only."
        )
    low, high = _reach(model, pictures)
    if low > -2 or high < 2:
        return (
            "Expected logits, which may be any number, found an output that only reaches from "
            f"{low:.3g} to {high:.3g}, however large the head's weights are. Look at the "
            "activation of the last layer: the loss of this notebook wants none."
        )
    return None


@task(
    NOTEBOOK,
    hint="A logit above 0 means dog, and a dog's label is 1. Compare like with like: print "
    "`logits.shape` and `labels.shape`.",
)
def accuracy(answer, logits, labels, history):
    value = _number(answer)
    if value is None:
        return _not_a_number(answer)
    logits, labels = np.asarray(logits), np.asarray(labels)
    right = (logits.ravel() > 0) == labels.ravel()
    half_a_picture = 0.5 / len(right)

    def is_close(other):
        return abs(value - other) < half_a_picture

    if is_close(right.mean()):
        return None
    learnt = [values[-1] for name, values in history.history.items() if name.endswith("accuracy")]
    if is_close(np.mean((logits.reshape(-1, 1) > 0) == labels.ravel())):
        return (
            f"{value:.3f} comes out when every answer is compared with every label. {logits.shape} "
            f"against {labels.shape} is a table of {logits.size} × {labels.size}: make the shapes "
            "the same first."
        )
    if is_close(np.mean((logits.ravel() > 0.5) == labels.ravel())):
        return f"{value:.3f} comes out when you cut at 0.5. Where is the middle of logits?"
    if is_close(1 - right.mean()):
        return f"{value:.3f} is the share of wrong answers. Expected the share of right ones."
    if any(is_close(other) for other in learnt):
        return (
            f"{value:.3f} is the accuracy on the drawings that it learnt from. Expected the one on "
            "new drawings: look at `logits` and `labels`."
        )
    if abs(value / 100 - right.mean()) < half_a_picture:
        return f"{value:g} is in percent. Expected a share between 0 and 1."
    if abs(value - right.sum()) < 0.5:
        return f"{value:g} is how many it got right. What share of {len(right)} is that?"
    return (
        f"{value:g} is not the share of {len(right)} pictures whose logit is on the right side of "
        "0. Look at what you compare `labels` with."
    )


@task(
    NOTEBOOK,
    hint="Accuracy is the share of right answers. What is left over is the share of mistakes.",
)
def mistakes(answer, accuracy, pictures):
    value = _number(answer)
    expected = round((1 - accuracy) * pictures)
    if value is None:
        return _not_a_number(answer)
    if abs(value - expected) < 0.5:
        return None
    if abs(value - (pictures - expected)) < 0.5:
        return f"{value:g} is how many it got right. How many are left of {pictures}?"
    if 0 < value < 1:
        return f"{value:.3g} is a share. How many pictures is that, out of {pictures}?"
    return f"{value:g} does not fit an accuracy of {accuracy:.3f} on {pictures} pictures."


@task(
    NOTEBOOK,
    hint="The standard error of a share gets smaller with more pictures, but slowly: there is a "
    "root in it. Lesson 00 goes about two of them to either side.",
)
def interval(answer, accuracy, pictures):
    try:
        low, high = (float(end) for end in answer)
    except (TypeError, ValueError):
        return f"Expected two numbers, (low, high), found {answer!r}."
    variance = accuracy * (1 - accuracy)
    margin = 1.96 * np.sqrt(variance / pictures)

    def is_close(value, other):
        return abs(value - other) <= 0.15 * margin

    if is_close(low, accuracy - margin) and is_close(high, accuracy + margin):
        return None
    found = f"Found {low:.4g} to {high:.4g}."
    if low > high:
        return f"{found} Expected the lower end first; is the second number the margin alone?"
    if high > 1.5:
        return f"{found} Expected shares between 0 and 1, as the accuracy is one."
    half = (high - low) / 2
    if not is_close((low + high) / 2, accuracy):
        return (
            f"{found} Its middle is {(low + high) / 2:.3f}, expected the accuracy, {accuracy:.3f}: "
            "go as far up as down."
        )
    if abs(half - margin / 1.96) < 0.05 * margin:
        return (
            f"{found} That is one standard error to either side, which holds the true share in "
            "about 68 of 100 samples. Expected 95 of 100."
        )
    if abs(half / np.sqrt(pictures) - margin) < 0.05 * margin:
        return f"{found} So wide: as if there were one picture. Where do the {pictures} come in?"
    if half < margin / 4:
        return f"{found} Far too narrow. Did you take the root of the variance before using it?"
    narrow = "narrow" if half < margin else "wide"
    return (
        f"{found} Too {narrow} for 95 of 100 samples of {pictures} pictures: look at the cell of "
        "lesson 00 that prints its interval."
    )


@task(
    NOTEBOOK,
    hint="Do again what you did for `model`, with a new backbone. One argument of MobileNetV2 "
    "decides whether it knows anything.",
)
def control(control, model, backbone):
    if not isinstance(control, keras.Model):
        return f"Expected a Keras model, found a {type(control).__name__}."
    if control is model:
        return "That is `model` itself. Expected a second model, with a backbone of its own."
    pictures = _noise(backbone.input_shape)
    expected, found = (np.asarray(one(pictures)).shape for one in (model, control))
    if expected != found:
        return f"Expected answers of the shape {expected}, as those of your model, found {found}."
    known = {id(weight) for weight in model.weights}
    if any(id(weight) in known for weight in control.weights):
        return (
            "The control shares weights with your model. Expected a network of its own: "
            "build a second backbone and a second head."
        )
    shapes, others = ([tuple(w.shape) for w in one.weights] for one in (model, control))
    if sorted(shapes) != sorted(others):
        return (
            "A control differs in one thing only. Expected the same network, "
            f"{_count(model.weights):,} numbers, found {_count(control.weights):,}. "
            "Compare the two `summary()`."
        )
    kernels = [np.asarray(w) for w in backbone.weights if len(w.shape) > 1]
    if any(np.array_equal(w, k) for w in control.weights if len(w.shape) > 1 for k in kernels):
        return (
            "The control's backbone holds the trained numbers, so it differs in nothing. "
            "Expected random ones: look at the argument `weights`."
        )
    expected, found = (_count(one.trainable_weights) for one in (model, control))
    if expected != found:
        return (
            f"Expected the same amount of learning, {expected:,} numbers, found {found:,}. "
            "Is the control's backbone frozen, too?"
        )
    if shapes == others and not _computes_the_same(control, model, pictures):
        return (
            "Given your model's weights, the control answers otherwise than your model, so more "
            "than the weights differs. Look at rescaling, pooling and the last activation."
        )
    return None


def _noise(input_shape):
    """Eight pictures of noise in 0..255, both ends included."""
    pictures = np.random.default_rng(0).uniform(0, 255, (8, *input_shape[1:]))
    pictures[:, 0, 0], pictures[:, -1, -1] = 0, 255
    return pictures.astype("float32")


def _reach(model, pictures):
    """The lowest and the highest output, however large the weights of the last layer are."""
    weights = [weight for weight in model.trainable_weights if weight.shape[-1] == 1]
    before = [weight.numpy() for weight in weights]
    outputs = []
    try:
        for factor in (1e4, -1e4):
            for weight, value in zip(weights, before, strict=True):
                weight.assign(factor * value)
            outputs.append(np.asarray(model(pictures)))
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
    return np.min(outputs), np.max(outputs)


def _computes_the_same(control, model, pictures):
    """Whether two models are the same function once they have the same weights."""
    before = control.get_weights()
    try:
        control.set_weights(model.get_weights())
        return np.allclose(control(pictures), model(pictures), rtol=1e-3, atol=1e-3)
    finally:
        control.set_weights(before)


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _number(answer):
    """The answer as a float; None if it is not a single number."""
    value = np.asarray(answer)
    return float(value) if value.shape == () and value.dtype.kind in "iuf" else None


def _not_a_number(answer):
    return f"The answer is a number, but {answer!r} is a {type(answer).__name__}."
