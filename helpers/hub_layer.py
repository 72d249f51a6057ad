"""`HubLayer` is what `hub.KerasLayer` was before Keras 3; `save_module` writes what it reads."""

import functools
import inspect
import os
import tempfile
import warnings
from pathlib import Path

import keras
import tensorflow as tf

from helpers import downloads

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import tensorflow_hub as hub

TOLERANCE = 1e-3  # rounding and smooth resizing may leave [0, 1] by this much


@keras.saving.register_keras_serializable(package="helpers")
class HubLayer(keras.layers.Layer):
    """A TF2 hub module as a Keras 3 layer: pictures in, one feature vector for each out.

    handle: the URL of a module (found or kept in TFHUB_CACHE_DIR) or a SavedModel folder.
    Input: float32 (batch, height, width, 3) with values in [0, 1].
    Output: float32 (batch, features).

    While `trainable` is false no variable moves and BatchNorm uses its stored statistics, also in
    `fit`. Set `layer.trainable` at any time, and compile the model again. A saved model keeps the
    handle and the weights, and needs the module when it is loaded.

    Raises FileNotFoundError for a module that cannot be loaded, ValueError for one of another
    format and for pictures of another shape or range. Inside `fit`, `evaluate` and `predict`
    TensorFlow reports a wrong range as InvalidArgumentError, with the same sentence at its end.
    """

    def __init__(self, handle, trainable=False, **kwargs):
        super().__init__(trainable=trainable, **{"dtype": "float32", **kwargs})
        self.handle = os.fspath(handle)
        self.module, self.picture_shape, self.features = _load(self.handle)
        self.has_training = "training" in inspect.signature(self.module.__call__).parameters
        self.supports_jit = False  # XLA would leave out the check of the values
        trained = {id(variable) for variable in self.module.trainable_variables}
        self.module_variables = [  # the module's own variables; Keras tracks what is in a list
            keras.Variable(v, dtype=v.dtype, trainable=id(v) in trained, name=_name(v))
            for v in self.module.variables
        ]
        for variable in self.module_variables:  # Keras does this only when `trainable` changes
            variable.trainable = variable.trainable and trainable
        self.built = True

    @property
    def output_shape(self):
        return (None, self.features)

    def compute_output_shape(self, input_shape):
        self._check_shape(input_shape)
        return (input_shape[0], self.features)

    def call(self, inputs, training=None):
        self._check_shape(inputs.shape)
        pictures = tf.cast(inputs, tf.float32)
        _check_range(pictures)
        if self.trainable:
            for loss in getattr(self.module, "regularization_losses", None) or []:
                self.add_loss(loss())
        if self.has_training:
            return self.module(pictures, training=bool(training and self.trainable))
        return self.module(pictures)

    def get_config(self):
        return {**super().get_config(), "handle": self.handle}

    @classmethod
    def from_config(cls, config):
        return cls(**config)  # the inherited one buries our sentences in a long TypeError

    def _check_shape(self, shape):
        if self.picture_shape.is_compatible_with(shape):
            return
        expected, found = self.picture_shape.as_list(), tuple(shape)
        if len(found) != 4:
            advice = "give it a batch of pictures, picture[None] if it is one"
        elif found[3] not in (3, None):
            advice = "load the pictures with color_mode='rgb'"
        else:
            advice = f"load the pictures with image_size=({expected[1]}, {expected[2]})"
        wanted = ", ".join(str(n or "any") for n in expected[1:])
        raise _error(
            f"HubLayer takes pictures of shape (batch, {wanted}), found {found}: {advice}."
        )


def save_module(backbone, folder):
    """Write a Keras model as a TF2 hub module (a reusable SavedModel) that `hub.load` reads.

    backbone: a model from pictures float32 (batch, height, width, 3) with values in [0, 1] to
    features (batch, features), so with its own rescaling and pooling. Its frozen layers stay
    frozen in the module for ever. An earlier module in `folder` is replaced once the new one is
    whole.

    Raises ValueError if nothing of the backbone is trainable, FileExistsError if `folder` holds
    something else.
    """
    if not backbone.trainable_variables:
        raise ValueError("Nothing of the backbone is trainable: set backbone.trainable = True.")
    folder = Path(folder)
    if folder.exists() and not (folder / "saved_model.pb").exists():
        raise FileExistsError(f"{folder} exists and is not a hub module: choose another folder.")
    pictures = tf.TensorSpec(backbone.input_shape, tf.float32, name="pictures")
    function = tf.function(
        lambda pictures, training=False: backbone(pictures, training=training), autograph=False
    )
    for training in (False, True):
        function.get_concrete_function(pictures, training=training)

    module = tf.train.Checkpoint()
    module.__call__ = function
    module.variables = [v.value for v in backbone.weights]
    module.trainable_variables = [v.value for v in backbone.trainable_variables]
    module.state = [v.value for v in backbone.variables]  # weights and the random state of Dropout
    module.regularization_losses = [
        tf.function(functools.partial(v.regularizer, v), input_signature=[], autograph=False)
        for v in backbone.trainable_variables
        if v.regularizer
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        tf.saved_model.save(module, f"{temporary}/module")
        if folder.exists():
            os.rename(folder, f"{temporary}/old")
        os.rename(f"{temporary}/module", folder)


def _load(handle):
    """The loaded module, the TensorShape of its pictures, its number of features."""
    try:
        folder = hub.resolve(handle)
        if not tf.io.gfile.exists(os.path.join(folder, "saved_model.pb")):
            raise FileNotFoundError(f"{folder} has no saved_model.pb")
        module = hub.load(folder)
    except Exception as error:  # of urllib, tarfile, ssl or TensorFlow: the resolver catches none
        if "://" in handle:
            reason, way = downloads.why(error)
            way += ", or set TFHUB_CACHE_DIR to a folder that has the module"
        else:
            reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            way = "put the whole SavedModel folder there, or give another one"
        raise FileNotFoundError(f"HubLayer cannot load {handle} ({reason}): {way}.") from None
    lists = ("variables", "trainable_variables")
    if not callable(module) or not all(hasattr(module, name) for name in lists):
        raise _error(
            f"{handle} is not a TF2 hub module (a SavedModel with __call__, variables and "
            "trainable_variables): take a TF2 version of it, or make one with save_module."
        )
    function = module.__call__.concrete_functions[0]
    pictures, features = function.inputs[0], function.structured_outputs
    if (
        pictures.dtype != tf.float32
        or pictures.shape.rank != 4
        or pictures.shape[3] != 3
        or not isinstance(features, tf.TensorSpec)
        or features.shape.rank != 2
    ):
        raise _error(
            f"{handle} takes {pictures.dtype.name} {pictures.shape}, gives {features}: "
            "HubLayer needs a module from pictures (batch, height, width, 3) to feature vectors."
        )
    return module, pictures.shape, features.shape[1]


def _check_range(pictures):
    low, high = tf.reduce_min(pictures), tf.reduce_max(pictures)
    in_range = (low >= -TOLERANCE) & (high <= 1 + TOLERANCE)
    sentence = (
        "HubLayer takes pictures with values in [0, 1], found {} to {}: "
        "rescale them first, 0 to 255 with keras.layers.Rescaling(1 / 255)."
    )
    if not tf.executing_eagerly():
        tf.debugging.Assert(in_range, [tf.strings.format(sentence, (low, high))])
    elif not in_range:
        raise _error(sentence.format(f"{low:.4g}", f"{high:.4g}"))


def _error(sentence):
    error = ValueError(sentence)
    error._keras_call_info_injected = True  # or Keras adds ten lines about the arguments
    return error


def _name(variable):
    return variable.name.split(":")[0].replace("/", "_")  # Keras allows no slash in a name
