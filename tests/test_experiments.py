import dataclasses
import io
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from helpers import experiments, pretrained, small_cnn
from helpers.experiments import Settings


@pytest.fixture(scope="module")
def model():
    return experiments._model(Settings("mobilenet_v2", "scratch"))


def test_unfreeze_leaves_early_layers_and_batch_norm_alone(model):
    experiments._unfreeze(model, "block_13_expand")
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    trainable = [layer.name for layer in backbone.layers if layer.trainable]
    assert trainable[0] == "block_13_expand"
    assert not any(layer.trainable for layer in experiments._batch_norms(model))
    assert len(experiments._batch_norms(model)) == 52


def test_recalibration_moves_statistics_and_nothing_else(model):
    rng = np.random.default_rng(0)
    data = [(rng.uniform(0, 255, (4, 96, 96, 3)).astype("float32"), None)]
    for layer in experiments._batch_norms(model):
        layer.trainable = True
    before = {w.path: w.numpy() for w in model.weights}
    experiments.Recalibration(model, data).on_test_begin()
    moved = {w.path for w in model.weights if not np.array_equal(before[w.path], w.numpy())}
    assert len(moved) > 100 and all("moving_" in path for path in moved)


def test_frozen_run_learns_only_the_head(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(experiments, "TEST", 40)
    row = experiments.run(Settings("mobilenet_v2", "frozen", labels=20))
    assert row["trainable_parameters"] == 1281
    assert 0 <= row["test_accuracy"] <= 1 and math.isnan(row["validation_accuracy"])
    assert row["labels"] == 20 and row["method"] == "frozen"
    assert row["processor_seconds"] > 0 and 100 < row["peak_memory"] < 20_000


def test_transplanted_blocks_are_the_pre_trained_ones_and_stay():
    model = experiments._model(Settings("mobilenet_v2", "transplanted", unfreeze_from="Conv_1"))
    backbone = experiments._backbone(model)
    shipped = keras.applications.MobileNetV2(
        include_top=False, weights=pretrained.weights("mobilenet_v2"), input_shape=(96, 96, 3)
    )
    same = [
        all(map(np.array_equal, one.get_weights(), other.get_weights()))
        for one, other in zip(backbone.layers, shipped.layers, strict=True)
    ]
    names = [layer.name for layer in backbone.layers]
    assert [n for n, s in zip(names, same, strict=True) if not s] == ["Conv_1", "Conv_1_bn"]
    learning = {layer.name for layer in backbone.layers if layer.trainable_weights}
    assert learning == {"Conv_1", "Conv_1_bn"}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A tiny network in place of the large ones; gives each model made, with its first weights."""
    made = []

    def build(settings):
        layers = keras.layers
        backbone = keras.Sequential(
            [
                keras.Input((64, 64, 3)),
                layers.Rescaling(1 / 127.5, -1),
                layers.Conv2D(4, 3, strides=8, name="early"),
                layers.BatchNormalization(name="norm"),
                layers.Conv2D(4, 3, name="late"),
            ]
        )
        backbone.trainable = settings.method == "scratch"
        if settings.method == "transplanted":
            for layer in backbone.layers[-2:]:
                layer.trainable = True
        inputs = keras.Input((64, 64, 3))
        features = layers.GlobalAveragePooling2D()(backbone(inputs))
        model = keras.Model(inputs, layers.Dense(1, name="head")(features))
        made.append((model, {w.path: w.numpy() for w in model.weights}))
        return model

    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(experiments, "TEST", 20)
    monkeypatch.setattr(experiments, "_model", build)
    return made


@pytest.mark.parametrize("validation", [0, 20])
@pytest.mark.parametrize(
    "method, augment, expected",
    [
        ("scratch", True, {"early", "norm", "late", "head"}),
        ("frozen", True, {"head"}),
        ("transplanted", False, {"norm", "late", "head"}),
        ("fine-tuned", True, {"late", "head"}),
        ("fine-tuned", False, {"late", "head"}),
    ],
)
def test_what_each_method_moves(small, method, augment, expected, validation):
    first = "norm" if method == "transplanted" else "late"
    options = {"unfreeze_from": first, "epochs": 3, "learning_rate": 1e-2, "augment": augment}
    experiments.run(Settings("vgg16", method, labels=20, validation=validation, **options))
    model, before = small[0]
    moved = {
        w.path.split("/")[-2]
        for w in model.weights
        if not np.array_equal(before[w.path], w.numpy())
    }
    assert moved == expected


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'finetuned'.*'fine-tuned'"):
        experiments.run(Settings("vgg16", "finetuned"))
    with pytest.raises(ValueError, match="'vgg19'.*'vgg16'"):
        experiments.run(Settings("vgg19", "frozen"))


def row(settings):
    return dataclasses.asdict(settings) | {"test_accuracy": 0.9, "processor_seconds": 1}


def test_rows_that_nobody_asks_for_go(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(experiments, "_measure", lambda runs, run: map(row, runs))
    old, new, newest = (Settings("vgg16", "frozen", seed=s) for s in range(3))
    experiments.measured("some", [old, new])
    assert list(experiments.measured("some", [newest, new])["seed"]) == [2, 1]
    assert list(experiments.measured("some")["seed"]) == [2, 1]


def test_rows_of_older_code_are_measured_again(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    pd.DataFrame({"method": ["frozen"], "test_accuracy": [0.1]}).to_csv(tmp_path / "some.csv")
    monkeypatch.setattr(experiments, "_measure", lambda runs, run: map(row, runs))
    assert list(experiments.measured("some")["test_accuracy"]) == [0.1], "it can be read"
    table = experiments.measured("some", [Settings("vgg16", "frozen")])
    assert list(table["test_accuracy"]) == [0.9]


def test_measured_goes_on_where_it_stopped(monkeypatch, tmp_path):
    runs = [Settings("vgg16", "frozen", seed=s) for s in range(3)]
    done = []

    def measure(missing, run):
        for settings in missing:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(settings)
            yield row(settings)

    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(experiments, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        experiments.measured("some", runs)
    assert len(pd.read_csv(tmp_path / "some.csv")) == 2
    done.clear()
    assert len(experiments.measured("some", runs)) == 3
    assert done == [runs[2]], "only what was missing is measured"


@pytest.mark.slow  # draws 4,000 pictures
def test_each_run_has_a_process_and_a_thread_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    runs = [Settings("vgg16", "frozen", labels=2 * n, epochs=1, seed=n) for n in (1, 2)]
    rows = list(experiments._measure(runs, experiments.run))
    assert sorted(row["labels"] for row in rows) == [2, 4]
    again = experiments.run(runs[0])
    (first,) = (row for row in rows if row["labels"] == 2)
    assert abs(again["test_accuracy"] - first["test_accuracy"]) < 0.01, "the seed decides"


def test_summary_gives_students_t_interval():
    table = pd.DataFrame({"method": ["frozen"] * 3, "test_accuracy": [0.88, 0.90, 0.92]})
    row = experiments.summary(table).loc["frozen"]
    assert math.isclose(row["mean"], 0.90)
    assert math.isclose(row["interval"], 4.3027 * 0.02 / math.sqrt(3), rel_tol=1e-4)


def test_summary_by_several_columns():
    table = pd.DataFrame({"method": ["frozen"] * 4, "labels": [10, 10, 20, 20]})
    table["test_accuracy"] = [0.5, 0.7, 0.9, 0.9]
    rows = experiments.summary(table, ["labels", "method"])
    assert rows.loc[(10, "frozen"), "mean"] == pytest.approx(0.6)
    assert rows.loc[(20, "frozen"), "interval"] == pytest.approx(0)


def test_few_labels_get_more_epochs_for_as_many_steps():
    assert [experiments._epochs(n) for n in (10, 40, 100, 400)] == [60, 30, 15, 10]
    assert [experiments._head_epochs(n) for n in (10, 150, 400)] == [300, 60, 60]


@pytest.mark.parametrize("module", [experiments, small_cnn])
def test_the_stored_tables_lack_nothing(monkeypatch, tmp_path, module):
    before = {path.name: path.read_bytes() for path in experiments.RESULTS.glob("*.csv")}
    results = Path(shutil.copytree(experiments.RESULTS, tmp_path / "results"))
    monkeypatch.setattr(experiments, "RESULTS", results)
    asked = []
    monkeypatch.setattr(experiments, "_measure", lambda runs, run: asked.extend(runs) or ())
    module.main()
    assert asked == []
    for path in results.glob("*.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(io.BytesIO(before[path.name])))
