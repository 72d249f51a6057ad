"""Where did the network look? Grad-CAM, a map over each picture of what speaks for a class."""

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from helpers.features import split_at

ENDS_OF_MAPS = (  # layers that turn maps into features without places
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Flatten,
)


def grad_cam(model, pictures, classes=None, *, layer=None):
    """Gradient-weighted class activation maps (Selvaraju et al., 2017).

    Each channel of a network's last feature map is weighted by how much the logit of a class grows
    with it, on average over all places. Where the weighted sum is positive, the picture speaks for
    this class. The map has few places (3 x 3 for MobileNetV2 at 96 pixels) and is enlarged.

    Args:
        model: functional or Sequential model that gives logits, (n, classes), or (n, 1), where
            above 0 means class 1 and below 0 class 0. It may have a backbone inside it.
        pictures: (n, height, width, 3) in the range that the model takes.
        classes: (n,) numbers of the classes to explain; by default what the model answers.
        layer: name of the layer in front of which to look; by default the one that pools or
            flattens the last maps. An earlier one sees more places, and less of the class.

    Returns:
        float32 (n, height, width) from 0 to 1, the largest number of each map; a map is all 0 if
        nothing speaks for the class.

    Raises:
        ValueError: pictures or classes of another shape, no such class, or a model that cannot be
            cut at this layer.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim != 4:
        raise ValueError(
            f"grad_cam takes pictures (n, height, width, 3), found {pictures.shape}: "
            "a single one is pictures[:1]."
        )
    if classes is not None and np.shape(classes) != pictures.shape[:1]:
        raise ValueError(
            f"{len(pictures)} pictures need {len(pictures)} classes, found {np.shape(classes)}."
        )
    stem, tail = split_at(model, layer or _end_of_maps(model))
    if len(stem.output.shape) != 4:
        raise ValueError(
            f"In front of {layer!r} there are no maps left, only {stem.output.shape}: "
            "give a layer further in front."
        )
    parts = []
    for start in range(0, len(pictures), 32):
        some = slice(start, start + 32)
        maps = stem(pictures[some], training=False)
        parts.append(_weighted(tail, maps, None if classes is None else classes[some]))
    cam = np.concatenate([tf.image.resize(part, pictures.shape[1:3])[..., 0] for part in parts])
    highest = cam.max((1, 2), keepdims=True)
    return np.divide(cam, highest, out=np.zeros_like(cam), where=highest > 0)


def overlay(pictures, maps):
    """The pictures in grey under their maps, from dark over red to yellow where they are highest.

    Args:
        pictures: (n, height, width, 3) in 0..255.
        maps: (n, height, width) in 0..1, as `grad_cam` gives them.

    Returns:
        float32 (n, height, width, 3) in 0..255, for `plots.grid`.
    """
    grey = np.asarray(pictures, "float32").mean(-1, keepdims=True)
    colour = 255 * matplotlib.colormaps["inferno"](maps)[..., :3].astype("float32")
    return 0.45 * grey + 0.55 * colour


def _weighted(tail, maps, classes):
    """The positive part of the weighted sum of the maps, (n, rows, columns, 1)."""
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = tail(maps, training=False)
        if logits.shape[1] == 1:
            logits = tf.concat([-logits, logits], axis=1)
        if classes is None:
            classes = tf.argmax(logits, axis=1)
        elif not 0 <= np.min(classes) <= np.max(classes) < logits.shape[1]:
            raise ValueError(
                f"The model knows the classes 0 to {logits.shape[1] - 1}, asked for "
                f"{np.min(classes)} to {np.max(classes)}."
            )
        chosen = tf.gather(logits, tf.cast(classes, "int32"), axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))


def _end_of_maps(model):
    """Name of the last layer that pools or flattens maps, inner models included."""
    for layer in reversed(model.layers):
        if isinstance(layer, ENDS_OF_MAPS):
            return layer.name
        if isinstance(layer, keras.Model):
            try:
                return _end_of_maps(layer)
            except ValueError:
                continue
    raise ValueError(
        "The model has no layer that pools or flattens its maps: name the layer in front of which "
        "to look, layer=…"
    )
