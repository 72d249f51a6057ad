"""What every check does: tell open from wrong, explain, raise under grading, show its solution."""

import importlib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import checks
from helpers.checks import Check, answered, fresh_cats_and_dogs, task


@task("set/notebook", hint="Think of six times seven.")
def the_answer(answer, context="here"):
    if answer == "stop":
        raise ValueError(
            "\nException encountered when calling Dense.call().\n\n\x1b[1mNo way.\x1b[0m"
        )
    return None if answer == 42 else f"Expected 42, found {answer!r}. Look {context}."


@pytest.fixture(autouse=True)
def not_grading(monkeypatch):
    monkeypatch.delenv("COURSE_GRADING", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def said(capsys, *answers):
    assert the_answer(*answers) is None, "a cell must not show a return value"
    return capsys.readouterr().out


def test_right_wrong_and_open(capsys):
    assert said(capsys, 42) == "✓ Right.\n"
    assert said(capsys, 41, "there") == "✗ Not yet. Expected 42, found 41. Look there.\n"
    assert said(capsys, None).startswith("Not answered yet: replace None")
    assert said(capsys, 42, None).startswith("Not answered yet"), "what it needs is not there yet"


def test_arrays_are_no_open_answers(capsys):
    assert said(capsys, np.array(42)) == "✓ Right.\n"
    assert said(capsys, np.zeros(3)).startswith("✗ Not yet. Your answer stops the check with Value")


def test_an_exception_becomes_a_sentence(capsys):
    expected = "✗ Not yet. Your answer stops the check with ValueError: No way.\n"
    assert said(capsys, "stop") == expected
    problem = checks._reason(Exception("x " * 500))
    assert len(problem) <= 200
    assert checks._reason(Exception()) == "no reason given"


@pytest.mark.parametrize("variable", ["COURSE_GRADING", "NBGRADER_EXECUTION"])
def test_under_grading_all_but_right_raises(capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert said(capsys, 42) == "✓ Right.\n"
    for answer, sentence in ((41, "found 41"), (None, "Not answered yet"), ("stop", "No way")):
        with pytest.raises(AssertionError, match=sentence):
            the_answer(answer)


def test_hint(capsys):
    the_answer.hint()
    assert capsys.readouterr().out == "Think of six times seven.\n"


def test_solution_is_the_one_of_the_notebook(capsys, monkeypatch, tmp_path):
    source = "a = None  # your turn\n\n### BEGIN SOLUTION\na = 6 * 7\n### END SOLUTION"
    cells = [new_code_cell("a = 0"), new_code_cell(source), new_code_cell("check.the_answer(a)")]
    cells[1].metadata.nbgrader = {"grade_id": "the_answer"}
    cells[2].metadata.nbgrader = {"grade_id": "check_the_answer"}
    (tmp_path / "set").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "set" / "notebook.ipynb")
    monkeypatch.setattr(checks, "SOLUTIONS", tmp_path)
    the_answer.solution()
    assert capsys.readouterr().out == "a = 6 * 7\n"


def test_solution_that_is_held_back(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "SOLUTIONS", tmp_path)
    the_answer.solution()
    assert "your instructor releases them later" in capsys.readouterr().out


def test_cells_that_wait_say_so_in_one_line(capsys):
    assert answered(model=0, logits=np.zeros(2))
    assert capsys.readouterr().out == ""
    assert not answered(model=None, logits=1, control=None)
    assert capsys.readouterr().out == "This cell waits for your model and control.\n"


def test_fresh_drawings_are_new_each_time():
    pictures, labels = fresh_cats_and_dogs(6, 32)
    assert pictures.shape == (6, 32, 32, 3) and pictures.dtype == "float32"
    assert pictures.min() >= 0 and 1 < pictures.max() <= 255
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
    assert not np.array_equal(pictures, fresh_cats_and_dogs(6, 32)[0])


ALL = {
    f"{path.stem}.{name}": value
    for path in Path(checks.__file__).parent.glob("[a-z]*.py")
    for name, value in vars(importlib.import_module(f"helpers.checks.{path.stem}")).items()
    if isinstance(value, Check)
}


@pytest.mark.parametrize("check", ALL.values(), ids=ALL)
def test_in_every_task_the_hint_keeps_the_solution_to_itself(capsys, check):
    check.solution()
    solution = capsys.readouterr().out
    assert solution.strip() and "# your turn" not in solution and "noqa" not in solution
    check.hint()
    hint = capsys.readouterr().out
    assert 40 < len(hint) < 400
    lines = [line.strip() for line in solution.splitlines() if len(line) > 30]
    assert not [line for line in lines if line in hint]
