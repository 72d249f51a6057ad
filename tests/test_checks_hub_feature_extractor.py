"""The checks of exercise 02: right, other right, plausible wrong and open answers."""

import keras
import numpy as np
import pytest

from helpers.checks import hub_feature_extractor as check
from helpers.hub_layer import HubLayer, save_module

pytestmark = pytest.mark.filterwarnings(  # wrong answers on purpose
    "ignore:You are using a softmax", "ignore:__array__ implementation"
)
ON_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in ("255", "trainable", "from_logits", "threshold", "> 0", "len(", "1e-5")
        if code in hints
    ]


@pytest.mark.parametrize("name", ["prepare", "compile_with", "accuracy", "count_moved"])
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    scope = {"np": np, "keras": keras}
    exec(capsys.readouterr().out, scope)
    assert said(name, scope[name]) == "✓ Right."


def test_under_grading_it_raises(monkeypatch):
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not yet"):
        check.prepare(lambda x, y: (x, y))
    with pytest.raises(AssertionError, match="Not answered"):
        check.continued(None, None, None)
    check.prepare(lambda x, y: (x / 255, y))


@pytest.mark.parametrize(
    "right",
    [
        lambda x, y: (x / 255, y),
        lambda x, y: (keras.layers.Rescaling(1 / 255)(x), y),
        lambda x, y: (0.00392157 * x, y),
    ],
)
def test_prepare(said, right):
    assert said("prepare", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda x, y: (x, y), "between 0 and 255: they are as they were"),
        (lambda x, y: (x / 127.5 - 1, y), "between −1 and 1: keras.applications wants that"),
        (lambda x, y: (x / 255 / 255, y), "divided twice"),
        (lambda x, y: (x // 255, y), "Keep the fractions"),
        (lambda x, y: (1 - x / 255, y), "have changed places"),
        (lambda x, y: (x / 127.5, y), "yours become 0 and 2"),
        (lambda x, y: x / 255, "`return pictures, labels`"),
        (lambda x, y: (y, x / 255), "pictures first"),
        (lambda x, y: (x / 255, y / 255), "Labels and shapes go out as they came"),
        (lambda x, y: (np.array(x) / 255, y), "`map` cannot use your function"),
        (lambda x, y: None, "does it end with `return`?"),
        (lambda x: x / 255, "stops the check with TypeError"),
        (255, "it is a int"),
    ],
)
def test_prepare_wrongly(said, wrong, sentence):
    text = said("prepare", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text


@pytest.fixture(scope="module")
def handle(tmp_path_factory):
    """A module in miniature: 16 pixels, 4 features, 5 variables."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Activation("relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    folder = tmp_path_factory.mktemp("modules") / "small"
    save_module(network, folder)
    return folder


def stack(*layers):
    return keras.Sequential([keras.Input((16, 16, 3)), *layers])


def functional(handle):
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.layers.Dense(1)(HubLayer(handle)(inputs)))


def frozen_later(handle):
    model = stack(HubLayer(handle, trainable=True), keras.layers.Dense(1))
    model.layers[0].trainable = False
    return model


def small(handle):
    """A right one whose logits all lie between 0 and 1."""
    model = stack(HubLayer(handle), keras.layers.Dense(1))
    model.layers[-1].set_weights([np.full((4, 1), 1e-3), np.array([0.5])])
    return model


def two_layers(handle):
    hidden = keras.layers.Dense(8, activation="relu")
    return stack(HubLayer(handle), hidden, keras.layers.Dropout(0.2), keras.layers.Dense(1))


@pytest.mark.parametrize("right", [small, functional, frozen_later, two_layers])
def test_model(said, handle, right):
    model = right(handle)
    before = model.get_weights()
    assert said("model", model) == "✓ Right."
    assert all(map(np.array_equal, before, model.get_weights())), "the check must change nothing"


def dense(units=1, activation=None):
    return keras.layers.Dense(units, activation=activation)


def all_frozen(handle):
    model = stack(HubLayer(handle), dense())
    model.trainable = False
    return model


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda h: stack(HubLayer(h, trainable=True), dense()), "3 variables of the module can"),
        (lambda h: stack(HubLayer(h), dense(1, "sigmoid")), "these are probabilities"),
        (
            lambda h: stack(HubLayer(h), dense(), keras.layers.Activation("sigmoid")),
            "these are probabilities",
        ),
        (lambda h: stack(HubLayer(h), dense(1, "softmax")), "Every drawing gets exactly 1"),
        (lambda h: stack(HubLayer(h), dense(2)), "yours gets 2: cat or dog is one question"),
        (lambda h: stack(HubLayer(h), dense(3)), "yours gets 3: one is enough"),
        (lambda h: stack(HubLayer(h)), "The head is missing"),
        (
            lambda h: stack(keras.layers.Rescaling(1 / 255), HubLayer(h), dense()),
            "it rescales them itself",
        ),
        (all_frozen, "Nothing in the model can learn"),
        (lambda h: stack(keras.layers.GlobalAveragePooling2D(), dense()), "yours holds 0"),
        (lambda h: HubLayer(h), "yours is a HubLayer"),
    ],
)
def test_model_wrongly(said, handle, wrong, sentence):
    text = said("model", wrong(handle))
    assert text.startswith("✗ Not yet.") and sentence in text


def at(threshold, name="accuracy"):
    return keras.metrics.BinaryAccuracy(threshold=threshold, name=name)


ON_SIGN = at(0.0)


def compiling(loss=ON_LOGITS, metrics=(ON_SIGN,), optimizer=keras.optimizers.Adam):
    def compile_with(model, learning_rate):
        again = [
            m if isinstance(m, str) else m.__class__.from_config(m.get_config()) for m in metrics
        ]
        model.compile(optimizer=optimizer(learning_rate), loss=loss, metrics=again)

    return compile_with


class SignAccuracy(keras.metrics.MeanMetricWrapper):
    """The same written otherwise."""

    def __init__(self, name="accuracy"):
        def right(y, logits):
            return keras.ops.equal(keras.ops.sigmoid(logits) > 0.5, y > 0.5)

        super().__init__(right, name=name)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "right",
    [
        compiling(),
        compiling(optimizer=keras.optimizers.SGD, metrics=(SignAccuracy(), keras.metrics.AUC())),
        compiling(metrics=(at(0), keras.metrics.AUC(from_logits=True))),
    ],
)
def test_compile_with(said, right):
    assert said("compile_with", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (compiling(loss="binary_crossentropy"), "It takes the logit for a probability"),
        (compiling(loss="mse"), "Look at the loss in lesson 02"),
        (compiling(metrics=("accuracy",)), "'accuracy' says 0.625. It cuts at 0.5"),
        (compiling(metrics=("binary_accuracy",)), "'binary_accuracy' says 0.625. It cuts at 0.5"),
        (compiling(metrics=(at(0.5),)), "It cuts at 0.5"),
        (compiling(metrics=()), "There is no metric"),
        (compiling(metrics=(at(0.0, "right"),)), "its name is 'right'"),
        (compiling(optimizer=lambda rate: "adam"), "asked for a learning rate of 0.002"),
        (lambda model, learning_rate: None, "it was not compiled afterwards"),
        (lambda learning_rate: None, "stops the check with TypeError"),
        (1e-3, "it is a float"),
    ],
)
def test_compile_with_wrongly(said, wrong, sentence):
    text = said("compile_with", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text


@pytest.mark.parametrize(
    "right",
    [
        lambda logits, labels: np.mean((logits[:, 0] > 0) == labels),
        lambda logits, labels: np.mean((logits > 0) == labels[:, None]),
        lambda logits, labels: float(
            keras.ops.mean(keras.ops.sigmoid(logits)[:, 0].numpy().round() == labels)
        ),
        lambda logits, labels: at(0.0)(labels[:, None], logits),
    ],
)
def test_accuracy(said, right):
    for _ in range(5):  # it draws its own logits
        assert said("accuracy", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda logits, labels: np.mean((logits[:, 0] > 0.5) == labels), "It cuts at 0.5"),
        (lambda logits, labels: np.mean((logits > 0) == labels), "with every label"),
        (lambda logits, labels: np.sum((logits[:, 0] > 0) == labels), "Which share is it?"),
        (lambda logits, labels: np.mean((logits[:, 0] > 0) != labels), "share of mistakes"),
        (
            lambda logits, labels: np.mean((1 / (1 + np.exp(-logits[:, 0])) > 0) == labels),
            "if all are named dog",
        ),
        (lambda logits, labels: np.mean(logits.argmax(1) == labels), "if all are named cat"),
        (lambda logits, labels: (logits[:, 0] > 0) == labels, "your function returned 20"),
        (lambda logits, labels: 0.9, "you got 0.9"),
        (lambda logits, labels: None, "does it end with `return`?"),
        (0.9, "it is a float"),
    ],
)
def test_accuracy_wrongly(said, wrong, sentence):
    for _ in range(5):
        text = said("accuracy", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text


PICTURES = np.random.default_rng(2).random((8, 16, 16, 3), "float32")
LABELS = (PICTURES[..., 0].mean((1, 2)) > np.median(PICTURES[..., 0].mean((1, 2))))[:, None] * 1.0
compile_with = compiling()


def trained(handle, eagerly):
    """A model that has been trained for three epochs, what `fit` returned, and its head."""
    model = stack(HubLayer(handle), dense())
    compile_with(model, 1e-3)
    model.run_eagerly = eagerly
    history = model.fit(PICTURES, LABELS, epochs=3, verbose=0)
    return model, history, check.head_weights(model)


@pytest.fixture
def phase_1(handle):
    return trained(handle, eagerly=True)  # no time is spent on tracing


@pytest.fixture
def traced_phase_1(handle):
    return trained(handle, eagerly=False)  # as students have it


def fit(model, **epochs):
    return model.fit(PICTURES, LABELS, verbose=0, **epochs)


def set_free(model, rate=1e-5):
    model.layers[0].trainable = True
    compile_with(model, rate)
    model.run_eagerly = True
    return model


def all_of_it(model):
    for layer in model.layers:
        layer.trainable = True
    compile_with(model, 2e-5)
    return model


def compiled_first(model):
    compile_with(model, 1e-5)
    model.layers[0].trainable = True
    return model


@pytest.mark.parametrize("right", [set_free, all_of_it, compiled_first])
def test_unfrozen(said, traced_phase_1, right):
    model, _, head = traced_phase_1
    assert said("unfrozen", right(model), head) == "✓ Right."
    before = check.module_values(model)
    fit(model, epochs=1)
    still = all(map(np.array_equal, before, check.module_values(model)))
    assert not still, "what the check calls right must move"
    assert said("unfrozen", model, head) == "✓ Right.", "also when the cell is run again later"


def forgot_to_compile(model):
    model.layers[0].trainable = True
    return model


def still_frozen(model):
    compile_with(model, 1e-5)
    return model


def switched_the_model(model):
    model.trainable = True  # it was true already: Keras hands nothing on to the layers
    compile_with(model, 1e-5)
    return model


def new_model(model):
    return set_free(stack(HubLayer(model.layers[0].handle), dense()))


def not_compiled(model):
    return stack(HubLayer(model.layers[0].handle, trainable=True), dense())


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (forgot_to_compile, "has made 3 steps already"),
        (switched_the_model, "on the layer, not on the model"),
        (still_frozen, "0 of the module's 5 variables can move"),
        (lambda model: set_free(model, 1e-3), "The learning rate is 0.001. That is too high"),
        (lambda model: set_free(model, 0.0), "nothing will move"),
        (new_model, "not the one that phase 1 trained"),
        (not_compiled, "is not compiled"),
        (lambda model: set_free(model).layers[0], "yours is a HubLayer"),
        (lambda model: True, "yours is a bool"),
    ],
)
def test_unfrozen_wrongly(said, phase_1, wrong, sentence):
    model, _, head = phase_1
    text = said("unfrozen", wrong(model), head)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_forgetting_to_compile_moves_nothing(traced_phase_1):
    """The reason why the check insists; if this fails, Keras has changed and the check is idle."""
    model = forgot_to_compile(traced_phase_1[0])
    before = check.module_values(model)
    fit(model, epochs=1)
    assert all(map(np.array_equal, before, check.module_values(model)))


@pytest.mark.parametrize("epochs", [dict(epochs=5), dict(epochs=4)])
def test_continued(said, phase_1, epochs):
    model, history, _ = phase_1
    fine = fit(set_free(model, 1e-4), initial_epoch=3, **epochs)
    assert said("continued", fine, history, model) == "✓ Right."


@pytest.mark.parametrize(
    "epochs, sentence",
    [
        (dict(epochs=2), "yours is 0. The counting starts anew"),
        (dict(initial_epoch=2, epochs=4), "yours is 2. Epoch 2 is there twice"),
        (dict(initial_epoch=3, epochs=2), "Not one epoch was run"),
        (dict(initial_epoch=4, epochs=6), "yours is 4. Count those that were done"),
        (dict(initial_epoch=3, epochs=13), "10 epochs were run; two are enough"),
    ],
)
def test_continued_wrongly(said, phase_1, epochs, sentence):
    model, history, _ = phase_1
    text = said("continued", fit(set_free(model), **epochs), history, model)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_continued_without_the_module(said, traced_phase_1):
    model, history, _ = traced_phase_1
    fine = fit(forgot_to_compile(model), initial_epoch=3, epochs=5)
    assert "0 of the module's 5 variables moved" in said("continued", fine, history, model)
    assert "yours is a dict" in said("continued", fine.history, history, model)


def in_a_loop(before, after):
    count = np.int64(0)
    for old, new in zip(before, after, strict=True):
        count += (old != new).any()
    return count


@pytest.mark.parametrize(
    "right",
    [
        in_a_loop,
        lambda old, new: sum(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)),
        lambda old, new: sum(abs(a - b).max() > 0 for a, b in zip(old, new, strict=True)),
    ],
)
def test_count_moved(said, right):
    assert said("count_moved", right) == "✓ Right."


def counting(compare):
    return lambda old, new: sum(compare(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (counting(lambda a, b: not np.allclose(a, b)), "by a millionth: 3. You counted 2"),
        (counting(lambda a, b: np.sum(a != b)), "You counted 37. Count variables, not numbers"),
        (counting(np.array_equal), "Yours is how many stayed"),
        (counting(lambda a, b: a.sum() != b.sum()), "Compare number by number"),
        (counting(lambda a, b: a is not b), "You counted 9. Yours is how many stayed"),
        (counting(lambda a, b: (a != b).all()), "two moved, one of them in one number"),
        (lambda old, new: [not np.array_equal(*pair) for pair in zip(old, new)], "returned 9"),  # noqa: B905
        (lambda old, new: None, "does it end with `return`?"),
        (lambda old, new: old != new, "stops the check with ValueError"),
        (0, "it is a int"),
    ],
)
def test_count_moved_wrongly(said, wrong, sentence):
    for _ in range(5):  # it draws its own variables
        text = said("count_moved", wrong)
        assert text.startswith("✗ Not yet.") and sentence in text
