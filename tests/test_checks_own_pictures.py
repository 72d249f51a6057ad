"""The checks of exercise 08: right, other right, plausible wrong and open answers."""

import random

import keras
import numpy as np
import pytest

from helpers.checks import own_pictures as check

layers = keras.layers


def wrongly(text, sentence):
    assert text.startswith("✗ Not yet.") and sentence in text


def test_hints_name_no_code(hints):
    assert not [c for c in ("rng", "choice", "keras.layers", "+=", "exp(", ".mean") if c in hints]


@pytest.mark.parametrize("name", ["split", "confusion", "worst", "heat"])
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    scope = {"np": np}
    exec(capsys.readouterr().out, scope)
    for _ in range(5):  # the checks draw their own numbers
        assert said(name, scope[name]) == "✓ Right."


@pytest.mark.parametrize("name", ["split", "confusion", "worst", "heat"])
def test_open_answers_and_no_functions(said, name):
    assert said(name, None).startswith("Not answered yet")
    wrongly(said(name, np.zeros(3)), "should be a function, it is a ndarray")
    wrongly(said(name, lambda *arguments: None), "does it end with `return`?")


def test_under_grading_it_raises(monkeypatch):
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not yet"):
        check.split(lambda animals, share, seed: animals > 5000)


def by_set(animals, share, seed):
    """Each animal by a throw of its own, in plain Python; whole numbers for True and False."""
    throws = random.Random(seed)
    tested = {number for number in sorted(set(animals.tolist())) if throws.random() < share}
    return [int(number in tested) for number in animals]


def by_order(animals, share, seed):
    numbers = np.random.default_rng(seed).permutation(np.unique(animals))
    return np.isin(animals, numbers[: int(share * len(numbers))])


@pytest.mark.parametrize("right", [by_set, by_order])
def test_split(said, right):
    for _ in range(5):
        assert said("split", right) == "✓ Right."


def by_picture(animals, share, seed):
    return np.random.default_rng(seed).random(len(animals)) < share


def first(animals, share, seed):
    numbers = np.unique(animals)
    return np.isin(animals, numbers[: int(share * len(numbers))])


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (by_picture, "of 200 animals are on both sides"),
        (lambda a, share, seed: ~by_order(a, share, seed), "Is it the other way round?"),
        (lambda a, share, seed: by_order(a, 0.01, seed), "Count animals"),
        (lambda a, share, seed: by_order(a, share, None), "Make the random generator from `seed`"),
        (lambda a, share, seed: by_order(a, share, 0), "Another seed draws the same animals"),
        (first, "Another seed draws the same animals"),
        (lambda a, share, seed: np.flatnonzero(by_order(a, share, seed)), "as many True and False"),
        (lambda a, share, seed: by_order(np.unique(a), share, seed), "with the shape (200,)"),
        (lambda a, share: a, "stops the check with TypeError"),
    ],
)
def test_split_wrongly(said, wrong, sentence):
    for _ in range(3):
        wrongly(said("split", wrong), sentence)


LABELS = np.arange(60) % 2
PICTURES = np.random.default_rng(0).uniform(0, 99, (60, 8, 8, 3)).astype("float32")
PICTURES[..., 0] += 60 * LABELS[:, None, None]  # "dogs" are red


def stack(*end, scale=1 / 255, shape=(8, 8, 3)):
    return keras.Sequential(
        [keras.Input(shape), layers.Rescaling(scale), layers.GlobalAveragePooling2D(), *end]
    )


def redness(sign=1, activation=None):
    """A head that has learnt to tell red from not red."""
    head = layers.Dense(2, activation=activation)
    head.build((None, 3))
    head.set_weights([sign * np.array([[-20, 20], [0, 0], [0, 0]]), sign * np.array([6.2, -6.2])])
    return head


def functional():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, stack(redness())(inputs))


@pytest.mark.parametrize("right", [lambda: stack(redness()), functional])
def test_model(said, right):
    model = right()
    before = model.get_weights()
    assert said("model", model, PICTURES, LABELS) == "✓ Right."
    assert all(map(np.array_equal, before, model.get_weights())), "the check must change nothing"


def test_an_open_model(said):
    assert said("model", None, PICTURES, LABELS).startswith("Not answered yet")


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: keras.Sequential([keras.Input((3,)), redness()]), "put `extract` in front"),
        (lambda: stack(redness(), shape=(9, 9, 3)), "your model takes (None, 9, 9, 3)"),
        (lambda: keras.Sequential([layers.Flatten(), redness()]), "Is there a keras.Input"),
        (lambda: stack(layers.Dense(1)), "Cat and dog get one each"),
        (lambda: stack(), "found the shape (60, 3)"),
        (lambda: stack(redness(activation="softmax")), "add up to 1: these are probabilities"),
        (lambda: stack(redness(), scale=0.0), "0.500 of the new pictures"),
        (lambda: stack(redness(-1)), "Are cats 0 and dogs 1?"),
        (lambda: redness(), "yours is a Dense"),
        (lambda: redness, "yours is a function"),
    ],
)
def test_model_wrongly(said, wrong, sentence):
    wrongly(said("model", wrong(), PICTURES, LABELS), sentence)


def by_sklearn(labels, answers, count):
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, answers, labels=range(count))


def by_pairs(labels, answers, count):
    pairs = list(zip(labels, answers, strict=True))
    return [[pairs.count((i, j)) for j in range(count)] for i in range(count)]


@pytest.mark.parametrize("right", [by_sklearn, by_pairs])
def test_confusion(said, right):
    assert said("confusion", right) == "✓ Right."


def at_most_one(labels, answers, count):
    table = np.zeros((count, count), int)
    table[labels, answers] += 1  # NumPy counts a pair once
    return table


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda y, a, n: by_sklearn(a, y, n), "Rows and columns have changed places"),
        (at_most_one, "a pair that comes again has to count again"),
        (lambda y, a, n: by_sklearn(y, a, 3), "it is one"),
        (lambda y, a, n: by_sklearn(y, a, n) / len(y), "These are shares"),
        (lambda y, a, n: 2 * by_sklearn(y, a, n), "your table has"),
        (lambda y, a, n: np.mean(y == a), "yours is ()"),
        (lambda y, a: y, "stops the check with TypeError"),
    ],
)
def test_confusion_wrongly(said, wrong, sentence):
    for _ in range(3):
        wrongly(said("confusion", wrong), sentence)


def shares(logits):
    return keras.ops.softmax(logits).numpy()


def by_masking(logits, labels, count):
    sure = np.where(logits.argmax(1) == labels, -1, shares(logits).max(1))
    order = np.argsort(sure)[::-1]
    return [i for i in order if sure[i] >= 0][:count]


@pytest.mark.parametrize("right", [by_masking])
def test_worst(said, right):
    for _ in range(5):
        assert said("worst", right) == "✓ Right."


def sorting(key, rightly=False):
    def worst(logits, labels, count):
        chosen = np.flatnonzero((logits.argmax(1) == labels) == rightly)
        return chosen[np.argsort(key(logits)[chosen], kind="stable")][:count]

    return worst


def forgot_the_others(logits, labels, count):
    wrong = logits.argmax(1) != labels
    return np.argsort(-shares(logits).max(1)[wrong])[:count]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (sorting(lambda z: shares(z).max(1)), "least sure of: turn the order round"),
        (sorting(lambda z: -z.max(1)), "You sorted by the largest logit"),
        (sorting(lambda z: -shares(z).max(1), rightly=True), "was named rightly"),
        (lambda z, y, n: by_masking(z, y, n)[::-1], "the surest comes first"),
        (lambda z, y, n: shares(z).max(1)[by_masking(z, y, n)], "Five positions from 0 to 59"),
        (lambda z, y, n: by_masking(z, y, 4), "with the shape (4,)"),
        (sorting(lambda z: np.arange(len(z))), "look for the largest share"),
    ],
)
def test_worst_wrongly(said, wrong, sentence):
    wrongly(said("worst", wrong), sentence)


def test_worst_at_the_wrong_places(said):
    text = said("worst", forgot_the_others)
    assert text.startswith("✗ Not yet.")


def test_worst_when_there_are_few(said):
    def filled_up(logits, labels, count):
        found = by_masking(logits, labels, count)
        return found + [0] * (count - len(found))

    wrongly(said("worst", filled_up), "asked for 60")


def by_einsum(maps, gradients):
    return np.einsum("nyxc,nc->nyx", maps, gradients.mean((1, 2))).clip(0)


def summed(maps, gradients):
    return keras.ops.relu(
        keras.ops.sum(maps * keras.ops.sum(gradients, (1, 2), keepdims=True), -1)
    ).numpy()


@pytest.mark.parametrize("right", [by_einsum, summed])
def test_heat(said, right):
    for _ in range(3):
        assert said("heat", right) == "✓ Right."


def mean(gradients):
    return gradients.mean((1, 2), keepdims=True)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda m, g: (mean(g) * m).sum(-1), "Some of it is negative"),
        (lambda m, g: np.abs((mean(g) * m).sum(-1)), "has become heat"),
        (lambda m, g: np.maximum((g * m).sum(-1), 0), "Average the gradients over places first"),
        (lambda m, g: m.sum(-1), "The gradients play no part"),
        (lambda m, g: (np.maximum(mean(g), 0) * m).sum(-1), "averages may be negative"),
        (lambda m, g: np.maximum(g.mean(-1), 0), "You averaged over channels"),
        (lambda m, g: mean(g) * m, "Add the channels up"),
        (lambda m, g: np.maximum((mean(g) * m).sum((1, 2)), 0), "yours (3, 6)"),
        (lambda m, g: np.zeros((3, 4, 5)), "Go through the four steps"),
        (lambda m, g: g, "Add the channels up"),
    ],
)
def test_heat_wrongly(said, wrong, sentence):
    for _ in range(3):
        wrongly(said("heat", wrong), sentence)
