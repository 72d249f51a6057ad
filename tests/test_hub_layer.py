import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TESTBED

from helpers import hub_layer
from helpers.hub_layer import HubLayer, hub, save_module

ROOT = Path(__file__).parents[1]
REAL = "https://tfhub.dev/google/tf2-preview/mobilenet_v2/feature_vector/4"
SIZE, FEATURES = 16, 4
TRAINABLE, ALL = 3, 5  # kernel, gamma, beta; and the two moving statistics
LOSS = keras.losses.BinaryCrossentropy(from_logits=True)


def small_backbone(size=SIZE, dropout=0.0, regularizer=None):
    """A rescaling and a nested network, as the shipped module has, with 5 variables."""
    network = keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Conv2D(
                FEATURES, 3, strides=2, use_bias=False, kernel_regularizer=regularizer
            ),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Activation("silu"),
            keras.layers.Dropout(dropout),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    return keras.Sequential(
        [keras.Input((size, size, 3)), keras.layers.Rescaling(2, offset=-1), network]
    )


def saved(folder, **options):
    save_module(small_backbone(**options), folder)
    return folder


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    keras.utils.set_random_seed(1)
    return saved(tmp_path_factory.mktemp("modules") / "small")


@pytest.fixture
def pictures():
    return np.random.default_rng(2).random((8, SIZE, SIZE, 3), "float32")


@pytest.fixture
def labels():
    return np.arange(8).reshape(8, 1) % 2


def classifier(layer, size=SIZE):
    return keras.Sequential([keras.Input((size, size, 3)), layer, keras.layers.Dense(1)])


def train(model, pictures, labels, learning_rate=0.01, **options):
    model.compile(keras.optimizers.Adam(learning_rate), LOSS)
    return model.fit(pictures, labels, epochs=2, verbose=0, **options)


def values(layer):
    return [variable.numpy() for variable in layer.variables]


def moved(before, layer):
    """How many of the layer's variables differ from the values `before`."""
    return sum((old != new).any() for old, new in zip(before, values(layer), strict=True))


def sentence(raised):
    """The message of an error, which must be one sentence on one line."""
    text = str(raised.value)
    assert "\n" not in text and text.endswith(".")
    return text


# save_module


def test_saved_module_gives_what_the_backbone_gives(tmp_path, pictures):
    backbone = small_backbone()
    save_module(backbone, tmp_path / "new" / "module")
    module = hub.load(str(tmp_path / "new" / "module"))
    assert len(module.variables) == ALL and len(module.trainable_variables) == TRAINABLE
    for training in (False, True):
        expected = backbone(pictures, training=training)
        np.testing.assert_allclose(module(pictures, training=training), expected, atol=1e-6)
    assert np.abs(module(pictures) - module(pictures, training=True)).max() > 0.01


def test_moving_statistics_of_a_saved_module_move_in_training_only(module, pictures):
    loaded = hub.load(str(module))
    before = values(loaded)
    loaded(pictures, training=False)
    assert moved(before, loaded) == 0
    loaded(pictures, training=True)
    assert moved(before, loaded) == ALL - TRAINABLE


def test_original_keras_layer_reads_it(module, pictures):
    layer = hub.KerasLayer(str(module), trainable=True)
    np.testing.assert_allclose(layer(pictures), HubLayer(module)(pictures), atol=1e-6)
    assert (len(layer.variables), len(layer.trainable_variables)) == (ALL, TRAINABLE)


def test_dropout_of_a_saved_module(tmp_path, pictures):
    layer = HubLayer(saved(tmp_path / "module", dropout=0.5), trainable=True)
    once, again = (layer(pictures, training=True).numpy() for _ in range(2))
    assert (once != again).any()
    np.testing.assert_array_equal(layer(pictures), layer(pictures, training=False))
    assert len(layer.variables) == ALL  # without the random state of Dropout


def test_saved_module_holds_the_weights_alone(tmp_path, pictures):
    backbone = small_backbone()
    backbone.compile("adam", "mse")
    backbone.fit(pictures, np.zeros((8, FEATURES)), verbose=0)
    save_module(backbone, tmp_path / "module")
    stored = tf.train.list_variables(str(tmp_path / "module" / "variables" / "variables"))
    names = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, shape in stored}
    names -= {"save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert names == {f"variables/{i}" for i in range(ALL)}
    graph = (tmp_path / "module" / "saved_model.pb").read_bytes()
    assert len(graph) < 100_000
    assert str(tmp_path).encode() not in graph and str(ROOT).encode() not in graph


def test_an_older_module_is_replaced_when_the_new_one_is_whole(tmp_path, pictures, monkeypatch):
    folder = saved(tmp_path / "module")
    before = HubLayer(folder)(pictures)
    backbone = small_backbone()
    with monkeypatch.context() as patch:

        def disk_full(module, folder):
            Path(folder).mkdir()
            (Path(folder) / "saved_model.pb").write_bytes(b"half")
            raise OSError("No space left on device")

        patch.setattr(hub_layer.tf.saved_model, "save", disk_full)
        with pytest.raises(OSError, match="No space"):
            save_module(backbone, folder)
    np.testing.assert_array_equal(HubLayer(folder)(pictures), before)
    assert os.listdir(tmp_path) == ["module"]
    save_module(backbone, folder)
    np.testing.assert_allclose(HubLayer(folder)(pictures), backbone(pictures), atol=1e-6)
    assert os.listdir(tmp_path) == ["module"]


def test_save_module_keeps_other_folders(tmp_path):
    (tmp_path / "thesis.txt").write_text("a year of work")
    with pytest.raises(FileExistsError, match="not a hub module") as raised:
        save_module(small_backbone(), tmp_path)
    assert sentence(raised).startswith(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_save_module_refuses_a_frozen_backbone(tmp_path):
    backbone = small_backbone()
    backbone.trainable = False
    with pytest.raises(ValueError, match="backbone.trainable = True") as raised:
        save_module(backbone, tmp_path / "module")
    assert sentence(raised) and os.listdir(tmp_path) == []


# HubLayer: freezing and training


@pytest.mark.parametrize("functional", [False, True])
def test_frozen_layer_does_not_move(module, pictures, labels, functional):
    layer, head = HubLayer(module), keras.layers.Dense(1)
    if functional:
        inputs = keras.Input((SIZE, SIZE, 3))
        model = keras.Model(inputs, head(layer(inputs)))
    else:
        model = keras.Sequential([layer, head])
    before = values(layer)
    assert layer.trainable is False and layer.trainable_variables == []
    train(model, pictures, labels)
    assert model.trainable_variables == head.trainable_variables
    assert moved(before, layer) == 0
    assert head.bias.numpy() != 0


def test_trainable_layer_moves_whole(module, pictures, labels):
    layer = HubLayer(module, trainable=True)
    model = classifier(layer)
    before = values(layer)
    assert len(layer.trainable_variables) == TRAINABLE
    assert len(model.trainable_variables) == TRAINABLE + 2
    first, last = train(model, pictures, labels).history["loss"]
    assert moved(before, layer) == ALL
    assert last < first
    for variable, original in zip(layer.variables, layer.module.variables, strict=True):
        assert variable.value is original  # what Keras trains is what the module computes with


def test_trainable_can_be_switched(module, pictures, labels):
    layer = HubLayer(module)
    model = classifier(layer)
    for trainable in (False, True, False, True):
        layer.trainable = trainable
        before = values(layer)
        train(model, pictures, labels)
        assert moved(before, layer) == (ALL if trainable else 0)
        assert len(model.trainable_variables) == 2 + (TRAINABLE if trainable else 0)


def test_batchnorm_is_still_unless_trainable_and_training(module, pictures):
    layer = HubLayer(module)
    inference, before = layer(pictures).numpy(), values(layer)
    np.testing.assert_array_equal(layer(pictures, training=True), inference)
    layer.trainable = True
    np.testing.assert_array_equal(layer(pictures), inference)
    np.testing.assert_array_equal(layer(pictures, training=False), inference)
    assert moved(before, layer) == 0
    assert np.abs(layer(pictures, training=True) - inference).max() > 0.01
    assert moved(before, layer) == ALL - TRAINABLE


def test_gradients_pass_through_a_frozen_layer(module, pictures):
    layer, inputs = HubLayer(module), tf.constant(pictures)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        features = layer(inputs)
    assert np.abs(tape.gradient(features, inputs)).max() > 0


def test_regularization_losses_count_while_trainable(tmp_path, pictures, labels):
    layer = HubLayer(saved(tmp_path / "module", regularizer=keras.regularizers.L2(10.0)))
    model = classifier(layer)
    penalty = 10 * np.square(layer.variables[0]).sum()
    model.compile("sgd", LOSS)
    plain = model.evaluate(pictures, labels, verbose=0)
    assert model.losses == []
    layer.trainable = True
    model.compile("sgd", LOSS)
    assert model.evaluate(pictures, labels, verbose=0) == pytest.approx(plain + penalty, rel=1e-5)


def test_module_without_a_training_argument(tmp_path, pictures, labels):
    module = tf.train.Checkpoint()
    kernel = tf.Variable(np.ones((3, FEATURES), "float32"))
    module.__call__ = tf.function(
        lambda pictures: tf.reduce_mean(pictures, (1, 2)) @ kernel,
        input_signature=[tf.TensorSpec((None, None, None, 3))],
    )
    module.variables = module.trainable_variables = [kernel]
    tf.saved_model.save(module, str(tmp_path))
    layer = HubLayer(tmp_path, trainable=True)
    before = values(layer)
    train(classifier(layer), pictures, labels)
    assert moved(before, layer) == 1


# HubLayer: what Keras shows


def test_counts_and_summary(module):
    layer = HubLayer(module)
    assert layer.count_params() == 27 * FEATURES + 4 * FEATURES
    model, lines = classifier(layer), []
    model.summary(print_fn=lines.append, line_length=100)
    summary = "\n".join(lines)
    assert f"(None, {FEATURES})" in summary
    assert "Trainable params: 5 " in summary and "Non-trainable params: 124 " in summary
    layer.trainable = True
    model.summary(print_fn=lines.append, line_length=100)
    assert "Trainable params: 121 " in lines[-1] and "Non-trainable params: 8 " in lines[-1]
    assert "kernel" in layer.variables[0].name


def test_output_shape_is_known_before_the_first_call(module):
    layer = HubLayer(module)
    assert layer.output_shape == (None, FEATURES)
    assert layer.compute_output_shape((7, SIZE, SIZE, 3)) == (7, FEATURES)
    assert layer(keras.Input((SIZE, SIZE, 3))).shape == (None, FEATURES)


def test_output_is_float32_under_mixed_precision(module, pictures):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = HubLayer(module)
        model = classifier(layer)
        assert layer.output.dtype == layer(pictures).dtype == "float32"
        assert model(pictures).dtype == "float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_xla_is_declined_so_that_values_are_checked(module, pictures):
    model = classifier(HubLayer(module))
    with pytest.warns(UserWarning, match="jit_compile"):
        model.compile("sgd", LOSS, jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="HubLayer takes pictures"):
        model.predict(pictures * 255, verbose=0)


# HubLayer: saving and loading


def test_config_round_trip(module, pictures):
    layer = HubLayer(module, trainable=True, name="backbone")
    config = layer.get_config()
    assert config["handle"] == str(module)
    copy = HubLayer.from_config(config)
    assert (copy.name, copy.trainable, copy.handle) == ("backbone", True, str(module))
    assert HubLayer.from_config(HubLayer(module).get_config()).trainable is False
    np.testing.assert_array_equal(copy(pictures), layer(pictures))
    copy.variables[0].assign(copy.variables[0] + 1)  # a copy has variables of its own
    assert moved(values(copy), layer) == 1


def test_saved_model_keeps_handle_and_fine_tuned_weights(module, pictures, labels, tmp_path):
    model = classifier(HubLayer(module, trainable=True))
    train(model, pictures, labels)
    expected = model.predict(pictures, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layer = loaded.layers[0]
    assert (layer.handle, layer.trainable) == (str(module), True)
    assert moved(values(HubLayer(module)), layer) == ALL  # not the module's own weights
    np.testing.assert_allclose(loaded.predict(pictures, verbose=0), expected, atol=1e-6)
    before = values(layer)
    loaded.fit(pictures, labels, verbose=0)  # compiled as it was saved
    assert moved(before, layer) == ALL

    # frozen after fine-tuning, and loaded by another process
    model.layers[0].trainable = False
    model.save(tmp_path / "frozen.keras")
    np.save(tmp_path / "pictures.npy", pictures)
    code = (
        "import keras, numpy as np, helpers.hub_layer\n"
        "model = keras.models.load_model('frozen.keras')\n"
        "assert model.layers[0].trainable is False and len(model.trainable_variables) == 2\n"
        "np.save('predictions.npy', model.predict(np.load('pictures.npy'), verbose=0))\n"
    )
    path = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "predictions.npy"), expected, atol=1e-6)


def test_loading_without_the_module_says_so(tmp_path):
    folder = saved(tmp_path / "module")
    classifier(HubLayer(folder)).save(tmp_path / "model.keras")
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="HubLayer cannot load .*module") as raised:
        keras.models.load_model(tmp_path / "model.keras")
    assert f"{folder} does not exist" in sentence(raised)


# HubLayer: errors


def test_url_is_taken_from_the_cache(module, pictures, tmp_path, monkeypatch):
    url = "http://127.0.0.1:9/my/module/1"  # nothing listens there
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="TFHUB_CACHE_DIR") as raised:
        HubLayer(url)
    assert url in sentence(raised) and "refused" in sentence(raised)
    shutil.copytree(module, tmp_path / hashlib.sha1(url.encode()).hexdigest())
    layer = HubLayer(url)
    np.testing.assert_array_equal(layer(pictures), HubLayer(module)(pictures))
    assert layer.get_config()["handle"] == url


@pytest.mark.parametrize(
    "damage, reason",
    [
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "has no saved_model.pb"),
        (lambda folder: os.truncate(folder / "saved_model.pb", 5_000), "Cannot parse"),
        (lambda folder: shutil.rmtree(folder / "variables"), "variables"),
    ],
)
def test_missing_or_damaged_folder(module, tmp_path, damage, reason):
    folder = tmp_path / "copy"
    shutil.copytree(module, folder)
    damage(folder)
    with pytest.raises(FileNotFoundError, match=reason) as raised:
        HubLayer(folder)
    assert f"HubLayer cannot load {folder} (" in sentence(raised)


def tf1_module(folder, tags):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pictures = tf.compat.v1.placeholder(tf.float32, (None, SIZE, SIZE, 3))
        scale = tf.compat.v1.get_variable("scale", ())
        features = tf.reduce_mean(pictures, (1, 2)) * scale
        session.run(scale.initializer)
        describe = tf.compat.v1.saved_model.predict_signature_def
        signatures = {"default": describe({"x": pictures}, {"y": features})}
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, tags, signatures)
        builder.save()


def tf1_hub_module(folder):
    tf1_module(folder, [])
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")


def module_without_lists(folder):
    module = tf.Module()  # its `variables` is a property, which a SavedModel does not keep
    module.kernel = tf.Variable(np.ones((3, FEATURES), "float32"))
    module.__call__ = tf.function(
        lambda pictures: tf.reduce_mean(pictures, (1, 2)) @ module.kernel,
        input_signature=[tf.TensorSpec((None, None, None, 3))],
    )
    tf.saved_model.save(module, str(folder))


@pytest.mark.parametrize(
    "write",
    [
        tf1_hub_module,
        lambda folder: tf1_module(folder, ["serve"]),
        lambda folder: small_backbone().export(folder, verbose=False),
        module_without_lists,
    ],
    ids=["TF1 hub module", "TF1 SavedModel", "keras export", "no lists of variables"],
)
def test_other_formats(tmp_path, write):
    write(tmp_path / "module")
    with pytest.raises(ValueError, match="is not a TF2 hub module") as raised:
        HubLayer(tmp_path / "module")
    assert str(tmp_path / "module") in sentence(raised)


@pytest.mark.parametrize(
    "dtype, shape, function",
    [
        (tf.string, (None,), lambda texts: tf.zeros((2, 3))),
        (tf.float32, (None, 3), lambda vectors: vectors),
        (tf.uint8, (None, None, None, 3), lambda pictures: tf.zeros((2, 3))),
        (tf.float32, (None, None, None, 1), lambda pictures: tf.zeros((2, 3))),
        (tf.float32, (None, None, None, 3), lambda pictures: pictures),
        (tf.float32, (None, None, None, 3), lambda pictures: {"features": tf.zeros((2, 3))}),
    ],
    ids=["texts", "vectors", "whole numbers", "grey pictures", "feature maps", "dictionary"],
)
def test_modules_of_another_kind(tmp_path, dtype, shape, function):
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype)])
    module.variables = module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(ValueError, match="needs a module from pictures") as raised:
        HubLayer(tmp_path)
    assert dtype.name in sentence(raised)


@pytest.mark.parametrize(
    "shape, advice",
    [
        ((8, 24, 24, 3), "found (8, 24, 24, 3): load the pictures with image_size=(16, 16)"),
        ((8, 16, 16, 1), "found (8, 16, 16, 1): load the pictures with color_mode='rgb'"),
        ((16, 16, 3), "found (16, 16, 3): give it a batch of pictures"),
    ],
)
def test_wrong_picture_shape(module, shape, advice):
    layer = HubLayer(module)
    with pytest.raises(ValueError) as raised:
        layer(np.zeros(shape, "float32"))
    assert f"takes pictures of shape (batch, 16, 16, 3), {advice}" in sentence(raised)
    with pytest.raises(ValueError, match="HubLayer takes pictures of shape") as raised:
        keras.Sequential([keras.Input(shape[1:]), HubLayer(module)])
    assert sentence(raised)


def test_wrong_picture_shape_is_found_in_fit(module, labels):
    inputs = keras.Input((None, None, 3))  # which says nothing about the size
    model = keras.Model(inputs, keras.layers.Dense(1)(HubLayer(module)(inputs)))
    with pytest.raises(ValueError, match=r"image_size=\(16, 16\)") as raised:
        train(model, np.zeros((8, 24, 24, 3), "float32"), labels)
    assert sentence(raised)


def wrong_range(low, high):
    text = f"HubLayer takes pictures with values in [0, 1], found {low} to {high}: rescale them"
    return text.replace("[", r"\[")


@pytest.mark.parametrize(
    "scale, found",
    [
        (lambda pictures: pictures * 255, (0, 255)),
        (lambda pictures: (pictures * 255).astype("uint8"), (0, 255)),
        (lambda pictures: pictures * 2 - 1, (-1, 1)),
        (lambda pictures: pictures / 2 - 0.25, (-0.25, 0.25)),
        (lambda pictures: pictures * 1.01, (0, 1.01)),
    ],
    ids=["0..255", "uint8", "-1..1", "below 0", "above 1"],
)
def test_wrong_values(module, pictures, labels, scale, found):
    pictures[0, 0, 0] = (0, 0.5, 1)
    layer = HubLayer(module)
    layer(pictures)
    with pytest.raises(ValueError, match=wrong_range(*found)) as raised:
        layer(scale(pictures))
    assert sentence(raised)
    data = tf.data.Dataset.from_tensor_slices((scale(pictures), labels)).batch(8)
    with pytest.raises(tf.errors.InvalidArgumentError, match=wrong_range(*found)):
        next(iter(data.map(lambda x, y: (layer(x), y))))


def test_wrong_values_are_found_in_every_batch_of_fit_evaluate_and_predict(
    module, pictures, labels
):
    pictures[:2, 0, 0] = (0, 0.5, 1)
    model = classifier(HubLayer(module))
    train(model, pictures, labels, batch_size=4)
    pictures[4:] *= 255
    pictures[4, 0, 0] = (0, 0, 255)
    for run in (
        lambda: model.fit(pictures, labels, batch_size=4, verbose=0, shuffle=False),
        lambda: model.evaluate(pictures, labels, batch_size=4, verbose=0),
        lambda: model.predict(pictures, batch_size=4, verbose=0),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=wrong_range(0, 255)):
            run()


def test_rounding_errors_are_accepted(module, pictures):
    assert HubLayer(module)(pictures * 1.0004 - 0.0002).shape == (8, FEATURES)


# The real thing


@pytest.mark.skipif(not (TESTBED / "tfhub_cache").is_dir(), reason=f"no module cache in {TESTBED}")
def test_mobilenet_v2_from_tensorflow_hub(labels, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(TESTBED / "tfhub_cache"))
    layer = HubLayer(REAL)
    assert (len(layer.variables), layer.count_params()) == (260, 2_257_984)
    assert layer.output_shape == (None, 1280)
    assert layer(np.zeros((1, 224, 224, 3), "float32")).shape == (1, 1280)
    small = np.random.default_rng(3).random((4, 64, 64, 3), "float32")
    np.testing.assert_array_equal(layer(small, training=True), layer(small))
    layer.trainable = True
    assert len(layer.trainable_variables) == 156
    before = values(layer)
    model = classifier(layer, size=64)
    model.compile(keras.optimizers.Adam(1e-3), LOSS, run_eagerly=True)  # spares a long tracing
    model.fit(small, labels[:4], verbose=0)
    assert moved(before, layer) == 260
