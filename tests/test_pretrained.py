"""The shipped weights: whole, as their record says, and loadable in each of their three forms."""

import json
import shutil

import keras
import numpy as np
import pytest

from helpers import critters, pretrained
from helpers.hub_layer import HubLayer

NETWORK = "mobilenet_v2"


@pytest.fixture
def copied_weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(pretrained.FOLDER, folder)
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    pretrained.record.cache_clear()
    pretrained._checked.cache_clear()
    yield folder
    pretrained.record.cache_clear()
    pretrained._checked.cache_clear()


def backbone():
    return keras.applications.MobileNetV2(
        include_top=False, weights=pretrained.weights(NETWORK), input_shape=(96, 96, 3)
    )


def test_record_covers_every_file():
    record = pretrained.record(NETWORK)
    files = {p.relative_to(pretrained.FOLDER).as_posix() for p in pretrained.FOLDER.rglob("*")}
    shipped = {f for f in files if (pretrained.FOLDER / f).is_file() and not f.endswith(".json")}
    assert shipped == set(record["sha256"])


def test_record_matches_the_world():
    record = pretrained.record(NETWORK)
    assert record["species"] == sorted(critters.SOURCE)
    assert record["world_version"] == critters.VERSION
    assert record["source_accuracy"] >= 0.9
    assert record["pictures"]["test"] >= 2000


def test_weights_head_and_hub_module_agree():
    """Features of the h5 weights and of the hub module are the same; the head names the sources."""
    species = pretrained.record(NETWORK)["species"]
    pictures, labels = [], []
    for i in range(96):
        label = i % len(species)
        rng = np.random.default_rng([2024, i])
        pictures.append(np.asarray(critters.draw(species[label], rng, style="paint"), "float32"))
        labels.append(label)
    pictures = np.stack(pictures)

    features = backbone()(pictures / 127.5 - 1).numpy().mean(axis=(1, 2))
    from_hub = HubLayer(pretrained.hub_module(NETWORK))(pictures / 255).numpy()
    np.testing.assert_allclose(from_hub, features, rtol=1e-3, atol=1e-3)

    head = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(len(species))])
    head.load_weights(pretrained.source_head(NETWORK))
    answers = head(features).numpy().argmax(1)
    assert np.mean(answers == labels) > 0.8


def test_weights_are_half_precision():
    numbers = backbone().get_weights()
    assert all(np.array_equal(w, w.astype("float16").astype("float32")) for w in numbers)


def test_damaged_file_is_refused(copied_weights):
    path = copied_weights / f"{NETWORK}.weights.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged.*git .* checkout"):
        pretrained.weights(NETWORK)


def test_missing_file_is_named(copied_weights):
    (copied_weights / f"{NETWORK}_hub" / "saved_model.pb").unlink()
    with pytest.raises(FileNotFoundError, match="saved_model.pb is missing.*git .* checkout"):
        pretrained.hub_module(NETWORK)


def test_unknown_network_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match="no weights named 'resnet'; it has .*mobilenet_v2"):
        pretrained.weights("resnet")


def test_a_network_may_ship_without_a_hub_module(copied_weights):
    record = json.loads((copied_weights / f"{NETWORK}.json").read_text())
    record["sha256"] = {f: s for f, s in record["sha256"].items() if "hub" not in f}
    (copied_weights / f"{NETWORK}.json").write_text(json.dumps(record))
    with pytest.raises(FileNotFoundError, match="ships no mobilenet_v2_hub"):
        pretrained.hub_module(NETWORK)


def test_record_is_json_that_a_person_can_read():
    text = (pretrained.FOLDER / f"{NETWORK}.json").read_text()
    assert json.loads(text)["command"] == "python -m helpers.pretraining mobilenet_v2"
    assert len(text.splitlines()) > 20
