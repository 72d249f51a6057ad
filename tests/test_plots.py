"""Plots put one described picture of a modest size into the notebook."""

import base64
import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import plots

matplotlib.use("agg")


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: content, description and kind."""
    images = []

    def display(data, raw, metadata):
        (kind,) = [k for k in data if k.startswith("image/")]
        assert metadata[kind]["alt"] == data["text/plain"]
        content = base64.b64decode(data[kind])
        images.append(SimpleNamespace(data=content, alt=data["text/plain"], kind=kind))

    monkeypatch.setattr(plots, "display", display)
    return images


def size_of(image):
    return Image.open(io.BytesIO(image.data)).size


def test_grid(shown):
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (10, 96, 96, 3))
    plots.grid(pictures, titles=list("abcdefghij"), right=[True, False] * 5, alt="Ten squares.")
    assert shown[0].alt == "Ten squares."
    width, height = size_of(shown[0])
    assert 700 < width < 1100 and 200 < height < 400
    assert len(shown[0].data) <= plots.LARGEST


def test_grid_frames_mistakes_in_red(shown):
    white = np.full((2, 32, 32, 3), 255.0)
    plots.grid(white, right=[True, False], alt="", columns=2)
    pixels = np.asarray(Image.open(io.BytesIO(shown[0].data)).convert("RGB")).astype(int)
    left, right = np.array_split(pixels, 2, axis=1)
    redness = [np.mean((half[..., 0] - half[..., 1]) > 60) for half in (left, right)]
    assert redness[0] == 0 and redness[1] > 0.01


@pytest.mark.parametrize(
    "pictures, sentence",
    [(np.zeros((0, 8, 8, 3)), "no pictures"), (np.full((1, 8, 8, 3), 0.5), "takes 0..255")],
)
def test_grid_refuses_what_it_would_show_wrongly(pictures, sentence):
    with pytest.raises(ValueError, match=sentence):
        plots.grid(pictures, alt="")


def test_curves_mark_each_phase(shown, monkeypatch):
    lines = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "axvline", lambda self, x, **k: lines.append(x), raising=True
    )
    first = SimpleNamespace(
        epoch=[0, 1], history={"accuracy": [0.5, 0.6], "val_accuracy": [0.4, 0.5]}
    )
    second = SimpleNamespace(
        epoch=[2, 3], history={"accuracy": [0.7, 0.8], "val_accuracy": [0.6, 0.7]}
    )
    plots.curves(first, second, metric="accuracy", alt="Curves.")
    assert lines == [2.5], "between the second and the third epoch, as people count"
    assert shown[0].alt == "Curves."


def test_bars(shown):
    plots.bars({"a": 0.5, "b": 0.9}, intervals={"a": 0.1, "b": 0.05}, chance=0.5, alt="Bars.")
    assert shown[0].alt == "Bars." and shown[0].kind == "image/png"
    assert len(shown[0].data) < 60_000


def test_no_figure_stays_open(shown):
    before = matplotlib.pyplot.get_fignums()
    plots.bars({"a": 0.5}, alt="")
    plots.show(label_curves(), alt="")
    assert matplotlib.pyplot.get_fignums() == before


def label_curves():
    methods = ["frozen", "scratch", "fine-tuned", "scratch, 40 epochs"]
    index = pd.MultiIndex.from_product([methods, [400, 10]])
    means = [0.9, 0.8, 0.6, 0.5, 0.95, 0.7, 0.8, 0.6]
    return plots.label_curves(pd.DataFrame({"mean": means, "interval": 0.01}, index))


def test_label_curves_have_a_line_a_method_over_labels_of_each_animal():
    (axis,) = label_curves().axes
    handles, labels = axis.get_legend_handles_labels()
    lines = dict(zip(labels, handles, strict=True))
    assert set(lines) == {"frozen", "scratch", "fine-tuned", "scratch, 40 epochs", "guessing"}
    x, y = lines["scratch"].lines[0].get_data()
    assert list(y) == [0.5, 0.6] and x[0] < 5 and list(axis.get_xticks()) == [5, 200]
