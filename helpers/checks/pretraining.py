"""The checks of the exercise to lesson 07: a small backbone, pre-trained and cut off its head."""

import math

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import critters
from helpers.checks import task
from helpers.checks.handing_in import HandIn
from helpers.checks.probes import ask, leaves

NOTEBOOK = "pretraining/pretraining"
SPECIES = ("elephant", "frog", "giraffe", "owl", "rabbit", "sheep")
SIZE, FEATURES = 48, 128
FEWEST, MOST = 50_000, 500_000  # parameters
MOMENTA = 0.8, 0.95  # of BatchNorm, for a short training
RATE = 1e-3  # of Adam
LEVEL = 0.45  # accuracy on fresh paintings; 0.8 is usual, 0.17 is chance

hand_in = HandIn(NOTEBOOK, size=SIZE, kinds=len(SPECIES), points=40, drawn_world=True)


def fresh_paintings(count):
    """Paintings of SPECIES that nobody has seen: float32 (count, 48, 48, 3) and labels (count,)."""
    rng = np.random.default_rng()
    labels = np.arange(count) % len(SPECIES)
    pictures = [critters.draw(SPECIES[label], rng, size=SIZE, style="paint") for label in labels]
    return np.array(pictures, "float32"), labels


def probe(network, pictures, labels, train=100):
    """Accuracy of a line through the network's features: fitted to the first, tried on the rest."""
    features = network.predict(pictures, verbose=0)
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    return line.fit(features[:train], labels[:train]).score(features[train:], labels[train:])


def _noise(count=6):
    shape = (count, SIZE, SIZE, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def _not_a_model(answer):
    if not isinstance(answer, keras.Model):
        return f"The answer is a Keras model, yours is a {type(answer).__name__}."
    return None


@task(
    NOTEBOOK,
    hint="Write one block, then repeat it in a loop over the numbers of channels. Which layer "
    "makes one number of each channel, whatever the height and width? It comes last.",
)
def backbone(backbone):
    if problem := _not_a_model(backbone):
        return problem
    outputs = ask(backbone, _noise())
    if outputs.ndim == 4:
        return (
            f"A map of {outputs.shape[1]} × {outputs.shape[2]} places comes out, with "
            f"{outputs.shape[3]} channels. Average it over the places."
        )
    if outputs.shape == (6, len(SPECIES)):
        return "Six numbers come out: that is a head for the species. The head comes in task 2."
    if outputs.shape != (6, FEATURES):
        found = math.prod(outputs.shape[1:])
        why = "How many channels has the last block?"
        if any(isinstance(layer, keras.layers.Flatten) for layer in leaves(backbone)):
            why = "Flatten keeps every place of the map: average over them instead."
        return f"{FEATURES} features a drawing were asked for, {found:,} come out. {why}"
    norms = [x for x in leaves(backbone) if isinstance(x, keras.layers.BatchNormalization)]
    if not norms:
        return "There is no BatchNormalization in it: one belongs to each block."
    for layer in norms:
        if not MOMENTA[0] <= layer.momentum <= MOMENTA[1]:
            return (
                f"The momentum of {layer.name} is {layer.momentum:g}: 0.9 was asked for. The trap "
                "of lesson 07 shows what a long memory costs."
            )
    if not FEWEST <= (count := backbone.count_params()) <= MOST:
        return (
            f"It has {count:,} parameters, {FEWEST:,} to {MOST:,} were asked for. A convolution "
            "has about window × window × channels in × channels out of them."
        )
    frozen = [layer.name for layer in leaves(backbone) if layer.weights and not layer.trainable]
    if frozen:
        return f"{frozen[0]} is frozen. In pre-training everything learns."
    if np.allclose(outputs[0], outputs[1:], atol=1e-6):
        return "Every drawing gets the same features: does the picture get through all layers?"
    return None


@task(
    NOTEBOOK,
    hint="A keras.Sequential of two things. Logits need no activation, and the loss has to be told "
    "about them; its name begins with Sparse where labels are whole numbers.",
)
def model(model, backbone):
    if problem := _not_a_model(model):
        return problem
    outputs = ask(model, _noise())
    if outputs.shape != (6, len(SPECIES)):
        found = math.prod(outputs.shape[1:])
        return f"One logit for each of the six species was asked for, {found} come out."
    inside = {id(weight) for weight in model.trainable_weights}
    if not inside:
        return "Nothing in the model can learn. In pre-training everything does."
    missing = [w for w in backbone.trainable_weights if id(w) not in inside]
    if not backbone.trainable_weights:
        return "Your backbone is frozen. In pre-training everything learns."
    if missing:
        return (
            f"{len(missing)} weights of your backbone do not learn in this model: is it a copy? "
            "Put `backbone` itself in front of the head."
        )
    if np.allclose(outputs.sum(1), 1, atol=1e-4) and (outputs >= 0).all():
        return "The outputs add up to 1: these are probabilities. A logit needs no activation."
    if (outputs >= 0).all() and (ask(model, 255 - _noise()) >= 0).all() and (outputs == 0).any():
        return "No output is below 0: a ReLU cuts them off. A logit needs no activation."
    last = getattr(list(leaves(model))[-1], "activation", keras.activations.linear)
    if last is not keras.activations.linear:
        return f"The head ends with the activation {last.__name__}. A logit needs no activation."
    if not model.compiled:
        return "The model is not compiled: optimizer, loss and metric are missing."
    y, logits = np.array([2]), np.array([[0, 1, 3, -1, 0, 0.5]], "float32")
    expected = math.log(np.exp(logits).sum()) - 3
    try:
        loss = float(model.compute_loss(y=y, y_pred=keras.ops.array(logits)))
    except Exception as error:
        return (
            f"The loss cannot use whole-number labels ({type(error).__name__}): look for the "
            "categorical cross-entropy that is called sparse."
        )
    extra = float(sum(model.losses)) if model.losses else 0.0
    if not math.isclose(loss - extra, expected, rel_tol=0.01):
        return (
            f"For six logits and the label 2 the loss should be {expected:.3f}, it is {loss:.3f}. "
            "Does it know that it gets logits?"
        )
    if not isinstance(model.optimizer, keras.optimizers.Adam):
        return f"Adam was asked for, the optimizer is {type(model.optimizer).__name__}."
    rate = float(model.optimizer.learning_rate)
    if not math.isclose(rate, RATE, rel_tol=1e-3):
        return f"A learning rate of {RATE} was asked for, the optimizer has {rate:g}."
    return None


@task(
    NOTEBOOK,
    hint="It is one call of model.fit. What does it return, and where do the epochs and the "
    "validation drawings go?",
)
def pretrained(history, model, backbone, at_first):
    if not isinstance(history, keras.callbacks.History):
        return f"`history` is what model.fit returns, yours is a {type(history).__name__}."
    if history.model is not model:
        return "This history belongs to another model. Train `model`."
    if not any(key.startswith("val_") for key in history.history):
        return "Nothing was watched on `validation`: it is an argument of fit."
    if "accuracy" not in history.history:
        return 'The history has no accuracy: give compile metrics=["accuracy"].'
    now = backbone.get_weights()
    if all(np.array_equal(a, b) for a, b in zip(at_first, now, strict=True)):
        return (
            "The backbone's weights are what they were before: it did not learn. Is it part of "
            "`model`, and did fit run after they were noted?"
        )
    if len(history.epoch) < 6:
        return f"Eight epochs were asked for, {len(history.epoch)} were run."
    pictures, labels = fresh_paintings(120)
    accuracy = np.mean(model.predict(pictures, verbose=0).argmax(1) == labels)
    if accuracy < LEVEL:
        best = history.history["accuracy"][-1]
        why = "It has not learnt enough yet: are the rate and the epochs those of the task?"
        if best > accuracy + 0.25:
            why = (
                f"In training it had {best:.2f}. Look at BatchNorm's momentum, and at how the two "
                "curves part."
            )
        return (
            f"Of 120 fresh paintings it names {accuracy:.2f} rightly, {LEVEL:.2f} are wanted "
            f"and 0.8 is usual. {why}"
        )
    return None


@task(
    NOTEBOOK,
    hint="keras.Model(input, output) makes a new model of layers that exist already, trained "
    "weights and all. One switch freezes a whole model.",
)
def extractor(extractor, model, backbone, paintings=None):
    if problem := _not_a_model(extractor):
        return problem
    if extractor is model:
        return "That is the whole model, head and all. Leave the head out."
    pictures = _noise()
    outputs = ask(extractor, pictures)
    if outputs.shape == (6, len(SPECIES)):
        return "Six numbers come out: the head is still on."
    if outputs.shape != (6, FEATURES):
        return (
            f"{FEATURES} features a drawing were asked for, the shape that comes out is "
            f"{outputs.shape[1:]}. Where does the head begin?"
        )
    if not np.allclose(outputs, ask(backbone, pictures), atol=1e-2, rtol=1e-3):
        return (
            "Its features are not those of your trained backbone: these are other weights. Build "
            "it of the trained layers, not of new ones."
        )
    if extractor.trainable_weights:
        return (
            f"{len(extractor.trainable_weights)} of its weights can still learn. Frozen was asked "
            "for: the switch is `trainable`."
        )
    if paintings is not None and (accuracy := probe(extractor, *paintings)) < LEVEL:
        return (
            f"A probe on its features names {accuracy:.2f} of fresh paintings rightly, {LEVEL:.2f} "
            "are wanted. Is it the trained network?"
        )
    return None
