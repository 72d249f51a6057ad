"""The checks of the exercise to lesson 05: broken code that runs, mistakes by their symptoms."""

import keras
import numpy as np
import tensorflow as tf

from helpers.checks import task
from helpers.checks.handing_in import HandIn, misnaming
from helpers.checks.probes import leaves

NOTEBOOK = "mistakes/mistakes"
LEVEL = 0.7  # accuracy of the function that is handed in, on 50 drawings; 0.87 is usual
NAMES = (
    "wrong preprocessing",
    "labels in another order",
    "accuracy of logits",
    "no re-compile",
    "learning rate too high",
    "BatchNorm left on",
    "augmentation before the cache",
    "chosen on the test set",
)
SYMPTOMS = {  # of the runs in the exercise; what to look at again
    "A": ("wrong preprocessing", "Almost all answers are the same, and only on new pictures."),
    "B": ("no re-compile", "Which column says that nothing happened at all?"),
    "C": ("BatchNorm left on", "Something moved that no optimizer moves."),
    "D": ("learning rate too high", "It cannot even name what it was trained on any more."),
    "E": ("augmentation before the cache", "Count what it has seen in ten epochs."),
    "F": ("chosen on the test set", "How often was the question asked before it was answered?"),
}

hand_in = HandIn(NOTEBOOK, size=96, points=40, drawn_world=True)


def small_model():
    """A small network with a frozen "backbone", its head just trained, compiled.

    Input (8, 8, 3), one logit out. The backbone has the layers conv_1, norm_1, conv_2, norm_2.
    """
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv_1")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm_1", momentum=0.5)(x))
    x = keras.layers.Conv2D(4, 3, name="conv_2")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm_2", momentum=0.5)(x))
    backbone = keras.Model(inputs, x, name="backbone")
    backbone.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    model.fit(*_noise(), batch_size=4, verbose=0)
    return model


def one_more_epoch(model):
    """Train the small model for an epoch on noise; names of the weights that moved.

    Returns:
        list of texts such as "conv_2 kernel"; BatchNorm has four: gamma, beta, moving_mean and
        moving_variance.
    """
    before = _values(model)
    model.fit(*_noise(), batch_size=4, verbose=0)
    after = _values(model)
    return [name for name in before if not np.array_equal(before[name], after[name])]


@task(
    NOTEBOOK,
    hint="`cache` keeps whatever comes before it, and what comes after it happens anew in each "
    "epoch. Of the two functions, whose work is worth keeping, and whose must not be kept?",
)
def pipeline(pipeline):
    if not callable(pipeline):
        return f"`pipeline` should be a function, it is a {type(pipeline).__name__}."
    count, ran, rng = 6, [], np.random.default_rng()

    def note(pictures):
        ran.extend(pictures[:, 0, 0, 0].tolist())
        return pictures * 2

    def change(pictures):
        return pictures + rng.uniform(0.1, 0.4, pictures.shape).astype("float32")

    def expensive(pictures, labels):
        out = tf.numpy_function(note, [pictures], tf.float32)
        return tf.ensure_shape(out, pictures.shape), labels

    def augment(pictures, labels):
        # not tf.random: once a seed is set, a data set repeats its numbers in each epoch
        out = tf.numpy_function(change, [pictures], tf.float32)
        return tf.ensure_shape(out, pictures.shape), labels

    values = rng.permutation(100)[:count].astype("float32")
    pictures = np.tile(values[:, None, None, None], (1, 2, 2, 3))
    data = tf.data.Dataset.from_tensor_slices((pictures, np.arange(count))).batch(2)
    ready = pipeline(data, expensive, augment)
    if ready is None:
        return "Your function gives nothing back: does it end with `return`?"
    if not isinstance(ready, tf.data.Dataset):
        return f"It should return a tf.data.Dataset, yours returns a {type(ready).__name__}."
    epochs, runs = [], []
    for _ in range(3):
        ran.clear()
        views = [v for x, y in ready.as_numpy_iterator() for v in zip(y, x, strict=True)]
        epochs.append({int(label): view for label, view in views})
        runs.append(len(ran))
        if len(views) != count or len(epochs[-1]) != count:
            return (
                f"{count} pictures went in, an epoch gives {len(views)} with {len(epochs[-1])} "
                "different labels. Each should come out once, with its own label."
            )
    if not any(runs):
        return "The expensive part never ran: map `expensive` over the data, too."
    noise = [epochs[0][i] - 2 * values[i] for i in range(count)]
    if max(np.abs(rest).max() for rest in noise) < 1e-4:
        return "No picture was augmented: map `augment` over the data, too."
    distinct = len({epoch[0].tobytes() for epoch in epochs})
    if distinct < 3:
        return (
            f"In three epochs a picture was shown in {distinct} view instead of 3: the first "
            "epoch's views are repeated. What is augmented must not be kept."
        )
    if sum(runs) > count:
        return (
            f"The views differ, as they should. But the expensive part ran {sum(runs)} times for "
            f"{count} pictures in three epochs; {count} times is enough. Keep what it computes."
        )
    return None


@task(
    NOTEBOOK,
    hint="Three things: the backbone's own switch, a decision for each of its layers (by position, "
    "and by kind), and what every change of a switch asks for afterwards. "
    "`small.get_layer` finds the backbone.",
)
def unfreeze(unfreeze):
    if not callable(unfreeze):
        return f"`unfreeze` should be a function, it is a {type(unfreeze).__name__}."
    for first in ("conv_2", "conv_1"):
        model = small_model()
        steps, head = int(model.optimizer.iterations), _values(model)["head kernel"]
        unfreeze(model, first)
        if not np.array_equal(head, _values(model)["head kernel"]):
            return "The head has changed before any training: go on with the trained one."
        if not model.compiled or int(model.optimizer.iterations) >= steps:
            return (
                f"The optimizer has made {model.optimizer.iterations.numpy():.0f} steps already: "
                "it is the old one, and `fit` goes on as it was compiled before you moved a "
                "switch. Compile the model again, after the switches."
            )
        rate = float(model.optimizer.learning_rate)
        if not 1e-7 < rate <= 3.1e-4:
            return (
                f"The learning rate is {rate:g}; 1e-4 was asked for, low enough to keep what the "
                "backbone knows."
            )
        loss = model.compute_loss(y=np.array([[1.0]]), y_pred=tf.constant([[-3.0]]))
        if not np.isclose(float(loss), 3.0486, atol=0.01):
            return (
                f"For the logit −3 and the label 1 your loss is {float(loss):.2f}, it should be "
                "3.05: the model gives logits, tell the loss."
            )
        moved = one_more_epoch(model)
        if problem := _wrongly_moved(moved, first):
            return problem
    return None


@task(
    NOTEBOOK,
    hint="Which of the two lists may you look at before you have decided, and which one has not "
    "been asked anything yet? np.argmax gives a position, not a value.",
)
def choose(choose):
    if not callable(choose):
        return f"`choose` should be a function, it is a {type(choose).__name__}."
    rng = np.random.default_rng()
    for size in (4, 9):
        best, others = 0, [0]
        while best in others or others[0] == others[1]:  # each way to choose has its own winner
            both = rng.permutation(np.arange(60, 60 + 2 * size)) / 100  # all different
            validation, test = both[:size], both[size:]
            together = validation + test, np.minimum(validation, test)
            best, others = validation.argmax(), [list_.argmax() for list_ in (test, *together)]
        answer = choose(validation.tolist(), test.tolist())
        if answer is None:
            return "Your function gives nothing back: does it end with `return`?"
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            return "It should return two things: the position of the model and its accuracy."
        position, accuracy = (float(np.asarray(value).item()) for value in answer)
        if position != best:
            why = "Positions count from 0."
            if position == test.argmax():
                why = "That is the winner on the test pictures, which are not for choosing."
            elif position == (validation + test).argmax():
                why = "Both lists together: then the test pictures have taken part in choosing."
            elif position == validation.argmin():
                why = "That is the worst one."
            elif np.isclose(position, validation.max()):
                why = "That is its accuracy. np.argmax gives the position."
            return (
                f"With the validation accuracies {validation.tolist()} the model at position "
                f"{best} should be chosen, you chose {position:g}. {why}"
            )
        if not np.isclose(accuracy, test[best]):
            why = "Report how the chosen model does on the test pictures."
            if np.isclose(accuracy, validation[best]):
                why = (
                    "That is its validation accuracy: it won by it, so luck is in it. The test "
                    "pictures have not been asked yet."
                )
            elif np.isclose(accuracy, test.max()):
                why = "That is the best test accuracy, of a model that you did not choose."
            return (
                f"The right model; {test[best]:g} should be reported for it, you report "
                f"{accuracy:g}. {why}"
            )
    return None


@task(
    NOTEBOOK,
    hint="Go through the checklist at the end of lesson 05 from its left column. One odd number in "
    "each row of the table gives the run away: compare the row with that of the healthy run.",
)
def diagnosis(diagnosis):
    if not isinstance(diagnosis, dict):
        return f"The answer is a dict from letter to name, yours is a {type(diagnosis).__name__}."
    if unknown := sorted(set(map(str, diagnosis)) - set(SYMPTOMS)):
        return f"There is no run {', '.join(unknown)}: the runs are {', '.join(SYMPTOMS)}."
    if missing := [run for run in SYMPTOMS if diagnosis.get(run) is None]:
        return f"Not all runs have a name yet: {', '.join(missing)}."
    for run, name in diagnosis.items():
        if str(name).strip().casefold() not in NAMES_FOLDED:
            return f"Run {run}: {name!r} is not in the list. Copy a name from it."
    wrong = [
        run
        for run, (name, _) in SYMPTOMS.items()
        if str(diagnosis[run]).strip().casefold() != name.casefold()
    ]
    if not wrong:
        return None
    right = len(SYMPTOMS) - len(wrong)
    return f"{right} of {len(SYMPTOMS)} are right. Look at run {wrong[0]}: {SYMPTOMS[wrong[0]][1]}"


NAMES_FOLDED = {name.casefold() for name in NAMES}


def _noise():
    rng = np.random.default_rng(0)
    return rng.normal(1, 2, (16, 8, 8, 3)).astype("float32"), np.arange(16)[:, None] % 2


def _values(model):
    """All weights by the name of layer and weight, copied."""
    return {
        f"{layer.name} {weight.name}": weight.numpy()
        for layer in leaves(model)
        for weight in layer.weights
    }


def _wrongly_moved(moved, first):
    """A sentence, or None if the right weights moved in an epoch after `unfreeze(model, first)`."""
    if statistics := [name for name in moved if "moving" in name]:
        return (
            f"{len(statistics)} moving statistics of BatchNorm moved, such as {statistics[0]!r}. "
            "`training=False` does not hold them; only a BatchNorm layer that is not trainable "
            "stands still."
        )
    if norms := [name for name in moved if name.startswith("norm")]:
        return f"BatchNorm should stay as it is; {norms[0]!r} moved."
    if "head kernel" not in moved:
        return "The head stood still. It should go on learning beside the backbone."
    early = [name for name in moved if name.startswith("conv_1")]
    if first == "conv_2" and early:
        return (
            f'With first="conv_2" everything before conv_2 should stay frozen, but {early[0]!r} '
            "moved."
        )
    if f"{first} kernel" not in moved or "conv_2 kernel" not in moved:
        still = first if f"{first} kernel" not in moved else "conv_2"
        return (
            f'With first="{first}" the layer {still} should learn; after an epoch it had not '
            "moved. `backbone.trainable` counts as well as that of the layer."
        )
    return None


@task(
    NOTEBOOK,
    hint="Task 3 does it all: drawings are prepared, the backbone makes features of them, and a "
    "line learns from features. A new drawing has to go the same way, step by step.",
)
def classify(classify, pictures, labels):
    return misnaming(classify, pictures, labels, LEVEL)
