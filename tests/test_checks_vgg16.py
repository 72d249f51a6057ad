"""Each check of the VGG16 exercises: right answers, plausible wrong ones, open ones.

A miniature takes VGG16's place: the same thirteen convolutions by name, with few filters. Its
"pictures" are noise, dark for cats and bright for dogs. One test asks the real VGG16.
"""

import json
import types

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from helpers.checks import SOLUTIONS, Check
from helpers.checks import vgg16 as check
from helpers.features import run_once, split_at

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1"),
    pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy"),
]
L = keras.layers
SIZE = (32, 32)
FILTERS = (4,) * 7 + (6,) * 6
BLOCKS = (2, 2, 3, 3, 3)
BINARY = {"metrics": [keras.metrics.BinaryAccuracy(threshold=0.0)]}
prepare = keras.applications.vgg16.preprocess_input


def miniature(seed=0):
    """What `keras.applications.VGG16(include_top=False)` is, with few filters."""
    rng, filters = np.random.default_rng(seed), iter(FILTERS)
    inputs = x = keras.Input((*SIZE, 3))
    for block, convolutions in enumerate(BLOCKS, 1):
        for i in range(1, convolutions + 1):
            name = f"block{block}_conv{i}"
            x = L.Conv2D(next(filters), 3, padding="same", activation="relu", name=name)(x)
        x = L.MaxPooling2D(name=f"block{block}_pool")(x)
    network = keras.Model(inputs, x, name="vgg16")
    for weight in network.trainable_weights:
        scale = 1.0 if len(weight.shape) == 1 else (6 / np.prod(weight.shape[:3])) ** 0.5
        weight.assign(rng.normal(0, 0.5 * scale, weight.shape))
    return network


KNOWN = [layer.get_weights() for layer in miniature().layers if layer.weights]


@pytest.fixture(autouse=True)
def world(monkeypatch):
    """A track with pictures of 32 pixels, and the miniature's numbers as the pre-trained ones."""
    track = types.SimpleNamespace(
        vgg16_size=SIZE, image_size=SIZE, weights=lambda network: "miniature"
    )
    monkeypatch.setattr(check.tracks, "current", lambda: track)
    monkeypatch.setattr(check, "FILTERS", FILTERS)
    monkeypatch.setattr(check, "_pretrained", lambda weights: KNOWN)
    monkeypatch.delenv("COURSE_GRADING", raising=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def said(capsys):
    """Ask a check; give what it prints."""

    def ask(name, *answers):
        getattr(check, name)(*answers)
        return capsys.readouterr().out

    return ask


RIGHT = "✓ Right.\n"


def frozen(seed=0):
    backbone = miniature(seed)
    backbone.trainable = False
    return backbone


def model_of(backbone, before=prepare, top=None, activation=None):
    inputs = keras.Input((*SIZE, 3))
    x = backbone(before(inputs))
    x = L.GlobalAveragePooling2D(name="average")(x) if top is None else top(x)
    return keras.Model(inputs, L.Dense(1, activation=activation, name="head")(x))


def pictures(count, seed):
    """Dark noise is a cat, bright noise a dog."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = rng.uniform(0, 100, (count, *SIZE, 3)).astype("float32")
    return noise + 150 * labels[:, None, None, None], labels.astype("float32")[:, None]


def batches(count, seed, size=8):
    return tf.data.Dataset.from_tensor_slices(pictures(count, seed)).batch(size)


TRAIN, VALIDATION, TEST = batches(16, 1), batches(10, 2), batches(32, 3)


def train_by_hand(model):
    """Set the head so that it tells dark from bright: what a good training would have reached."""
    images, labels = pictures(16, 1)
    *_, layer = model.layers
    features = keras.Model(model.input, layer.input)(images).numpy()
    a, b = (features[labels[:, 0] == value].mean(0) for value in (0, 1))
    weights = (b - a) / np.sum((b - a) ** 2)
    layer.kernel.assign(weights[:, None])
    layer.bias.assign([-np.dot(weights, a + b) / 2])
    return model


def compiled(model, rate=1e-3, **options):
    options = {"loss": keras.losses.BinaryCrossentropy(from_logits=True)} | BINARY | options
    model.compile(**({"optimizer": keras.optimizers.Adam(rate)} | options))
    return model


def history_of(model, epochs=10, watched=VALIDATION, steps=2):
    """A History as `fit` returns it."""
    history = keras.callbacks.History()
    history.epoch, history.params = list(range(epochs)), {"epochs": epochs, "steps": steps}
    history.history = {"loss": [0.5] * epochs}
    if watched is not None:
        logits, labels = check._logits(model, watched)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)(labels[:, None], logits[:, None])
        history.history["val_loss"] = [0.7] * (epochs - 1) + [float(loss)]
    return history


def asks_for(said, name, sentence, *answers):
    text = said(name, *answers)
    assert text.startswith("✗ Not yet. "), text
    assert sentence in text, text
    assert "stops the check" not in text


# ---- every task ------------------------------------------------------------------------------

TASKS = {name: thing for name, thing in vars(check).items() if isinstance(thing, Check)}


def cells(task):
    """The graded and the solved cells of the task's notebook, by id."""
    notebook = json.loads((SOLUTIONS / f"{task.notebook}.ipynb").read_text("utf-8"))
    return {
        cell["metadata"]["nbgrader"]["grade_id"]: cell
        for cell in notebook["cells"]
        if "nbgrader" in cell["metadata"]
    }


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_a_cell_to_solve_and_one_that_grades(name):
    task = TASKS[name]
    assert cells(task)[name]["metadata"]["nbgrader"]["solution"]
    assert cells(task)[f"check_{name}"]["metadata"]["nbgrader"]["points"] > 0


@pytest.mark.parametrize("name", TASKS)
def test_an_open_answer_is_not_a_wrong_one(name, said, monkeypatch):
    arguments = TASKS[name].judge.__code__.co_argcount
    assert said(name, *[None] * arguments).startswith("Not answered yet")
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not answered yet"):
        getattr(check, name)(*[None] * arguments)


# ---- 1 · classify ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of coloured noise: 8 to train, 6 to validate, 10 to test."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 6), ("test", 10)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count // 2):
                noise = rng.integers(0, 256, (40, 40, 3), dtype="uint8")
                Image.fromarray(noise).save(folder / split / name / f"{i}.png")
    return folder


def load(folder, **options):
    options = {"image_size": SIZE, "batch_size": 4, "label_mode": "binary"} | options
    return keras.utils.image_dataset_from_directory(folder, verbose=False, **options)


def splits(folder, **changed):
    """The three right data sets, or others in their place."""
    return [
        changed.get(split, load(folder / split, shuffle=split == "train", seed=1))
        for split in ("train", "validation", "test")
    ]


def test_data_right(folder, said):
    assert said("data", *splits(folder), folder) == RIGHT
    whole_numbers = splits(
        folder,
        train=load(folder / "train", label_mode="int", seed=1).cache().prefetch(1).shuffle(8),
        validation=load(folder / "validation", label_mode="int", interpolation="nearest"),
    )
    assert said("data", *whole_numbers, folder) == RIGHT


def wrong_data(folder):
    yield "come from the folder 'test'", {"train": load(folder / "test")}
    yield "come from the folder 'train'", {"test": load(folder / "train", shuffle=False)}
    both = load(folder / "train").concatenate(load(folder / "test"))
    yield "10 of the 18 pictures in `train`", {"train": both}
    yield (
        "`train` has 4 pictures, the folder 'train' has 8",
        {"train": load(folder / "train").take(1)},
    )
    yield "another order each time", {"test": load(folder / "test")}
    yield "all cats first", {"train": load(folder / "train", shuffle=False)}
    yield "image_size=track.vgg16_size", {"train": load(folder / "train", image_size=(40, 40))}
    yield (
        "one number, 0 or 1",
        {"validation": load(folder / "validation", label_mode="categorical")},
    )
    scaled = load(folder / "train").map(lambda x, y: (x / 255, y))
    yield "Leave them at 0 to 255", {"train": scaled}
    ready = load(folder / "test", shuffle=False).map(lambda x, y: (prepare(x), y))
    yield "the model of task 4 does the preprocessing", {"test": ready}
    swapped = load(folder / "train", class_names=["dog", "cat"])
    yield "labels of `train` do not belong to their pictures", {"train": swapped}


def test_data_wrong(folder, said):
    for sentence, changed in wrong_data(folder):
        asks_for(said, "data", sentence, *splits(folder, **changed), folder)


def test_data_that_cannot_be_read(folder, said):
    for sentence, train in (
        ("never ends", load(folder / "train").repeat()),
        ("without labels", load(folder / "train", label_mode=None)),
        ("single pictures", load(folder / "train", batch_size=None)),
        ("AttributeError", folder / "train"),
    ):
        assert sentence in said("data", *splits(folder, train=train), folder)


def test_prepared(said):
    some = pictures(4, 0)[0]
    right = prepare(some.copy())
    assert said("prepared", right, some) == RIGHT
    by_hand = some[..., ::-1] - np.array([103.939, 116.779, 123.68])
    assert said("prepared", tf.constant(by_hand), some) == RIGHT
    for sentence, wrong in (
        ("the preprocessing is missing", some),
        ("preprocessed twice", prepare(right.copy())),
        ("as for MobileNetV2", some / 127.5 - 1),
        ("divided by 255", some / 255),
        ("as for DenseNet", keras.applications.densenet.preprocess_input(some.copy())),
        ("learnt from blue, green, red", right[..., ::-1]),
        ("goes from -103.9 to", some - 103.939),
        ("has shape (2,", right[:2]),
    ):
        asks_for(said, "prepared", sentence, wrong, some)
    overwritten = prepare(some)
    asks_for(said, "prepared", "overwrote your pictures", overwritten, some)


def test_backbone(said):
    assert said("backbone", frozen()) == RIGHT
    layer_by_layer = miniature()
    for layer in layer_by_layer.layers:
        layer.trainable = False
    assert said("backbone", layer_by_layer) == RIGHT
    pooled = frozen()
    pooled = keras.Model(pooled.input, L.GlobalAveragePooling2D()(pooled.output))
    pooled.trainable = False
    assert said("backbone", pooled) == RIGHT

    asks_for(said, "backbone", "26 of the backbone's 26 weight arrays", miniature())
    asks_for(said, "backbone", "a random network knows nothing", frozen(seed=1))
    network = miniature()
    top = keras.Model(network.input, L.Dense(24, name="predictions")(L.Flatten()(network.output)))
    asks_for(said, "backbone", "still has its old top (predictions)", top)
    asks_for(said, "backbone", "Expected a Keras model, found a str", "vgg16")
    moved = frozen()
    moved.layers[-2].kernel.assign_add(np.full(moved.layers[-2].kernel.shape, 1e-4))
    asks_for(said, "backbone", "'block5_conv3' no longer has the pre-trained numbers", moved)


def test_the_real_networks(said, monkeypatch):
    monkeypatch.undo()
    applications = keras.applications
    network = applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    known = [layer.get_weights() for layer in network.layers if layer.weights]
    monkeypatch.setattr(check, "_pretrained", lambda weights: known)
    monkeypatch.setattr(check.tracks.Critters, "weights", lambda self, network: "")
    network.trainable = False
    assert said("backbone", network) == RIGHT
    inputs = keras.Input((64, 64, 3))
    x = L.GlobalAveragePooling2D()(network(prepare(inputs)))
    assert said("model", keras.Model(inputs, L.Dense(1)(x)), network) == RIGHT
    other = applications.VGG19(include_top=False, weights=None, input_shape=(64, 64, 3))
    asks_for(said, "backbone", "That is VGG19", other)
    other = applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    asks_for(said, "backbone", "Expected VGG16 with its 13 convolutions, found 'mobilenetv2", other)
    fully = applications.VGG16(weights=None, input_shape=(32, 32, 3), include_top=False)
    asks_for(said, "backbone", "takes pictures of shape (32, 32, 3), yours are (64, 64, 3)", fully)


class Prepare(L.Layer):
    def call(self, x):
        return x[..., ::-1] - keras.ops.array([103.939, 116.779, 123.68])


def right_models(backbone):
    yield model_of(backbone)
    yield model_of(backbone, before=L.Lambda(prepare))
    yield model_of(backbone, top=L.GlobalMaxPooling2D())
    yield model_of(backbone, top=L.Flatten())
    yield keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            L.RandomFlip("horizontal"),
            Prepare(),
            backbone,
            L.GlobalAveragePooling2D(),
            L.Dense(8, activation="relu"),
            L.Dropout(0.2),
            L.Dense(1),
        ]
    )
    unbuilt = keras.Sequential([Prepare(), backbone, L.GlobalAveragePooling2D(), L.Dense(1)])
    unbuilt.build((None, *SIZE, 3))
    yield unbuilt
    layers = [layer for layer in backbone.layers if layer.weights or "pool" in layer.name]
    yield keras.Sequential([keras.Input((*SIZE, 3)), Prepare(), *layers, L.Flatten(), L.Dense(1)])


def test_model_right(said):
    backbone = frozen()
    for model in right_models(backbone):
        assert said("model", model, backbone) == RIGHT


def test_model_wrong(said):
    backbone = frozen()
    twice = model_of(backbone, before=lambda x: prepare(prepare(x)))
    for sentence, model in (
        ("the preprocessing is missing", model_of(backbone, before=lambda x: x)),
        ("What enters the backbone is preprocessed twice", twice),
        ("as for MobileNetV2", model_of(backbone, before=L.Rescaling(1 / 127.5, -1))),
        ("divided by 255", model_of(backbone, before=L.Rescaling(1 / 255))),
        ("these are probabilities", model_of(backbone, activation="sigmoid")),
        ("softmax over a single output", model_of(backbone, activation="softmax")),
        ("ends with relu", model_of(backbone, activation="relu")),
        ("expected (None, 1), one logit each. Feature maps", model_of(backbone, top=lambda x: x)),
        ("do not pass through `backbone`", model_of(frozen())),
        ("Expected a Keras model, found a list", [backbone]),
    ):
        asks_for(said, "model", sentence, model, backbone)
    inputs = keras.Input((*SIZE, 3))
    x = L.GlobalAveragePooling2D()(backbone(prepare(inputs)))
    asks_for(said, "model", "Two outputs", keras.Model(inputs, L.Dense(2)(x)), backbone)
    still = model_of(backbone)
    still.trainable = False
    asks_for(said, "model", "no head that could learn", still, backbone)
    awake = miniature()
    asks_for(said, "model", "26 weight arrays of the backbone would learn", model_of(awake), awake)


@pytest.fixture(scope="module")
def fitted():
    """A model that was really fitted, and its History: Keras' own bookkeeping."""
    model = compiled(model_of(frozen()), run_eagerly=True)
    history = model.fit(TRAIN, validation_data=VALIDATION, epochs=2, verbose=0)
    return train_by_hand(model), history


def test_history_right(said, fitted):
    model, real = fitted
    backbone = model.get_layer("vgg16")
    context = (model, backbone, TRAIN, VALIDATION, TEST)
    assert said("history", real, *context) == RIGHT

    def ask():
        return said("history", history_of(model), *context)

    compiled(model, loss="binary_crossentropy", metrics=["accuracy"])
    assert "✗" in ask()
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    hinge = [keras.metrics.BinaryAccuracy(name="right", threshold=0), "AUC"]
    compiled(model, optimizer=keras.optimizers.SGD(schedule, momentum=0.9), metrics=hinge)
    assert ask() == RIGHT
    smooth = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    compiled(model, optimizer="adamw", loss=smooth)
    assert ask() == RIGHT

    def right_answers(labels, logits):
        return keras.ops.mean(keras.ops.equal(labels > 0.5, logits > 0))

    compiled(model, metrics=[right_answers])
    assert ask() == RIGHT


def wrong_compiles():
    plain = keras.losses.BinaryCrossentropy()
    yield "takes the logits for probabilities", {"loss": plain}
    yield "takes the logits for probabilities", {"loss": "binary_crossentropy"}
    yield "nothing to learn from", {"loss": keras.losses.CategoricalCrossentropy(from_logits=True)}
    yield "surer right answer is punished", {"loss": "mse"}
    yield "reports 50%: it takes logits for probabilities", {"metrics": ["accuracy"]}
    yield "'acc' reports 50%", {"metrics": [keras.metrics.BinaryAccuracy(name="acc")]}
    yield "found: none", {"metrics": []}
    yield "found: auc", {"metrics": [keras.metrics.AUC(from_logits=True, name="auc")]}


def test_history_of_a_model_that_was_compiled_otherwise(said):
    model = train_by_hand(model_of(frozen()))
    for sentence, options in wrong_compiles():
        compiled(model, **options)
        context = (model, model.get_layer("vgg16"), TRAIN, VALIDATION, TEST)
        asks_for(said, "history", sentence, history_of(model), *context)


def test_history_wrong(said):
    backbone = frozen()
    model = train_by_hand(model_of(backbone))
    context = (model, backbone, TRAIN, VALIDATION, TEST)
    asks_for(said, "history", "has not been compiled", history_of(model), *context)
    compiled(model)
    good = history_of(model)
    assert said("history", good, *context) == RIGHT
    for sentence, history in (
        ("found a dict", good.history),
        ("found a Functional", model),
        ("not gone through a single epoch", history_of(model, epochs=0, watched=None)),
        ("no validation numbers", history_of(model, watched=None)),
        ("as many as `test` has", history_of(model, steps=4)),
        ("is that of the `test` pictures", history_of(model, watched=TEST)),
    ):
        asks_for(said, "history", sentence, history, *context)
    good.history["loss"] = [np.nan]
    asks_for(said, "history", "The loss became nan: the learning rate 0.001", good, *context)

    head = model.layers[-1]
    head.set_weights([-weight for weight in head.get_weights()])
    bad = history_of(model, epochs=3)
    asks_for(said, "history", "names 0% of the pictures that it learnt from", bad, *context)
    asks_for(said, "history", "3 epochs may be too few", bad, *context)
    for rate, sentence in ((1.0, "1 is high for a head"), (1e-7, "1e-07 is low for a head")):
        compiled(model, rate)
        asks_for(said, "history", sentence, bad, *context)


def test_history_of_a_backbone_that_learnt(said):
    backbone = miniature()
    model = train_by_hand(compiled(model_of(backbone)))
    context = (model, backbone, TRAIN, VALIDATION, TEST)
    asks_for(said, "history", "would learn along with the head", history_of(model), *context)
    model.fit(TRAIN, verbose=0)
    backbone.trainable = False  # too late
    history = model.fit(TRAIN, validation_data=VALIDATION, verbose=0)
    asks_for(said, "history", "although it should be frozen", history, *context)


def test_right(said):
    model = model_of(frozen())
    logits, labels = check._logits(model, TEST)
    order = np.argsort(labels * 100 + logits)
    wanted = np.where(np.arange(32) < 16, -1.0, 1.0)  # every label's logit
    wanted[[0, 1, 2, 30, 31]] *= -1  # five mistakes
    wanted[[20, 21, 22]] = 0.3  # right at 0, wrong at 0.5
    answers = np.empty(32)
    answers[order] = wanted
    model = Fixed(answers)
    for answer in (27, 27.0, np.int64(27), np.array(27), tf.constant(27), 26):
        assert said("right", answer, model, TEST) == RIGHT
    for sentence, answer in (
        ("0.84375 is a share", 27 / 32),
        ("is what the model gets wrong", 5),
        ("a cut at 0.5", 24),
        ("more than the 32 pictures", 512),
        ("`argmax` over a single", 16),
        ("is near guessing", 18),
        ("Compare `logit > 0`", 31),
        ("found a str: 27", "27"),
        ("found a bool", True),
        ("found a ndarray", answers > 0),
    ):
        asks_for(said, "right", sentence, answer, model, TEST)


class Fixed:
    """A model that gives chosen logits, one after another."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, pictures, training=False):
        assert len(pictures) == len(self.logits)
        return tf.constant(self.logits, tf.float32)[:, None]


# ---- 2 · fine-tune ---------------------------------------------------------------------------


def unfreeze(backbone, first):
    backbone.trainable = True
    names = [layer.name for layer in backbone.layers]
    for layer in backbone.layers[: names.index(first)]:
        layer.trainable = False
    return backbone


@pytest.mark.parametrize("first", ["block5_conv1", "block4_conv1", "block5_conv2", "block4_pool"])
def test_unfrozen_right(said, first):
    backbone = unfreeze(miniature(), first)
    assert said("unfrozen", first, backbone) == RIGHT
    assert said("unfrozen", backbone.get_layer(first), backbone) == RIGHT


def test_unfrozen_wrong(said):
    asks_for(said, "unfrozen", "No layer of the backbone can learn", "block5_conv1", frozen())
    asks_for(said, "unfrozen", "All 13 convolutions can learn", "block5_conv1", miniature())
    early = unfreeze(miniature(), "block3_conv1")
    asks_for(said, "unfrozen", "Learning begins at 'block3_conv1'", "block3_conv1", early)
    switch = frozen()
    for layer in switch.layers[-4:]:
        layer.trainable = True
    asks_for(said, "unfrozen", "`backbone.trainable` is still False", "block5_conv1", switch)
    turned = miniature()
    for layer in turned.layers[-4:]:
        layer.trainable = False
    sentence = "'block1_conv1' can learn, but 'block5_conv1' after it cannot"
    asks_for(said, "unfrozen", sentence, "block5_conv1", turned)
    good = unfreeze(miniature(), "block5_conv1")
    asks_for(said, "unfrozen", "first layer that can learn is 'block5_conv1'", "block4_conv1", good)
    asks_for(said, "unfrozen", "which is no layer of the backbone", "block6", good)
    asks_for(said, "unfrozen", "which is no layer of the backbone", 15, good)


@pytest.fixture
def cut(capsys):
    """A trained model, its tail, and features of both data sets."""
    model = train_by_hand(model_of(unfreeze(miniature(), "block5_conv1")))
    stem, tail = split_at(model, "block5_conv1")
    features = [run_once(stem, data) for data in (TRAIN, VALIDATION)]
    capsys.readouterr()
    return types.SimpleNamespace(
        model=model, stem=stem, tail=tail, features=features, backbone=model.get_layer("vgg16")
    )


def test_features_right(said, cut, capsys):
    rest = (cut.model, TRAIN, VALIDATION)
    assert said("features", cut.tail, *cut.features, *rest) == RIGHT
    twice = run_once(cut.stem, TRAIN, views=2, shuffle=True)
    by_hand = tf.data.Dataset.from_tensor_slices(
        (cut.stem.predict(VALIDATION, verbose=0), pictures(10, 2)[1][:, 0])
    ).batch(3)
    capsys.readouterr()
    assert said("features", cut.tail, twice, by_hand, *rest) == RIGHT


def test_features_wrong(said, cut, capsys):
    rest = (cut.model, TRAIN, VALIDATION)
    train, validation = cut.features
    _, short = split_at(cut.model, "average")
    asks_for(
        said,
        "features",
        "6 weight arrays that shall learn are not in `tail`",
        short,
        *cut.features,
        *rest,
    )
    _, long = split_at(cut.model, "block4_conv1")
    asks_for(
        said,
        "features",
        "still holds frozen layers ('block4_conv1' and 2",
        long,
        *cut.features,
        *rest,
    )
    other = split_at(model_of(unfreeze(miniature(), "block5_conv1")), "block5_conv1")[1]
    asks_for(said, "features", "are not in `tail`", other, *cut.features, *rest)
    asks_for(said, "features", "found a tuple", (cut.stem, cut.tail), *cut.features, *rest)
    asks_for(said, "features", "the tail takes (2, 2, 6)", cut.tail, TRAIN, validation, *rest)
    asks_for(said, "features", "`validation_features` has 16 rows", cut.tail, train, train, *rest)
    x, y = check._collect(train)
    mixed = tf.data.Dataset.from_tensor_slices((x, np.roll(y, 1))).batch(8)
    asks_for(
        said,
        "features",
        "Do labels and features belong together",
        cut.tail,
        mixed,
        validation,
        *rest,
    )


def test_fine_history_right(said, cut):
    train, validation = cut.features
    compiled(cut.tail, 3e-5, run_eagerly=True)
    history = cut.tail.fit(train, validation_data=validation, verbose=0)
    rest = (cut.tail, cut.model, cut.backbone, VALIDATION, TEST)
    assert said("fine_history", history, *rest) == RIGHT
    schedule = keras.optimizers.schedules.CosineDecay(1e-4, 10)
    compiled(cut.tail, optimizer=keras.optimizers.AdamW(schedule))
    assert said("fine_history", history_of(cut.model), *rest) == RIGHT
    sgd = keras.optimizers.SGD(1e-3, momentum=0.9)
    whole = types.SimpleNamespace(compiled=False)
    compiled(cut.model, optimizer=sgd)
    rest = (whole, cut.model, cut.backbone, VALIDATION, TEST)
    assert said("fine_history", history_of(cut.model), *rest) == RIGHT


def test_fine_history_wrong(said, cut):
    rest = (cut.tail, cut.model, cut.backbone, VALIDATION, TEST)
    history = history_of(cut.model)
    asks_for(said, "fine_history", "has not been compiled", history, *rest)
    compiled(cut.tail, 3e-5, metrics=["accuracy"])
    asks_for(said, "fine_history", "cuts at 0.5", history, *rest)
    for optimizer, sentence in (
        (keras.optimizers.Adam(1e-3), "The learning rate is 0.001, about what a new head takes"),
        (keras.optimizers.SGD(0.1), "The learning rate is 0.1"),
        (keras.optimizers.Adam(1e-9), "The learning rate is 1e-09: so little"),
    ):
        compiled(cut.tail, optimizer=optimizer)
        asks_for(said, "fine_history", sentence, history, *rest)
    compiled(cut.tail, 1e-5)
    asks_for(said, "fine_history", "3 convolutions may learn, but none has moved", history, *rest)

    def move(name):
        kernel = cut.backbone.get_layer(name).kernel
        kernel.assign_add(np.full(kernel.shape, 1e-5))

    move("block5_conv1")
    asks_for(said, "fine_history", "'block5_conv2' and 1 more may learn but has", history, *rest)
    move("block5_conv2"), move("block5_conv3")
    history = history_of(cut.model)
    assert said("fine_history", history, *rest) == RIGHT
    leaked = history_of(cut.model, watched=TEST)
    asks_for(said, "fine_history", "is that of the `test` pictures", leaked, *rest)
    bias = cut.model.layers[-1].bias
    bias.assign_add([100.0])
    asks_for(said, "fine_history", "names 50% of the validation pictures", history, *rest)
    bias.assign_add([-100.0])
    move("block1_conv1")
    asks_for(said, "fine_history", "'block1_conv1' moved, though frozen", history, *rest)


def test_unfreezing_without_a_new_compile_is_noticed(said, capsys):
    model = train_by_hand(model_of(frozen()))
    backbone = model.get_layer("vgg16")
    stem, tail = split_at(model, "block5_conv1")
    compiled(tail, 1e-4)
    features = run_once(stem, TRAIN)
    tail.fit(features, verbose=0)
    unfreeze(backbone, "block5_conv1")  # and no compile
    history = tail.fit(features, validation_data=features, verbose=0)
    capsys.readouterr()
    sentence = "compile the tail again, after unfreezing"
    asks_for(said, "fine_history", sentence, history, tail, model, backbone, VALIDATION, TEST)


def test_gain(said):
    logits = np.where(np.arange(32) % 2, 1.0, -1.0)
    logits[:3] *= -1  # three mistakes now
    before = np.ones(32, bool)
    before[1:9] = False  # eight before, two of them the same
    rest = (Fixed(logits), TEST, before)
    after = (logits > 0) == pictures(32, 3)[1][:, 0].astype(bool)
    change = after.astype(float) - before
    mean, deviation = change.mean(), change.std()
    margin = 1.96 * deviation / 32**0.5
    for right in (
        (mean, margin),
        (np.float32(mean), 2 * deviation / 32**0.5),
        (tf.constant(mean), 1.96 * change.std(ddof=1) / 32**0.5),
    ):
        assert said("gain", *right, *rest) == RIGHT
    unpaired = 1.96 * np.sqrt((after.var() + before.var()) / 32)
    assert unpaired > 1.07 * margin
    for sentence, gain, width in (
        ("the sign is turned round", -mean, margin),
        ("is in points", 100 * mean, margin),
        ("is a number of pictures", change.sum(), margin),
        ("is the accuracy now", after.mean(), margin),
        ("minus before (0.7500)", 0.5, margin),
        ("two independent samples", mean, unpaired),
        ("is the standard error", mean, margin / 1.96),
        ("divide by the root of 32 as well", mean, 1.96 * deviation),
        ("the spread of single pictures", mean, deviation),
        ("whole width", mean, 2 * margin),
        ("is in points", mean, 100 * margin),
        ("variance of the mean", mean, change.var() / 32),
        ("expected 0.1", mean, 1.5 * margin),
        ("found a str", "0.1", margin),
    ):
        asks_for(said, "gain", sentence, gain, width, *rest)


def test_verdict(said):
    for gain, margin, right in (
        (0.03, 0.02, "better"),
        (0.01, 0.02, "cannot tell"),
        (-0.03, 0.02, "worse"),
    ):
        assert said("verdict", right, gain, margin) == RIGHT
        for wrong in {"better", "worse", "cannot tell"} - {right}:
            asks_for(said, "verdict", "Your interval goes from", wrong, gain, margin)
        asks_for(said, "verdict", "Expected one of 'better'", "good", gain, margin)
    asks_for(said, "verdict", "from -0.010 to +0.030; it holds 0", "better", 0.01, 0.02)


# ---- 3 · from scratch ------------------------------------------------------------------------


def test_scratch(said):
    backbone = miniature(seed=5)
    for model in right_models(backbone):
        assert said("scratch", model, backbone) == RIGHT

    known = miniature()
    asks_for(said, "scratch", "starts with the pre-trained numbers", model_of(known), known)
    still = frozen(seed=5)
    asks_for(said, "scratch", "'block1_conv1' and 12 more cannot learn", model_of(still), still)
    half = unfreeze(miniature(5), "block5_conv1")
    asks_for(said, "scratch", "'block1_conv1' and 9 more cannot learn", model_of(half), half)
    for sentence, options in (
        ("the preprocessing is missing", {"before": lambda x: x}),
        ("preprocessed twice", {"before": lambda x: prepare(prepare(x))}),
        ("softmax over a single", {"activation": "softmax"}),
        ("these are probabilities", {"activation": "sigmoid"}),
    ):
        asks_for(said, "scratch", sentence, model_of(backbone, **options), backbone)
    headless = model_of(backbone)
    headless.layers[-1].trainable = False
    asks_for(said, "scratch", "no head that could learn", headless, backbone)
    asks_for(said, "scratch", "do not pass through", model_of(miniature(6)), backbone)


def test_a_dead_network_is_not_taken_for_probabilities(said):
    backbone = miniature(seed=5)
    model = model_of(backbone)
    backbone.layers[-2].bias.assign(np.full(FILTERS[-1], -1e30))
    model.layers[-1].bias.assign([0.1])
    assert said("scratch", model, backbone) == RIGHT
    dead = model_of(backbone, activation="sigmoid")
    asks_for(said, "scratch", "these are probabilities", dead, backbone)


def test_scratch_history(said):
    model = compiled(model_of(miniature(5)), 1e-4)
    assert said("scratch_history", history_of(model), model, VALIDATION, TEST) == RIGHT
    for sentence, history in (
        ("went through 3 epochs, the budget of this comparison is 10", history_of(model, 3)),
        ("is that of the `test` pictures", history_of(model, watched=TEST)),
        ("as many as `test` has", history_of(model, steps=4)),
        ("no validation numbers", history_of(model, watched=None)),
        ("found a list", [0.5] * 10),
    ):
        asks_for(said, "scratch_history", sentence, history, model, VALIDATION, TEST)
    for sentence, options in (
        ("learning rate is 1e-06. Starting from random", {"rate": 1e-6}),
        ("learning rate is 0.5, too high", {"rate": 0.5}),
        ("cuts at 0.5", {"metrics": ["accuracy"]}),
        ("takes the logits for probabilities", {"loss": "binary_crossentropy"}),
    ):
        compiled(model, **options)
        asks_for(said, "scratch_history", sentence, history_of(model), model, VALIDATION, TEST)
    compiled(model, optimizer=keras.optimizers.SGD(1e-2, momentum=0.9))
    continued = history_of(model)
    assert said("scratch_history", continued, model, VALIDATION, TEST) == RIGHT
    continued.epoch = list(range(10, 20))
    asks_for(said, "scratch_history", "yours begin at 10", continued, model, VALIDATION, TEST)


def test_train_accuracy(said):
    logits = np.where(np.arange(32) % 2, 1.0, -1.0)
    logits[:4] *= -1  # 28 of 32 right
    logits[5:10:2] = 0.2  # 25 of 32 at 0.5
    rest = (Fixed(logits), TEST)
    for right in (28 / 32, np.float32(28 / 32), tf.constant(0.875)):
        assert said("train_accuracy", right, *rest) == RIGHT
    for sentence, wrong in (
        ("87.5 is more than 1", 87.5),
        ("is for a cut at 0.5", 25 / 32),
        ("0.875, found 0.500. Was it another data set", 0.5),
        ("found a list", [0.3, 0.875]),
    ):
        asks_for(said, "train_accuracy", sentence, wrong, *rest)


RIGHT_ANSWERS = {
    method: np.arange(100) < count
    for method, count in (("scratch", 52), ("frozen", 88), ("fine-tuned", 93))
}
LEARNS = {"scratch": 14_715_201, "frozen": 513, "fine-tuned": 7_079_937}


def table(**changed):
    """The right table, with columns replaced."""
    p = np.array([answers.mean() for answers in RIGHT_ANSWERS.values()])
    columns = {"accuracy": p, "margin": 1.96 * np.sqrt(p * (1 - p) / 100)}
    columns |= {"numbers that learn": list(LEARNS.values())} | changed
    return pd.DataFrame(columns, index=list(RIGHT_ANSWERS))


def test_comparison(said):
    good, rest = table(), (RIGHT_ANSWERS, LEARNS)
    assert said("comparison", good, *rest) == RIGHT
    assert said("comparison", good[::-1].assign(seconds=1.0).round(4), *rest) == RIGHT
    for sentence, wrong in (
        ("Expected a pandas DataFrame, found a dict", good.to_dict()),
        ("The column 'margin' is missing", good.drop(columns="margin")),
        ("The rows should be scratch, frozen, fine-tuned", good.reset_index()),
        ("The rows should be", good.T.T.iloc[:2]),
        ("The column 'accuracy' is missing; found scratch", good.T),
        ("is in percent", table(accuracy=100 * good["accuracy"])),
        ("The accuracy of scratch is 0.88", table(accuracy=[0.88, 0.52, 0.93])),
        (
            "In the row scratch: Your margin 0.04996 is the standard error",
            table(margin=good["margin"] / 1.96),
        ),
        ("is the whole width", table(margin=2 * good["margin"])),
        (
            "In the row frozen 14,715,201 numbers learn, expected 513",
            table(**{"numbers that learn": 14_715_201}),
        ),
    ):
        asks_for(said, "comparison", sentence, wrong, *rest)


def test_separates(said):
    rows = [
        ("scratch", 150, 0.55, 0.52, 0.51),
        ("scratch", 150, 0.53, 0.50, 0.51),
        ("scratch, BatchNorm", 150, 0.95, 0.60, 0.58),
        ("scratch, BatchNorm", 150, 0.97, 0.62, 0.60),
        ("scratch, BatchNorm", 4000, 0.99, 0.95, 0.93),
        ("frozen", 150, 0.95, 0.9, 0.89),
    ]
    accuracies = ["training_accuracy", "validation_accuracy", "test_accuracy"]
    measured = pd.DataFrame(rows, columns=["method", "labels", *accuracies])
    assert said("separates", 0.42, 0.34, measured) == RIGHT
    assert said("separates", np.float64(0.4205), 0.3399, measured) == RIGHT
    for sentence, *wrong in (
        ("`optimisation` is -0.420: the sign", -0.42, 0.34),
        ("`data` is -0.340: the sign", 0.42, -0.34),
        ("`data` is in points", 0.42, 34),
        ("this question is about `training_accuracy`", 0.08, 0.34),
        ("this question is about `test_accuracy`", 0.42, 0.03),
        ("`data` is 0.930, expected 0.340", 0.42, 0.93),
        ("found a str", "0.42", 0.34),
    ):
        asks_for(said, "separates", sentence, *wrong, measured)


def test_chosen(said):
    model, scratch = model_of(frozen()), model_of(miniature(1))
    assert said("chosen", model, scratch) == "✓ Right.\n"
    assert said("chosen", None, scratch).startswith("Not answered yet")
    for sentence, wrong in (
        ("That is the network from scratch", scratch),
        ("'model' is a name", "model"),
        ("found a float", 0.93),
        ("is it the tail alone", split_at(model, "block5_conv1")[1]),
    ):
        asks_for(said, "chosen", sentence, wrong, scratch)
