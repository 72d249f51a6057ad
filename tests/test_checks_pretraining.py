"""The checks of exercise 07: right, other right, plausible wrong and open answers."""

import keras
import numpy as np
import pytest

from helpers import critters
from helpers.checks import pretraining as check

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax")
layers = keras.layers
ON_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in ("GlobalAverage", "from_logits", "SparseCategorical", "trainable", "epochs=")
        if code in hints
    ]


def test_the_source_of_the_exercise_holds_no_target():
    assert list(check.SPECIES) == sorted(check.SPECIES)
    assert set(check.SPECIES) <= set(critters.SOURCE)


def block(channels, momentum=0.9):
    return [
        layers.Conv2D(channels, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=momentum),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ]


def convnet(*end, channels=(16, 32, 64, 128), momentum=0.9, start=()):
    blocks = [layer for count in channels for layer in block(count, momentum)]
    return keras.Sequential([keras.Input((48, 48, 3)), *start, *blocks, *end])


def functional():
    inputs = x = keras.Input((48, 48, 3))
    for layer in (*block(32), *block(64), *block(128)):
        x = layer(x)
    return keras.Model(inputs, keras.ops.mean(x, axis=(1, 2)))


def frozen():
    answer = convnet(layers.GlobalAveragePooling2D())
    answer.trainable = False
    return answer


def test_backbone(said):
    assert said("backbone", convnet(layers.GlobalAveragePooling2D())) == "✓ Right."
    start = [layers.Rescaling(1 / 255)]
    assert said("backbone", convnet(layers.GlobalMaxPooling2D(), start=start)) == "✓ Right."
    assert said("backbone", functional()) == "✓ Right."


AVERAGE = layers.GlobalAveragePooling2D


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: convnet(), "A map of 3 × 3 places comes out, with 128 channels"),
        (lambda: convnet(layers.Flatten()), "1,152 come out. Flatten keeps every place"),
        (lambda: convnet(AVERAGE(), layers.Dense(6)), "The head comes in task 2"),
        (lambda: convnet(AVERAGE(), channels=(16, 32, 64)), "64 come out. How many channels"),
        (lambda: convnet(AVERAGE(), momentum=0.99), "is 0.99: 0.9 was asked for"),
        (lambda: convnet(AVERAGE(), channels=(4, 8, 128)), "50,000 to 500,000 were asked for"),
        (frozen, "is frozen. In pre-training everything learns"),
        (
            lambda: keras.Sequential([keras.Input((48, 48, 3)), AVERAGE(), layers.Dense(128)]),
            "no Ba",
        ),
        (lambda: [layers.Dense(128)], "yours is a list"),
    ],
)
def test_backbone_wrongly(said, wrong, sentence):
    text = said("backbone", wrong())
    assert text.startswith("✗ Not yet.") and sentence in text


def tiny_backbone(features=128):
    """Not what task 1 asks for, but quick, and as good for the tasks after it."""
    return keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.AveragePooling2D(16),
            layers.Flatten(),
            layers.Dense(features, activation="relu"),
        ]
    )


def source_model(backbone, head=None, loss=ON_LOGITS, rate=1e-3, compiled=True):
    model = keras.Sequential([backbone, head or layers.Dense(6)])
    if compiled:
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def test_model(said):
    backbone = tiny_backbone()
    assert said("model", source_model(backbone), backbone) == "✓ Right."
    inputs = keras.Input((48, 48, 3))
    other = keras.Model(inputs, layers.Dense(6)(layers.Dropout(0.2)(backbone(inputs))))
    other.compile(keras.optimizers.Adam(0.001), ON_LOGITS, metrics=["accuracy"])
    assert said("model", other, backbone) == "✓ Right."


def softmax():
    return layers.Dense(6, activation="softmax")


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda b: source_model(b, layers.Dense(1)), "six species was asked for, 1 come out"),
        (lambda b: source_model(keras.models.clone_model(b)), "is it a copy?"),
        (lambda b: source_model(b, softmax()), "these are probabilities"),
        (lambda b: source_model(b, layers.Dense(6, activation="relu")), "a ReLU cuts them off"),
        (lambda b: source_model(b, layers.Dense(6, activation="tanh")), "the activation tanh"),
        (lambda b: source_model(b, compiled=False), "The model is not compiled"),
        (
            lambda b: source_model(b, loss="sparse_categorical_crossentropy"),
            "Does it know that it gets logits?",
        ),
        (
            lambda b: source_model(b, loss=keras.losses.CategoricalCrossentropy(from_logits=True)),
            "that is called sparse",
        ),
        (lambda b: source_model(b, rate=2e-3), "the optimizer has 0.002"),
    ],
)
def test_model_wrongly(said, wrong, sentence):
    keras.utils.set_random_seed(1)
    backbone = tiny_backbone()
    text = said("model", wrong(backbone), backbone)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_a_model_on_a_frozen_backbone(said):
    backbone = tiny_backbone()
    backbone.trainable = False
    assert "backbone is frozen" in said("model", source_model(backbone), backbone)


def spots(count):
    """Stands for drawings: each class is bright in another place."""
    rng = np.random.default_rng(2)
    labels = np.arange(count) % 6
    pictures = rng.uniform(0, 80, (count, 48, 48, 3)).astype("float32")
    for picture, label in zip(pictures, labels, strict=True):
        row, column = 16 * (label // 3), 16 * (label % 3)
        picture[row : row + 16, column : column + 16] += 150
    return pictures, labels


def fit(model, epochs=8, **options):
    pictures, labels = spots(96)
    options = {"validation_data": spots(12)} | options
    return model.fit(pictures, labels, batch_size=8, epochs=epochs, verbose=0, **options)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(3)
    backbone = tiny_backbone()
    model, at_first = source_model(backbone), backbone.get_weights()
    return fit(model), model, backbone, at_first


@pytest.fixture
def on_spots(monkeypatch):
    monkeypatch.setattr(check, "fresh_paintings", spots)


def test_pretrained(said, trained, on_spots):
    assert said("pretrained", *trained) == "✓ Right."


def test_pretrained_is_asked_about_paintings(said, trained):
    assert "fresh paintings it names" in said("pretrained", *trained)


def test_pretrained_wrongly(said, trained, on_spots):
    history, model, backbone, at_first = trained
    assert "yours is a dict" in said("pretrained", history.history, *trained[1:])
    unmoved = said("pretrained", history, model, backbone, backbone.get_weights())
    assert "it did not learn" in unmoved
    other = source_model(tiny_backbone())
    assert "belongs to another model" in said("pretrained", history, other, backbone, at_first)


@pytest.mark.parametrize(
    "rate, options, sentence",
    [
        (1e-3, dict(validation_data=None), "Nothing was watched on `validation`"),
        (1e-3, dict(epochs=2), "Eight epochs were asked for, 2 were run"),
        (1e-9, {}, "It has not learnt enough yet"),
    ],
)
def test_pretrained_by_another_fit(said, on_spots, rate, options, sentence):
    keras.utils.set_random_seed(4)
    backbone = tiny_backbone()
    at_first = backbone.get_weights()
    model = source_model(backbone, rate=rate)
    text = said("pretrained", fit(model, **options), model, backbone, at_first)
    assert text.startswith("✗ Not yet.") and sentence in text


def cut(backbone):
    answer = keras.Model(backbone.input, backbone.output)
    answer.trainable = False
    return answer


def test_extractor(said, trained):
    _, model, backbone, _ = trained
    for answer in (cut(backbone), keras.Sequential([cut(backbone)])):
        assert said("extractor", answer, model, backbone) == "✓ Right."
    backbone.trainable = True
    backbone.trainable = False
    assert said("extractor", backbone, model, backbone) == "✓ Right."
    backbone.trainable = True


def test_extractor_wrongly(said, trained):
    _, model, backbone, _ = trained
    backbone.trainable = True
    assert "That is the whole model" in said("extractor", model, model, backbone)
    whole = keras.Sequential(model.layers)
    assert "the head is still on" in said("extractor", whole, model, backbone)
    assert "can still learn" in said("extractor", keras.Sequential([backbone]), model, backbone)
    random = keras.models.clone_model(backbone)
    assert "these are other weights" in said("extractor", random, model, backbone)
    early = keras.Sequential([keras.Input((48, 48, 3)), *backbone.layers[:-1]])
    assert "the shape that comes out is (27,)" in said("extractor", early, model, backbone)
    assert "yours is a ndarray" in said("extractor", np.zeros(128), model, backbone)


def test_extractor_on_paintings(said, trained):
    _, model, backbone, _ = trained
    pictures, labels = spots(400)
    answer = cut(backbone)
    assert said("extractor", answer, model, backbone, (pictures, labels)) == "✓ Right."
    chance = np.random.default_rng(0).integers(0, 6, 400)
    assert "Is it the trained network?" in said(
        "extractor", answer, model, backbone, (pictures, chance)
    )
    backbone.trainable = True


def test_fresh_paintings_are_of_the_species():
    pictures, labels = check.fresh_paintings(12)
    assert pictures.shape == (12, 48, 48, 3) and pictures.max() > 1
    assert sorted(labels) == sorted([*range(6)] * 2)
    assert not np.array_equal(pictures, check.fresh_paintings(12)[0])
