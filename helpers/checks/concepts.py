"""The checks of the exercise to lesson 01: the five steps, on the five wild cousins."""

import functools
import math

import keras
import numpy as np

from helpers import critters, tracks
from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import ask

NOTEBOOK = "concepts/concepts"
KINDS = len(critters.COUSINS)
LEVEL = 0.5  # accuracy on new drawings that a trained head must reach; 0.8 is usual, 0.2 is chance

hand_in = HandIn(NOTEBOOK, size=96, kinds=KINDS, points=40, drawn_world=True)


def fresh_cousins(count, size):
    """Drawings that nobody has seen, like `checks.fresh_cats_and_dogs`; labels 0 to 4."""
    rng = np.random.default_rng()
    labels = np.arange(count) % KINDS
    pictures = [critters.draw(critters.COUSINS[label], rng, size=size) for label in labels]
    return np.array(pictures, "float32"), labels


@task(
    NOTEBOOK,
    hint="Each network of keras.applications brings its own function for this step: lesson 01, "
    "step 2, fetches the one of MobileNetV2. It overwrites the array that it is given, so give it "
    "one that you can spare.",
)
def prepared(prepared, pictures):
    pictures, found = np.asarray(pictures), np.asarray(prepared)
    if pictures.min() < 0 or pictures.max() <= 2:
        return (
            f"`pictures` itself holds {_range(pictures)} now, not 0 to 255 any more: it was "
            "overwritten. Run the cell that loads the drawings again and prepare a copy of them."
        )
    if found.shape != pictures.shape:
        return (
            f"All drawings together have the shape {pictures.shape}, yours have {found.shape}. "
            "Prepare all of them; only the numbers change."
        )
    expected = pictures / 127.5 - 1
    of_vgg16 = keras.applications.vgg16.preprocess_input(pictures.copy())
    if np.allclose(found, expected, atol=0.01):
        return None
    for wrong, why in (
        (pictures, "they are as they were. Bring them to −1 to 1, as in step 2 of lesson 01."),
        (pictures / 255, "a hub module wants that. MobileNetV2 was trained with −1 to 1."),
        (expected / 127.5 - 1, "the step was done twice. Do it once, on 0 to 255."),
        (expected / 255, "they were divided once more. preprocess_input does all that is needed."),
        (pictures / 255 / 127.5 - 1, "they were divided first. preprocess_input wants 0 to 255."),
        (of_vgg16, "this is how VGG16 wants them. Take the function of MobileNetV2."),
    ):
        if np.allclose(found, wrong, atol=0.001):
            return f"Your numbers lie between {_range(found, ' and ')}: {why}"
    return (
        f"MobileNetV2 wants −1 to 1 (0 becomes −1, 127.5 becomes 0, 255 becomes 1), yours hold "
        f"{_range(found)}: 0 becomes {found.flat[pictures.argmin()]:.3g} and 255 becomes "
        f"{found.flat[pictures.argmax()]:.3g}. Look at step 2 of lesson 01."
    )


@task(
    NOTEBOOK,
    hint="Three things: a MobileNetV2 without its top and with the weights of the track, the "
    "switch that freezes it, and a layer that averages the 3 × 3 places away. Lesson 01 builds one "
    "in its first cell, in `new_extractor`.",
)
def extractor(extractor, prepared):
    if not isinstance(extractor, keras.Model):
        return f"The extractor is a Keras model, yours is a {type(extractor).__name__}."
    some = np.asarray(prepared[:8], "float32")
    features = ask(extractor, some)
    reference = _pretrained_features(some)
    size = reference.shape[1]
    if features.ndim == 4:
        return (
            f"A drawing should become {size:,} features, it becomes {features.shape[1:]}: the "
            "average over the places is missing."
        )
    if features.shape[1] != size:
        why = "are the places averaged, not put in a row?"
        if features.shape[1] < size:
            why = "is an old or a new top still on it?"
        return f"A drawing should become {size:,} features, it becomes {features.shape[1]:,}: {why}"
    if movable := sum(math.prod(v.shape) for v in extractor.trainable_variables):
        return (
            f"Frozen means that nothing can move, but {movable:,} numbers of your extractor can. "
            "The switch is an attribute of the backbone."
        )
    if _close(features, reference):
        return None
    if _close(ask(extractor, (some + 1) * 127.5), reference):
        return (
            "Your extractor brings 0 to 255 to −1 to 1 itself, and the drawings that it gets are "
            "prepared already: that would be done twice. Leave it out of the extractor."
        )
    return (
        "It is frozen and has the right size, but its features are not those of the pre-trained "
        "network: are its numbers still random? Look at `weights=` where you make the backbone."
    )


@task(
    NOTEBOOK,
    hint="scikit-learn's train_test_split splits several arrays at once and keeps their rows "
    "together; lesson 01 uses it on noise. `random_state` makes it repeatable.",
)
def split(split):
    if not callable(split):
        return f"`split` should be a function, it is a {type(split).__name__}."
    labels = np.repeat(np.arange(KINDS), 60)  # in the order of their folders, as Keras loads them
    features = np.random.default_rng().normal(size=(len(labels), 3)).astype("float32")
    parts = split(features.copy(), labels.copy())
    if parts is None:
        return "Your function gives nothing back: does it end with `return`?"
    if len(parts) != 4:
        return f"It should return four arrays, it returned {len(parts)}."
    f_train, f_test, y_train, y_test = parts = [np.asarray(part) for part in parts]
    if f_test.ndim == 1 and y_train.ndim == 2:
        return (
            "The four arrays come in another order: return features to train, features to test, "
            "labels to train, labels to test."
        )
    found = [len(part) for part in parts]
    if found == [60, 240, 60, 240]:
        return "A fifth should be kept for the test, you kept four fifths. Swap the shares."
    if found != [240, 60, 240, 60]:
        return (
            f"Of {len(labels)} drawings 240 should train and 60, a fifth, should test. Your "
            f"features are split into {found[0]} and {found[1]}, your labels into {found[2]} and "
            f"{found[3]}."
        )
    place = {row.tobytes(): i for i, row in enumerate(features)}
    rows = [[place.get(row.tobytes()) for row in part] for part in (f_train, f_test)]
    if any(None in part for part in rows):
        return "Some rows are not among the features that went in. Split them, nothing else."
    if both := set(rows[0]) & set(rows[1]):
        return (
            f"{len(both)} drawings are in both parts. A test on drawings that were learnt from "
            "says nothing about new ones."
        )
    wrong = sum(np.sum(labels[i] != y) for i, y in ((rows[0], y_train), (rows[1], y_test)))
    if wrong:
        return (
            f"{wrong} of {len(labels)} features lost their own label: features and labels were "
            "mixed separately. Split both in one call."
        )
    if missing := KINDS - len(np.unique(y_test)):
        return (
            f"{missing} of the five kinds are missing in the test part. The drawings come in "
            "the order of their folders: they must be mixed before they are cut."
        )
    if not np.array_equal(f_test, np.asarray(split(features, labels)[1])):
        return (
            "Called twice with the same drawings, it splits them differently. Fix the random "
            "state, or you will not know why a number changed."
        )
    return None


@task(
    NOTEBOOK,
    hint="How many outputs do five kinds need? And the last layer and the loss must agree on what "
    "these outputs are: shares that add up to 1, or logits. Step 3 of lesson 01 has a right pair.",
)
def head(head):
    if not isinstance(head, keras.Model):
        return f"The head is a Keras model, yours is a {type(head).__name__}."
    features = np.random.default_rng(0).uniform(0, 20, (8, 1280)).astype("float32")
    try:
        outputs = ask(head, features)
    except ValueError:
        return (
            "The head must take 1,280 features of a drawing, and yours does not. Only the new top "
            "is asked for here; the extractor has done its part."
        )
    if outputs.shape != (8, KINDS):
        count = outputs.shape[-1]
        why = "count the kinds."
        if count == 1:
            why = "one output can say yes or no, as for cats and dogs. Five kinds need one each."
        elif count in (20, 24):
            why = "these were the kinds of the old task. The new one has five."
        return f"A drawing should get five outputs, yours gets {count}: {why}"
    if not head.compiled:
        return "The head is not compiled: it has no loss and no optimizer yet."
    shares = outputs.min() >= 0 and np.allclose(outputs.sum(1), 1, atol=1e-3)
    if not shares and outputs.min() >= 0 and outputs.max() <= 1:
        return (
            "Each output lies between 0 and 1, but the five of a drawing add up to "
            f"{outputs[0].sum():.2f}: five separate yes-or-no answers. Shares that add up to 1 "
            "need another activation."
        )
    if not shares and outputs.min() >= 0:
        return "Your outputs are never negative, and they are no shares: look at the activation."
    takes = _what_the_loss_takes(head)
    if takes == "neither":
        return (
            "The labels are whole numbers from 0 to 4, and your loss "
            f"({getattr(head.loss, 'name', head.loss)}) does not compare five outputs with such a "
            "number. Step 3 of lesson 01 names one that does."
        )
    if shares and takes == "logits":
        return (
            "The head gives shares (its last layer is a softmax), and the loss expects logits: "
            "softmax would be applied twice. Take away one of the two."
        )
    if not shares and takes == "shares":
        return (
            f"The head gives logits ({_range(outputs)} here), and the loss takes them for shares. "
            "Either the last layer makes shares of them, or the loss is told that they are logits."
        )
    return None


@task(
    NOTEBOOK,
    hint="`fit` wants the features to train and their labels, and enough epochs: 30 are a matter "
    "of seconds on features. What it returns is the history.",
)
def trained_head(history, head, extractor, f_test, y_test):
    drawings, labels = fresh_cousins(100, tracks.Critters().image_size[0])
    features = extractor.predict(drawings / 127.5 - 1, verbose=0)
    new, new_loss = _accuracy_and_loss(head, features, labels)
    kept, kept_loss = _accuracy_and_loss(head, f_test, y_test)
    if kept_loss < 0.35 * new_loss and new < 0.95:
        return (
            f"The kept drawings are named too well: {kept:.0%} of them, with a loss of "
            f"{kept_loss:.2f}, but {new:.0%} of 100 fresh ones, with a loss of {new_loss:.2f}. Did "
            "the head learn from the test part, too? Make a new one and train it on the training "
            "part alone."
        )
    if min(new, kept) >= LEVEL:
        return None
    found = (
        f"It names {kept:.0%} of the kept drawings and {new:.0%} of 100 fresh ones; {LEVEL:.0%} is "
        f"asked for, and guessing gives {1 / KINDS:.0%}."
    )
    loss = getattr(history, "history", {}).get("loss", [math.nan])
    if len(loss) > 1 and loss[-1] < 0.7 * loss[0]:
        return (
            f"{found} But the loss fell from {loss[0]:.2f} to {loss[-1]:.2f}, so it did learn "
            "something by heart: do these features and these labels belong together, row by row?"
        )
    return f"{found} The head has hardly learnt yet: has it seen enough epochs?"


@task(
    NOTEBOOK,
    hint="First, which accuracy does guessing reach among so many kinds? Second, how far can the "
    "accuracy on so many pictures be off? Lesson 01 has a function `margin`; put chance into it. "
    "Only what is above both together counts.",
)
def beats_chance(beats_chance):
    if not callable(beats_chance):
        return f"`beats_chance` should be a function, it is a {type(beats_chance).__name__}."
    above = "There, chance is {chance:.3f} and its margin ± {margin:.3f}. "
    cases = [  # right, pictures, kinds, what to look at
        (300, 1000, 5, above + "Do you compare the share of right answers, right / pictures?"),
        (6, 20, 5, above + "That is higher, but not by more than the margin of 20 pictures."),
        (90, 400, 8, above + "Does your chance depend on the number of kinds?"),
        (100, 1000, 5, above + "It is far away from chance, on the wrong side."),
        (140, 400, 2, above + "Does your chance depend on the number of kinds?"),
        (1180, 5000, 5, above + "Does your margin depend on the number of pictures?"),
        *((*case, above) for case in _random_cases()),
    ]
    for right, pictures, kinds, why in cases:
        answer = beats_chance(right, pictures, kinds)
        if answer is None:
            return "Your function gives nothing back: does it end with `return`?"
        if np.ndim(answer) or answer not in (True, False):
            return f"It should return True or False, it returned {answer!r}."
        expected, chance, margin = _beats_chance(right, pictures, kinds)
        if bool(answer) != expected:
            why = why.format(chance=chance, margin=margin).strip()
            return (
                f"{right} of {pictures} right among {kinds} kinds is {right / pictures:.3f}; you "
                f"said {bool(answer)}. {why}"
            )
    return None


def _beats_chance(right, pictures, kinds):
    chance = 1 / kinds
    margin = 1.96 * math.sqrt(chance * (1 - chance) / pictures)
    return right / pictures > chance + margin, chance, margin


def _random_cases(count=20):
    """Cases that are clear: no honest way to compute the margin decides them otherwise."""
    rng = np.random.default_rng()
    for _ in range(count):
        pictures, kinds = int(rng.integers(100, 2000)), int(rng.integers(2, 12))
        deviation = math.sqrt((1 - 1 / kinds) / kinds / pictures)
        z = rng.uniform(0.3, 1.2) if rng.random() < 0.5 else rng.uniform(5, 7)
        right = pictures * min(1 / kinds + z * deviation, 1)
        yield round(right), pictures, kinds


def _accuracy_and_loss(head, features, labels):
    """How well a head names features; the loss is the mean of −log share, whatever it learnt by."""
    outputs = head.predict(features, verbose=0).astype("float64")
    labels = np.asarray(labels).astype(int).ravel()
    if outputs.min() < 0 or not np.allclose(outputs.sum(1), 1, atol=1e-3):  # logits
        outputs = np.exp(outputs - outputs.max(1, keepdims=True))
        outputs /= outputs.sum(1, keepdims=True)
    shares = outputs[np.arange(len(labels)), labels]
    return np.mean(outputs.argmax(1) == labels), -np.log(shares + 1e-7).mean()


def _what_the_loss_takes(head):
    """Shares, logits, or neither: by what the loss makes of five numbers and two labels."""
    numbers = np.tile(np.array([0.6, 0.2, 0.1, 0.05, 0.05], "float32"), (3, 1))
    try:
        likely, unlikely = (
            float(head.compute_loss(y=np.full(3, label, "int32"), y_pred=keras.ops.array(numbers)))
            for label in (0, 1)
        )
    except Exception:
        likely = unlikely = math.nan
    if abs(unlikely - likely - math.log(3)) < 0.02:
        return "shares"
    if abs(unlikely - likely - 0.4) < 0.02:
        return "logits"
    return "neither"


@functools.cache
def _pretrained():
    track = tracks.Critters()
    backbone = keras.applications.MobileNetV2(
        input_shape=(*track.image_size, 3),
        include_top=False,
        pooling="avg",
        weights=track.weights("mobilenet_v2"),
    )
    backbone.trainable = False
    return backbone


def _pretrained_features(pictures):
    return ask(_pretrained(), pictures)


def _close(found, expected):
    return np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def _range(numbers, to=" to "):
    return f"{numbers.min():.3g}{to}{numbers.max():.3g}".replace("-", "−")
