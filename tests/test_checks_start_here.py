"""The checks of lesson 00: right answers in several writings, plausible wrong ones, open ones."""

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from helpers.checks import start_here as check

SIDE = 16
ACCURACY, PICTURES = 0.91, 1000  # 90 mistakes


@pytest.fixture(autouse=True)
def not_grading(monkeypatch):
    monkeypatch.delenv("COURSE_GRADING", raising=False)


@pytest.fixture
def said(capsys):
    def run(task, *answers):
        task(*answers)
        return capsys.readouterr().out

    return run


def small_backbone(seed=0):
    """A stand-in for MobileNetV2 with its parts: convolutions and BatchNorm, 1,116 numbers."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(12, 3, activation="relu"),
        ]
    )


def rescaling():
    return layers.Rescaling(1 / 127.5, offset=-1)


def stack(*parts, frozen=None):
    if frozen is not None:
        frozen.trainable = False
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts])


def as_in_lesson_00(backbone, **head):
    average = layers.GlobalAveragePooling2D()
    dense = layers.Dense(head.pop("units", 1), **head)
    return stack(rescaling(), backbone, average, dense, frozen=backbone)


def functional(backbone):
    backbone.trainable = False
    inputs = keras.Input((SIDE, SIDE, 3))
    features = backbone(keras.applications.mobilenet_v2.preprocess_input(inputs), training=False)
    outputs = layers.Dense(1)(layers.Dropout(0.2)(layers.Flatten()(features)))
    return keras.Model(inputs, outputs)


def by_layers(backbone):
    """Not the backbone but its layers are called, and frozen one by one."""
    inputs = keras.Input((SIDE, SIDE, 3))
    values = rescaling()(inputs)
    for layer in backbone.layers:
        layer.trainable = False
        values = layer(values)
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalMaxPooling2D()(values)))


class Subclass(keras.Model):
    def __init__(self, backbone):
        super().__init__()
        backbone.trainable = False
        self.backbone, self.average = backbone, layers.GlobalAveragePooling2D()
        self.hidden, self.head = layers.Dense(8, activation="relu"), layers.Dense(1)

    def call(self, pictures):
        return self.head(self.hidden(self.average(self.backbone(pictures / 127.5 - 1))))


# --- new_head ---


@pytest.mark.parametrize("build", [as_in_lesson_00, functional, by_layers, Subclass])
def test_a_new_head_may_be_written_in_many_ways(said, build):
    backbone = small_backbone()
    model = build(backbone)
    assert said(check.new_head, model, backbone) == "✓ Right.\n"
    before = model.get_weights()
    said(check.new_head, model, backbone)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other, "a check changes nothing")
    assert said(check.new_head, None, backbone).startswith("Not answered yet")


def unfrozen(backbone):
    model = as_in_lesson_00(backbone)
    backbone.trainable = True
    return model


def all_frozen(backbone):
    model = as_in_lesson_00(backbone)
    model.trainable = False
    return model


def pooled(*parts, backbone):
    return stack(*parts, backbone, layers.GlobalAveragePooling2D(), layers.Dense(1))


WRONG_HEADS = {
    "no model": (lambda b: [b, layers.Dense(1)], "Expected a Keras model, found a list"),
    "no head": (lambda b: b, "the backbone alone"),
    "another backbone": (lambda b: as_in_lesson_00(small_backbone(1)), "does not use `backbone`"),
    "not rescaled": (lambda b: pooled(backbone=b), "-1 to 1 to enter the backbone, found 0 to 255"),
    "to 0..1": (lambda b: pooled(layers.Rescaling(1 / 255), backbone=b), "found 0 to 1"),
    "rescaled twice": (lambda b: pooled(rescaling(), rescaling(), backbone=b), "rescaled twice?"),
    "not averaged": (lambda b: stack(rescaling(), b, layers.Dense(1)), "found 5 × 5 × 1. "),
    "two units": (lambda b: as_in_lesson_00(b, units=2), "found 2 in (8, 2)"),
    "not frozen": (unfrozen, "found 1,116 that would"),
    "all frozen": (all_frozen, "found nothing in the model that may"),
    "sigmoid": (lambda b: as_in_lesson_00(b, activation="sigmoid"), "reaches from 0 to 1,"),
    "tanh": (lambda b: as_in_lesson_00(b, activation="tanh"), "reaches from -1 to 1,"),
}


@pytest.mark.parametrize("build, sentence", WRONG_HEADS.values(), ids=WRONG_HEADS.keys())
def test_wrong_heads_get_their_own_sentence(said, build, sentence):
    backbone = small_backbone()
    text = said(check.new_head, build(backbone), backbone)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_softmax_over_one_unit(said):
    backbone = small_backbone()
    model = as_in_lesson_00(backbone, activation="softmax")
    with pytest.warns(UserWarning, match="softmax"):
        assert "reaches from 1 to 1," in said(check.new_head, model, backbone)


# --- accuracy ---

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 200).astype("float32")
LOGITS = (RNG.normal(LABELS * 2 - 0.8, 0.8)[:, None]).astype("float32")  # (200, 1)
SHARE = np.mean((LOGITS[:, 0] > 0) == LABELS)
HISTORY = SimpleNamespace(history={"loss": [0.7, 0.1], "binary_accuracy": [0.6, 0.99]})


def metric_of_keras():
    metric = keras.metrics.BinaryAccuracy(threshold=0.0)
    metric.update_state(LABELS[:, None], LOGITS)
    return metric.result()


@pytest.mark.parametrize("answer", [SHARE, float(SHARE), metric_of_keras(), np.float32(SHARE)])
def test_right_accuracy(said, answer):
    assert said(check.accuracy, answer, LOGITS, LABELS, HISTORY) == "✓ Right.\n"


@pytest.mark.parametrize(
    "answer, sentence",
    [
        (np.mean((LOGITS > 0) == LABELS), "(200, 1) against (200,) is a table of 200 × 200"),
        (np.mean((LOGITS[:, 0] > 0.5) == LABELS), "when you cut at 0.5"),
        (1 - SHARE, "share of wrong answers"),
        (0.99, "drawings that it learnt from"),
        (100 * SHARE, "is in percent"),
        (SHARE * 200, "how many it got right. What share of 200"),
        (0.123, "is not the share of 200 pictures"),
        (np.ones(3), "The answer is a number"),
        ("0.9", "'0.9' is a str"),
    ],
)
def test_wrong_accuracies_get_their_own_sentence(said, answer, sentence):
    text = said(check.accuracy, answer, LOGITS, LABELS, HISTORY)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_open_accuracy(said):
    assert said(check.accuracy, None, LOGITS, LABELS, HISTORY).startswith("Not answered yet")
    assert said(check.accuracy, SHARE, None, LABELS, None).startswith("Not answered yet")


# --- mistakes ---


@pytest.mark.parametrize("answer", [90, 90.0, np.int64(90), np.array(90), (1 - 0.91) * 1000])
def test_right_mistakes(said, answer):
    assert said(check.mistakes, answer, ACCURACY, PICTURES) == "✓ Right.\n"


@pytest.mark.parametrize(
    "answer, sentence",
    [
        (910, "how many it got right"),
        (1 - 0.91, "✗ Not yet. 0.09 is a share"),
        (9, "does not fit an accuracy of 0.910 on 1000 pictures"),
        ("90", "is a str"),
        (True, "is a bool"),
        (float("nan"), "does not fit"),
    ],
)
def test_wrong_mistakes_get_their_own_sentence(said, answer, sentence):
    text = said(check.mistakes, answer, ACCURACY, PICTURES)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_open_mistakes(said):
    assert said(check.mistakes, None, ACCURACY, PICTURES).startswith("Not answered yet")


# --- interval ---

ERROR = np.sqrt(ACCURACY * (1 - ACCURACY) / PICTURES)


def around(half, centre=ACCURACY):
    return centre - half, centre + half


def wilson(z=1.96):
    """The score interval (Wilson, 1927)."""
    shrunk = 1 + z**2 / PICTURES
    centre = (ACCURACY + z**2 / (2 * PICTURES)) / shrunk
    return around(z / shrunk * np.sqrt(ERROR**2 + z**2 / (4 * PICTURES**2)), centre)


@pytest.mark.parametrize(
    "answer",
    [around(1.96 * ERROR), list(around(2 * ERROR)), np.array(around(1.96 * ERROR)), wilson()],
)
def test_right_intervals(said, answer):
    assert said(check.interval, answer, ACCURACY, PICTURES) == "✓ Right.\n"


@pytest.mark.parametrize(
    "answer, sentence",
    [
        (around(ERROR), "one standard error to either side"),
        (around(1.96 * np.sqrt(ACCURACY * (1 - ACCURACY)) / 2), "Too wide for 95"),
        (around(1.96 * ERROR * np.sqrt(PICTURES)), "Where do the 1000 come in?"),
        (around(1.96 * ERROR**2), "Did you take the root"),
        (around(1.6 * ERROR), "Too narrow for 95"),
        (around(1.96 * ERROR, centre=0.5), "Its middle is 0.500, expected the accuracy, 0.910"),
        (around(1.96 * ERROR)[::-1], "lower end first"),
        ((ACCURACY, 1.96 * ERROR), "is the second number the margin alone?"),
        ([100 * end for end in around(1.96 * ERROR)], "shares between 0 and 1"),
        (1.96 * ERROR, "Expected two numbers"),
        ("0.89 to 0.93", "Expected two numbers"),
    ],
)
def test_wrong_intervals_get_their_own_sentence(said, answer, sentence):
    text = said(check.interval, answer, ACCURACY, PICTURES)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_open_interval(said):
    assert said(check.interval, None, ACCURACY, PICTURES).startswith("Not answered yet")
    assert said(check.interval, around(0.02), None, PICTURES).startswith("Not answered yet")


# --- control ---


def random_backbone():
    backbone = small_backbone(5)
    backbone.trainable = False
    return backbone


def with_operations(backbone):
    inputs = keras.Input((SIDE, SIDE, 3))
    features = layers.GlobalAveragePooling2D()(backbone(inputs / 127.5 - 1))
    return keras.Model(inputs, layers.Dense(1)(features))


RIGHT_CONTROLS = {
    "as in lesson 00": lambda model: as_in_lesson_00(random_backbone()),
    "cloned": keras.models.clone_model,
    "functional": lambda model: with_operations(random_backbone()),
}


@pytest.mark.parametrize("build", RIGHT_CONTROLS.values(), ids=RIGHT_CONTROLS.keys())
def test_right_controls(said, build):
    backbone = small_backbone()
    model = as_in_lesson_00(backbone)
    control = build(model)
    before = control.get_weights()
    assert said(check.control, control, model, backbone) == "✓ Right.\n"
    for one, other in zip(before, control.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other, "a check changes nothing")
    assert said(check.control, None, model, backbone).startswith("Not answered yet")


def without_rescaling(backbone):
    return stack(backbone, layers.GlobalAveragePooling2D(), layers.Dense(1))


WRONG_CONTROLS = {
    "no model": (lambda model, b: random_backbone, "found a function"),
    "the model": (lambda model, b: model, "`model` itself"),
    "same backbone": (lambda model, b: as_in_lesson_00(b), "shares weights with your model"),
    "trained backbone": (
        lambda model, b: as_in_lesson_00(small_backbone()),
        "holds the trained numbers",
    ),
    "another network": (
        lambda model, b: stack(rescaling(), layers.Flatten(), layers.Dense(1)),
        "same network, 1,145 numbers, found 769",
    ),
    "not frozen": (lambda model, b: unfrozen(random_backbone()), "13 numbers, found 1,129"),
    "not rescaled": (lambda model, b: without_rescaling(random_backbone()), "answers otherwise"),
    "sigmoid": (
        lambda model, b: as_in_lesson_00(random_backbone(), activation="sigmoid"),
        "answers otherwise than your model",
    ),
    "two units": (lambda model, b: as_in_lesson_00(random_backbone(), units=2), "found (8, 2)"),
}


@pytest.mark.parametrize("build, sentence", WRONG_CONTROLS.values(), ids=WRONG_CONTROLS.keys())
def test_wrong_controls_get_their_own_sentence(said, build, sentence):
    backbone = small_backbone()
    model = as_in_lesson_00(backbone)
    text = said(check.control, build(model, backbone), model, backbone)
    assert text.startswith("✗ Not yet.") and sentence in text


# --- hints and solutions ---


def test_hints_do_not_give_the_answer_away(capsys):
    for task in (check.new_head, check.accuracy, check.mistakes, check.interval, check.control):
        task.hint()
        hint = capsys.readouterr().out
        task.solution()
        solution = capsys.readouterr().out
        code = re.findall(r"[\w.]+\(|\w+\.\w+", solution)
        assert code and not any(part in hint for part in code), hint


def test_the_solution_of_mistakes_is_right(said, capsys):
    check.mistakes.solution()
    scope = {"accuracy": ACCURACY, "labels": range(PICTURES)}
    exec(capsys.readouterr().out, scope)
    assert said(check.mistakes, scope["mistakes"], ACCURACY, PICTURES) == "✓ Right.\n"
