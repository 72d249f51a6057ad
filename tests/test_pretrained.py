"""The shipped weights: whole, as their record says, and loadable in each of their three forms."""

import json
import shutil

import keras
import numpy as np
import pytest

from helpers import critters, pretrained
from helpers.hub_layer import HubLayer

NETWORKS = ("mobilenet_v2", "vgg16")
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


def backbone(network=NETWORK):
    build, size = {
        "mobilenet_v2": (keras.applications.MobileNetV2, 96),
        "vgg16": (keras.applications.VGG16, 64),
    }[network]
    return build(
        include_top=False, weights=pretrained.weights(network), input_shape=(size, size, 3)
    )


def test_the_records_cover_every_file():
    files = {p.relative_to(pretrained.FOLDER).as_posix() for p in pretrained.FOLDER.rglob("*")}
    shipped = {f for f in files if (pretrained.FOLDER / f).is_file() and not f.endswith(".json")}
    assert shipped == {f for network in NETWORKS for f in pretrained.record(network)["sha256"]}


@pytest.mark.parametrize("network, accuracy", [("mobilenet_v2", 0.9), ("vgg16", 0.92)])
def test_record_matches_the_world(network, accuracy):
    record = pretrained.record(network)
    assert record["species"] == sorted(critters.SOURCE)
    assert record["world_version"] == critters.VERSION
    assert record["source_accuracy"] >= accuracy
    assert record["pictures"]["test"] >= 2000


@pytest.fixture(scope="module")
def source_drawings():
    """96 pictures (96, 96, 96, 3) in 0..255 of the source species, and their labels."""
    labels = np.arange(96) % len(critters.SOURCE)
    pictures = [
        critters.draw(species, np.random.default_rng([2024, i]), style="paint")
        for i, species in enumerate(np.array(sorted(critters.SOURCE))[labels])
    ]
    return np.array(pictures, "float32"), labels


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_and_head_name_the_sources(network, source_drawings):
    pictures, labels = source_drawings
    body = backbone(network)
    small = keras.ops.image.resize(pictures, body.input_shape[1:3], antialias=True).numpy()
    prepared = getattr(keras.applications, network).preprocess_input(small)
    features = body(prepared).numpy().mean(axis=(1, 2))
    head = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(24)])
    head.load_weights(pretrained.source_head(network))
    assert np.mean(head(features).numpy().argmax(1) == labels) > 0.8


def test_weights_and_hub_module_agree(source_drawings):
    pictures = source_drawings[0][:8]
    features = backbone()(pictures / 127.5 - 1).numpy().mean(axis=(1, 2))
    from_hub = HubLayer(pretrained.hub_module(NETWORK))(pictures / 255).numpy()
    np.testing.assert_allclose(from_hub, features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_half_precision(network):
    numbers = backbone(network).get_weights()
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


@pytest.mark.parametrize("network", NETWORKS)
def test_record_is_json_that_a_person_can_read(network):
    text = (pretrained.FOLDER / f"{network}.json").read_text()
    assert json.loads(text)["command"] == f"python -m helpers.pretraining {network}"
    assert len(text.splitlines()) > 20
