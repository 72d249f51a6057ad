"""The checks of exercise 04: right, other right, plausible wrong and open answers."""

import keras
import numpy as np
import pytest
from scipy import stats

from helpers.checks import comparison as check

TASKS = ("unfreeze", "recalibrate", "gain", "interval")
BATCH_NORM = keras.layers.BatchNormalization


@pytest.mark.parametrize("name", TASKS)
def test_a_number_is_no_function(said, name):
    assert "should be a function, it is a float" in said(name, 0.9)


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in ("momentum", "training=True", "astype", "1.96", "ddof", "ppf", "sqrt", "= True")
        if code in hints
    ]


@pytest.mark.parametrize("name", TASKS)
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    space = {"keras": keras, "np": np, "stats": stats}
    exec(capsys.readouterr().out, space)
    for _ in range(3):  # each check draws its own numbers
        assert said(name, space[name]) == "✓ Right."


def size(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def layer_by_layer(backbone, first):
    backbone.trainable = True
    count = 0
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= first
        count += size(layer.trainable_weights)
    return np.int64(count)


def from_behind(backbone, first):
    backbone.trainable = True
    learn = set(backbone.layers[first:])
    for layer in backbone.layers:
        layer.trainable = layer in learn
    return backbone.count_params() - size(backbone.non_trainable_weights)


@pytest.mark.parametrize("right", [layer_by_layer, from_behind])
def test_unfreeze(said, right):
    for _ in range(4):
        assert said("unfreeze", right) == "✓ Right."


def without_the_switch(backbone, first):
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= first
    return size(backbone.trainable_weights)


def frozen_as_a_whole(backbone, first):
    backbone.trainable = False
    for layer in backbone.layers[first:]:
        layer.trainable = True
    return size(backbone.trainable_weights)


def everything(backbone, first):
    backbone.trainable = True
    return size(backbone.trainable_weights)


def unfreezing(count=None, shift=0, norms=True):
    def answer(backbone, first):
        backbone.trainable = True
        for i, layer in enumerate(backbone.layers):
            still = isinstance(layer, BATCH_NORM) and not norms
            layer.trainable = i >= first + shift and not still
        return count(backbone, first) if count else size(backbone.trainable_weights)

    return answer


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (without_the_switch, "came frozen as a whole nothing learns afterwards"),
        (frozen_as_a_whole, "came unfrozen nothing learns afterwards"),
        (everything, "should not learn, but 'conv_0' does"),
        (unfreezing(shift=-1), "should not learn, but"),
        (unfreezing(shift=1), "itself learns, too"),
        (unfreezing(norms=False), "so do BatchNorm layers"),
        (unfreezing(lambda b, first: len(b.trainable_weights)), "how many arrays learn"),
        (unfreezing(lambda b, first: len(b.layers[first:])), "That is how many layers"),
        (
            unfreezing(lambda b, first: sum(x.count_params() for x in b.layers[first:])),
            "counts the moving statistics",
        ),
        (unfreezing(lambda b, first: b.count_params()), "all there is in the backbone"),
        (unfreezing(lambda b, first: 7.5), "You returned 7.5"),
        (unfreezing(lambda b, first: None), "return the count"),
        (lambda backbone: None, "stops the check with TypeError"),
    ],
)
def test_unfreeze_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("unfreeze", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


def test_a_frozen_whole_silences_its_layers():
    """The reason why the check insists; if this fails, Keras has changed and the check is idle."""
    backbone = check._stack([3, 4])
    backbone.trainable = False
    assert without_the_switch(backbone, 3) == 0


def showing(momentum=0.9, passes=3, batch=16, training=True, only=slice(None), norms=slice(None)):
    """An answer that shows the model pictures in batches."""

    def answer(model, pictures):
        for layer in [x for x in model.layers if isinstance(x, BATCH_NORM)][norms]:
            layer.momentum = momentum
        shown = pictures[only]
        for _ in range(passes):
            mixed = shown[np.random.default_rng().permutation(len(shown))]
            for start in range(0, len(shown), batch):
                model(mixed[start : start + batch], training=training)

    return answer


def plain_average(model, pictures):
    mixed = np.random.default_rng().permutation(len(pictures))
    for k, batch in enumerate(np.array_split(pictures[mixed], 6)):
        for layer in model.layers:
            if isinstance(layer, BATCH_NORM):
                layer.momentum = k / (k + 1)
        model(batch, training=True)


def by_hand(model, pictures):
    """Layer by layer, with `set_weights`."""
    for layer in model.layers:
        if isinstance(layer, BATCH_NORM):
            seen = keras.Model(model.inputs[0], layer.input)(pictures, training=False).numpy()
            gamma, beta, _, _ = layer.get_weights()
            layer.set_weights([gamma, beta, seen.mean((0, 1, 2)), seen.var((0, 1, 2))])


RIGHT = [
    plain_average,
    by_hand,
    showing(0.9, 30, 96),
    showing(0.9, 4),
    showing(0.0, 1, 96),
]


@pytest.mark.parametrize("right", RIGHT)
def test_recalibrate(said, right):
    for _ in range(4):
        assert said("recalibrate", right) == "✓ Right."


def fitting(model, pictures):
    model.fit(pictures, np.zeros(len(pictures)), epochs=1, verbose=0)


def freezing(model, pictures):
    plain_average(model, pictures)
    model.trainable = False


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (showing(0.999, 1), "Each update keeps the share `momentum` of the old value"),
        (showing(0.9, 1), "of their way, then you stopped"),
        (lambda model, pictures: showing(0.0, 1, 96)(model, pictures / 255), "went 0% of their"),
        (showing(0.999, 8), "of their way, then you stopped"),
        (showing(0.0, 1, 96, training=False), "No moving statistics have changed"),
        (lambda model, pictures: model.predict(pictures, verbose=0), "No moving statistics"),
        (lambda model, pictures: model.summary, "No moving statistics"),
        (lambda model, pictures: showing(0.0, 1, 96)(model, pictures + 3), "in mixed order?"),
        (showing(0.0, 1, 96, only=slice(16)), "show all pictures, as they are"),
        (showing(0.0, 1, 96, only=slice(32)), "show all pictures, as they are"),
        (showing(0.0, 1, 96, only=slice(80, 96)), "the last batch"),
        (fitting, "Trainable weights have moved"),
        (freezing, "Other weights are trainable now"),
        (lambda model: None, "stops the check with TypeError"),
    ],
)
def test_recalibrate_wrongly(said, wrong, sentence):
    for _ in range(2):
        text = said("recalibrate", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


def test_recalibrate_one_layer_only(said):
    def first_only(model, pictures):
        norms = [layer for layer in model.layers if isinstance(layer, BATCH_NORM)]
        norms[1].trainable = False  # so it runs in inference mode
        showing(0.0, 1, 96)(model, pictures)
        norms[1].trainable = True

    assert "2 of 4 moving statistics stand still" in said("recalibrate", first_only)


def paired(before, after):
    return after.astype(float) - before


def with_t(before, after):
    change = paired(before, after)
    half = stats.t.ppf(0.975, len(change) - 1) * change.std(ddof=1) / np.sqrt(len(change))
    return [change.mean(), half]


def from_counts(before, after):
    n = len(before)
    mended, broken = np.sum(after & ~before), np.sum(before & ~after)
    growth = (mended - broken) / n
    return growth, 2 * np.sqrt((mended + broken) / n - growth**2) / np.sqrt(n)


@pytest.mark.parametrize("right", [with_t, from_counts])
def test_gain(said, right):
    for _ in range(5):
        assert said("gain", right) == "✓ Right."


def margin(formula):
    return lambda before, after: (after.mean() - before.mean(), formula(before, after))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda b, a: with_t(a, b), "Which minus which?"),
        (lambda b, a: [100 * x for x in with_t(b, a)], "in points. Give it as a share"),
        (lambda b, a: (a.mean(), 0.02), "your growth is"),
        (margin(lambda b, a: 1.96 * np.sqrt((b.var() + a.var()) / len(b))), "Pair them first"),
        (margin(lambda b, a: 1.96 * paired(b, a).std()), "the error of a mean is smaller"),
        (margin(lambda b, a: paired(b, a).std() / len(b) ** 0.5), "That is the standard error"),
        (margin(lambda b, a: paired(b, a).std()), "spread of single drawings"),
        (margin(lambda b, a: 2 * with_t(b, a)[1]), "That is the whole width"),
        (margin(lambda b, a: 1.96 * paired(b, a).std() / len(b)), "its root is enough"),
        (margin(lambda b, a: 0.5), "look at its function `gain`"),
        (lambda b, a: paired(b, a).mean(), "Two numbers are wanted"),
        (lambda b, a: None, "does it end with `return`?"),
        (lambda b, a: ((a - b).mean(), 0.1), "stops the check with TypeError"),
    ],
)
def test_gain_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("gain", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


def by_scipy(accuracies):
    low, high = stats.t.interval(
        0.95, len(accuracies) - 1, loc=np.mean(accuracies), scale=stats.sem(accuracies)
    )
    return (low + high) / 2, (high - low) / 2


def test_interval(said):
    for _ in range(5):
        assert said("interval", by_scipy) == "✓ Right."


def half_width(formula):
    return lambda x: (x.mean(), formula(x, len(x)))


def t(n):
    return stats.t.ppf(0.975, n - 1)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (half_width(lambda x, n: 1.96 * x.std(ddof=1) / n**0.5), "That takes 1.96"),
        (half_width(lambda x, n: t(n) * x.std() / n**0.5), "look for `ddof`"),
        (half_width(lambda x, n: 1.96 * x.std() / n**0.5), "and divides by n"),
        (
            half_width(lambda x, n: t(n + 1) * x.std(ddof=1) / n**0.5),
            "degrees of freedom. One less",
        ),
        (half_width(lambda x, n: stats.t.ppf(0.95, n - 1) * stats.sem(x)), "leave out 2.5 %"),
        (half_width(lambda x, n: t(n) * x.std(ddof=1)), "That is for one more run"),
        (half_width(lambda x, n: x.std(ddof=1)), "spread of single runs"),
        (half_width(lambda x, n: stats.sem(x)), "That is the standard error"),
        (half_width(lambda x, n: 2 * t(n) * stats.sem(x)), "That is the whole width"),
        (half_width(lambda x, n: t(n) * x.std(ddof=1) / n), "its root is enough"),
        (half_width(lambda x, n: 0.5), "by the root of the number of runs"),
        (lambda x: stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x)), "the two ends"),
        (lambda x: (np.median(x) + 0.1, 0.01), "you return"),
        (lambda x: x.mean(), "Two numbers are wanted"),
        (lambda x: None, "does it end with `return`?"),
    ],
)
def test_interval_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("interval", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


BRIGHT = np.repeat(np.arange(20)[:, None, None, None] % 2 * 200.0, 3, axis=3)  # 20 "drawings"
LABELS = np.arange(20) % 2


def test_classify(said):
    def by_brightness(pictures):
        pictures -= 100  # its own copy
        return (pictures.mean((1, 2, 3)) > 0).astype(int)

    assert said("classify", by_brightness, BRIGHT, LABELS) == "✓ Right."
    assert BRIGHT.min() == 0
    assert said("classify", lambda x: x[:, 0, 0, 0] > 100, BRIGHT, LABELS) == "✓ Right."
    assert "Not answered yet" in said("classify", None, BRIGHT, LABELS)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda x: np.zeros(len(x)), "0.500 of these drawings"),
        (lambda x: x[:, 0, 0, 0] < 100, "Are cats 0 and dogs 1?"),
        (lambda x: x[:, 0, 0, 0] / 100 - 1, "found -1"),
        (lambda x: x[:, 0, 0] > 100, "found (20, 3)"),
        (keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()]), "found (20, 3)"),
        (LABELS, "it is a ndarray"),
    ],
)
def test_classify_wrongly(said, wrong, sentence):
    text = said("classify", wrong, BRIGHT, LABELS)
    assert text.startswith("✗ Not yet.") and sentence in text
