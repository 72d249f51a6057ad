"""What a student hands in is read without trusting it, and put back into the original's cells."""

import json
import os
import re
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from helpers.grading import validation

CHECK = "check.answer(answer)\n### BEGIN HIDDEN TESTS\nassert answer == 42\n### END HIDDEN TESTS"


def marked(grade_id, source, **marks):
    cell = new_code_cell(source, id=f"{grade_id}-id")
    cell.metadata.nbgrader = {"grade": False, "locked": False, "solution": False, "task": False}
    cell.metadata.nbgrader |= {"grade_id": grade_id, "schema_version": 3, **marks}
    return cell


def exercise(check=CHECK):
    """One task between given cells: title, given, answer, check_answer, end."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Title", id="title"),
            new_code_cell("from helpers.checks import start_here as check", id="given"),
            marked("answer", "answer = None  # your turn", solution=True),
            marked("check_answer", check, grade=True, locked=True, points=100),
            new_markdown_cell("The end", id="end"),
        ]
    )


@pytest.fixture
def submission():
    """The exercise as students get it, answered."""
    notebook = exercise("check.answer(answer)")
    notebook.cells[2].source = "answer = 42"
    return notebook


@pytest.fixture
def validated(tmp_path):
    def run(content):
        path = tmp_path / "one.ipynb"
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return validation.validate(path, exercise())

    return run


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def test_an_answer_comes_into_the_original(validated, submission):
    problems, notebook = validated(submission)
    assert problems == []
    expected = sources(exercise())
    expected[2] = "answer = 42"
    assert sources(notebook) == expected, "with the hidden tests"
    assert [c.metadata.get("student", False) for c in notebook.cells] == [0, 0, 1, 0, 0]
    nbformat.validate(notebook)


# --- what is not graded ---


def too_large():
    return b'{"cells": []' + b" " * validation.MOST_BYTES + b"}"


def with_cells(*cells):
    notebook = exercise()
    notebook.cells += cells
    return notebook


REFUSED = {
    "not JSON": ("hello", "is not JSON"),
    "empty": ("", "is not JSON"),
    "not text": (b"\xff\x00\x80", "is not JSON"),
    "nested too deep": ("[" * 200_000, "is not JSON"),
    "a number of a million digits": ('{"cells": ' + "9" * 1_000_000 + "}", "is not JSON"),
    "a list": ("[]", "not a notebook"),
    "format 3": ({"worksheets": [{"cells": []}], "nbformat": 3}, "not a notebook of format 4"),
    "cells are no list": ({"cells": {"a": 1}}, "not a notebook"),
    "a cell is a number": ({"cells": [5]}, "Cell 1 of one.ipynb is broken"),
    "a cell without source": ({"cells": [{"cell_type": "code"}]}, "Cell 1 of .* is broken"),
    "a source of numbers": ({"cells": [{"cell_type": "code", "source": [1]}]}, "is broken"),
    "an id that is no text": (
        {"cells": [{"cell_type": "code", "source": "", "id": ["x"]}]},
        "Cell 1 of one.ipynb is broken",
    ),
    "no cells": ({"cells": []}, "another exercise"),
    "another exercise": (new_notebook(cells=[marked("other", "x = 1")]), "another exercise"),
    "over 20 MB": (too_large(), "has 20 MB; at most 20 are graded"),
    "100,000 cells": (
        {"cells": [{"cell_type": "code", "source": ""}] * 100_000},
        "has 100,000 cells; at most 1,000",
    ),
    "very much text": (with_cells(new_code_cell("#" * 1_000_001)), "characters in its cells"),
    "solved on photos": (
        with_cells(
            new_code_cell(
                "", outputs=[new_output("stream", name="stdout", text="Track: photos, 160 px")]
            )
        ),
        "was solved on the photos track",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(validated, name):
    content, reason = REFUSED[name]
    problems, notebook = validated(content)
    assert notebook is None
    assert len(problems) == 1
    assert re.search(reason, problems[0])
    assert problems[0].endswith(".")


def test_links_pipes_and_folders_are_not_read(tmp_path, submission):
    place = tmp_path / "real.ipynb"
    nbformat.write(submission, place)
    (tmp_path / "link.ipynb").symlink_to(place)
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    for name, reason in {
        "link": "is a link",
        "pipe": "is not a file",
        "folder": "cannot be read|is not a file",
        "gone": "cannot be read",
    }.items():
        problems, notebook = validation.validate(tmp_path / f"{name}.ipynb", exercise())
        assert notebook is None
        assert re.search(reason, problems[0])


# --- what is put right ---


def changed(change):
    """The answered exercise after `change(cells)`, which may return other cells."""
    notebook = exercise("check.answer(answer)")
    notebook.cells[2].source = "answer = 42"
    notebook.cells = change(notebook.cells) or notebook.cells
    return notebook


def rewrite(number, source):
    return lambda cells: cells[number].update(source=source)


def without_marks(cells):
    for cell in cells:
        cell.metadata = {}


def without_ids(cells):
    for cell in cells:
        cell.id = "same"


def unlocked(cells):
    cells[3].metadata.nbgrader.update(points=1000, locked=False, solution=True)


PUT_RIGHT = {
    "nothing": (lambda cells: None, None),
    "altered check": (rewrite(3, "pass"), "check check_answer was changed"),
    "missing check": (lambda cells: cells[:3], "check check_answer was missing"),
    "doubled check": (lambda cells: [*cells, cells[3]], "check check_answer is there 2 times"),
    "check first": (lambda cells: [cells[3], *cells[:3]], None),
    "deleted marks": (without_marks, None),
    "one id for all": (without_ids, None),
    "other points": (unlocked, None),
    "title gone": (lambda cells: cells[2:], None),
    "backwards": (lambda cells: cells[::-1], None),
    "raw": (lambda cells: [*cells, new_raw_cell("<script>")], None),
    "doubled answer": (
        lambda cells: [*cells[:2], marked("answer", "answer = 41"), *cells[2:]],
        "answer answer is there 2 times: the last one counts",
    ),
}


@pytest.mark.parametrize("name", PUT_RIGHT)
def test_tricks_with_cells_change_nothing(validated, name):
    change, problem = PUT_RIGHT[name]
    problems, notebook = validated(changed(change))
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]
    found = [cell.source for cell in notebook.cells if not cell.id.startswith("own-")]
    assert found == [*sources(exercise())[:2], "answer = 42", *sources(exercise())[3:]]
    marks = [cell.metadata.get("nbgrader") for cell in notebook.cells]
    assert [m for m in marks if m] == [c.metadata.nbgrader for c in exercise().cells[2:4]]
    nbformat.validate(notebook)


def test_without_an_answer_the_task_is_open(validated):
    problems, notebook = validated(changed(lambda cells: [cells[0], cells[3]]))
    assert problems == ["The answer answer is missing: the task is open."]
    assert sources(notebook) == sources(exercise())


def test_an_answer_that_was_split_or_written_anew_runs_in_its_order(validated):
    """JupyterLab's Split Cell gives both halves the mark."""

    def split(cells):
        halves = [marked("answer", "half = 21", solution=True), cells[2]]
        halves[1].source = "answer = 2 * half"
        return [*cells[:2], *halves, *cells[3:]]

    order = sources(validated(changed(split))[1])
    assert order.index("half = 21") < order.index("answer = 2 * half")

    def anew(cells):
        return [*cells[:2], new_code_cell("answer = 42"), *cells[3:]]

    order = sources(validated(changed(anew))[1])
    assert order.index(exercise().cells[2].source) < order.index("answer = 42")


def test_a_file_without_ids_runs_given_code_once(validated):
    def change(cells):
        for cell in cells:
            cell.pop("id", None)
        return cells

    expected = sources(exercise())
    expected[2] = "answer = 42"
    assert sources(validated(changed(change))[1]) == expected


@pytest.mark.parametrize("name", ["José", "Jose\u0301", "हिन्दी", "O'Brien", "Müller, Anna", "s_1"])
def test_names_of_people(name):
    assert validation.is_name(name)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a\nb", "=1", "<b>", "a" * 101])
def test_other_names(name):
    assert not validation.is_name(name)


def test_source_that_is_written_to_stop_the_grader(validated):
    slow = new_notebook(cells=[marked("answer", "\n" * 90_000, solution=True)])
    started = time.monotonic()
    validation.suspicious(slow)
    assert time.monotonic() - started < 2


def test_own_cells_stay_where_they_are(validated):
    def change(cells):
        first, second, third, last = (new_code_cell(f"own = {n}") for n in range(4))
        second, third = new_markdown_cell("thoughts"), third
        return [first, *cells[:3], second, third, *cells[3:], last]

    problems, notebook = validated(changed(change))
    assert problems == []
    expected = ["own = 0", *sources(exercise())[:2], "answer = 42", "thoughts", "own = 2"]
    assert sources(notebook) == [*expected, *sources(exercise())[3:], "own = 3"]
    own = [cell for cell in notebook.cells if cell.id.startswith("own-")]
    assert all(cell.metadata == {"student": True} for cell in own)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_changed_given_code_runs_and_is_told(validated):
    problems, notebook = validated(changed(rewrite(1, "import os")))
    assert problems == ["The given cell given was changed: it runs as changed."]
    assert sources(notebook)[1] == "import os"


def test_an_answer_in_text_of_any_shape_is_kept(validated, submission):
    submission.cells[2].source = "answer = '\ud800'"
    _, notebook = validated(submission)
    assert sources(notebook)[2] == "answer = '?'", "half a character cannot be written to a file"


# --- code that reaches for the checks ---


def flagged(*cells):
    notebook = exercise()
    notebook.cells[
        1
    ].source += "\nimport keras\nimport numpy as np\nimport matplotlib.pyplot as plt"
    notebook.cells += [new_code_cell(cell, metadata={"student": True}) for cell in cells]
    return validation.suspicious(notebook)


@pytest.mark.parametrize(
    "code, deed",
    {
        "check = print": "gives the name check another meaning",
        "def check(): pass": "gives the name check another meaning",
        "check.answer = print": "sets check.answer",
        "check.answer.judge = lambda a: None": "sets check.answer.judge",
        "keras.Model.fit = print": "sets keras.Model.fit",
        "a, np.mean = 1, 2": "sets np.mean",
        "%%capture\nnp.mean = 1": "sets np.mean",
        "!ls\nnp.mean += 1": "sets np.mean",
        "del keras.Model.fit": "sets keras.Model.fit",
        "import builtins\nbuiltins.AssertionError = print": "sets builtins.AssertionError",
        "__builtins__.print = 1": "sets __builtins__.print",
        "setattr(keras.Model, 'fit', print)": "calls setattr on keras.Model",
        "type(check.answer).__call__ = print": "sets type(check.answer).__call__",
        "import sys\nsys.modules['helpers'] = 1": "sets sys.modules['helpers']",
        "vars(check)['answer'] = 1": "sets vars(check)['answer']",
        "np.__dict__['mean'] = 1": "sets np.__dict__['mean']",
        "import os\nos.environ['COURSE_GRADING'] = ''": "changes the environment",
        "import os\nos.environ.pop('COURSE_GRADING')": "changes the environment",
        "import os\ndel os.environ['NBGRADER_EXECUTION']": "changes the environment",
        "import os\nos.environ.clear()": "changes the environment",
        "import os\nos.unsetenv(name)": "changes the environment",
        "from unittest import mock\nmock.patch('helpers.checks.Check')": "calls mock.patch",
        "x = 1" + " " * 100_000: "is too long to be looked through",
        "keras.a = 1; x" + ".a" * 1000 + " = 1": "sets keras.a",
    }.items(),
)
def test_code_that_changes_modules_is_flagged(code, deed):
    (sentence,) = flagged("fine = 1", code)
    assert re.match(r"Code cell \d", sentence)
    assert deed in sentence


@pytest.mark.parametrize(
    "code",
    [
        "backbone = keras.Model()\nbackbone.trainable = False",
        "for layer in backbone.layers[:9]:\n    layer.trainable = False",
        "plt.rcParams['figure.figsize'] = 8, 4",
        "import pandas as pd\npd.options.display.max_rows = 9",
        "import os\nos.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'",
        "np.random.seed(0)\nkeras.utils.set_random_seed(0)",
        "check.answer(answer)\ncheck.answer.hint()",
        "vars(history)\nhistory.history['loss'] = []",
        "model.compile(optimizer=keras.optimizers.Adam(1e-3))\nmodel.optimizer.learning_rate = 1",
        "not python at all",
        "(" * 5000 + ")" * 5000,
        "-" * 50_000 + "1",
        "x" + ".a" * 40_000,
        "x = '\0'",
    ],
    ids=lambda code: code[:30],
)
def test_honest_and_broken_code_is_not_flagged(code):
    assert flagged(code) == []


def test_given_code_is_not_flagged():
    notebook = exercise()
    notebook.cells[1].source = "import keras\nkeras.Model.fit = print"
    assert validation.suspicious(notebook) == []
