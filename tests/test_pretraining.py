"""Pre-training in miniature: it can be interrupted, goes on, and writes files that load."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from helpers import pretraining
from helpers.hub_layer import HubLayer


def epochs_logged(work):
    (log,) = work.glob("*/32px.csv")
    return list(pd.read_csv(log)["epoch"])


def test_numbers_beyond_half_precision_are_refused():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[1 / 3]])
    pretraining._round_to_half_precision(model)
    assert model.layers[0].kernel.numpy().item() == np.float16(1 / 3)
    model.layers[0].kernel.assign([[1e5]])
    with pytest.raises(ValueError, match="kernel has values that do not fit half precision"):
        pretraining._round_to_half_precision(model)


@pytest.mark.slow
@pytest.mark.parametrize("network, size", [("mobilenet_v2", 96), ("vgg16", 64)])
def test_interrupted_pretraining_goes_on_and_writes_loadable_files(
    network, size, tmp_path, monkeypatch
):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretraining, "COUNTS", {"train": 48, "validation": 24, "test": 24})
    monkeypatch.setattr(pretraining, "PHASES", {network: ((32, 2, 1e-3),)})
    monkeypatch.setattr(pretraining, "BATCH", 8)
    work, output = tmp_path / "work", tmp_path / "weights"

    class Interrupted(pretraining._Seconds):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "_Seconds", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(network, output, work)
    assert not output.exists(), "nothing half-finished is written"
    assert epochs_logged(work) == [0]

    pretraining.pretrain(network, output, work)
    assert epochs_logged(work) == [0, 1], "the first epoch is not redone"
    record = json.loads((output / f"{network}.json").read_text())
    assert len(record["validation_accuracy_by_epoch"]) == 2
    files = {f"{network}.weights.h5", f"{network}_head.weights.h5"}
    if network == "mobilenet_v2":
        files.add("mobilenet_v2_hub")
    assert {f.split("/")[0] for f in record["sha256"]} == files

    pretraining.pretrain(network, output, work)
    assert epochs_logged(work) == [0, 1], "nothing is left to train"

    build = {
        "mobilenet_v2": keras.applications.MobileNetV2,
        "vgg16": keras.applications.VGG16,
    }[network]
    backbone = build(
        include_top=False,
        weights=output / f"{network}.weights.h5",
        input_shape=(size, size, 3),
    )
    if network == "mobilenet_v2":
        picture = np.random.default_rng(0).uniform(0, 1, (1, 96, 96, 3)).astype("float32")
        features = HubLayer(output / "mobilenet_v2_hub")(picture)
        expected = backbone(2 * picture - 1).numpy().mean(axis=(1, 2))
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
