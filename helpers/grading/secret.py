"""The part of a grade that a submission cannot forge: names for pictures of a secret seed.

For every run the instructor's seed draws pictures, without labels for the sandboxed kernel, which
lets the submitted model answer (`helpers.checks.handing_in`). Here, outside, the answers are
compared with the labels. They are read as plain numbers: no pickle, no student's code.
"""

import dataclasses
import hashlib
import hmac
import io
import math

import numpy as np

from helpers import critters

MOST_BYTES = 2**20  # of a file with answers


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a notebook's model is asked. Accuracies are shares of right answers, 0 to 1."""

    points: float
    nothing: float  # up to this accuracy there are no points; it lies above luck
    full: float  # from this accuracy on there are all points
    species: tuple = critters.HELD_OUT  # in the order of the labels
    style: str = "crayon"
    size: int = 96  # pixels
    count: int = 200  # pictures


PAINTED = ("elephant", "frog", "giraffe", "owl", "rabbit", "sheep")
# `full` leaves a solved notebook at least four standard errors and three points below what its
# model reaches, measured on 1,000 pictures: the comment.
SPECS = {
    ("start_here", "start_here"): Spec(40, nothing=0.62, full=0.72),  # 0.855
    ("concepts", "concepts"): Spec(40, nothing=0.35, full=0.7, species=critters.COUSINS),  # 0.854
    ("hub_feature_extractor", "hub_feature_extractor"): Spec(40, nothing=0.62, full=0.75),  # 0.883
    ("vgg16", "1_classify"): Spec(20, nothing=0.62, full=0.85),  # 0.949
    ("vgg16", "2_fine_tune"): Spec(12, nothing=0.62, full=0.85),  # 0.978
    ("vgg16", "3_from_scratch"): Spec(8, nothing=0.62, full=0.85),  # 0.965
    ("comparison", "comparison"): Spec(40, nothing=0.62, full=0.78),  # 0.906
    ("mistakes", "mistakes"): Spec(40, nothing=0.62, full=0.75),  # 0.886
    ("shifts", "shifts"): Spec(40, nothing=0.6, full=0.7, style="night", count=400),  # 0.815
    ("pretraining", "pretraining"): Spec(
        40, nothing=0.3, full=0.65, species=PAINTED, style="paint", size=48
    ),  # 0.922
    ("own_pictures", "own_pictures"): Spec(40, nothing=0.62, full=0.75),  # 0.874
}


def draw(set, notebook, seed):
    """Draw what a notebook is asked.

    Args:
        set, notebook: a key of `SPECS`, such as "vgg16" and "1_classify".
        seed: the instructor's secret, bytes or text. Whoever knows it knows the labels.

    Returns:
        pictures uint8 (count, size, size, 3) in 0..255; labels int (count,), positions in the
        spec's `species`, each as often as the others (or once more), in an order of chance.
    """
    spec = SPECS[set, notebook]
    key = seed.encode() if isinstance(seed, str) else seed

    def rng(what):  # each its own: pixels say nothing about labels or about other pixels
        message = f"{set}/{notebook}/{what}".encode()
        return np.random.default_rng(int.from_bytes(hmac.digest(key, message, hashlib.sha256)))

    labels = rng("labels").permutation(np.arange(spec.count) % len(spec.species))
    pictures = [
        np.asarray(critters.draw(spec.species[label], rng(i), size=spec.size, style=spec.style))
        for i, label in enumerate(labels)
    ]
    return np.array(pictures), labels


@dataclasses.dataclass(frozen=True)
class Score:
    """Points, the accuracy they are for (None where the answers cannot be used), a sentence."""

    points: float
    accuracy: float | None
    sentence: str


def score(spec, content, labels):
    """Score a model's answers, bytes of an .npy file; never raises for what a submission wrote.

    None is no file. Numbers that all lie in 0..1 are cut at 0.5 (probabilities, classes), others at
    0 (logits); of several numbers for a picture the largest counts.
    """
    try:
        outputs = _read(content)
    except _Refused as problem:
        return Score(0.0, None, f"No points for the secret pictures: {problem}.")
    n, kinds = len(labels), len(spec.species)
    right = [(n, kinds)] + [(n,), (n, 1)] * (kinds == 2)
    problem = None
    if outputs.shape not in right:
        problem = f"the answers have the shape {outputs.shape}, expected {right[-1]}"
    elif not np.isfinite(outputs).all():
        problem = "some of the answers are not finite"
    if problem:
        return Score(0.0, None, f"No points for the secret pictures: {problem}.")
    if outputs.shape == (n, kinds):
        answers = outputs.argmax(axis=1)
    else:
        cut = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0
        answers = outputs.ravel() > cut
    correct = int(np.sum(answers == labels))
    accuracy = correct / n
    share = min(max((accuracy - spec.nothing) / (spec.full - spec.nothing), 0), 1)
    points = round(2 * share * spec.points) / 2
    return Score(
        points,
        accuracy,
        f"The model named {correct} of {n} secret pictures rightly: {points:g} of "
        f"{spec.points:g} points.",
    )


class _Refused(Exception):
    """Why a file with answers is not read, as the end of a sentence."""


def _read(content):
    """The array in an .npy file, as `np.save` writes it: whole numbers, floats or booleans."""
    if content is None:
        raise _Refused("the notebook handed in no answers")
    if len(content) > MOST_BYTES:
        raise _Refused(f"the file with the answers has more than {MOST_BYTES:,} bytes")
    header = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(header) != (1, 0):
            raise ValueError
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(header)
    except Exception:
        raise _Refused("the answers are not in NumPy's .npy format") from None
    if dtype.kind not in "fiub":
        raise _Refused(f"the answers are of the type {str(dtype)[:40]}, expected float32")
    values = content[header.tell() :]
    if len(values) != math.prod(shape) * dtype.itemsize or min(shape, default=1) < 1:
        raise _Refused("the file with the answers is not whole")
    order = "F" if columns_first else "C"
    return np.frombuffer(values, dtype).reshape(shape, order=order).astype("float64")
