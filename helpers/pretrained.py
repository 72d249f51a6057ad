"""The weights that the course made itself and ships, each checked against its record before use."""

import functools
import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def weights(network):
    """Path of the no-top weights, for `keras.applications.…(weights=path, include_top=False)`.

    Raises FileNotFoundError for a missing file or network, ValueError for a damaged file.
    """
    return _checked(network, f"{network}.weights.h5")


def source_head(network):
    """Path of the weights of the source classifier: `Dense(24)` on the pooled features, logits in
    the order of `record(network)["species"]`."""
    return _checked(network, f"{network}_head.weights.h5")


def hub_module(network):
    """Folder of the TF2 hub module, for `HubLayer` or `hub.load`: pictures in 0..1 to features."""
    return _checked(network, f"{network}_hub")


@functools.cache
def record(network):
    """How the weights were made: species, seed, pictures, epochs, seconds, accuracy, SHA-256 …"""
    path = FOLDER / f"{network}.json"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
        raise FileNotFoundError(f"The course ships no weights named {network!r}; it has {known}.")
    return json.loads(path.read_text())


@functools.cache
def _checked(network, name):
    """Path of a file or folder, as text, after comparing it with the SHA-256 in the record."""
    known = record(network)["sha256"]
    files = [file for file in known if file == name or file.startswith(name + "/")]
    if not files:
        raise FileNotFoundError(f"The course ships no {name}.")
    cure = f'get it back by `git -C "{FOLDER.parents[1]}" checkout helpers/weights`.'
    for file in files:
        path = FOLDER / file
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: {cure}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != known[file]:
            raise ValueError(f"{path} is damaged: {cure}")
    return str(FOLDER / name)
