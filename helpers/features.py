"""Run the frozen part of a network once: cut it in two, keep what the first half computes.

Frozen layers give the same outputs for the same picture in every epoch. `split_at` cuts a model in
front of the first layer that learns; `run_once` computes what arrives there; the rest trains on it.
"""

import difflib
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


def split_at(model, layer):
    """Cut a model in front of a layer: `tail(stem(x))` computes what `model(x)` does.

    Both halves consist of the model's own layers, so training the tail trains the model, which
    predicts and is saved as usual. The tail is compiled on its own.

    Args:
        model: a functional or Sequential Keras model; the layer may be in a model inside it.
        layer: name of the first layer of the tail, such as "block5_conv1".

    Returns:
        stem, tail: two `keras.Model`.

    Raises:
        ValueError: no such layer, or connections that go past it, as in a residual block; the
            sentence names the nearest layers where the model can be cut.
    """
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "split_at takes a functional or Sequential model with one keras.Input and one output, "
            f"found {model!r}."
        )
    names = _layer_names(model)
    if layer not in names:
        near = difflib.get_close_matches(str(layer), names) or names
        raise ValueError(f"The model has no layer named {layer!r}; it has {', '.join(near)}.")
    if halves := _halves(model, layer):
        return halves
    position = names.index(layer)
    before = next((n for n in names[position::-1] if _halves(model, n)), None)
    after = next((n for n in names[position:] if _halves(model, n)), None)
    nearest = " or ".join(repr(name) for name in (before, after) if name)
    raise ValueError(
        f"The model cannot be cut at {layer!r}, connections go past it: cut at {nearest}."
    )


def _layer_names(model):
    """Names of all layers that compute something, those of inner models included."""
    names = []
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            names += [layer.name, *(_layer_names(layer) if isinstance(layer, keras.Model) else [])]
    return names


def _halves(model, name):
    """The stem and the tail, or None where one tensor does not carry all that the tail needs."""
    (target,) = (
        layer
        for layer in model.layers
        if layer.name == name or (isinstance(layer, keras.Model) and name in _layer_names(layer))
    )
    calls = []

    def call(operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        if operation is target:
            calls.append((args[0], outputs))
        return outputs

    copy = keras.models.clone_model(  # the same layers, called once more
        keras.Model(model.inputs[0], model.outputs[0]),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    if len(calls) != 1 or not isinstance(calls[0][0], keras.KerasTensor):
        return None
    ((inputs, outputs),) = calls
    try:
        if target.name == name:
            return keras.Model(copy.input, inputs), keras.Model(inputs, copy.output)
        rest = None if outputs is copy.output else keras.Model(outputs, copy.output)
    except ValueError:  # Keras: the output is not connected to these inputs alone
        return None
    if not (halves := _halves(target, name)):
        return None
    inner_stem, inner_tail = halves
    start = keras.Input(inner_tail.input.shape[1:], dtype=inner_tail.input.dtype)
    end = inner_tail(start)
    return keras.Model(copy.input, inner_stem(inputs)), keras.Model(
        start, rest(end) if rest else end
    )


def run_once(stem, dataset, *, views=1, batch_size=32, shuffle=False, seed=None, file=None):
    """Compute the stem's outputs once, with a progress bar, for as many epochs as you like.

    Args:
        stem: a model; it runs as in `predict`, so its Dropout and BatchNorm do not train.
        dataset: `tf.data.Dataset` of batches of (pictures, labels) that ends.
        views: passes over the dataset. One that augments gives other pictures in each pass; all
            are kept, so n pictures become n * views.
        batch_size: of the result.
        shuffle: give the result in a new order in each epoch; `seed` fixes the orders.
        file: where to keep the outputs if they are too large for the memory; replaced if there.

    Returns:
        `tf.data.Dataset` of batches of (outputs, labels), dtypes as the stem and the dataset gave.

    Raises:
        ValueError: views below 1, or a dataset that is empty or never ends.
    """
    if views < 1:
        raise ValueError(f"views is {views}: give the number of passes, 1 or more.")
    passes = dataset.repeat(views).map(
        lambda pictures, labels: (stem(pictures, training=False), labels)
    )
    count = int(passes.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise ValueError("The dataset never ends: leave out its repeat().")
    total = count if count >= 0 else None  # unknown
    batches = tqdm(
        passes.as_numpy_iterator(), "Running the stem", total, leave=False, file=sys.stdout
    )
    if file is None:
        pairs = list(batches)
    else:
        pairs = []
        unfinished = Path(f"{file}.unfinished")
        try:
            with unfinished.open("wb") as target:
                for some, labels in batches:
                    some.tofile(target)
                    pairs.append((some[:0], labels))
            if pairs:
                unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    if not pairs:
        raise ValueError("The dataset is empty: give one with pictures in it.")
    outputs, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if file is not None:
        outputs = np.memmap(file, outputs.dtype, "r", shape=(len(labels), *outputs.shape[1:]))

    def rows(chosen):
        parts = tf.numpy_function(
            lambda i: (outputs[i], labels[i]), [chosen], (outputs.dtype, labels.dtype)
        )
        for part, whole in zip(parts, (outputs, labels), strict=True):
            part.set_shape((None, *whole.shape[1:]))
        return tuple(parts)

    order = tf.data.Dataset.range(len(labels))
    if shuffle:
        order = order.shuffle(len(labels), seed=seed)
    return order.batch(batch_size).map(rows).prefetch(tf.data.AUTOTUNE)
