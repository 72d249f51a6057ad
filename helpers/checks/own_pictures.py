"""The checks of the exercise to lesson 08: a fair split, a model to hand on, and its mistakes."""

import keras
import numpy as np

from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import ask

NOTEBOOK = "own_pictures/own_pictures"
LEVEL = 0.7  # accuracy on new pictures; 0.85 is usual, 0.5 is chance

hand_in = HandIn(NOTEBOOK, size=96, points=40)


@task(
    NOTEBOOK,
    hint="Draw animals, not pictures. np.unique gives each number once, and np.isin asks of each "
    "picture whether its animal is among those drawn.",
)
def split(split):
    if not callable(split):
        return f"`split` should be a function, it is a {type(split).__name__}."
    rng = np.random.default_rng()
    numbers = rng.choice(10_000, 200, replace=False)
    animals = rng.permutation(np.repeat(numbers, rng.integers(1, 6, 200)))
    share, seed = rng.choice([0.2, 0.3]), int(rng.integers(1000))
    found = split(animals.copy(), share, seed)
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.shape != animals.shape or not np.isin(found, (0, 1)).all():
        return (
            f"For {len(animals)} pictures expected as many True and False, found {found.dtype} "
            f"with the shape {found.shape}."
        )
    found = found.astype(bool)
    both = np.intersect1d(animals[found], animals[~found])
    if len(both):
        return (
            f"{len(both)} of {len(numbers)} animals are on both sides, such as number {both[0]}: "
            "did you draw pictures? Draw animals, then take all pictures of each."
        )
    tested = len(np.unique(animals[found])) / len(numbers)
    if abs(tested - share) > 0.12:
        why = "Is it the other way round?" if abs(1 - tested - share) < 0.12 else "Count animals."
        return f"{share:.0%} of the animals should be in the test, {tested:.0%} are. {why}"
    if not np.array_equal(found, split(animals.copy(), share, seed)):
        return (
            "Called again with the same seed, it draws other animals: nobody could repeat your "
            "numbers. Make the random generator from `seed`, inside the function."
        )
    if np.array_equal(found, split(animals.copy(), share, seed + 1)):
        return (
            "Another seed draws the same animals: they are not drawn at random, or `seed` is not "
            "used. If files are sorted by date, the first ones are not like the rest."
        )
    return None


@task(
    NOTEBOOK,
    hint="Two models can be stacked in a keras.Sequential like layers: one that makes features of "
    "pictures, one that makes two numbers of features. Train the second before you stack them.",
)
def model(model, pictures, labels):
    if not isinstance(model, keras.Model):
        return f"The answer is a Keras model, yours is a {type(model).__name__}."
    expected = (None, *np.shape(pictures)[1:])
    found = getattr(model, "input_shape", ())  # none if the model is not built yet
    if found != expected:
        why = "Is there a keras.Input of this shape?"
        if len(found) == 2:
            why = "These are features: put `extract` in front."
        return f"Pictures have the shape {expected}, your model takes {found}. {why}"
    outputs = np.concatenate([ask(model, part) for part in np.array_split(pictures, 6)])
    if outputs.shape != (len(pictures), 2):
        why = "Cat and dog get one each." if outputs.shape[-1] == 1 else "Look at the last layer."
        return f"Two logits a picture are wanted, found the shape {outputs.shape}. {why}"
    if outputs.min() >= 0 and np.allclose(outputs.sum(1), 1, atol=1e-3):
        return (
            "The two numbers of each picture add up to 1: these are probabilities. Leave out the "
            "softmax; the loss is told that it gets logits."
        )
    right = np.mean(outputs.argmax(1) == labels)
    if right < LEVEL:
        why = "Has the head learnt, and long enough? Do features and labels belong together?"
        if right < 1 - LEVEL:
            why = "Are cats 0 and dogs 1?"
        return f"{right:.3f} of the new pictures are named rightly, {LEVEL} are wanted. {why}"
    return None


@task(
    NOTEBOOK,
    hint="Start with a table of zeros and go through both lists together: each pair of a label and "
    "an answer adds one to one place. Which of the two says the row?",
)
def confusion(confusion):
    if not callable(confusion):
        return f"`confusion` should be a function, it is a {type(confusion).__name__}."
    rng = np.random.default_rng()
    expected = rng.integers(1, 9, (4, 4))
    expected[3] = expected[:, 3] = 0  # nobody is of the fourth class
    expected[0, 1], expected[1, 0] = 2, 9  # so it is not the same turned round
    pairs = rng.permutation(np.repeat(np.arange(16), expected.ravel()))
    labels, answers = pairs // 4, pairs % 4
    found = confusion(labels.copy(), answers.copy(), 4)
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.shape != (4, 4):
        why = "The fourth class occurs nowhere, but it is one." if found.shape == (3, 3) else ""
        return f"Four classes make a table of (4, 4), yours is {found.shape}. {why}".strip()
    if np.array_equal(found, expected):
        return None
    if np.array_equal(found, expected.T):
        return (
            "Rows and columns have changed places: the row says what it is, the column what was "
            "answered."
        )
    if np.isclose(found.sum(), 1) or np.allclose(found.sum(1)[:3], 1):
        return "These are shares. How many pictures is that? Count."
    if np.array_equal(found, np.minimum(expected, 1)):
        return "Each place has at most 1: a pair that comes again has to count again."
    row, column = np.argwhere(found != expected)[0]
    return (
        f"{expected[row, column]} pictures of class {row} were called {column}, your table has "
        f"{found[row, column]:g} there. In all there are {len(labels)} pictures, in yours "
        f"{found.sum():g}."
    )


@task(
    NOTEBOOK,
    hint="Three steps: shares from logits, positions of the wrong answers, and an order of these "
    "positions. np.argsort sorts from small to large.",
)
def worst(worst):
    if not callable(worst):
        return f"`worst` should be a function, it is a {type(worst).__name__}."
    rng = np.random.default_rng()
    logits = rng.normal(0, 1, (60, 3)) + rng.normal(0, 6, (60, 1))  # high logits need not be sure
    labels = rng.integers(0, 3, 60)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    sure = (shares / shares.sum(1, keepdims=True)).max(1)
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    expected = wrong[np.argsort(-sure[wrong])]
    found = worst(logits.copy(), labels.copy(), 5)
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.shape != (5,) or not np.isin(found, np.arange(60)).all():
        return (
            "Five positions from 0 to 59 are wanted, whole numbers in an array; found "
            f"{found.dtype} with the shape {found.shape}."
        )
    if not np.array_equal(found, expected[:5]):
        if not np.isin(found, wrong).all():
            lone = found[~np.isin(found, wrong)][0]
            why = "Are these positions among the mistakes only, not among all?"
            return f"Number {lone:g} was named rightly, so it is no mistake. {why}"
        if np.array_equal(found, expected[::-1][:5]):
            return "These are the mistakes that the model was least sure of: turn the order round."
        if np.array_equal(np.sort(found), np.sort(expected[:5])):
            return "The right five, but not in order: the surest comes first."
        if np.array_equal(found, wrong[np.argsort(-logits.max(1)[wrong])][:5]):
            return (
                "You sorted by the largest logit. 9 against 8.9 is not sure at all, 2 against -5 "
                "is: turn logits into shares first."
            )
        return (
            f"Expected {expected[:5].tolist()}, found {found.tolist()}: look for the largest "
            "share among the wrong answers."
        )
    few = np.asarray(worst(logits.copy(), labels.copy(), 60))
    if not np.array_equal(few, expected):
        return f"There are {len(wrong)} mistakes: asked for 60, it should return these, in order."
    return None


@task(
    NOTEBOOK,
    hint="Places are the two axes in the middle, channels the last one. keepdims=True keeps an "
    "average in a shape that can be multiplied.",
)
def heat(heat):
    if not callable(heat):
        return f"`heat` should be a function, it is a {type(heat).__name__}."
    rng = np.random.default_rng()
    maps = rng.uniform(0, 2, (3, 4, 5, 6)).astype("float32")
    gradients = rng.normal(0, 1, maps.shape).astype("float32")
    gradients += rng.normal(0, 1, (3, 1, 1, 6)).astype("float32")
    weights = gradients.mean((1, 2), keepdims=True)
    total = (weights * maps).sum(-1)
    found = heat(maps.copy(), gradients.copy())
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.shape != (3, 4, 5):
        why = "Add the channels up." if found.shape == maps.shape else "Which axes do you average?"
        return f"The heat of 3 pictures with 4 x 5 places is (3, 4, 5), yours {found.shape}. {why}"

    def same(wanted):
        """Up to a factor: a sum in place of an average makes no other picture."""
        scale = np.abs(found).max() / max(np.abs(wanted).max(), 1e-9)
        return np.allclose(found, scale * wanted, atol=1e-4 * max(np.abs(found).max(), 1e-9))

    if found.any() and same(np.maximum(total, 0)):
        return None
    for wrong, why in (
        (total, "Some of it is negative: that speaks against the class, and is set to 0."),
        (np.abs(total), "What speaks against the class has become heat: set it to 0 instead."),
        (np.maximum((gradients * maps).sum(-1), 0), "Average the gradients over places first."),
        (np.maximum(maps.sum(-1), 0), "The gradients play no part in it."),
        (
            np.maximum((np.maximum(weights, 0) * maps).sum(-1), 0),
            "The averages may be negative; only the sum at the end is cut at 0.",
        ),
        (
            np.maximum(gradients.mean(-1), 0),
            "You averaged over channels. Average the gradients over places, rows and columns.",
        ),
    ):
        if found.any() and same(wrong):
            return f"The shape is right, the numbers are not. {why}"
    return (
        f"The largest heat should be {np.maximum(total, 0).max():.3g}, yours is "
        f"{found.max():.3g}. Go through the four steps one by one."
    )
