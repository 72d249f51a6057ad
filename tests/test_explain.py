"""Grad-CAM: against the formula by hand, on networks inside networks, and with random weights."""

import keras
import numpy as np
import pytest

from helpers import pretrained
from helpers.explain import grad_cam, overlay

layers = keras.layers
PICTURES = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")


def red_or_green():
    """Class 0 is redness, class 1 greenness: the network's two maps are just these channels."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.AveragePooling2D(4),
            layers.Conv2D(2, 1, use_bias=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, use_bias=False),
        ]
    )
    model.set_weights([np.eye(3)[None, None, :, :2], np.eye(2)])
    return model


def red_left_green_right():
    picture = np.zeros((1, 32, 32, 3), "float32")
    picture[:, 8:16, :8, 0] = 200
    picture[:, 16:24, 24:, 1] = 100
    return picture


@pytest.mark.parametrize("number, side", [(0, slice(0, 12)), (1, slice(20, 32))])
def test_it_shows_what_speaks_for_a_class(number, side):
    cam = grad_cam(red_or_green(), red_left_green_right(), [number])[0]
    assert cam.shape == (32, 32) and cam.dtype == np.float32
    assert cam.min() == 0 and cam.max() == 1
    assert cam[:, side].sum() == pytest.approx(cam.sum())


def test_without_classes_it_explains_the_answer():
    model, picture = red_or_green(), red_left_green_right()
    np.testing.assert_array_equal(grad_cam(model, picture), grad_cam(model, picture, [0]))


def test_one_logit_speaks_for_class_1_and_minus_it_for_class_0():
    two = red_or_green()
    one = keras.Sequential([*two.layers[:-1], layers.Dense(1, use_bias=False)])
    one.build((None, 32, 32, 3))
    one.layers[-1].set_weights([np.array([[-1], [1]])])
    for number in (0, 1):
        found = grad_cam(one, red_left_green_right(), [number])
        np.testing.assert_allclose(found, grad_cam(two, red_left_green_right(), [number]))
    np.testing.assert_allclose(
        grad_cam(one, red_left_green_right()), grad_cam(one, red_left_green_right(), [0])
    )


def test_nothing_that_speaks_for_a_class_is_all_zero():
    black = np.zeros((2, 32, 32, 3), "float32")
    assert not grad_cam(red_or_green(), black).any()


@pytest.fixture(scope="module")
def backbone():
    return keras.applications.MobileNetV2(
        include_top=False, weights=pretrained.weights("mobilenet_v2"), input_shape=(64, 64, 3)
    )


def sequential(backbone):
    return keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(4),
        ]
    )


def functional(backbone):
    inputs = keras.Input((64, 64, 3))
    features = backbone(layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(features)))


def pooled_inside(backbone):
    pooled = keras.Model(backbone.input, layers.GlobalAveragePooling2D()(backbone.output))
    inputs = keras.Input((64, 64, 3))
    features = pooled(layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    return keras.Model(inputs, layers.Dense(4)(features))


@pytest.mark.parametrize("build", [sequential, functional, pooled_inside])
def test_of_an_averaged_map_it_is_the_heads_weights_times_the_map(backbone, build):
    """What Selvaraju et al. prove: there Grad-CAM is CAM (Zhou et al., 2016), up to a factor."""
    keras.utils.set_random_seed(1)
    model = build(backbone)
    before = model.get_weights()
    classes = np.array([3, 0, 2])
    found = grad_cam(model, PICTURES, classes)
    maps = backbone(PICTURES / 127.5 - 1, training=False).numpy()
    expected = np.einsum("nyxc,nc->nyx", maps, model.layers[-1].get_weights()[0].T[classes])
    expected = keras.ops.image.resize(np.maximum(expected, 0)[..., None], (64, 64))[..., 0].numpy()
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-6)  # all 0 stays so
    assert (expected.max((1, 2)) == 1).any()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert all(map(np.array_equal, before, model.get_weights())), "it must change nothing"


def test_many_pictures_are_explained_like_few(backbone):
    many = np.concatenate([PICTURES] * 12)  # more than one batch
    model = sequential(backbone)
    one, last = grad_cam(model, PICTURES, [1, 2, 3]), grad_cam(model, many, [1, 2, 3] * 12)[-3:]
    np.testing.assert_allclose(one, last, atol=1e-4)


def test_an_earlier_layer_has_more_places(backbone):
    model = sequential(backbone)
    places = [
        len(np.unique(np.round(grad_cam(model, PICTURES[:1], layer=layer), 4)))
        for layer in (None, "block_13_expand", "block_6_expand")
    ]
    assert places[0] < places[1] < places[2]


def test_it_depends_on_the_weights(backbone):
    """Adebayo et al., 2018: a map that survives random weights explains the picture alone."""
    keras.utils.set_random_seed(2)
    trained, other_head = sequential(backbone), sequential(backbone)
    random = sequential(keras.models.clone_model(backbone))
    maps = [
        grad_cam(model, PICTURES, [0, 1, 2], layer="block_13_expand")
        for model in (trained, other_head, random)
    ]
    for other in maps[1:]:
        assert abs(np.corrcoef(maps[0].ravel(), other.ravel())[0, 1]) < 0.7


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (dict(pictures=PICTURES[0]), "a single one is pictures\\[:1\\]"),
        (dict(classes=[1]), "3 pictures need 3 classes, found \\(1,\\)"),
        (dict(classes=[0, 1, 4]), "the classes 0 to 3, asked for 0 to 4"),
        (dict(layer="block_13"), "no layer named 'block_13'"),
    ],
)
def test_what_it_cannot_do_it_says(backbone, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        grad_cam(sequential(backbone), **{"pictures": PICTURES} | arguments)


def test_a_layer_behind_the_maps_is_too_late(backbone):
    model = sequential(backbone)
    with pytest.raises(ValueError, match="no maps left"):
        grad_cam(model, PICTURES, layer=model.layers[-1].name)
    headless = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(1, 8), layers.Reshape((1,))])
    with pytest.raises(ValueError, match="name the layer in front of which"):
        grad_cam(headless, PICTURES[:, :8, :8])


def test_overlay():
    maps = np.zeros((3, 64, 64), "float32")
    maps[:, :32] = 1
    shown = overlay(PICTURES, maps)
    assert shown.shape == PICTURES.shape and shown.min() >= 0 and shown.max() <= 255
    grey = np.ptp(shown[:, 32:], axis=-1)
    assert grey.max() < 12 and np.ptp(shown[:, :32], axis=-1).min() > 40, "colour is the map's"
