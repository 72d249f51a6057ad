"""The checks of exercise 06: right, other right, plausible wrong and open answers."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from helpers.checks import shifts as check


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in ("right[", ".mean(", ".std(", "1e-6", "axis=", "sem", "ppf", "night_x")
        if code in hints
    ]


@pytest.mark.parametrize("name", ["parts", "align", "verdict"])
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    space = {"np": np, "stats": stats}
    exec(capsys.readouterr().out, space)
    for _ in range(5):  # the checks draw their own numbers
        assert said(name, space[name]) == "✓ Right."


def test_grading_raises(monkeypatch):
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="a function"):
        check.parts(0.1)
    with pytest.raises(AssertionError, match="Not answered"):
        check.parts(None)


def by_loop(right, home, away):
    share = {key: sum(named) / len(named) for key, named in right.items()}
    fall = share[home, home] - share[home, away]
    harder = share[home, home] - share[away, away]
    return [harder, fall - harder]


def of_means(combine):
    return lambda right, home, away: combine(
        *(right[key].mean() for key in ((home, home), (away, away), (home, away), (away, home)))
    )


@pytest.mark.parametrize(
    "right", [by_loop, of_means(lambda h, local, s, v: np.array([h - local, local - s]))]
)
def test_parts(said, right):
    for _ in range(5):
        assert said("parts", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (of_means(lambda h, local, s, v: (h - local, h - s)), "is the whole fall"),
        (of_means(lambda h, local, s, v: (0.0, h - s)), "is the whole fall"),
        (of_means(lambda h, local, s, v: (local - s, h - local)), "in the other order"),
        (of_means(lambda h, local, s, v: (local - h, s - local)), "The signs are"),
        (of_means(lambda h, local, s, v: (100 * (h - local), 100 * (local - s))), "points of 100"),
        (of_means(lambda h, local, s, v: (h - local, h - v)), "compares two heads at home"),
        (of_means(lambda h, local, s, v: (h - v, v - s)), "but not at"),
        (of_means(lambda h, local, s, v: (h, s)), "expected"),
        (of_means(lambda h, local, s, v: h - s), "Two numbers are wanted"),
        (lambda right, home, away: None, "does it end with `return`?"),
        (lambda right: (0, 0), "stops the check with TypeError"),
        ((0.1, 0.05), "it is a tuple"),
    ],
)
def test_parts_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("parts", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


def moving(step):
    """A function of x, and of mean and spread of unlabelled and of home."""

    def align(x, unlabelled, home):
        a, b = unlabelled, home
        return step(x, a.mean(0), a.std(0), b.mean(0), b.std(0))

    return align


def where(x, unlabelled, home):
    spread = np.where(unlabelled.std(0) > 0, unlabelled.std(0), 1)
    factor = home.std(0) / spread
    return x * factor + (home.mean(0) - unlabelled.mean(0) * factor)


def channel_by_channel(x, unlabelled, home):
    columns = []
    for c in range(x.shape[1]):
        a, b = unlabelled[:, c], home[:, c]
        columns.append((x[:, c] - a.mean()) / max(a.std(), 1e-3) * b.std() + b.mean())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("right", [where, channel_by_channel])
def test_align(said, right):
    for _ in range(5):
        assert said("align", right) == "✓ Right."


def in_place(x, unlabelled, home):
    x -= unlabelled.mean(0)
    return x / (unlabelled.std(0) + 1e-6) * home.std(0) + home.mean(0)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (moving(lambda x, m, s, n, t: (x - m) / s * t + n), "divided by its spread, 0"),
        (lambda x, u, h: (x - u.mean()) / u.std() * h.std() + h.mean(), "for all channels"),
        (
            lambda x, u, h: (x - x.mean(0)) / x.std(0) * h.std(0) + h.mean(0),
            "not from `unlabelled`",
        ),
        (moving(lambda x, m, s, n, t: (x - n) / t * s + m), "the other way"),
        (moving(lambda x, m, s, n, t: (x - m) / s), "Now give them home's"),
        (moving(lambda x, m, s, n, t: x - m + n), "but not stretched"),
        (moving(lambda x, m, s, n, t: (x - m) / s * t), "mean is not added"),
        (moving(lambda x, m, s, n, t: (x - m) / s**2 * t**2 + n), "squares of spreads"),
        (lambda x, u, h: x, "nothing has moved"),
        (lambda x, u, h: x + 7, "Expected, for the first channel"),
        (lambda x, u, h: h, "came out. The moved `x` is wanted"),
        (in_place, "changed `x` itself"),
        (lambda x, u, h: None, "does it end with `return`?"),
        (3, "it is a int"),
    ],
)
def test_align_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("align", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


@pytest.fixture(scope="module")
def worlds():
    """Crayon drawings show themselves in the first feature, night pictures in the second."""
    rng = np.random.default_rng(0)

    def world(n, used):
        y = np.arange(n) % 2
        x = rng.normal(size=(n, 3))
        x[:, used] += 1.5 * (2 * y - 1)
        x[:, 2] += 0.9 * (2 * y - 1)  # helps a little in both worlds
        return x, y

    crayon, night, test = world(200, 0), world(100, 1), world(400, 1)
    both = [np.concatenate(parts) for parts in zip(crayon, night, strict=True)]
    return crayon, both, test, RidgeClassifier().fit(*crayon)


def test_repaired(said, worlds):
    _, both, test, head = worlds
    for line in (RidgeClassifier(), LogisticRegression()):
        assert said("repaired", line.fit(*both), head, *test) == "✓ Right."


def test_repaired_wrongly(said, worlds):
    crayon, (x, y), (test_x, test_y), head = worlds

    def text(answer):
        found = said("repaired", answer, head, test_x, test_y)
        assert found.startswith("✗ Not yet.")
        return found

    assert "crayon head itself" in text(head)
    assert "Does it learn from the labelled night pictures" in text(RidgeClassifier().fit(*crayon))
    assert "in the same order" in text(RidgeClassifier().fit(x, 1 - y))
    weak = LogisticRegression().fit(np.zeros_like(crayon[0]), crayon[1])  # one answer for all
    assert "hardly more than guessing" in text(weak)
    assert "a fitted line is wanted" in text(0.9).lower()
    assert "stops the check with NotFittedError" in text(RidgeClassifier())

    class Leak:
        def predict(self, x):
            return test_y

    assert "has your line learnt from them?" in text(Leak())


def by_hand(transferred, control):
    change = [a - b for a, b in zip(transferred, control, strict=True)]
    half = 2.776 * np.std(change, ddof=1) / np.sqrt(len(change))
    low, high = np.mean(change) - half, np.mean(change) + half
    return "positive" if low > 0 else "negative" if high < 0 else "undecided"


def by_test(transferred, control):
    result = stats.ttest_rel(transferred, control)
    if result.pvalue > 0.05:
        return "undecided"
    return "positive" if result.statistic > 0 else "negative"


@pytest.mark.parametrize("right", [by_hand, by_test])
def test_verdict(said, right):
    for _ in range(5):
        assert said("verdict", right) == "✓ Right."


def by_means(transferred, control):
    return "positive" if transferred.mean() > control.mean() else "negative"


def unpaired(transferred, control):
    result = stats.ttest_ind(transferred, control)
    if result.pvalue > 0.05:
        return "undecided"
    return "positive" if result.statistic > 0 else "negative"


def normal(transferred, control):
    change = transferred - control
    half = 1.96 * stats.sem(change)
    return "undecided" if abs(change.mean()) < half else by_means(transferred, control)


def divided_by_n(transferred, control):
    change = transferred - control
    half = 2.776 * change.std() / 5**0.5
    return "undecided" if abs(change.mean()) < half else by_means(transferred, control)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (by_means, "holds 0"),
        (unpaired, "take the interval of the differences"),
        (normal, "Student's factor is 2.78"),
        (divided_by_n, "divides by n − 1"),
        (lambda a, b: by_hand(b, a), "Which of the two is the one with transfer?"),
        (lambda a, b: "undecided", "large and steady"),
        (lambda a, b: True, "yours says True"),
        (lambda a, b: "Positive", "yours says 'Positive'"),
        (lambda a, b: None, "does every way through it `return`?"),
        (lambda a: "positive", "stops the check with TypeError"),
        ("negative", "it is a str"),
    ],
)
def test_verdict_wrongly(said, wrong, sentence):
    for _ in range(3):
        text = said("verdict", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text
