"""The checks of exercise 01: right, other right, plausible wrong and open answers."""

import keras
import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from helpers import pretrained
from helpers.checks import concepts as check

preprocess = keras.applications.mobilenet_v2.preprocess_input


@pytest.fixture(scope="module")
def pictures():
    return check.fresh_cousins(10, 96)[0]


def test_hints_name_no_code(hints):
    assert not [
        code
        for code in (
            "trainable = False",
            "stratify",
            "test_size",
            'activation="softmax"',
            "1 / kinds",
        )
        if code in hints
    ]


@pytest.mark.parametrize("name", ["split", "beats_chance"])
def test_the_solution_is_right(said, capsys, name):
    getattr(check, name).solution()
    scope = {"np": np}
    exec(capsys.readouterr().out, scope)
    assert said(name, scope[name]) == "✓ Right."


def test_under_grading_it_raises(monkeypatch, pictures):
    monkeypatch.setenv("COURSE_GRADING", "1")
    with pytest.raises(AssertionError, match="Not yet"):
        check.prepared(pictures, pictures)
    with pytest.raises(AssertionError, match="Not answered"):
        check.head(None)
    check.prepared(pictures / 127.5 - 1, pictures)


def test_fresh_cousins_are_new_each_time():
    (one, labels), (two, _) = check.fresh_cousins(5, 32), check.fresh_cousins(5, 32)
    assert one.shape == (5, 32, 32, 3) and one.max() > 2 and list(labels) == [0, 1, 2, 3, 4]
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    "right",
    [
        lambda x: preprocess(x.copy()),
        lambda x: x / 127.5 - 1,
        lambda x: keras.layers.Rescaling(1 / 127.5, offset=-1)(x),
        lambda x: preprocess(keras.ops.convert_to_tensor(x)),
    ],
)
def test_prepared(said, pictures, right):
    assert said("prepared", right(pictures), pictures) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda x: x, "they are as they were"),
        (lambda x: x / 255, "between 0 and 1: a hub module wants that"),
        (lambda x: preprocess(preprocess(x.copy())), "done twice"),
        (lambda x: preprocess(x / 255), "divided first"),
        (lambda x: preprocess(x.copy()) / 255, "divided once more"),
        (lambda x: keras.applications.vgg16.preprocess_input(x.copy()), "how VGG16 wants them"),
        (lambda x: preprocess(x[:1].copy()), "shape (10, 96, 96, 3), yours have (1, 96, 96, 3)"),
        (lambda x: x / 127.5, "0 becomes 0 and 255 becomes 2"),
        (lambda x: "prepared", "yours have ()"),
    ],
)
def test_prepared_wrongly(said, pictures, wrong, sentence):
    text = said("prepared", wrong(pictures), pictures)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_prepared_over_the_originals(said, pictures):
    mine = pictures.copy()
    assert "`pictures` itself holds −1 to 1 now" in said("prepared", preprocess(mine), mine)


@pytest.fixture(scope="module")
def backbone():
    backbone = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), include_top=False, weights=pretrained.weights("mobilenet_v2")
    )
    backbone.trainable = False
    return backbone


@pytest.fixture(scope="module")
def random_backbone():
    backbone = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), include_top=False, weights=None
    )
    backbone.trainable = False
    return backbone


def stack(*layers):
    return keras.Sequential([keras.Input((96, 96, 3)), *layers])


def average():
    return keras.layers.GlobalAveragePooling2D()


def functional(backbone):
    inputs = keras.Input((96, 96, 3))
    return keras.Model(inputs, average()(backbone(inputs, training=False)))


@pytest.mark.parametrize(
    "right", [lambda b: stack(b, average()), functional, lambda b: check._pretrained()]
)
def test_extractor(said, pictures, backbone, right):
    assert said("extractor", right(backbone), preprocess(pictures.copy())) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda b, r: stack(r, average()), "are its numbers still random?"),
        (lambda b, r: stack(b), "becomes (3, 3, 1280): the average over the places is missing"),
        (lambda b, r: stack(b, keras.layers.Flatten()), "11,520: are the places averaged"),
        (lambda b, r: stack(b, average(), keras.layers.Dense(5)), "becomes 5: is an old or a new"),
        (
            lambda b, r: stack(keras.layers.Rescaling(1 / 127.5, offset=-1), b, average()),
            "that would be done twice",
        ),
        (lambda b, r: stack(b, average()).predict(np.zeros((1, 96, 96, 3))), "is a ndarray"),
    ],
)
def test_extractor_wrongly(said, pictures, backbone, random_backbone, wrong, sentence):
    answer = wrong(backbone, random_backbone)
    text = said("extractor", answer, preprocess(pictures.copy()))
    assert text.startswith("✗ Not yet.") and sentence in text


def test_extractor_not_frozen(said, pictures, random_backbone):
    random_backbone.trainable = True
    text = said("extractor", stack(random_backbone, average()), preprocess(pictures.copy()))
    random_backbone.trainable = False
    assert "2,223,872 numbers of your extractor can" in text


def by_hand(features, labels):
    order = np.random.default_rng(0).permutation(len(labels))
    cut = len(labels) * 4 // 5
    return features[order[:cut]], features[order[cut:]], labels[order[:cut]], labels[order[cut:]]


def separately(x, y):
    return *train_test_split(x, test_size=0.2), *train_test_split(y, test_size=0.2)


def overlapping(x, y):
    x_train, _, y_train, _ = train_test_split(x, y, test_size=0.2, random_state=0)
    return x_train, x_train[:60], y_train, y_train[:60]


@pytest.mark.parametrize(
    "right",
    [
        lambda x, y: train_test_split(x, y, test_size=0.2, random_state=0, stratify=y),
        lambda x, y: train_test_split(x, y, train_size=0.8, random_state=42),
        by_hand,
    ],
)
def test_split(said, right):
    assert said("split", right) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (separately, "features lost their own label"),
        (overlapping, "60 drawings are in both parts"),
        (lambda x, y: (x[:240], x[240:], y[:240], y[240:]), "4 of the five kinds are missing"),
        (lambda x, y: train_test_split(x, y, test_size=0.2, shuffle=False), "kinds are missing"),
        (lambda x, y: train_test_split(x, y, test_size=0.2), "Called twice"),
        (lambda x, y: train_test_split(x, y, test_size=0.8, random_state=0), "Swap the shares"),
        (lambda x, y: train_test_split(x, y, random_state=0), "split into 225 and 75"),
        (lambda x, y: [by_hand(x, y)[i] for i in (0, 2, 1, 3)], "come in another order"),
        (lambda x, y: by_hand(2 * x, y), "not among the features that went in"),
        (lambda x, y: train_test_split(x, test_size=0.2), "it returned 2"),
        (lambda x, y: None, "does it end with `return`?"),
        (lambda: None, "stops the check with TypeError"),
        (7, "it is a int"),
    ],
)
def test_split_wrongly(said, wrong, sentence):
    text = said("split", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text


def new_head(*layers, loss="sparse_categorical_crossentropy", inputs=1280):
    head = keras.Sequential([keras.Input((inputs,)), *layers])
    if loss:
        head.compile(optimizer="adam", loss=loss)
    return head


def dense(units, activation=None):
    return keras.layers.Dense(units, activation=activation)


ON_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    "layers, loss",
    [
        ([dense(128, "relu"), dense(5, "softmax")], "sparse_categorical_crossentropy"),
        ([dense(5, "softmax")], keras.losses.SparseCategoricalCrossentropy()),
        ([dense(5), keras.layers.Softmax()], "sparse_categorical_crossentropy"),
        ([dense(64, "relu"), keras.layers.Dropout(0.5), dense(5)], ON_LOGITS),
        (
            [keras.layers.Dense(5, "softmax", kernel_regularizer="l2")],
            "sparse_categorical_crossentropy",
        ),
    ],
)
def test_head(said, layers, loss):
    assert said("head", new_head(*layers, loss=loss)) == "✓ Right."


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: new_head(dense(1, "sigmoid"), loss="binary_crossentropy"), "Five kinds need one"),
        (lambda: new_head(dense(1)), "yours gets 1: one output can say yes or no"),
        (lambda: new_head(dense(20, "softmax")), "yours gets 20: these were the kinds of the old"),
        (lambda: new_head(dense(4, "softmax")), "yours gets 4: count the kinds"),
        (lambda: new_head(dense(5, "softmax"), loss=ON_LOGITS), "softmax would be applied twice"),
        (lambda: new_head(dense(5)), "takes them for shares"),
        (lambda: new_head(dense(5, "sigmoid")), "five separate yes-or-no answers"),
        (lambda: new_head(dense(5, "relu")), "never negative"),
        (lambda: new_head(dense(5, "softmax"), loss="mse"), "(mse) does not compare five"),
        (
            lambda: new_head(dense(5, "softmax"), loss="categorical_crossentropy"),
            "(categorical_crossentropy) does not compare five outputs",
        ),
        (lambda: new_head(dense(5, "softmax"), loss=None), "not compiled"),
        (lambda: new_head(dense(5, "softmax"), inputs=24), "must take 1,280 features"),
        (lambda: dense(5), "yours is a Dense"),
    ],
)
def test_head_wrongly(said, wrong, sentence):
    text = said("head", wrong())
    assert text.startswith("✗ Not yet.") and sentence in text


class Extractor:
    """Noisy features (1280,) that tell five kinds apart, in place of a slow network."""

    directions = np.random.default_rng(0).normal(size=(5, 1280))

    def predict(self, labels, verbose):
        labels = np.round(labels).astype(int)
        rng = np.random.default_rng(len(labels))
        noise = 3.4 * rng.normal(size=(len(labels), 1280))
        lost = rng.random(len(labels)) < 0.15  # drawn so badly that nobody knows
        shown = np.where(lost, rng.integers(0, 5, len(labels)), labels)
        return (self.directions[shown] + noise).astype("float32")


@pytest.fixture
def task_5(monkeypatch):
    """Features and labels of a training and a test part; the 'drawings' are their labels."""
    labels = np.arange(5 * 60) % 5

    def drawings(count, size):
        labels = np.arange(count) % 5
        return (labels + 1) * 127.5, labels  # what comes out of "prepared" is the label again

    monkeypatch.setattr(check, "fresh_cousins", drawings)
    keras.utils.set_random_seed(0)
    return train_test_split(Extractor().predict(labels, 0), labels, test_size=0.2, random_state=0)


@pytest.mark.parametrize(
    "layers, loss",
    [([dense(5, "softmax")], "sparse_categorical_crossentropy"), ([dense(5)], ON_LOGITS)],
)
def test_trained_head(said, task_5, layers, loss):
    f_train, f_test, y_train, y_test = task_5
    head = new_head(*layers, loss=loss)
    history = head.fit(f_train, y_train, epochs=10, verbose=0)
    assert said("trained_head", history, head, Extractor(), f_test, y_test) == "✓ Right."


def untrained(head, f_train, f_test, y_train, y_test):
    return head.evaluate(f_train, y_train, verbose=0)


def one_step(head, f_train, f_test, y_train, y_test):
    head.optimizer.learning_rate = 1e-6
    return head.fit(f_train, y_train, epochs=2, verbose=0)


def shuffled(head, f_train, f_test, y_train, y_test):
    mixed = np.random.default_rng(0).permutation(y_train)
    return head.fit(f_train, mixed, epochs=20, verbose=0)


def on_everything(head, f_train, f_test, y_train, y_test):
    everything = np.concatenate([f_train, f_test]), np.concatenate([y_train, y_test])
    return head.fit(*everything, epochs=40, verbose=0)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (untrained, "has hardly learnt yet"),
        (one_step, "has hardly learnt yet"),
        (shuffled, "do these features and these labels belong together"),
        (on_everything, "Did the head learn from the test part, too?"),
    ],
)
def test_trained_head_wrongly(said, task_5, wrong, sentence):
    head = new_head(dense(5, "softmax"))
    history = wrong(head, *task_5)
    text = said("trained_head", history, head, Extractor(), task_5[1], task_5[3])
    assert text.startswith("✗ Not yet.") and sentence in text


def with_the_margin_of_the_accuracy(right, n, kinds):
    accuracy = right / n
    return accuracy - 1 / kinds > 2 * (accuracy * (1 - accuracy) / n) ** 0.5


@pytest.mark.parametrize(
    "right",
    [
        lambda r, n, k: r / n > 1 / k + 1.96 * np.sqrt(1 / k * (1 - 1 / k) / n),
        lambda r, n, k: int(r / n - 1 / k > 2 * (1 / k * (1 - 1 / k) / n) ** 0.5),
        with_the_margin_of_the_accuracy,
    ],
)
def test_beats_chance(said, right):
    for _ in range(30):  # it draws its own cases
        assert said("beats_chance", right) == "✓ Right."


def margin(p, n):
    return 1.96 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda r, n, k: r / n > 1 / k, "6 of 20 right among 5 kinds is 0.300; you said True"),
        (lambda r, n, k: r / n > 0.2 + margin(0.2, n), "depend on the number of kinds?"),
        (lambda r, n, k: r / n > 0.5 + margin(0.5, n), "300 of 1000 right"),
        (lambda r, n, k: abs(r / n - 1 / k) > margin(1 / k, n), "on the wrong side"),
        (lambda r, n, k: r / n > 1 / k + 0.05, "6 of 20 right"),
        (lambda r, n, k: r / n > 1 / k + 0.2, "300 of 1000 right"),
        (lambda r, n, k: r / n > 1 / k + margin(1 / k, 20), "300 of 1000 right"),
        (lambda r, n, k: r / n > 1 / k + margin(1 / k, 400), "6 of 20 right"),
        (lambda r, n, k: r / n > 1 / k + (0.06 if n > 50 else 0.2), "depend on the number of p"),
        (lambda r, n, k: True, "you said True"),
        (lambda r, n, k: False, "you said False"),
        (lambda r, n, k: r / n, "it returned 0.3"),
        (lambda r, n, k: None, "does it end with `return`?"),
        (True, "it is a bool"),
    ],
)
def test_beats_chance_wrongly(said, wrong, sentence):
    text = said("beats_chance", wrong)
    assert text.startswith("✗ Not yet.") and sentence in text
