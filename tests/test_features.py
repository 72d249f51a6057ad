"""The frozen part run once: the same training as the whole model, from memory or from disk."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import pretrained
from helpers.features import run_once, split_at

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(0, 255, (20, 32, 32, 3)).astype("float32")
LABELS = RNG.integers(0, 2, (20, 1)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((PICTURES, LABELS)).batch(4)


def classifier(network, sequential=False):
    keras.utils.set_random_seed(0)
    # a random MobileNetV2 lets nothing through, there would be nothing to compare
    weights = pretrained.weights("mobilenet_v2") if network == "MobileNetV2" else None
    backbone = getattr(keras.applications, network)(
        include_top=False, weights=weights, input_shape=(32, 32, 3)
    )
    layers = [
        keras.layers.Rescaling(1 / 127.5, -1),
        backbone,
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1, name="head"),
    ]
    if sequential:
        return keras.Sequential([keras.Input((32, 32, 3)), *layers])
    inputs = outputs = keras.Input((32, 32, 3))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def vgg16():
    return classifier("VGG16")


def assert_same(model, stem, tail):
    expected = model(PICTURES).numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(tail(stem(PICTURES)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["block1_conv1", "block4_conv1", "block5_pool", "vgg16", "head"])
def test_halves_compute_what_the_model_does(vgg16, layer):
    stem, tail = split_at(vgg16, layer)
    assert_same(vgg16, stem, tail)
    shared = {id(w) for w in vgg16.weights}
    assert {id(w) for w in stem.weights + tail.weights} == shared


def test_the_tail_begins_with_the_layer(vgg16):
    stem, tail = split_at(vgg16, "block4_conv1")
    kernels = lambda model: [w.path for w in model.weights if "kernel" in w.path]  # noqa: E731
    assert kernels(tail)[0].startswith("block4_conv1") and len(kernels(tail)) == 7
    assert len(kernels(stem)) == 7 and stem.output.shape == (None, 4, 4, 256)


def test_every_way_to_build_a_model():
    backbone = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    inputs = keras.Input((32, 32, 3))
    prepared = keras.applications.vgg16.preprocess_input(inputs)
    flat = keras.layers.Dense(1)(keras.layers.Flatten()(backbone(prepared)))
    for model in (
        backbone,
        keras.Model(inputs, flat),
        keras.Sequential([keras.Input((32, 32, 3)), backbone]),
        keras.Sequential(
            [keras.Input((32, 32, 3)), keras.Sequential([backbone]), keras.layers.Flatten()]
        ),
        classifier("VGG16", sequential=True),
    ):
        assert_same(model, *split_at(model, "block4_conv1"))


def test_cutting_twice_is_as_good_as_once(vgg16):
    split_at(vgg16, "block4_conv1")
    _, tail = split_at(vgg16, "block3_conv1")
    stem, tail = split_at(tail, "block5_conv1")
    assert stem.input.shape == (None, 8, 8, 128) and tail.input.shape == (None, 2, 2, 512)


def test_inside_a_residual_block_the_nearest_cuts_are_named():
    model = classifier("MobileNetV2")
    with pytest.raises(ValueError, match="at 'block_4_depthwise'.*: cut at 'block_4_expand' or "):
        split_at(model, "block_4_depthwise")
    with pytest.raises(ValueError) as error:
        split_at(model, "block_4_depthwise")
    for name in str(error.value).split("cut at ")[-1].rstrip(".").split(" or "):
        assert_same(model, *split_at(model, name.strip("'")))


def test_a_misspelt_layer_is_named_with_its_neighbours(vgg16):
    with pytest.raises(ValueError, match="no layer named 'blok4_conv1'; it has block4_conv1"):
        split_at(vgg16, "blok4_conv1")
    with pytest.raises(ValueError, match="functional or Sequential"):
        split_at(keras.Sequential([keras.layers.Dense(1)]), "dense")


@pytest.mark.parametrize(
    "network, cut", [("VGG16", "block4_conv1"), ("MobileNetV2", "block_13_expand")]
)
def test_training_the_tail_is_training_the_model(network, cut, tmp_path):
    """Five plain steps on kept outputs give the weights of five steps of the whole model."""

    def compiled(model):
        model.compile(keras.optimizers.SGD(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
        return model

    def frozen_up_to(model):
        backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        names = [layer.name for layer in backbone.layers]
        for i, layer in enumerate(backbone.layers):
            norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = i >= names.index(cut) and not norm

    whole, halved = classifier(network), classifier(network)
    before = [w.numpy() for w in whole.weights]
    frozen_up_to(whole)
    frozen_up_to(halved)
    compiled(whole).fit(DATA, epochs=1, verbose=0)
    stem, tail = split_at(halved, cut)
    compiled(tail).fit(run_once(stem, DATA, batch_size=4), epochs=1, verbose=0)
    moved = 0
    for old, expected, found in zip(before, whole.weights, halved.weights, strict=True):
        change = np.abs(expected.numpy() - old).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * change)
        moved += change > 0
    assert moved == sum(w.trainable for w in whole.weights) > 10
    halved.save(tmp_path / "model.keras")  # predicts, saves and reloads as usual
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = whole.predict(PICTURES, verbose=0)
    np.testing.assert_allclose(again.predict(PICTURES, verbose=0), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def stem():
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.AveragePooling2D(32)(inputs)))


EXPECTED = PICTURES.mean(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("on_disk", [False, True])
def test_outputs_come_in_order_with_their_labels(stem, on_disk, tmp_path):
    file = tmp_path / "outputs" if on_disk else None
    once = run_once(stem, DATA, batch_size=8, file=file)
    for _ in range(2):  # every epoch
        outputs, labels = zip(*once.as_numpy_iterator(), strict=True)
        assert [len(part) for part in outputs] == [8, 8, 4]
        np.testing.assert_allclose(np.concatenate(outputs), EXPECTED, rtol=1e-5)
        np.testing.assert_array_equal(np.concatenate(labels), LABELS)
    assert [p.name for p in tmp_path.iterdir()] == (["outputs"] if on_disk else [])


def test_the_stem_runs_once_a_picture(stem, capsys):
    runs = []
    counted = DATA.map(
        lambda x, y: (tf.numpy_function(lambda x: (runs.append(len(x)), x)[1], [x], x.dtype), y)
    ).map(lambda x, y: (tf.ensure_shape(x, (None, 32, 32, 3)), y))
    once = run_once(stem, counted)
    for _ in range(3):
        list(once)
    assert sum(runs) == 20


def test_shuffling_keeps_pairs_and_changes_each_epoch(stem):
    once = run_once(stem, DATA, shuffle=True, seed=1)
    label = {
        tuple(np.round(row.ravel(), 3)): y for row, y in zip(EXPECTED, LABELS[:, 0], strict=True)
    }
    epochs = [list(once.as_numpy_iterator())[0] for _ in range(2)]
    for outputs, labels in epochs:
        assert len(outputs) == 20
        for row, y in zip(outputs, labels[:, 0], strict=True):
            assert label[tuple(np.round(row.ravel(), 3))] == y
    assert not np.array_equal(epochs[0][0], epochs[1][0])


def test_views_of_an_augmenting_dataset_differ(stem):
    augmented = DATA.map(lambda x, y: (x + tf.random.uniform((), 0, 50), y))
    outputs = np.concatenate([x for x, _ in run_once(stem, augmented, views=3)])
    assert outputs.shape == (60, 1, 1, 3)
    assert np.abs(outputs[:20] - outputs[20:40]).max() > 0.1


def test_an_interrupted_run_leaves_the_earlier_file(stem, tmp_path):
    run_once(stem, DATA, file=tmp_path / "outputs")
    before = (tmp_path / "outputs").read_bytes()
    broken = DATA.map(
        lambda x, y: (tf.debugging.check_numerics(x / (y[:, :, None, None] * 0), ""), y)
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        run_once(stem, broken, file=tmp_path / "outputs")
    with pytest.raises(ValueError, match="empty"):
        run_once(stem, DATA.take(0), file=tmp_path / "outputs")
    assert (tmp_path / "outputs").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_datasets_that_cannot_be_run_once(stem):
    with pytest.raises(ValueError, match="never ends"):
        run_once(stem, DATA.repeat())
    with pytest.raises(ValueError, match="empty"):
        run_once(stem, DATA.take(0))
    with pytest.raises(ValueError, match="views is 0"):
        run_once(stem, DATA, views=0)
