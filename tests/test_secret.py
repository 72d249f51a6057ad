"""Secret pictures and their scores: what is drawn, what counts, what is refused."""

import importlib
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from helpers import checks
from helpers.checks.handing_in import HandIn
from helpers.grading import secret
from helpers.grading.secret import SPECS, Spec, draw, score

HAND_INS = [
    value
    for path in Path(checks.__file__).parent.glob("[a-z]*.py")
    for value in vars(importlib.import_module(f"helpers.checks.{path.stem}")).values()
    if isinstance(value, HandIn)
]
SPEC = Spec(20, nothing=0.6, full=0.8, count=10)
LABELS = np.array([0, 1] * 5)


# --- what is asked ---


def test_every_hand_in_has_its_spec_and_both_say_the_same():
    assert {tuple(h.notebook.split("/")) for h in HAND_INS} == set(SPECS)
    for hand_in in HAND_INS:
        spec = SPECS[tuple(hand_in.notebook.split("/"))]
        assert (hand_in.points, hand_in.pictures) == (spec.points, spec.count)
        assert hand_in.kinds == len(spec.species) and hand_in.size <= spec.size


@pytest.mark.parametrize("hand_in", HAND_INS, ids=lambda hand_in: hand_in.notebook)
def test_the_notebook_hands_in_for_these_points(hand_in):
    notebook = nbformat.read(checks.SOLUTIONS / f"{hand_in.notebook}.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if c.source.startswith("check.hand_in"))
    module = importlib.import_module(f"helpers.checks.{hand_in.notebook.split('/')[0]}")
    name = cell.source.removeprefix("check.").partition("(")[0]
    assert getattr(module, name) is hand_in
    assert cell.metadata.nbgrader.grade_id == f"check_{name}"
    assert cell.metadata.nbgrader.points == hand_in.points


def test_every_set_has_forty_points_for_pictures():
    points = {name: 0 for name, _ in SPECS}
    for (name, _), spec in SPECS.items():
        points[name] += spec.points
    assert points == {folder.name: 40 for folder in checks.SOLUTIONS.glob("*/")}


def test_luck_earns_nothing():
    for spec in SPECS.values():
        chance = 1 / len(spec.species)
        deviation = (chance * (1 - chance) / spec.count) ** 0.5
        assert spec.nothing > chance + 3 * deviation
        assert spec.nothing + 0.05 < spec.full < 1


def test_a_seed_draws_the_same_again_and_another_other_pictures(monkeypatch):
    monkeypatch.setattr(
        secret, "SPECS", {("a", "b"): SPEC, ("a", "c"): SPEC, ("d", "b"): Spec(1, 0, 1, count=11)}
    )
    pictures, labels = draw("a", "b", b"secret")
    assert pictures.shape == (10, 96, 96, 3) and pictures.dtype == "uint8"
    assert sorted(labels) == sorted(LABELS)
    same = draw("a", "b", "secret")
    assert np.array_equal(pictures, same[0]) and np.array_equal(labels, same[1])
    for other in (draw("a", "b", b"another"), draw("a", "c", b"secret")):
        assert not np.array_equal(pictures, other[0])
    assert sorted(draw("d", "b", b"secret")[1]) == [0] * 6 + [1] * 5
    orders = {tuple(draw("a", "b", bytes([seed]))[1]) for seed in range(4)}
    assert len(orders) > 1, "the order of the labels is not known"


@pytest.mark.parametrize("key", SPECS, ids="/".join)
def test_every_spec_can_be_drawn(monkeypatch, key):
    spec = SPECS[key]
    few = Spec(1, 0, 1, spec.species, spec.style, spec.size, count=len(spec.species))
    monkeypatch.setitem(SPECS, key, few)
    pictures, labels = draw(*key, "seed")
    assert pictures.shape == (few.count, spec.size, spec.size, 3)
    assert sorted(labels) == list(range(few.count))


def test_scoring_needs_neither_tensorflow_nor_the_checks():
    code = "import sys, helpers.grading.secret; "
    code += "print({'tensorflow', 'keras', 'helpers.checks'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


# --- what counts ---


def scored(array, spec=SPEC, labels=LABELS):
    content = io.BytesIO()
    np.save(content, array)
    return score(spec, content.getvalue(), labels)


@pytest.mark.parametrize(
    "wrong, points", [(0, 20), (2, 20), (3, 10), (4, 0), (5, 0), (10, 0)], ids=str
)
def test_points_grow_from_nothing_to_full(wrong, points):
    logits = np.where(LABELS == 1, 3.0, -0.1)
    logits[:wrong] *= -1
    found = scored(logits)
    assert found.points == points and found.accuracy == 1 - wrong / 10
    assert f"named {10 - wrong} of 10 secret pictures rightly: {points} of 20" in found.sentence


def test_points_are_halves():
    spec = Spec(20, nothing=0.6, full=0.87, count=10)
    assert scored(np.where(np.arange(10) < 7, LABELS, 1 - LABELS), spec).points == 7.5  # 7.41


@pytest.mark.parametrize(
    "answers",
    [
        LABELS,
        LABELS[:, None],
        LABELS.astype("float16"),
        LABELS.astype(bool),
        0.3 + 0.4 * LABELS,  # probabilities
        100 * LABELS - 1.5,  # logits
        np.stack([1 - LABELS, LABELS], axis=1),
        np.asfortranarray(np.stack([1.0 - LABELS, LABELS], axis=1)),
        1e300 * (LABELS - 0.5),
    ],
    ids=lambda answers: f"{answers.dtype}-{answers.shape}",
)
def test_every_way_to_answer_counts(answers):
    assert scored(answers).points == 20


def test_the_largest_of_several_numbers_counts():
    spec = Spec(20, nothing=0.4, full=0.8, species=("cat", "dog", "owl"), count=6)
    labels = np.array([0, 1, 2, 2, 1, 0])
    assert scored(np.eye(3)[labels] - 5, spec, labels).accuracy == 1
    assert "expected (6, 3)" in scored(labels, spec, labels).sentence


def test_an_untrained_model_gets_nothing():
    spec = SPECS["vgg16", "1_classify"]
    labels = np.arange(200) % 2
    rng = np.random.default_rng(0)
    assert [scored(rng.normal(size=200), spec, labels).points for _ in range(50)] == [0] * 50
    assert scored(np.ones(200), spec, labels).points == 0


# --- what is refused ---


@pytest.mark.parametrize(
    "answers, sentence",
    [
        (np.zeros(9), "the shape (9,), expected (10, 1)"),
        (np.zeros((10, 3)), "the shape (10, 3)"),
        (np.zeros(()), "the shape ()"),
        (np.zeros((10, 0)), "not whole"),
        (np.full(10, np.nan), "not finite"),
        (np.where(LABELS, np.inf, -1), "not finite"),
        (np.array(["dog"] * 10), "of the type <U3, expected float32"),
        (LABELS + 0j, "of the type complex128"),
        (np.zeros(10, [("a", "f4")]), "of the type"),
        (np.zeros(200_000), "more than 1,048,576 bytes"),
    ],
)
def test_answers_that_cannot_be_used(answers, sentence):
    found = scored(answers)
    assert (found.points, found.accuracy) == (0, None)
    assert found.sentence.startswith("No points for the secret pictures: ")
    assert sentence in found.sentence and found.sentence.endswith(".")


def header(shape, descr="'<f4'", fortran=False):
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class Pickled:
    def __reduce__(self):
        return Path.touch, (Path("i_was_here"),)


def file_of(save, *arguments, **options):
    content = io.BytesIO()
    save(content, *arguments, **options)
    return content.getvalue()


PICKLED = np.array([Pickled()] * 10, dtype=object)
CONTENT = {
    "empty": (b"", "format"),
    "text": (b"1 " * 10, "format"),
    "zipped": (file_of(np.savez, LABELS), "format"),
    "pickled": (file_of(np.save, PICKLED, allow_pickle=True), "of the type object"),
    "cut off": (header("(10,)") + b"1234", "not whole"),
    "too long": (header("(10,)") + b"1234" * 11, "not whole"),
    "huge": (header(f"({'9' * 15},)"), "not whole"),
    "negative": (header("(-10,)") + b"1234", "not whole"),
    "strange": (header("print(1)"), "format"),
    "deep": (header("[" * 100 + "]" * 100), "format"),
    "absent": (None, "handed in no answers"),
}


@pytest.mark.parametrize("name", CONTENT)
def test_files_that_are_no_answers(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, sentence = CONTENT[name]
    found = score(SPEC, content, LABELS)
    assert (found.points, found.accuracy) == (0, None) and sentence in found.sentence
    assert not (tmp_path / "i_was_here").exists()
