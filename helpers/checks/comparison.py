"""The checks of the exercise to lesson 04: what learns, BatchNorm's statistics, two intervals."""

import math

import keras
import numpy as np

from helpers.checks import task
from helpers.checks.handing_in import HandIn, misnaming
from helpers.checks.probes import ask

NOTEBOOK = "comparison/comparison"
NEAR = 1.2  # how far statistics may be from those of the pictures, in standard deviations
LEVEL = 0.8  # accuracy of the function that is handed in; 0.92 is usual

hand_in = HandIn(NOTEBOOK, size=96, points=40)


@task(
    NOTEBOOK,
    hint="A model has a switch for the whole, and each of its layers has one. Which comes first? "
    "And look into `backbone.trainable_weights`: each entry is an array of many numbers.",
)
def unfreeze(unfreeze):
    if not callable(unfreeze):
        return f"`unfreeze` should be a function, it is a {type(unfreeze).__name__}."
    rng = np.random.default_rng()
    for frozen in (False, True):
        backbone = _stack(rng.permutation([3, 4, 5, 6]))
        backbone.trainable = not frozen
        first = int(rng.choice([4, 5]))
        count = unfreeze(backbone, first)
        late = [layer for layer in backbone.layers[first:] if layer.weights]
        early = [layer for layer in backbone.layers[:first] if layer.weights]
        expected = sum(_size(layer) for layer in late)
        found = sum(math.prod(w.shape) for w in backbone.trainable_weights)
        came = "that came frozen as a whole" if frozen else "that came unfrozen"
        if found == 0:
            return (
                f"In a backbone {came} nothing learns afterwards. The switch of the whole counts, "
                "too: while `backbone.trainable` is False, those of its layers do nothing."
            )
        if moving := [layer.name for layer in early if layer.trainable_weights]:
            return (
                f"Layers before number {first} should not learn, but {moving[0]!r} does, in a "
                f"backbone {came}. Say for every layer what it should be."
            )
        if found < expected:
            still = [layer.name for layer in late if not layer.trainable_weights]
            return (
                f"From number {first} on all layers should learn, {still[0]!r} does not, in a "
                f"backbone {came}. (Number {first} itself learns, too, and so do BatchNorm layers.)"
            )
        if count is None:
            return "The right layers learn. Your function gives nothing back: return the count."
        if count == expected:
            continue
        for wrong, why in (
            (
                len(backbone.trainable_weights),
                "That is how many arrays learn. Count their numbers.",
            ),
            (len(backbone.layers) - first, "That is how many layers. Count their numbers."),
            (
                sum(layer.count_params() for layer in late),
                "That counts the moving statistics of BatchNorm, too: they move, but no gradient "
                "teaches them.",
            ),
            (backbone.count_params(), "That is all there is in the backbone, frozen or not."),
        ):
            if count == wrong:
                return f"The right layers learn: {expected} numbers. You counted {count}. {why}"
        return (
            f"The right layers learn: {expected} numbers. You returned {count!r}. Add up the sizes "
            "of what `backbone.trainable_weights` holds."
        )
    return None


def _stack(channels):
    """A backbone of convolutions, each with a BatchNorm."""
    outputs = inputs = keras.Input((8, 8, 3))  # layer 0
    for i, n in enumerate(channels):
        outputs = keras.layers.Conv2D(int(n), 1, use_bias=False, name=f"conv_{i}")(outputs)
        outputs = keras.layers.BatchNormalization(name=f"norm_{i}")(outputs)
    return keras.Model(inputs, outputs)


def _size(layer):
    """How many numbers of a layer can learn."""
    return sum(math.prod(w.shape) for w in layer.weights if "moving" not in w.path)


@task(
    NOTEBOOK,
    hint="BatchNorm updates its moving statistics whenever the model is called in training mode, "
    "`fit` or not. How much of the old value each update keeps is an attribute of the layer.",
)
def recalibrate(recalibrate):
    if not callable(recalibrate):
        return f"`recalibrate` should be a function, it is a {type(recalibrate).__name__}."
    rng = np.random.default_rng()
    model = keras.Sequential([keras.Input((12, 12, 3))])
    for channels in (6, 8):
        model.add(keras.layers.Conv2D(channels, 3, use_bias=False, kernel_initializer="he_normal"))
        model.add(keras.layers.BatchNormalization(momentum=0.999))
        model.add(keras.layers.ReLU())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(1))
    model.compile(optimizer="adam", loss="mse")
    pictures = rng.uniform(0.2, 0.8, (96, 1, 1, 3)) + rng.normal(0, 0.3, (96, 12, 12, 3))
    pictures += np.linspace(0, 3, len(pictures))[:, None, None, None]  # ever brighter
    pictures = pictures.astype("float32")
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    learnt = [w.numpy() for w in model.trainable_weights]
    old = [layer.get_weights()[2:] for layer in norms]
    recalibrate(model, pictures)
    if len(model.trainable_weights) != len(learnt):
        return (
            "Other weights are trainable now than before. Leave the switches as they are: only the "
            "statistics should change."
        )
    if any(not np.array_equal(a, b) for a, b in zip(learnt, model.trainable_weights, strict=True)):
        return (
            "Trainable weights have moved, so your function trains the model. Only the statistics "
            "should move, until they fit the weights: no `fit` is needed."
        )
    new = [layer.get_weights()[2:] for layer in norms]
    still = [np.array_equal(a, b) for o, n in zip(old, new, strict=True) for a, b in zip(o, n)]  # noqa: B905
    if all(still):
        return (
            "No moving statistics have changed. They are updated only when the model runs in "
            "training mode; `predict` and a plain call do not do that."
        )
    if any(still):
        return f"{sum(still)} of {len(still)} moving statistics stand still: reach every layer."
    apart = []  # in standard deviations, the largest of a layer
    for layer, (mean, variance) in zip(norms, new, strict=True):
        true_mean, true_variance = _statistics(model, layer, pictures)
        ratio = np.log(np.maximum(variance, 1e-9) / true_variance)
        apart.append(max(np.max(abs(mean - true_mean) / true_variance**0.5), np.max(abs(ratio))))
    true_mean, _ = _statistics(model, norms[0], pictures)
    way = np.median(new[0][0] / true_mean)  # it begins at 0
    if way < 0.8:
        return (
            f"The statistics went {way:.0%} of their way, then you stopped. Each update keeps the "
            "share `momentum` of the old value: make it keep less, or show more batches. And show "
            "all pictures, as they are."
        )
    if max(apart) > NEAR:
        return (
            f"The statistics moved, but they are up to {max(apart):.1f} standard deviations away "
            "from those of the pictures. Did all pictures take part, as they are, and in mixed "
            "order? Did more than the last batch count?"
        )
    return None


def _statistics(model, layer, pictures):
    """Mean and variance, channel by channel, of what enters a layer in inference."""
    before = keras.Model(model.inputs[0], layer.input)
    entering = ask(before, pictures)
    return entering.mean((0, 1, 2)), entering.var((0, 1, 2))


@task(
    NOTEBOOK,
    hint="Make one number of each drawing: mended, broken or the same. Then it is one sample with "
    "a mean, and the error of a mean shrinks with the root of how many there are. True minus True "
    "is no number for NumPy: turn the answers into numbers first.",
)
def gain(gain):
    if not callable(gain):
        return f"`gain` should be a function, it is a {type(gain).__name__}."
    rng = np.random.default_rng()
    n = int(rng.choice([400, 500, 600]))
    before = rng.permutation(n) < 0.8 * n
    after = before.copy()
    for flipped, least, most in ((~before, 30, 45), (before, 8, 15)):  # mended, broken
        after[rng.choice(np.flatnonzero(flipped), rng.integers(least, most), False)] ^= True
    change = after.astype(float) - before
    growth, margin = change.mean(), 1.96 * change.std() / np.sqrt(n)
    unpaired = 1.96 * np.sqrt((before.var() + after.var()) / n)
    found = gain(before.copy(), after.copy())
    if problem := _two_numbers(found):
        return problem
    found_growth, found_margin = (float(x) for x in found)
    if math.isclose(found_growth, -growth, rel_tol=1e-4):
        return (
            f"{before.mean():.3f} before and {after.mean():.3f} after is growth; yours is "
            f"{found_growth:+.3f}. Which minus which?"
        )
    if math.isclose(found_growth, 100 * growth, rel_tol=1e-4):
        return f"Your growth is {found_growth:.3g}, in points. Give it as a share: {growth:.3f}."
    if not math.isclose(found_growth, growth, rel_tol=1e-4):
        return (
            f"From {before.mean():.3f} right to {after.mean():.3f} right is {growth:+.3f}; your "
            f"growth is {found_growth:+.3f}."
        )
    if math.isclose(found_margin, margin, rel_tol=0.03):  # 1.96 or Student's t, n or n - 1
        return None
    sentence = f"The growth is right, the margin should be {margin:.4f}, not {found_margin:.4f}."
    for wrong, why in (
        (unpaired, "That treats them as two samples of different drawings. Pair them first."),
        (margin * np.sqrt(n), "That is for one drawing: the error of a mean is smaller."),
        (margin / 1.96, "That is the standard error. How many of these make 95 %?"),
        (2 * margin, "That is the whole width. Half of it is wanted."),
        (margin / np.sqrt(n), "You have divided by n; its root is enough."),
        (change.std(), "That is the spread of single drawings, not of their mean."),
        (1.96 * change.var() / np.sqrt(n), "That takes the variance. Take its root."),
        (1.96 * np.sqrt(growth * (1 - growth) / n), "That formula is for shares, not for changes."),
    ):
        if math.isclose(found_margin, wrong, rel_tol=0.01):
            return f"{sentence} {why}"
    return f"{sentence} Lesson 04 compares two models in this way: look at its function `gain`."


@task(
    NOTEBOOK,
    hint="Three factors: the factor of Student's t, the standard deviation of the runs as an "
    "estimate from a sample (NumPy has an argument for that), and the root of how many there are.",
)
def interval(interval):
    if not callable(interval):
        return f"`interval` should be a function, it is a {type(interval).__name__}."
    rng = np.random.default_rng()
    for n, factor in rng.permutation([(3, 4.3027), (5, 2.7764), (8, 2.3646)]):
        n = int(n)
        values = rng.uniform(0.7, 0.95) + rng.normal(0, 0.02, n)
        mean, deviation = values.mean(), values.std(ddof=1)
        half = factor * deviation / np.sqrt(n)
        found = interval(values.copy())
        if problem := _two_numbers(found):
            return problem
        found_mean, found_half = (float(x) for x in found)
        if not math.isclose(found_mean, mean, rel_tol=1e-6):
            if math.isclose(found_mean, mean - half, rel_tol=1e-3):
                return "You return the two ends. Return the middle and half the width."
            return f"The mean of {n} runs is {mean:.4f}, you return {found_mean:.4f} first."
        if math.isclose(found_half, half, rel_tol=2e-3):
            continue
        sentence = f"Half the width should be {half:.4f} for {n} runs, yours is {found_half:.4f}."
        biased = np.sqrt((n - 1) / n)  # divided by n instead of n - 1
        others = {3: (3.1824, 2.9200), 5: (2.5706, 2.1318), 8: (2.3060, 1.8946)}[n]
        for wrong, why in (
            (half * 1.96 / factor, f"That takes 1.96; for {n} runs the factor is {factor:.2f}."),
            (half * biased, "That divides by n in the standard deviation: look for `ddof`."),
            (half * biased * 1.96 / factor, "That takes 1.96, and divides by n in the deviation."),
            (half * others[0] / factor, f"That has {n} degrees of freedom. One less is right."),
            (half * biased * others[0] / factor, "Mind the degrees of freedom, and `ddof`."),
            (
                half * others[1] / factor,
                "That leaves out 5 % on each side. For 95 % leave out 2.5 %.",
            ),
            (half * np.sqrt(n), "That is for one more run. For the mean divide by the root of n."),
            (deviation, "That is the spread of single runs. What does it say of their mean?"),
            (half / factor, "That is the standard error, without the factor of Student's t."),
            (2 * half, "That is the whole width. Half of it is wanted."),
            (half / np.sqrt(n), "You have divided by n; its root is enough."),
        ):
            if math.isclose(found_half, wrong, rel_tol=2e-3):
                return f"{sentence} {why}"
        return (
            f"{sentence} It is the factor of Student's t, times the standard deviation, by the "
            "root of the number of runs."
        )
    return None


def _two_numbers(found):
    """What is wrong if these are not two numbers, else None."""
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    if np.shape(found) != (2,):
        return f"Two numbers are wanted, `return one, other`; your function returned {found!r:.80}."
    return None


@task(
    NOTEBOOK,
    hint="Two steps: drawings become features, features become answers. One thing above does the "
    "first step for drawings from 0 to 255; for the second, learn as `right_after` does, from as "
    "many labels as you have.",
)
def classify(classify, pictures, labels):
    return misnaming(classify, pictures, labels, LEVEL)
