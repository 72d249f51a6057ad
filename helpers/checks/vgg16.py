"""The checks of the three VGG16 exercises: classify, fine-tune, compare with a random start.

Pictures are float32 (n, height, width, 3) in 0..255 wherever a model is asked; a logit above 0
means dog, label 1.
"""

import functools
import numbers

import keras
import numpy as np
import tensorflow as tf

from helpers import tracks
from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import entering, leaves

CLASSIFY, FINE_TUNE, SCRATCH = "vgg16/1_classify", "vgg16/2_fine_tune", "vgg16/3_from_scratch"
METHODS = ("scratch", "frozen", "fine-tuned")
FILTERS = (64,) * 2 + (128,) * 2 + (256,) * 3 + (512,) * 6  # of VGG16's 13 convolutions
ADAM_LIKE = (  # optimizers whose steps are about as long as the learning rate
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)
CUT = "Give compile() `metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)]`."

hand_in_1 = HandIn(CLASSIFY, size=64, points=20)
hand_in_2 = HandIn(FINE_TUNE, size=64, points=12)
hand_in_3 = HandIn(SCRATCH, size=64, points=8)


# ---- 1 · classify ----------------------------------------------------------------------------


@task(
    CLASSIFY,
    hint="`keras.utils.image_dataset_from_directory` makes a data set of one folder. Which of the "
    "three must keep its order, so that you can line answers up with labels? See its options.",
)
def data(train, validation, test, folder):
    sets = {"train": train, "validation": validation, "test": test}
    size = tracks.current().vgg16_size
    known = {name: _from_folder(folder / name, size) for name in sets}
    labels = {}
    for name, dataset in sets.items():
        pictures, labels[name] = _collect(dataset)
        if problem := _wrong_pictures(name, pictures, labels[name], size):
            return problem
        keys = _keys(pictures)
        for other in sets:
            shared = sum(key in known[other] for key in keys)
            if other != name and shared:
                return (
                    f"{shared} of the {len(keys)} pictures in `{name}` come from the folder "
                    f"{other!r}. What a model learnt from or was chosen by says nothing about new "
                    f"pictures: make `{name}` of `folder / {name!r}`."
                )
        expected = len(known[name])
        if len(keys) != expected:
            return (
                f"`{name}` has {len(keys)} pictures, the folder {name!r} has {expected}: take all "
                "of them, once."
            )
        truth = [known[name].get(key) for key in keys]
        wrong = sum(t is not None and t != y for t, y in zip(truth, labels[name], strict=True))
        if wrong:
            return (
                f"{wrong} labels of `{name}` do not belong to their pictures: cat is 0 and dog "
                "is 1, as the folders are sorted, and picture and label must stay together."
            )
    if not np.array_equal(labels["test"], _labels(test)):
        return (
            "`test` gives its pictures in another order each time you go through it, so your "
            "answers could not be lined up with the labels: load it with `shuffle=False`."
        )
    if (np.diff(labels["train"]) >= 0).all():
        return (
            "`train` gives all cats first, then all dogs, so most batches hold one class only: "
            "let it be shuffled."
        )


def _wrong_pictures(name, pictures, labels, size):
    shape = (*size, 3)
    if pictures.shape[1:] != shape:
        return (
            f"`{name}` has pictures of shape {pictures.shape[1:]}, this VGG16 takes {shape}: set "
            "`image_size=track.vgg16_size`."
        )
    low, high = pictures.min(), pictures.max()
    if low < 0 or high <= 1 or high > 255:
        return (
            f"`{name}` has numbers from {low:.3g} to {high:.3g}. Leave them at 0 to 255 here: the "
            "model of task 4 does the preprocessing."
        )
    if labels.ndim != 1:
        return (
            f"`{name}` has labels of shape {labels.shape[1:]} for each picture. Your model will "
            'have one output, so ask for one number, 0 or 1: `label_mode="binary"`.'
        )


@task(
    CLASSIFY,
    hint="Each architecture has its own `preprocess_input` in `keras.applications.<name>`. It "
    "writes into the array that it gets: hand it a copy.",
)
def prepared(prepared, some):
    prepared, some = np.asarray(prepared, "float32"), np.asarray(some, "float32")
    if some.min() < 0:
        return (
            f"`some` itself now goes from {some.min():.0f} to {some.max():.0f}: preprocess_input "
            "overwrote your pictures. Run the cell above again, then pass `some.copy()`."
        )
    if prepared.shape != some.shape:
        return f"`prepared` has shape {prepared.shape}, expected that of `some`, {some.shape}."
    return _wrong_preprocessing(prepared, some, "`prepared`")


def _wrong_preprocessing(found, raw, what):
    """What is wrong with numbers that should be vgg16.preprocess_input of the raw pictures."""
    prepare = keras.applications.vgg16.preprocess_input
    right = prepare(raw.copy())
    other = {
        "still the raw pictures, 0 to 255: the preprocessing is missing": raw,
        "preprocessed twice: once is right": prepare(right.copy()),
        "red, green, blue, but VGG16 learnt from blue, green, red": right[..., ::-1],
        "preprocessed as for MobileNetV2, from -1 to 1": raw / 127.5 - 1,
        "divided by 255, which is what other networks want": raw / 255,
        "preprocessed as for DenseNet": keras.applications.densenet.preprocess_input(raw.copy()),
    }
    if _near(found, right):
        return None
    for sentence, candidate in other.items():
        if _near(found, candidate, 1.0 if np.ptp(candidate) > 50 else 0.05):
            return f"{what} is {sentence}. Use `keras.applications.vgg16.preprocess_input`, once."
    return (
        f"{what} goes from {found.min():.4g} to {found.max():.4g}, expected {right.min():.4g} to "
        f"{right.max():.4g}: use `keras.applications.vgg16.preprocess_input`, once, nothing else."
    )


def _near(found, expected, tolerance=1.0):
    return found.shape == expected.shape and np.abs(found - expected).max() < tolerance


@task(
    CLASSIFY,
    hint="Three arguments decide: which weights, with or without the old top, and the shape of a "
    "picture. Afterwards one attribute of the backbone says whether it may learn.",
)
def backbone(backbone):
    size = tracks.current().vgg16_size
    if problem := _not_vgg16(backbone):
        return problem
    if (shape := tuple(backbone.input_shape[1:])) not in ((*size, 3), (None, None, 3)):
        return (
            f"The backbone takes pictures of shape {shape}, yours are {(*size, 3)}: set "
            "`input_shape=(*track.vgg16_size, 3)`."
        )
    if problem := _not_pretrained(backbone):
        return problem
    if count := len(backbone.trainable_weights):
        return (
            f"{count} of the backbone's {len(backbone.weights)} weight arrays can still learn, "
            "expected 0: freeze it by its attribute `trainable`."
        )


def _not_vgg16(backbone):
    if not isinstance(backbone, keras.Model):
        return f"Expected a Keras model, found {_kind(backbone)}."
    if dense := [x.name for x in leaves(backbone) if isinstance(x, keras.layers.Dense)]:
        return (
            f"The backbone still has its old top ({', '.join(dense)}), which names other animals: "
            "leave it out with `include_top=False`."
        )
    found = tuple(layer.filters for layer in _convolutions(backbone).values())
    if found != FILTERS:
        also = " That is VGG19." if len(found) == 16 else ""
        return (
            f"Expected VGG16 with its 13 convolutions, found {backbone.name!r} with {len(found)}."
            f"{also} Use `keras.applications.VGG16`."
        )


def _not_pretrained(backbone):
    if _random(backbone):
        return (
            "The backbone does not hold the pre-trained numbers; a random network knows nothing. "
            'Load it with `weights=track.weights("vgg16")`.'
        )
    if moved := _moved(backbone):
        return (
            f"{_some(moved)} no longer has the pre-trained numbers, so the backbone learnt "
            "although it should be frozen. Load it again, freeze it, build and train the model."
        )


@task(
    CLASSIFY,
    hint="From `keras.Input` to output: the preprocessing, the backbone, something that turns its "
    "feature maps into one row of numbers, and a last layer with one output and no activation.",
)
def model(model, backbone):
    return (
        _wrong_model(model, backbone) or _not_frozen(model, backbone) or _no_head(model, backbone)
    )


def _wrong_model(model, backbone):
    """Not one logit a picture from raw pictures through the backbone, preprocessed."""
    size = tracks.current().vgg16_size
    if not isinstance(model, keras.Model):
        return f"Expected a Keras model, found {_kind(model)}."
    pictures = _probe(size)
    found = entering(model, backbone, pictures[:4])
    if found is None:
        return (
            "Your pictures do not pass through `backbone` on their way to the output. Call it "
            "inside the model, such as `x = backbone(x)`."
        )
    problem = _wrong_preprocessing(found, pictures[:4], "What enters the backbone")
    if problem:
        return problem + " It belongs inside the model, and nowhere else."
    shape = tuple(model.output_shape)
    if len(shape) != 2 or shape[1] != 1:
        more = ""
        if len(shape) == 4:
            more = " Feature maps have to become one row of numbers first: average them."
        elif shape[-1] == 2:
            more = " Two outputs would work with another loss; here one is enough."
        return f"The model's output has shape {shape}, expected (None, 1), one logit each.{more}"
    return _not_logits(model, pictures)


def _not_logits(model, pictures):
    outputs = _outputs(model, pictures)
    still = np.ptp(outputs) == 0  # a dead network says the same of everything: look at its layer
    last = getattr(model.layers[-1], "activation", None) or type(model.layers[-1])
    last = last.__name__.lower()
    if (outputs == 1).all() or (still and last == "softmax"):
        return (
            "The model answers 1 to every picture. That is softmax over a single output: a share "
            "of itself is always 1. Leave the activation out."
        )
    if last == "sigmoid" or (not still and outputs.min() >= 0 and outputs.max() <= 1):
        return (
            f"The model's outputs stay between {outputs.min():.3f} and {outputs.max():.3f}, "
            "whatever it sees: these are probabilities. Logits are asked for, so leave the last "
            "activation (sigmoid) out; the loss knows by `from_logits=True`."
        )
    if last == "relu":
        return (
            "The model ends with relu, so its output is never below 0 and it could never say cat. "
            "Leave the last activation out."
        )


def _not_frozen(model, backbone):
    inside = {id(weight) for weight in backbone.weights}
    if count := sum(id(weight) in inside for weight in model.trainable_weights):
        return (
            f"{count} weight arrays of the backbone would learn along with the head. In this "
            "exercise only the head learns: `backbone.trainable = False`."
        )


@task(
    CLASSIFY,
    hint="`compile` takes an optimizer, a loss that knows it gets logits, and a metric that knows "
    "where to cut them. `fit` takes the training data and, by its own argument, what to watch.",
)
def history(history, model, backbone, train, validation, test):
    problem = (
        _not_fitted(history, model, test)
        or _wrong_compile(model)
        or _not_frozen(model, backbone)
        or _not_pretrained(backbone)
        or _watched(history, model, validation, test)
    )
    if problem:
        return problem
    logits, labels = _logits(model, train)
    accuracy = np.mean((logits > 0) == labels)
    if accuracy < 0.8:
        rate, epochs = _largest_rate(model, history), len(history.epoch)
        why = f"{epochs} epochs may be too few" if epochs < 5 else "look at the learning curve"
        if rate > 0.03 or (rate < 1e-4 and isinstance(model.optimizer, ADAM_LIKE)):
            size = "high" if rate > 0.03 else "low"
            why = f"a learning rate of {rate:g} is {size} for a head, 1e-3 to 3e-3 is usual"
        return (
            f"The model names {accuracy:.0%} of the pictures that it learnt from, expected 80 % or "
            f"more. The head has not been trained well: {why}."
        )


def _not_fitted(history, model, test=None):
    if isinstance(history, dict):
        return "Expected what `fit` returns, found a dict: `history = model.fit(…)`, all of it."
    if not isinstance(history, keras.callbacks.History):
        return f"Expected what `fit` returns, a History, found {_kind(history)}."
    if not getattr(model, "compiled", False):
        return "The model has not been compiled: call its `compile` before `fit`."
    if not history.epoch:
        return "`fit` has not gone through a single epoch: set `epochs`."
    if not np.isfinite(history.history["loss"]).all():
        return (
            f"The loss became {history.history['loss'][-1]}: the learning rate "
            f"{_largest_rate(model, history):g} is too high."
        )
    steps = (history.params or {}).get("steps")
    batches = None if test is None else int(test.cardinality())
    if steps and steps == batches:
        return (
            f"`fit` went through {steps} batches an epoch, as many as `test` has. It seems to have "
            "learnt the test pictures: give it `train`, after building the model anew."
        )
    if "val_loss" not in history.history:
        return "The history has no validation numbers: give `fit` `validation_data=validation`."


def _watched(history, model, validation, test, whole=None):
    """Whether `fit` was watched on the test pictures: then a loss in its history is theirs.

    `whole` answers from pictures where `model` is only the tail that was fitted.
    """

    def seen(dataset):
        logits, labels = _logits(whole or model, dataset)
        loss = float(model.compute_loss(y=_column(*labels), y_pred=_column(*logits)))
        return np.isclose(history.history["val_loss"], loss, rtol=1e-3, atol=1e-5).any()

    if not seen(validation) and seen(test):
        return (
            "The validation loss in your history is that of the `test` pictures. Keep them for the "
            "end: watch `fit` on those of `validation`."
        )


def _wrong_compile(model):
    """Not compiled for logits: asks loss and metric of a few made-up ones."""

    def loss(logit, label):
        return float(model.compute_loss(y=_column(label), y_pred=_column(logit)))

    unsure, sure, missed = loss(-0.5, 0), loss(-3, 0), loss(-3, 1)
    if unsure == sure == missed:
        return (
            "The loss is the same for right and wrong answers, so there is nothing to learn from. "
            "For one logit a picture use `BinaryCrossentropy(from_logits=True)`."
        )
    if abs(unsure - sure) < 1e-4:
        return (
            "The loss takes the logits for probabilities: -0.5 and -3 are both 0 to it. Tell it: "
            "`keras.losses.BinaryCrossentropy(from_logits=True)`."
        )
    if not sure < unsure < missed:
        return (
            f"The loss of a logit of -3 for a cat is {sure:.3f}, that of -0.5 is {unsure:.3f}: the "
            "surer right answer is punished. Use `BinaryCrossentropy(from_logits=True)`."
        )
    return _wrong_metric(model)


def _wrong_metric(model):
    # 16 logits: 11 on the right side of 0, 8 on the right side of 0.5, AUC and others elsewhere
    logits = np.array(
        [3, 2, 1, 0.4, 0.3, 0.2, -1, -2] + [-3, -2, -1, -1, -0.5, 0.7, 2, 1], "float32"
    )
    labels = np.repeat([1, 0], 8)
    model.reset_metrics()
    reported = model.compute_metrics(None, _column(*labels), _column(*logits))
    reported = {name: float(np.mean(v)) for name, v in reported.items() if name != "loss"}
    model.reset_metrics()
    at_zero, at_half = (float(np.mean((logits > cut) == labels)) for cut in (0, 0.5))
    if any(abs(value - at_zero) < 1e-4 for value in reported.values()):
        return None
    for name, value in reported.items():
        if abs(value - at_half) < 1e-4:
            return (
                f"Of 16 made-up logits {at_zero:.0%} are on the right side of 0, but your metric "
                f"{name!r} reports {value:.0%}: it takes logits for probabilities and cuts at 0.5. "
                f"{CUT}"
            )
    names = ", ".join(reported) or "none"
    return f"No metric reports the share of right answers (found: {names}). {CUT}"


@task(
    CLASSIFY,
    hint="A logit above 0 means dog. Compare answers and labels of the same shape, picture by "
    "picture, and count the matches: `predict` gives a column, the labels may be a row.",
)
def right(right, model, test):
    logits, labels = _logits(model, test)
    return _wrong_count(right, logits, labels)


def _wrong_count(answer, logits, labels):
    if problem := _not_a_number(answer, "a number of pictures"):
        return problem
    answer, n = float(answer), len(labels)
    count, at_half = (int(np.sum((logits > cut) == labels)) for cut in (0, 0.5))
    if abs(answer - count) <= 1:  # a logit next to 0 may fall on either side
        return None
    found = f"{answer:g} of {n} pictures"
    if 0 < answer <= 1:
        return f"{answer:g} is a share. How many pictures is that, out of {n}?"
    if answer > n:
        return (
            f"{answer:g} is more than the {n} pictures. Comparing a column (n, 1) with a row (n,) "
            "compares everything with everything: bring both to one shape, such as `[:, 0]`."
        )
    if abs(answer - (n - count)) <= 1:
        return f"{found} is what the model gets wrong. How many are right?"
    if answer == at_half:
        return f"{found} is the count for a cut at 0.5. These are logits: dog means above 0."
    if answer == np.sum(labels == 0):
        return (
            f"{found} is the number of cats: your answers seem to be all 0. `argmax` over a single "
            "output always gives 0; compare the logit with 0 instead."
        )
    if abs(answer / n - 0.5) < 0.1 and abs(count / n - 0.5) > 0.15:
        return (
            f"{found} is near guessing, and your model is better than that. Do answers and labels "
            "stand in the same order? A data set that shuffles gives another order each time."
        )
    return f"{found} is not what your model gets right there. Compare `logit > 0` with the label."


# ---- 2 · fine-tune ---------------------------------------------------------------------------


@task(
    FINE_TUNE,
    hint="`backbone.trainable = True` switches everything on. Then switch off again every layer "
    "that comes before the first one that shall learn. Blocks 1 to 3 stay as they are.",
)
def unfrozen(first, backbone):
    names = list(_convolutions(backbone))
    inside = {id(weight) for weight in backbone.trainable_weights}
    learns = [n for n, x in _convolutions(backbone).items() if id(x.kernel) in inside]
    order = [layer.name for layer in backbone.layers]
    if not learns:
        on = [n for n, layer in _convolutions(backbone).items() if layer.trainable]
        if on and not backbone.trainable:
            return (
                f"{_some(on)} may learn, but `backbone.trainable` is still False, and that switch "
                "goes before those inside. Switch it on first, then some layers off."
            )
        return "No layer of the backbone can learn, expected those of the last block or two."
    if len(learns) == len(names):
        return (
            "All 13 convolutions can learn, expected the last block or two. With 150 pictures the "
            "early ones, which see edges and colours, have nothing to gain: freeze them."
        )
    if learns != names[-len(learns) :]:
        gap = next(n for n in names[names.index(learns[0]) :] if n not in learns)
        return (
            f"{learns[0]!r} can learn, but {gap!r} after it cannot. Unfreeze from the top down: "
            "from your first layer on, everything learns."
        )
    if not learns[0].startswith(("block4", "block5")):
        return (
            f"Learning begins at {learns[0]!r}. The task asks for the last block or two: begin in "
            "block 5 or block 4."
        )
    first = getattr(first, "name", first)
    if first not in order:
        return f"`first` is {first!r}, which is no layer of the backbone, such as {learns[0]!r} is."
    if next((n for n in order[order.index(first) :] if n in names), None) != learns[0]:
        return f"`first` is {first!r}, but the first layer that can learn is {learns[0]!r}."


@task(
    FINE_TUNE,
    hint="`split_at` needs the model and the name of the first layer that learns. `run_once` takes "
    "the first of the two halves, and one data set at a time.",
)
def features(tail, train_features, validation_features, model, train, validation):
    if not isinstance(tail, keras.Model):
        return f"`tail` should be the second model that `split_at` gives, found {_kind(tail)}."
    own, learns = ({id(w): w for w in m.trainable_weights} for m in (tail, model))
    if lost := [weight.path for i, weight in learns.items() if i not in own]:
        return (
            f"{len(lost)} weight arrays that shall learn are not in `tail` ({lost[0]} is one). "
            "What is in the stem runs once and stays as it is: cut at `first`."
        )
    if any(i not in learns for i in own):
        return "`tail` learns weights that are not the model's: take the one that `split_at` gives."
    if still := [n for n, x in _convolutions(tail).items() if not x.trainable_weights]:
        return (
            f"The tail still holds frozen layers ({_some(still)}), which would be computed again "
            "in every epoch: cut at `first`."
        )
    for name, found, source in (
        ("train_features", train_features, train),
        ("validation_features", validation_features, validation),
    ):
        arrays, labels = _collect(found)
        if arrays.shape[1:] != tuple(tail.input_shape[1:]):
            return (
                f"`{name}` has the shape {arrays.shape[1:]} for each picture, the tail takes "
                f"{tuple(tail.input_shape[1:])}: it should be `run_once(stem, …)`."
            )
        logits, truth = _logits(model, source)
        if len(arrays) % len(truth) or not len(arrays):
            return (
                f"`{name}` has {len(arrays)} rows, the pictures are {len(truth)}: run the stem on "
                "the right data set, and on all of it."
            )
        before = np.mean((logits > 0) == truth)
        after = np.mean((_outputs(tail, arrays) > 0) == labels)
        if after < before - 0.12:
            return (
                f"The model names {before:.0%} of these pictures rightly, the tail only "
                f"{after:.0%} of `{name}`. Do labels and features belong together? Two passes over "
                "a data set that shuffles give two orders; `run_once` takes both in one pass."
            )


@task(
    FINE_TUNE,
    hint="What may learn is read when you compile, so compile the tail now. The head learnt at "
    "3e-3; what knows something already should move in much shorter steps.",
)
def fine_history(history, tail, model, backbone, validation, test):
    fitted = tail if tail.compiled or not model.compiled else model  # whole model: slow, not wrong
    problem = _not_fitted(history, fitted) or _wrong_compile(fitted)
    if problem:
        return problem
    rate = _largest_rate(fitted, history)
    adam = isinstance(fitted.optimizer, ADAM_LIKE)
    if rate > (3e-4 if adam else 1e-2):
        return (
            f"The learning rate is {rate:g}, about what a new head takes. The backbone knows "
            "something already, and steps that long overwrite it: 1e-5 to 2e-4 is usual. "
            "Run the notebook again from the top, so that it starts from the pre-trained numbers."
        )
    moved = _moved(backbone)
    if rate < (3e-7 if adam else 1e-6):
        return (
            f"The learning rate is {rate:g}: so little that nothing will change. Try 1e-5 or more."
        )
    inside = {id(weight) for weight in backbone.trainable_weights}
    learns = [n for n, x in _convolutions(backbone).items() if id(x.kernel) in inside]
    if not moved:
        return (
            f"{len(learns)} convolutions may learn, but none has moved. `trainable` is read when "
            "you compile: compile the tail again, after unfreezing, then fit."
        )
    if strayed := [name for name in moved if name not in learns]:
        return (
            f"{_some(strayed)} moved, though frozen. It could learn when the model was compiled. "
            "Run the notebook again from the top: freeze first, then compile."
        )
    if stayed := [name for name in learns if name not in moved]:
        return f"{_some(stayed)} may learn but has not moved: compile again after unfreezing."
    logits, labels = _logits(model, validation)
    accuracy = np.mean((logits > 0) == labels)
    if accuracy < 0.65:
        return (
            f"After fine-tuning the model names {accuracy:.0%} of the validation pictures, which "
            "is near guessing. Something broke it: look at the learning curve, and lower the rate."
        )
    return _watched(history, fitted, validation, test, whole=model)


@task(
    FINE_TUNE,
    hint="For each picture: 1 if it was wrong before and is right now, -1 the other way round, 0 "
    "if nothing changed. The gain is the mean of that; the margin needs its `std`, and `np.sqrt`.",
)
def gain(gain, margin, model, test, right_frozen):
    logits, labels = _logits(model, test)
    right = (logits > 0) == labels
    before = np.asarray(right_frozen).ravel()
    n, change = len(right), right.astype(float) - before
    expected, width = change.mean(), 1.96 * change.std() / np.sqrt(n)
    for answer, name in ((gain, "gain"), (margin, "margin")):
        if problem := _not_a_number(answer, f"a number for `{name}`"):
            return problem
    near = 1.5 / n  # a logit next to 0 may fall on either side
    if abs(gain - expected) > near:
        if abs(gain + expected) <= near:
            return f"Your gain is {gain:.4f}: the sign is turned round. It is after minus before."
        if abs(gain - 100 * expected) <= 100 * near:
            return f"Your gain of {gain:.2f} is in points. Give a share, a hundredth of that."
        if abs(gain - change.sum()) <= 1.5:
            return f"Your gain of {gain:g} is a number of pictures. Divide by {n}: use the mean."
        if abs(gain - right.mean()) <= near:
            return f"{gain:.4f} is the accuracy now. The gain is what it has changed by."
        return (
            f"Your gain is {gain:.4f}, expected {expected:.4f}: the accuracy after "
            f"({right.mean():.4f}) minus before ({before.mean():.4f}), on the same {n} pictures."
        )
    return _wrong_margin(margin, width, n, _unpaired(before, right))


def _unpaired(a, b):
    return 1.96 * np.sqrt((np.var(a) + np.var(b)) / len(a))


def _wrong_margin(answer, width, n, unpaired=None):
    """Half the width of a 95 % interval; 2 instead of 1.96, n - 1 or a bootstrap are welcome."""
    if abs(answer - width) <= 0.06 * width and answer != unpaired:
        return None
    others = {
        "the standard error. A 95 % interval reaches 1.96 of them to each side": width / 1.96,
        f"the spread of single pictures. The mean of {n} varies less: divide by the root of {n}": (
            width * np.sqrt(n) / 1.96
        ),
        f"1.96 times the spread of single pictures: divide by the root of {n} as well": (
            width * np.sqrt(n)
        ),
        "the whole width of the interval. The margin is half of it": 2 * width,
        "in points. Give a share, a hundredth of that": 100 * width,
        "the variance of the mean. Take its root": (width / 1.96) ** 2,
    }
    if unpaired is not None:
        others[
            "that of two independent samples. Both models named the same pictures: take the "
            "difference picture by picture, then its spread"
        ] = unpaired
    for sentence, value in others.items():
        if value and abs(answer - value) <= 0.03 * value:
            return f"Your margin {answer:.4g} is {sentence}."
    if abs(answer - width) <= 1.5 / n:  # a logit next to 0 may fall on either side
        return None
    return (
        f"Your margin is {answer:.4g}, expected {width:.4g}: 1.96 times the standard error of the "
        "mean, which is the standard deviation divided by the root of the number of pictures."
    )


@task(
    FINE_TUNE,
    hint="The interval goes from gain - margin to gain + margin. If 0 lies in it, no change at all "
    "would be no surprise either.",
)
def verdict(verdict, gain, margin):
    words = ("better", "worse", "cannot tell")
    if verdict not in words:
        return f"Expected one of {', '.join(map(repr, words))}, found {verdict!r}."
    low, high = gain - margin, gain + margin
    right = "better" if low > 0 else "worse" if high < 0 else "cannot tell"
    if verdict != right:
        lies = "holds 0" if right == "cannot tell" else f"lies {'above' if low > 0 else 'below'} 0"
        return (
            f"Your interval goes from {low:+.3f} to {high:+.3f}; it {lies}. What follows from that "
            f"for {verdict!r}?"
        )


# ---- 3 · from scratch ------------------------------------------------------------------------


@task(
    SCRATCH,
    hint="Build the model as in exercise 1, with two differences: where the numbers come from, and "
    "who may learn.",
)
def scratch(scratch, scratch_backbone):
    problem = _not_vgg16(scratch_backbone)
    if problem:
        return problem
    if not _random(scratch_backbone):
        return (
            "The backbone starts with the pre-trained numbers. From scratch means random ones: "
            "`weights=None`."
        )
    if problem := _wrong_model(scratch, scratch_backbone):
        return problem
    if frozen := [n for n, x in _convolutions(scratch_backbone).items() if not x.trainable_weights]:
        return (
            f"{_some(frozen)} cannot learn. A random layer that stays frozen is of no use: from "
            "scratch, everything learns."
        )
    inside = {id(weight) for weight in scratch.trainable_weights}
    if any(id(layer.kernel) not in inside for layer in _convolutions(scratch_backbone).values()):
        return (
            "The backbone could learn, but the model does not let it: look at `trainable` of the "
            "model and of the backbone."
        )
    return _no_head(scratch, scratch_backbone)


@task(
    SCRATCH,
    hint="The same budget for all: the same pictures, ten epochs. There is nothing yet that longer "
    "steps could overwrite, so the rate may be higher than for fine-tuning.",
)
def scratch_history(history, scratch, validation, test):
    if problem := _not_fitted(history, scratch, test):
        return problem
    if problem := _wrong_compile(scratch):
        return problem
    if len(history.epoch) != 10:
        return (
            f"`fit` went through {len(history.epoch)} epochs, the budget of this comparison is 10. "
            "Build the model anew, so that it starts from random numbers, and fit again."
        )
    if history.epoch[0] != 0:
        return f"Epochs are counted from 0, yours begin at {history.epoch[0]}: leave it at 0."
    rate = _largest_rate(scratch, history)
    if rate < 1e-5:
        return (
            f"The learning rate is {rate:g}. Starting from random numbers, so short steps lead "
            "nowhere in 10 epochs, and the comparison would be unfair: 1e-4 to 1e-3."
        )
    if rate > (1e-2 if isinstance(scratch.optimizer, ADAM_LIKE) else 0.1):
        return f"The learning rate is {rate:g}, too high for any network: 1e-4 to 1e-3."
    return _watched(history, scratch, validation, test)


@task(
    SCRATCH,
    hint="`evaluate` on the training pictures, after training; or count right answers yourself, as "
    "in exercise 1. The history averages over an epoch during which the model changes.",
)
def train_accuracy(train_accuracy, scratch, train):
    if problem := _not_a_number(train_accuracy, "a share of pictures"):
        return problem
    logits, labels = _logits(scratch, train)
    expected, at_half = (np.mean((logits > cut) == labels) for cut in (0, 0.5))
    n = len(labels)
    if abs(train_accuracy - expected) <= 1.5 / n:
        return None
    if train_accuracy > 1:
        return f"{train_accuracy:g} is more than 1. Give the share of the {n} pictures, 0 to 1."
    if abs(train_accuracy - at_half) < 1e-4:
        return f"{train_accuracy:.3f} is for a cut at 0.5. These are logits: cut at 0."
    return (
        f"Expected the share of the {n} training pictures that `scratch` names rightly now, "
        f"{expected:.3f}, found {train_accuracy:.3f}. Was it another data set, or an average "
        "during training?"
    )


@task(
    SCRATCH,
    hint="One row a method. The accuracy is the mean of the right answers; half the width of its "
    "95 % interval is 1.96 * sqrt(p * (1 - p) / n). What learns is in `trainable_weights`.",
)
def comparison(comparison, right, numbers_that_learn):
    columns = ("accuracy", "margin", "numbers that learn")
    if not hasattr(comparison, "loc") or not hasattr(comparison, "columns"):
        return f"Expected a pandas DataFrame, found {_kind(comparison)}."
    if missing := [name for name in columns if name not in comparison.columns]:
        found = ", ".join(map(str, comparison.columns))
        return f"The column {missing[0]!r} is missing; found {found}."
    if sorted(map(str, comparison.index)) != sorted(METHODS):
        return (
            f"The rows should be {', '.join(METHODS)} (the index of the table); found "
            f"{', '.join(map(str, comparison.index))}."
        )
    for method in METHODS:
        accuracy, margin, count = (comparison.loc[method, column] for column in columns)
        answers = np.asarray(right[method]).ravel()
        n, expected = len(answers), answers.mean()
        if abs(accuracy - expected) > 1e-3:
            if abs(accuracy - 100 * expected) < 0.1:
                return f"The accuracy of {method} is in percent: give a share, {expected:.3f}."
            return (
                f"The accuracy of {method} is {accuracy:.4g} in your table, expected "
                f"{expected:.4g}, the mean of `right[{method!r}]`."
            )
        width = 1.96 * np.sqrt(expected * (1 - expected) / n)
        if problem := _wrong_margin(margin, width, n):
            return f"In the row {method}: {problem}"
        if int(count) != numbers_that_learn[method]:
            return (
                f"In the row {method} {int(count):,} numbers learn, expected "
                f"{numbers_that_learn[method]:,}: count what could learn while it was trained."
            )


@task(
    SCRATCH,
    hint="`table[(table.method == …) & (table.labels == …)]` picks rows of one kind, `.mean()` of "
    "a column averages over the seeds. Mind which accuracy each of the two questions is about.",
)
def separates(optimisation, data, table):
    norm = table[table["method"] == "scratch, BatchNorm"]
    few, many = norm["labels"].min(), norm["labels"].max()
    plain = table[(table["method"] == "scratch") & (table["labels"] == few)]
    few, many = norm[norm["labels"] == few], norm[norm["labels"] == many]

    def differences(column):
        means = [rows[f"{column}_accuracy"].mean() for rows in (plain, few, many)]
        return means[1] - means[0], means[2] - means[1]

    train, validation, test = map(differences, ("training", "validation", "test"))
    for name, answer, i, right, other in (
        ("optimisation", optimisation, 0, train, test),
        ("data", data, 1, test, train),
    ):
        if problem := _not_a_number(answer, f"a number for `{name}`"):
            return problem
        if abs(answer - right[i]) < 2e-3:
            continue
        column = ("training", "test")[i]
        if abs(answer + right[i]) < 2e-3:
            return f"`{name}` is {answer:.3f}: the sign is turned round."
        if abs(answer - 100 * right[i]) < 0.2:
            return f"`{name}` is in points. Give a share, a hundredth of {answer:.1f}."
        if abs(answer - other[i]) < 2e-3 or abs(answer - validation[i]) < 2e-3:
            return (
                f"`{name}` is {answer:.3f}, which comes from another column: this question is "
                f"about `{column}_accuracy`."
            )
        return (
            f"`{name}` is {answer:.3f}, expected {right[i]:.3f}: the difference of two means of "
            f"`{column}_accuracy` over the seeds. Which two kinds of row does the task compare?"
        )


@task(
    SCRATCH,
    hint="Look at your table again: which of the two names more new pictures rightly, and is the "
    "difference larger than the margins?",
)
def chosen(chosen, scratch):
    if isinstance(chosen, str):
        return f"{chosen!r} is a name: put the model itself into `chosen`."
    if not isinstance(chosen, keras.Model):
        return f"Expected one of the two models, found {_kind(chosen)}."
    if chosen is scratch:
        return (
            "That is the network from scratch. Which of the two does your table recommend for "
            "pictures that nobody has seen?"
        )
    if tuple(chosen.input_shape[1:]) != tuple(scratch.input_shape[1:]):
        return (
            f"It takes inputs of the shape {chosen.input_shape[1:]}, pictures have "
            f"{scratch.input_shape[1:]}: is it the tail alone? Choose the whole model."
        )
    return None


# ---- what the judges share -------------------------------------------------------------------


def _kind(thing):
    return f"a {type(thing).__name__}"


def _some(names):
    """Names in a sentence: 'block5_conv1', or 'block5_conv1' and 2 more."""
    names = list(names)
    return repr(names[0]) + (f" and {len(names) - 1} more" if names[1:] else "")


def _not_a_number(answer, what):
    if getattr(answer, "shape", None) == ():  # NumPy's and TensorFlow's numbers
        answer = np.asarray(answer).item()
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return f"Expected {what}, found {_kind(answer)}: {str(answer)[:40]}."


def _column(*values):
    return keras.ops.convert_to_tensor(np.array(values, "float32")[:, None])


def _convolutions(model):
    """Name to layer, from input to output."""
    return {x.name: x for x in leaves(model) if isinstance(x, keras.layers.Conv2D)}


@functools.cache
def _pretrained(weights):
    backbone = keras.applications.VGG16(weights=weights, include_top=False)
    return [layer.get_weights() for layer in _convolutions(backbone).values()]


def _moved(backbone):
    """Names of the convolutions that differ from the pre-trained ones."""
    known = _pretrained(tracks.current().weights("vgg16"))
    return [
        name
        for (name, layer), old in zip(_convolutions(backbone).items(), known, strict=True)
        if not all(map(np.array_equal, layer.get_weights(), old))
    ]


def _random(backbone):
    """Whether the widest convolution is not even similar to the pre-trained one."""
    found = list(_convolutions(backbone).values())[-1].get_weights()[0]
    known = _pretrained(tracks.current().weights("vgg16"))[-1][0]
    return abs(np.corrcoef(found.ravel(), known.ravel())[0, 1]) < 0.5


def _no_head(model, backbone):
    inside = {id(weight) for weight in backbone.weights}
    if all(id(weight) in inside for weight in model.trainable_weights):
        return "Your model has no head that could learn: put a `Dense(1)` on top."


def _probe(size):
    """Random pictures; the later ones are far brighter than any, to find where outputs end."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (16, *size, 3)).astype("float32")
    pictures[8:] *= 10.0 ** np.arange(1, 9)[:, None, None, None]
    return pictures


def _outputs(model, inputs):
    """One number for each input."""
    parts = [inputs[i : i + 64] for i in range(0, len(inputs), 64)]
    outputs = [keras.ops.convert_to_numpy(model(part, training=False)) for part in parts]
    return np.concatenate(outputs).reshape(len(inputs), -1)[:, 0]


def _collect(dataset):
    """All inputs and labels (n,) of a dataset of batches; a column of labels becomes a row."""
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("the data set never ends, leave out its repeat().")
    if not isinstance(dataset.element_spec, tuple):
        raise ValueError("the data set has pictures without labels, expected both.")
    if dataset.element_spec[0].shape.rank in (1, 3):
        raise ValueError("the data set has single pictures, expected batches of them.")
    inputs, labels = (
        np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True)
    )
    return inputs, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _labels(dataset):
    return _collect(dataset.map(lambda pictures, labels: (labels, labels)))[1]


def _logits(model, dataset):
    """The output for each picture, and its label: in one pass, so that they belong together."""
    inputs, labels = _collect(dataset)
    return _outputs(model, inputs), labels


def _keys(pictures):
    return [np.round(picture).astype("uint8").tobytes() for picture in pictures]


def _from_folder(folder, size):
    """The content of each picture in a folder, and its label."""
    pictures, labels = _collect(
        keras.utils.image_dataset_from_directory(
            folder, image_size=size, shuffle=False, verbose=False
        )
    )
    return dict(zip(_keys(pictures), labels.tolist(), strict=True))


def _largest_rate(model, history):
    """The highest learning rate of a training: constant, scheduled or lowered by callbacks."""
    rate = model.optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        steps = int(model.optimizer.iterations)
        return max(float(schedule(step)) for step in range(0, steps + 1, max(1, steps // 100)))
    return max([float(rate), *map(float, history.history.get("learning_rate", []))])
