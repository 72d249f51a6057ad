"""Checks that teach: `check.task(answer)`, and for each task `.hint()` and `.solution()`.

A check prints what it finds. Where the environment variable COURSE_GRADING is set, or nbgrader's
NBGRADER_EXECUTION, it raises AssertionError instead, so that an autograder counts the points.
"""

import json
import os
import re
from pathlib import Path
from textwrap import shorten

import numpy as np

from helpers import critters

SOLUTIONS = Path(__file__).parents[2] / "solutions"


class Check:
    """One task's check. Call it with the answers; None is an open answer, not a wrong one.

    Args:
        judge: function of the answers, named like the task. Returns None if they are right, else
            one or two sentences: what was expected, what was found, where to look.
        notebook: where the solution stands, such as "vgg16/1_classify".
        hint: a nudge that does not give the answer away.
    """

    def __init__(self, judge, notebook, hint):
        self.judge, self.notebook, self._hint = judge, notebook, hint

    def __call__(self, *answers):
        if any(answer is None for answer in answers):
            return _say("Not answered yet: replace None by your answer and run the cell again.")
        try:
            problem = self.judge(*answers)
        except Exception as error:
            problem = f"Your answer stops the check with {type(error).__name__}: {_reason(error)}"
        if problem is None:
            return print("✓ Right.")
        return _say(f"✗ Not yet. {problem}")

    def hint(self):
        print(self._hint)

    def solution(self):
        """Print the code that solves the task, from `solutions/`."""
        path = SOLUTIONS / f"{self.notebook}.ipynb"
        if not path.exists():
            print("The solutions are not part of this copy: your instructor releases them later.")
            return
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("grade_id") == self.judge.__name__:
                source = "".join(cell["source"])
                print(source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0].strip())


def task(notebook, hint):
    """Decorator: makes a `Check` of a judge; the task and its solution cell have its name."""
    return lambda judge: Check(judge, notebook, hint)


def answered(**answers):
    """Whether none of the answers is None; if one is, say in one quiet line what is waited for."""
    missing = [name for name, answer in answers.items() if answer is None]
    if missing:
        print(f"This cell waits for your {' and '.join(missing)}.")
    return not missing


def fresh_cats_and_dogs(count, size):
    """Drawings that nobody has seen: no seed, so they differ from call to call.

    Returns:
        pictures float32 (count, size, size, 3) in 0..255; labels int (count,), 0 cat and 1 dog.
    """
    rng = np.random.default_rng()
    labels = np.arange(count) % 2
    pictures = [critters.draw(critters.HELD_OUT[label], rng, size=size) for label in labels]
    return np.array(pictures, "float32"), labels


def _reason(error):
    """The first line of an error's message that says something."""
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n")  # Keras prints its reasons in bold
    lines = [line.strip() for line in lines if "Exception encountered when calling" not in line]
    return shorten(next(filter(None, lines), "no reason given"), 200)


def _say(sentence):
    if os.environ.get("COURSE_GRADING") or os.environ.get("NBGRADER_EXECUTION"):
        raise AssertionError(sentence)
    print(sentence)
