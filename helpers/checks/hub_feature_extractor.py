"""The checks of the exercise to lesson 02: a hub module, first frozen, then fine-tuned."""

import math

import keras
import numpy as np
import tensorflow as tf

from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import ask, leaves
from helpers.hub_layer import HubLayer

NOTEBOOK = "hub_feature_extractor/hub_feature_extractor"
HIGHEST_RATE = 1e-4  # for fine-tuning

hand_in = HandIn(NOTEBOOK, size=96, points=40)


def module_values(model):
    """A copy of all variables of the hub module in a model, a list of arrays."""
    return [v.numpy() for v in _hub_layers(model)[0].module_variables]


def head_weights(model):
    """A copy of all other weights of the model, a list of arrays."""
    others = [layer for layer in leaves(model) if not isinstance(layer, HubLayer)]
    return [w for layer in others for w in layer.get_weights()]


@task(
    NOTEBOOK,
    hint="The contract of feature-vector modules stands in lesson 02: which numbers do they take, "
    "and which do you have? The labels are handed on as they are.",
)
def prepare(prepare):
    if not callable(prepare):
        return f"`prepare` should be a function, it is a {type(prepare).__name__}."
    pictures = np.random.default_rng().uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    pictures[0, 0, 0], pictures[0, 0, 1] = 0, 255
    labels = np.array([[0], [1], [1], [0]], "float32")
    answer = prepare(tf.constant(pictures), tf.constant(labels))
    if answer is None:
        return "Your function gives nothing back: does it end with `return`?"
    if not isinstance(answer, tuple) or len(answer) != 2:
        return "It should return two things, `return pictures, labels`: `fit` needs both."
    try:
        batches = tf.data.Dataset.from_tensors((pictures, labels)).map(prepare)
    except Exception as error:
        return (
            f"`map` cannot use your function ({type(error).__name__}). It gets tensors there, not "
            "NumPy arrays: plain arithmetic such as + − * / works on both."
        )
    found, found_labels = next(batches.as_numpy_iterator())
    if found.shape != pictures.shape or not np.array_equal(found_labels, labels):
        return (
            "Only the numbers of the pictures should change. Labels and shapes go out as they came "
            "in, pictures first."
        )
    if np.allclose(found, pictures / 255, atol=0.003):
        return None
    for wrong, why in (
        (pictures, "they are as they were. The module wants 0 to 1."),
        (pictures / 127.5 - 1, "keras.applications wants that. The module wants 0 to 1."),
        (pictures / 255 / 255, "they were divided twice."),
        (pictures // 255, "only 255 became 1, everything else became 0. Keep the fractions."),
        (1 - pictures / 255, "dark and bright have changed places."),
    ):
        if np.allclose(found, wrong, atol=1e-5):
            low, high = found.min(), found.max()
            return f"Your numbers lie between {low:.3g} and {high:.3g}: {why}".replace("-", "−")
    at_0, at_255 = found[0, 0, 0, 0], found[0, 0, 1, 0]
    return (
        f"0 should stay 0 and 255 should become 1; yours become {at_0:.3g} and {at_255:.3g}. "
        "Look at the contract in lesson 02."
    )


@task(
    NOTEBOOK,
    hint="Three lines in a keras.Sequential: the shape of a drawing, the module as a layer that "
    "does not learn, and one number at the end. A logit needs no activation.",
)
def model(model):
    if not isinstance(model, keras.Model):
        return f"The answer is a Keras model, yours is a {type(model).__name__}."
    if len(layers := _hub_layers(model)) != 1:
        return f"The model should hold one HubLayer, yours holds {len(layers)}."
    (hub_layer,) = layers
    shape = [side or 64 for side in hub_layer.picture_shape.as_list()[1:]]
    pictures = np.random.default_rng(0).uniform(0, 1, (6, *shape)).astype("float32")
    outputs = ask(model, pictures)
    if outputs.shape != (6, 1):
        count = math.prod(outputs.shape[1:])
        why = "one is enough for cat or dog."
        if count == 2:
            why = "cat or dog is one question, so one number answers it."
        elif count == hub_layer.features:
            why = "these are the features. The head is missing."
        return f"A drawing should get one number, yours gets {count:,}: {why}"
    if hub_layer.trainable_variables:
        return (
            f"{len(hub_layer.trainable_variables)} variables of the module can move. In the first "
            "phase it is frozen: the switch is an argument of HubLayer."
        )
    if not model.trainable_variables:
        return "Nothing in the model can learn, the head neither. Freeze the module only."
    if np.all(outputs == 1):
        return (
            "Every drawing gets exactly 1: softmax makes shares that add up to 1, and a single "
            "number's share is all of it. A logit needs no activation."
        )
    if _stays_between_0_and_1(model, pictures):
        return (
            "Your outputs stay between 0 and 1, whatever the weights: these are probabilities. "
            "A logit can be any number, so the last layer needs no activation."
        )
    try:
        ask(model, 255 * pictures)
    except Exception:  # the module refuses them, as it should
        return None
    return (
        "The model takes drawings with 0 to 255, too: it rescales them itself. `prepare` has done "
        "that already, and twice is once too often. Leave it out of the model."
    )


@task(
    NOTEBOOK,
    hint="model.compile wants an optimizer, a loss and a list of metrics. The loss and the metric "
    "must both be told that they get logits, each in its own way. Lesson 02 has such a function in "
    "its first cell.",
)
def compile_with(compile_with):
    if not callable(compile_with):
        return f"`compile_with` should be a function, it is a {type(compile_with).__name__}."
    tiny = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    tiny.set_weights([np.ones((1, 1)), np.zeros(1)])  # gives what it gets: its inputs are logits
    compile_with(tiny, 0.002)
    if not tiny.compiled:
        return (
            "The check gave your function a small model, and it was not compiled afterwards. Does "
            "it compile the model that it is given?"
        )
    rate = float(tiny.optimizer.learning_rate)
    if not math.isclose(rate, 0.002, rel_tol=1e-3):
        return f"The check asked for a learning rate of 0.002, the optimizer has {rate:g}."
    for label, logit in ((1, 0.25), (0, 0.25), (1, -3.0)):
        probability = 1 / (1 + math.exp(-logit))
        expected = -math.log(probability if label else 1 - probability)
        y, y_pred = np.array([[label]], "float32"), keras.ops.array([[logit]], "float32")
        loss = float(tiny.compute_loss(y=y, y_pred=y_pred))
        if not math.isclose(loss, expected, rel_tol=0.01):
            why = "Look at the loss in lesson 02."
            taken = {1: -math.log(0.25), 0: -math.log(0.75)}[label]
            if math.isclose(loss, taken, rel_tol=0.01):
                why = "It takes the logit for a probability."
            return (
                f"For a logit of {logit} and the label {label} the loss should be {expected:.3f}, "
                f"it is {loss:.3f}. {why}"
            )
    logits = np.array([[-3.0], [-0.2], [0.1], [0.3], [0.4], [2.0], [-0.1], [-1.0]], "float32")
    labels = (logits > 0).astype("float32")
    tiny.run_eagerly = True  # quicker for a single batch
    results = tiny.evaluate(logits, labels, verbose=0, return_dict=True)
    names = [name for name in results if name != "loss"]
    if not names:
        return "There is no metric: accuracy is wanted, beside the loss."
    name = "accuracy" if "accuracy" in names else names[0]
    if not math.isclose(results[name], 1):
        why = "Look at the trap of lesson 02."
        if math.isclose(results[name], np.mean((logits > 0.5) == labels), rel_tol=1e-3):
            why = "It cuts at 0.5, so logits from 0 to 0.5 are counted as cats."
        return (
            f"Eight logits with the right sign should have an accuracy of 1, your metric {name!r} "
            f"says {results[name]:.3f}. {why}"
        )
    if name != "accuracy":
        return (
            f'The metric is right, but its name is {name!r}: give it name="accuracy", for the plot.'
        )
    return None


@task(
    NOTEBOOK,
    hint="Ask of each logit on which side of 0 it lies, compare that with the labels, and average. "
    "Print the shapes of both before you compare them.",
)
def accuracy(accuracy):
    if not callable(accuracy):
        return f"`accuracy` should be a function, it is a {type(accuracy).__name__}."
    rng = np.random.default_rng()
    signs = np.repeat([1, -1], [4, 8])
    logits = np.concatenate([[0.05, 0.1, 0.2, 0.3, 0.4, 0.45, -0.1, -0.3], rng.uniform(1, 4, 12)])
    logits[8:] *= signs
    labels = (logits > 0).astype("int32")
    labels[5] = 0  # one mistake, and two or four more
    labels[12 : 12 + rng.choice([2, 4])] = 1
    mixed = rng.permutation(20)
    logits, labels = logits[mixed].astype("float32"), labels[mixed]
    named_dog = logits > 0
    right = np.mean(named_dog == labels)
    found = accuracy(logits[:, None].copy(), labels.copy())
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    found = np.asarray(found)
    if found.size != 1:
        return f"One number is wanted, your function returned {found.size}: average them."
    found = float(found.item())
    if math.isclose(found, right, abs_tol=1e-6):
        return None
    for wrong, why in (
        (np.mean((logits > 0.5) == labels), "It cuts at 0.5. A logit means dog from 0 upwards."),
        (
            np.mean(named_dog[:, None] == labels),
            "The logits are a column, the labels are not: NumPy compares each logit with every "
            "label. Bring both to the same shape first.",
        ),
        (20 * right, "That is how many are right. Which share is it?"),
        (1 - right, "That is the share of mistakes."),
        (np.mean(labels == 1), "That is what you get if all are named dog: where do you cut?"),
        (np.mean(labels == 0), "That is what you get if all are named cat: where do you cut?"),
    ):
        if math.isclose(found, wrong, abs_tol=1e-6):
            return f"On twenty logits you got {found:.3g}, it should be {right:.3g}. {why}"
    return (
        f"On twenty logits you got {found:.3g}, it should be {right:.3g}: a logit above 0 means "
        "dog (1), below 0 cat (0)."
    )


@task(
    NOTEBOOK,
    hint="The module is a layer of the model, and you know its switch. After the switch the model "
    "needs something once more, or `fit` will not notice; you have written a function for it.",
)
def unfrozen(unfrozen, trained_head):
    if not isinstance(unfrozen, keras.Model):
        return f"The answer is a Keras model, yours is a {type(unfrozen).__name__}."
    if len(layers := _hub_layers(unfrozen)) != 1:
        return f"The model should hold one HubLayer, yours holds {len(layers)}."
    (hub_layer,) = layers
    if not hub_layer.trainable_variables:
        return (
            f"0 of the module's {len(hub_layer.module_variables)} variables can move: it is still "
            "frozen. Its switch is called `trainable`, and it is on the layer, not on the model."
        )
    if not unfrozen.compiled:
        return "The model is not compiled."
    head, steps = head_weights(unfrozen), int(unfrozen.optimizer.iterations)
    same = len(head) == len(trained_head) and all(map(np.array_equal, head, trained_head))
    if same and steps:
        return (
            f"The optimizer has made {steps} steps already, so it is that of the first phase: the "
            "model was not compiled again after the switch. `fit` would go on moving the head "
            "alone, and say nothing."
        )
    rate = float(unfrozen.optimizer.learning_rate)
    if rate > HIGHEST_RATE * 1.01:
        return (
            f"The learning rate is {rate:g}. That is too high for a pre-trained network: large "
            "steps wash out what it knows. Lesson 02 takes a hundredth of the first phase's."
        )
    if rate < 1e-7:
        return f"With a learning rate of {rate:g} nothing will move."
    if not same and not steps:  # with steps it has been fine-tuned since
        return (
            "This head is not the one that phase 1 trained. Go on with the same `model`: first a "
            "trained head, then fine-tuning."
        )
    return None


@task(
    NOTEBOOK,
    hint="`fit` has two numbers here: the epoch to begin with and the epoch to stop before. Epochs "
    "are counted from 0. How many has `history` done, and where do two more end?",
)
def continued(history_fine, history, model):
    if not isinstance(history_fine, keras.callbacks.History):
        return f"Keep what `fit` returns; yours is a {type(history_fine).__name__}."
    done, new = history.epoch, history_fine.epoch
    if not new:
        return (
            "Not one epoch was run. `epochs` is where `fit` stops, not how many it adds: it lies "
            "behind the epoch to begin with."
        )
    if new[0] != len(done):
        why = "Count those that were done."
        if new[0] == 0:
            why = "The counting starts anew: `fit` was not told where to begin."
        elif new[0] == done[-1]:
            why = f"Epoch {done[-1]} is there twice: it was the last one done, not their number."
        return (
            f"{len(done)} epochs were done, with the numbers {done[0]} to {done[-1]}. The next is "
            f"number {len(done)}, yours is {new[0]}. {why}"
        )
    if len(new) > 4:
        return f"{len(new)} epochs were run; two are enough here, and the rest costs you minutes."
    hub_layer = _hub_layers(model)[0]
    before = [v.numpy() for v in HubLayer(hub_layer.handle).module_variables]
    if all(map(np.array_equal, before, module_values(model))):
        return (
            f"The counting is right, but 0 of the module's {len(before)} variables moved. Was the "
            "model compiled again after `trainable` was set, before this `fit`?"
        )
    return None


@task(
    NOTEBOOK,
    hint="Go through both lists together, in pairs; lesson 02 does it in `moved`. Moved means not "
    "exactly equal, be it in one number only and by a millionth.",
)
def count_moved(count_moved):
    if not callable(count_moved):
        return f"`count_moved` should be a function, it is a {type(count_moved).__name__}."
    rng = np.random.default_rng()
    shapes = [(3, 3, 4), (4,), (4, 6), (6,), (6, 2), (2,), (5,), (5,), (5, 3)]
    before = [rng.normal(size=shape).astype("float32") for shape in shapes]
    before[4] = rng.permutation(12).astype("float32").reshape(6, 2)  # sums without rounding
    before[7] = rng.uniform(1, 2, 5).astype("float32")
    after = [value.copy() for value in before]
    case = "nothing moved", 0, "Frozen means exactly zero."
    if (problem := _miscount(count_moved, before, after, case)) is not None:
        return problem
    after[0] += 1
    after[2][1, 3] += 1
    case = "two moved, one of them in one number of 24", 2, "Count variables, not numbers."
    if (problem := _miscount(count_moved, before, after, case)) is not None:
        return problem
    after[7] *= 1 + 1e-6
    case = (
        "three moved, one of them by a millionth",
        3,
        "Small steps count, too: fine-tuning makes them.",
    )
    if (problem := _miscount(count_moved, before, after, case)) is not None:
        return problem
    after[4] = after[4][::-1].copy()
    case = "four moved, one of them with the same sum", 4, "Compare number by number."
    return _miscount(count_moved, before, after, case)


def _miscount(count_moved, before, after, case):
    """None, or a sentence, if the function does not count what moved."""
    what, expected, why = case
    found = count_moved([v.copy() for v in before], [v.copy() for v in after])
    if found is None:
        return "Your function gives nothing back: does it end with `return`?"
    if np.size(found) != 1:
        return f"One number is wanted, your function returned {np.size(found)}."
    found = np.asarray(found).item()
    if found == expected:
        return None
    if found == len(before) - expected:
        why = "Yours is how many stayed."
    return f"Of {len(before)} variables, {what}: {expected}. You counted {found:g}. {why}"


def _hub_layers(model):
    return [layer for layer in leaves(model) if isinstance(layer, HubLayer)]


def _stays_between_0_and_1(model, pictures):
    """Whether the outputs are probabilities: logits change their sign with the last weights."""
    (*_, last) = (layer for layer in leaves(model) if layer.trainable_weights)
    weights = last.get_weights()
    try:
        last.set_weights([-w for w in weights])
        flipped = ask(model, pictures)
    finally:
        last.set_weights(weights)
    both = np.concatenate([flipped, ask(model, pictures)])
    return both.min() >= 0 and both.max() <= 1
