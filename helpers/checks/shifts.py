"""The checks of the exercise to lesson 06: parts of a fall, alignment, a few labels, a verdict."""

import math

import numpy as np
from scipy import stats

from helpers.checks import task
from helpers.checks.handing_in import HandIn

NOTEBOOK = "shifts/shifts"
LEVEL = 0.72  # accuracy of the repaired head on night drawings; 0.83 is usual, 0.5 is chance
GAIN = 0.02  # over the crayon head

hand_in = HandIn(NOTEBOOK, size=96, points=40, pictures=400, drawn_world=True)


def _no_function(answer, name):
    if not callable(answer):
        return f"`{name}` should be a function, it is a {type(answer).__name__}."
    return None


@task(
    NOTEBOOK,
    hint="Three accuracies are enough: at home, away, and that of the one who lives there. The one "
    "who lives there stands between the two others: one step down to it, one step further down.",
)
def parts(parts):
    if problem := _no_function(parts, "parts"):
        return problem
    rng = np.random.default_rng()
    share = {("day", "day"): 0.9, ("dusk", "dusk"): 0.75, ("day", "dusk"): 0.5}
    share |= {("dusk", "day"): 0.82, ("dawn", "dawn"): 0.7, ("day", "dawn"): 0.4}
    right = {}
    for key, level in share.items():  # as many pictures as it happens; the order is random
        n = 100 * int(rng.integers(2, 5))
        right[key] = rng.permutation(n) < round(n * (level + rng.integers(-2, 3) / 100))
    mean = {key: named.mean() for key, named in right.items()}
    found = parts(dict(right), "day", "dusk")
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    try:
        harder, shift = (float(part) for part in found)
    except (TypeError, ValueError):
        return "Two numbers are wanted, `return harder, shift`."
    home, local, stranger = mean["day", "day"], mean["dusk", "dusk"], mean["day", "dusk"]
    visitor = mean["dusk", "day"]
    pair = np.array([harder, shift])

    def is_(*numbers):
        return np.allclose(pair, numbers, atol=1e-6)

    if is_(home - local, local - stranger):
        return None
    if is_(local - stranger, home - local):
        return "Both numbers are right, in the other order: first harder, then shift."
    if is_(local - home, stranger - local):
        return "The signs are the wrong way round: what is lost counts as positive here."
    if is_(100 * (home - local), 100 * (local - stranger)):
        return "Right, in points of 100. Shares are wanted, as the accuracies are."
    if math.isclose(shift, home - stranger, abs_tol=1e-6):
        return (
            f"Your shift, {shift:.3f}, is the whole fall. Someone who learnt away falls, too, "
            f"to {local:.3f}: only what is below that is the shift."
        )
    if math.isclose(shift, home - visitor, abs_tol=1e-6):
        return (
            "Your shift compares two heads at home. They should be compared away: "
            "the second of the two keys says where they are asked."
        )
    if math.isclose(harder + shift, home - stranger, abs_tol=1e-6):
        return (
            f"Your parts add up to the whole fall, as they should, but not at {local:.3f}: that is "
            "the accuracy of the head that learnt away and is asked away."
        )
    return (
        f"At home {home:.3f}, away {stranger:.3f}, and {local:.3f} for the one who learnt there: "
        f"expected {home - local:.3f} and {local - stranger:.3f}, found {harder:.3f} and "
        f"{shift:.3f}."
    )


@task(
    NOTEBOOK,
    hint="Two steps. First take away the mean and divide by the spread, both measured on the new "
    "world's pictures. Then go the same way backwards with the home world's. Each channel by "
    "itself: along which axis do the pictures lie?",
)
def align(align):
    if problem := _no_function(align, "align"):
        return problem
    rng = np.random.default_rng()
    channels = 4
    x, unlabelled, home = (
        rng.normal(rng.uniform(-2, 2, channels), rng.uniform(0.5, 3, channels), (n, channels))
        for n in (5, 40, 60)
    )

    def moved(x, a, b, **along):
        standard = (x - a.mean(**along)) / a.std(**along)
        return standard * b.std(**along) + b.mean(**along)

    given = x.copy(), unlabelled.copy(), home.copy()
    found = align(*given)
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.shape != x.shape:
        return (
            f"Features of shape {x.shape} went in, {found.shape} came out. The moved `x` is wanted."
        )
    for name, now, was in zip(
        ("x", "unlabelled", "home"), given, (x, unlabelled, home), strict=True
    ):
        if not np.array_equal(now, was):
            return f"Your function changed `{name}` itself. Work on a copy: a new array comes out."
    right = moved(x, unlabelled, home, axis=0)
    close = {"rtol": 0.02, "atol": 0.02}  # a small number beside a spread is fine
    if np.allclose(found, right, **close):
        return _constant_channel(align, x, unlabelled, home)
    a, b = unlabelled, home
    for wrong, why in (
        (x, "nothing has moved."),
        (moved(x, a, b), "one mean and spread were used for all channels. Each has its own."),
        (moved(x, x, b, axis=0), "mean and spread came from `x`, not from `unlabelled`."),
        (moved(x, b, a, axis=0), "they went the other way, from home to the new world."),
        ((x - a.mean(0)) / a.std(0), "they have mean 0 and spread 1. Now give them home's."),
        (x - a.mean(0) + b.mean(0), "they are moved, but not stretched."),
        ((x - a.mean(0)) / a.std(0) * b.std(0), "home's mean is not added in the end."),
        ((x - a.mean(0)) / a.var(0) * b.var(0) + b.mean(0), "variances are squares of spreads."),
    ):
        if np.allclose(found, wrong, **close):
            return f"Look at the features: {why}"
    return (
        "Expected, for the first channel of the first picture, "
        f"{right[0, 0]:.3f}, found {found[0, 0]:.3f}. "
        f"There `x` is {x[0, 0]:.3f}, the unlabelled mean {a[:, 0].mean():.3f} and spread "
        f"{a[:, 0].std():.3f}, home's mean {b[:, 0].mean():.3f} and spread {b[:, 0].std():.3f}."
    )


def _constant_channel(align, x, unlabelled, home):
    x, unlabelled = x.copy(), unlabelled.copy()
    x[:, 0] = unlabelled[:, 0] = 3.0
    with np.errstate(all="ignore"):
        found = np.asarray(align(x, unlabelled, home.copy()))
    if np.isfinite(found).all():
        return None
    return (
        "Right, as long as every channel varies. The check gave you one that is 3 everywhere, and "
        "you divided by its spread, 0. A very small number beside the spread prevents that."
    )


@task(
    NOTEBOOK,
    hint="One call of line, with more pictures than before. np.concatenate puts arrays one after "
    "the other: do it with the features, and in the same order with the labels.",
)
def repaired(repaired, head, x, y):
    if not hasattr(repaired, "predict"):
        return f"A fitted line is wanted, `line(…)`, yours is a {type(repaired).__name__}."
    if repaired is head:
        return "That is the crayon head itself. Make a new line from both kinds of pictures."
    answers = np.asarray(repaired.predict(x))
    if answers.shape != np.shape(y):
        return (
            f"One answer for each of {len(y)} pictures is expected, yours have the shape "
            f"{answers.shape}."
        )
    accuracy, before = float(np.mean(answers == y)), float(np.mean(head.predict(x) == y))
    if accuracy == 1:
        return "Every one of the test pictures right: has your line learnt from them?"
    if accuracy < 0.6:
        return (
            f"{accuracy:.3f} of the night pictures are named rightly, which is hardly more than "
            "guessing. Are features and labels in the same order? Are these plain features?"
        )
    if accuracy < (least := max(LEVEL, before + GAIN)):
        return (
            f"The crayon head names {before:.3f} of the night pictures rightly, yours "
            f"{accuracy:.3f}; at least {least:.3f} is wanted. Does it learn from "
            "the labelled night pictures as well?"
        )
    return None


@task(
    NOTEBOOK,
    hint="Draw by draw, subtract. From then on there is only one array. How far from 0 is its "
    "mean, and how wide is its interval?",
)
def verdict(verdict):
    if problem := _no_function(verdict, "verdict"):
        return problem
    rng = np.random.default_rng()
    noise = stats.zscore(rng.normal(size=5), ddof=1) * 0.02  # spread of the differences
    wide = stats.zscore(rng.normal(size=5), ddof=1) * 0.06  # of the draws, shared by both
    half = stats.t.ppf(0.975, 4) * 0.02 / math.sqrt(5)
    base = 0.7 + wide
    cases = [  # accuracies with transfer, the answer, what a wrong one has probably done
        (base + 0.15 + noise, "positive", "The difference is large and steady."),
        (base - 0.15 + noise, "negative", "The difference is large and steady."),
        (
            base + 1.5 * half + noise,
            "positive",
            "The draws differ, and both ways share that: take the interval of the differences.",
        ),
        (
            base - 1.5 * half + noise,
            "negative",
            "The draws differ, and both ways share that: take the interval of the differences.",
        ),
        (
            base + 0.95 * half + noise,
            "undecided",
            "The interval of the mean difference holds 0. With five draws Student's factor is "
            "2.78, and the spread divides by n − 1.",
        ),
        (
            base - 0.1 * half + noise,
            "undecided",
            "The interval holds 0: one mean is larger, but that may be chance.",
        ),
    ]
    for transferred, expected, why in cases:
        found = verdict(transferred.copy(), base.copy())
        if found is None:
            return "Your function gives nothing back: does every way through it `return`?"
        if not isinstance(found, str) or found not in ("positive", "negative", "undecided"):
            return f'"positive", "negative" or "undecided" is wanted, yours says {found!r}.'
        if found != expected:
            mean = np.mean(transferred - base)
            if {found, expected} == {"positive", "negative"}:
                why = "Which of the two is the one with transfer?"
            return (
                f"The differences have the mean {mean:+.3f} and the interval ± {half:.3f}: that is "
                f"{expected}, yours says {found}. {why}"
            )
    return None
