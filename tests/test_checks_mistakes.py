"""The checks of exercise 05: right, other right, plausible wrong and open answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.checks import mistakes as check

TASKS = ("pipeline", "unfreeze", "choose", "diagnosis")
BATCH_NORM = keras.layers.BatchNormalization


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in (".cache()", "trainable =", "compile(", "argmax(", *check.NAMES)
        if code in hints
    ]


@pytest.mark.parametrize("name", TASKS)
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    scope = {"np": np, "keras": keras}
    exec(capsys.readouterr().out, scope)
    assert said(name, scope[name]) == "✓ Right."


def test_under_grading_it_raises(monkeypatch):
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not yet"):
        check.choose(lambda validation, test: (0, 0.5))
    with pytest.raises(AssertionError, match="Not answered"):
        check.diagnosis(None)
    check.choose(lambda v, t: (np.argmax(v), t[np.argmax(v)]))


@pytest.mark.parametrize(
    "right",
    [
        lambda data, work, augment: data.map(work).cache().map(augment).prefetch(2),
        lambda data, work, augment: (
            data.map(lambda x, y: work(x, y)).cache().shuffle(8).map(augment, num_parallel_calls=2)
        ),
        lambda data, work, augment: data.map(work).unbatch().cache().batch(3).map(augment),
    ],
)
def test_pipeline(said, right):
    keras.utils.set_random_seed(5)  # as in the notebook
    assert said("pipeline", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda d, e, a: d.map(a).map(e).cache(), "in 1 view instead of 3"),
        (lambda d, e, a: d.map(e).map(a).cache(), "in 1 view instead of 3"),
        (lambda d, e, a: d.cache().map(e).map(a), "ran 18 times for 6 pictures"),
        (lambda d, e, a: d.map(a).map(e), "ran 18 times"),
        (lambda d, e, a: d.cache().map(a).map(e), "ran 18 times"),
        (lambda d, e, a: d.map(e).cache(), "No picture was augmented"),
        (lambda d, e, a: d.cache().map(a), "The expensive part never ran"),
        (lambda d, e, a: d.map(e).cache().map(a).repeat(2), "an epoch gives 12"),
        (lambda d, e, a: d.map(e).take(2).cache().map(a), "an epoch gives 4 with 4"),
        (lambda d, e, a: None, "does it end with `return`?"),
        (lambda d, e, a: list(d.map(e)), "yours returns a list"),
        (lambda d: d, "stops the check with TypeError"),
        (tf.data.Dataset.range(3), "should be a function"),
    ],
)
def test_pipeline_wrongly(said, wrong, sentence):
    text = said("pipeline", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text


def compile_for_logits(model, rate=1e-4, **options):
    model.compile("adam", keras.losses.BinaryCrossentropy(**{"from_logits": True} | options))
    model.optimizer.learning_rate = rate


def switch(model, first, norms=False, later_only=True):
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    names = [layer.name for layer in backbone.layers]
    for i, layer in enumerate(backbone.layers):
        late = i >= names.index(first) or not later_only
        layer.trainable = late and (norms or not isinstance(layer, BATCH_NORM))
    return model


def another_unfreeze(model, first):
    """Without the backbone's switch turned on as a whole before; the order does not matter."""
    backbone = model.get_layer("backbone")
    position = backbone.layers.index(backbone.get_layer(first))
    backbone.trainable = True
    for layer in backbone.layers[:position]:
        layer.trainable = False
    for layer in backbone.layers[position:]:
        if isinstance(layer, BATCH_NORM):
            layer.trainable = False
    compile_for_logits(model)


def broken_as_given(model, first):
    model.trainable = True
    for layer in model.get_layer("backbone").layers:
        if layer.name == first:
            layer.trainable = True


def compiled_too_early(model, first):
    compile_for_logits(model)
    model.evaluate(np.zeros((2, 8, 8, 3)), np.zeros((2, 1)), verbose=0)
    switch(model, first)


def only_the_layer(model, first):
    model.get_layer("backbone").trainable = True
    for layer in model.get_layer("backbone").layers:
        layer.trainable = layer.name == first
    compile_for_logits(model)


def new_head(model, first):
    model.get_layer("head").set_weights([np.ones((4, 1)), np.zeros(1)])
    compile_for_logits(switch(model, first))


def head_frozen(model, first):
    switch(model, first).get_layer("head").trainable = False
    compile_for_logits(model)


def test_unfreeze(said):
    assert said("unfreeze", another_unfreeze) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (broken_as_given, "Compile the model again"),
        (lambda m, first: switch(m, first) and None, "Compile the model again"),
        (lambda m, first: compile_for_logits(m), "conv_2 should learn; after an epoch"),
        (
            lambda m, first: compile_for_logits(switch(m, first, norms=True)),
            "moving statistics of BatchNorm moved",
        ),
        (
            lambda m, first: compile_for_logits(switch(m, first, later_only=False)),
            "everything before conv_2 should stay frozen",
        ),
        (lambda m, first: compile_for_logits(switch(m, first), rate=1e-3), "rate is 0.001"),
        (lambda m, first: compile_for_logits(switch(m, first), from_logits=False), "tell the loss"),
        (only_the_layer, "the layer conv_2 should learn"),
        (new_head, "The head has changed before any training"),
        (head_frozen, "The head stood still"),
        ("unfrozen", "should be a function"),
    ],
)
def test_unfreeze_wrongly(said, wrong, sentence):
    text = said("unfreeze", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_what_moved_is_told():
    model = check.small_model()
    assert check.one_more_epoch(model) == ["head kernel", "head bias"]
    compiled_too_early(model, "conv_2")  # before the first fit Keras notices
    assert check.one_more_epoch(model)[:2] == ["conv_2 kernel", "conv_2 bias"]


@pytest.mark.parametrize(
    "right",
    [
        lambda v, t: (int(np.argmax(v)), float(t[np.argmax(v)])),
        lambda v, t: max(zip(v, range(len(v)), t, strict=True))[1:],
        lambda v, t: [v.index(max(v)), np.array([t[v.index(max(v))]])],
    ],
)
def test_choose(said, right):
    assert said("choose", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda v, t: (np.argmax(t), max(t)), "the winner on the test pictures"),
        (lambda v, t: (np.argmax(v), max(v)), "That is its validation accuracy"),
        (lambda v, t: (np.argmax(v), max(t)), "of a model that you did not choose"),
        (
            lambda v, t: (np.argmax(np.add(v, t)), t[np.argmax(np.add(v, t))]),
            "Both lists together",
        ),
        (lambda v, t: (np.argmin(v), t[np.argmin(v)]), "you chose"),
        (lambda v, t: (np.argmax(v) + 1, t[np.argmax(v)]), "you chose"),
        (lambda v, t: (max(v), t[np.argmax(v)]), "np.argmax gives the position"),
        (lambda v, t: np.argmax(v), "should return two things"),
        (lambda v, t: None, "does it end with `return`?"),
        (0.9, "should be a function"),
    ],
)
def test_choose_wrongly(said, wrong, sentence):
    for _ in range(5):  # other numbers each time
        text = said("choose", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


RIGHT = {run: name for run, (name, _) in check.SYMPTOMS.items()}


@pytest.mark.parametrize(
    "answer, sentence",
    [
        ({run: f" {name.upper()}" for run, name in RIGHT.items()}, "✓ Right."),
        (RIGHT | {"A": RIGHT["D"]}, "5 of 6 are right. Look at run A"),
        (RIGHT | {"C": RIGHT["B"], "B": RIGHT["C"]}, "4 of 6 are right. Look at run B"),
        (RIGHT | {"F": "bad luck"}, "Run F: 'bad luck' is not in the list"),
        (RIGHT | {"G": RIGHT["A"]}, "There is no run G"),
        ({"A": RIGHT["A"]}, "Not all runs have a name yet: B, C, D, E, F"),
        (list(RIGHT.values()), "yours is a list"),
    ],
)
def test_diagnosis(said, answer, sentence):
    assert sentence in said("diagnosis", answer)


def test_a_message_does_not_name_the_mistake(said):
    for run, name in RIGHT.items():
        other = next(n for n in check.NAMES if n != name)
        assert name not in said("diagnosis", RIGHT | {run: other})


def test_classify(said):
    labels = np.arange(10) % 2
    pictures = labels[:, None, None, None] * np.full((8, 8, 3), 200.0)
    assert said("classify", lambda x: x[:, 0, 0, 0] > 100, pictures, labels) == "✓ Right."
    for wrong, sentence in (
        (lambda x: np.ones(len(x)), "0.500 of these drawings"),
        (lambda x: x[:, 0, 0, 0] < 100, "Are cats 0 and dogs 1?"),
        (lambda x: x[:, :1, 0, 0] > 100, "found (10, 1)"),
        (0.9, "it is a float"),
    ):
        text = said("classify", wrong, pictures, labels)
        assert text.startswith("✗ Not yet.") and sentence in text
