"""A course of one exercise that needs no TensorFlow, so that fifty submissions run in minutes."""

import json
import shutil
from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
GIVEN = """\
import os
import types
from pathlib import Path

import numpy as np

from helpers.checks import task


@task("start_here/start_here", "Count on your fingers.")
def total(answer):
    return None if answer == 4 else f"Expected 4, found {answer}."


def hand_in(model):
    pictures = np.load(Path(os.environ["COURSE_SECRET"], "start_here.npy"))
    np.save(Path(os.environ["COURSE_HANDED_IN"], "start_here.npy"), model(pictures))


check = types.SimpleNamespace(total=total, hand_in=hand_in)
"""
SOLUTION = """\
answer = model = None
### BEGIN SOLUTION
answer = 4
### END SOLUTION
"""
CHECK = """\
check.total(answer)
### BEGIN HIDDEN TESTS
assert answer + 0 == 4
### END HIDDEN TESTS
"""


def cells(answer):
    """The exercise's cells, with this source as its answer."""
    return [
        new_markdown_cell("How much is 2 + 2?", id="question"),
        _cell("given", GIVEN, locked=True),
        _cell("total", answer, solution=True),
        _cell("check_total", CHECK, points=60),
        _cell("check_hand_in", "check.hand_in(model)", points=40),
    ]


def _cell(name, source, locked=False, solution=False, points=0):
    marks = {"grade": points > 0, "locked": locked or points > 0, "solution": solution}
    marks |= {"grade_id": name, "schema_version": 3, "task": False}
    marks |= {"points": points} if points else {}
    return new_code_cell(source, id=name, metadata={"nbgrader": marks})


def write_notebook(path, notebook_cells):
    """As they are: `nbformat.write` would mend what is wrong with them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new_notebook() | {"cells": notebook_cells}), "utf-8")


def write_course(folder):
    """A folder with this exercise's solution, under the name of a set with secret pictures."""
    write_notebook(folder / "solutions" / "start_here" / "start_here.ipynb", cells(SOLUTION))
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder
