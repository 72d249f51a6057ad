"""A student's notebook, read without trusting it and put back into the original's cells.

Only the type, the id and the source of a cell survive: metadata, outputs and whatever else stands
in the file do not. Nothing here runs what a student wrote.
"""

import ast
import dataclasses
import json
import os
import re
import stat
import unicodedata
import warnings
from copy import deepcopy
from pathlib import Path
from textwrap import shorten

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

MOST_BYTES = 20_000_000  # of a notebook's file
MOST_CELLS = 1000
MOST_SOURCE = 1_000_000  # characters in all cells together
LONGEST_PARSED = 100_000  # characters of a cell that is looked through

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS[^\n]*\n?", re.DOTALL)
OTHER_TRACK = "Track: photos"
# What a lesson sets for good reasons: plt.rcParams, pd.options.
HARMLESS = {"matplotlib", "pandas"}
GRADING_VARIABLES = ("COURSE_", "NBGRADER_")
HAND_IN = "check_hand_in"  # how the grade_id of a cell begins that hands in predictions


def is_name(name):
    """Whether a name is plain: letters of any script, digits, spaces and . , _ ' @ + -"""
    kinds = [unicodedata.category(character)[0] for character in name]  # M: accents of letters
    plain = bool(name) and all(
        k in "LNM" or c in "._,'@+ -" for k, c in zip(kinds, name, strict=True)
    )
    return plain and len(name) <= 100 and (kinds[0] in "LN" or name[0] == "_")


class Refused(ValueError):
    """A file that is not graded; the message is for its student."""


@dataclasses.dataclass
class Cell:
    """What is kept of a student's cell."""

    kind: str  # "code", "markdown" or "raw"
    id: str
    grade_id: str
    source: str
    count: int  # when it ran, as the kernel counts; 0 if that is not known


def read_bytes(path, at_most=MOST_BYTES) -> bytes:
    """A regular file's content. Raises Refused for links, pipes and more than `at_most` bytes."""
    path = Path(path)
    try:
        # a link is not followed, a pipe not waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise Refused(f"{path.name} is a link: hand in the file itself.") from error
        raise Refused(f"{path.name} cannot be read ({error.strerror}).") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{path.name} is not a file: hand in the notebook itself.")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(at_most + 1)
    finally:
        os.close(descriptor)
    if len(content) > at_most:
        size = os.stat(path).st_size / 1e6
        raise Refused(
            f"{path.name} has {size:.0f} MB; at most {at_most / 1e6:.0f} are graded. "
            "Let it print less, run it to its end and save it again."
        )
    return content


def validate(path, original) -> tuple[list[str], NotebookNode | None]:
    """What is wrong with a student's notebook, and the notebook to run.

    Args:
        path: the student's file.
        original: the notebook as it is graded, without answers and with hidden tests; every answer
            and check has its `grade_id`, and every cell its id.

    Returns:
        one sentence a problem, and the original's cells with the student's answers (cells that the
        student wrote have `metadata.student`); None in its place if the file cannot be graded.
    """
    try:
        cells = _cells(read_bytes(path), Path(path).name)
        return _rebuilt(cells, original)
    except Refused as refusal:
        return [str(refusal)], None


def _cells(content, name):
    """The cells of a notebook's file. Raises Refused."""
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is not JSON, so it is no notebook: save it in Jupyter.") from error
    del content
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Refused(f"{name} is JSON, but not a notebook of format 4: save it in Jupyter.")
    if len(notebook["cells"]) > MOST_CELLS:
        count = len(notebook["cells"])
        raise Refused(f"{name} has {count:,} cells; at most {MOST_CELLS:,} are graded.")
    cells = []
    for number, raw in enumerate(notebook["cells"], 1):
        try:
            if _says(raw.get("outputs") or [], OTHER_TRACK):
                raise Refused(
                    f"{name} was solved on the photos track (its output says {OTHER_TRACK!r}): run "
                    "it without COURSE_TRACK, then hand it in again."
                )
            marks = (raw.get("metadata") or {}).get("nbgrader") or {}
            found = Cell(
                kind=raw["cell_type"],
                id=raw.get("id") or "",
                grade_id=marks.get("grade_id") or "",
                source=_text(raw["source"]),
                count=count if type(count := raw.get("execution_count")) is int else 0,
            )
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"Cell {number} of {name} is broken: save it in Jupyter.") from error
        if not all(isinstance(value, str) for value in dataclasses.astuple(found)[:-1]):
            raise Refused(f"Cell {number} of {name} is broken: save it in Jupyter.")
        cells.append(found)
    size = sum(len(cell.source) for cell in cells)
    if size > MOST_SOURCE:
        raise Refused(
            f"{name} has {size:,} characters in its cells; at most {MOST_SOURCE:,} are graded."
        )
    return cells


def _text(lines):
    text = lines if isinstance(lines, str) else "".join(lines)
    return text.encode("utf-8", "replace").decode()  # half a character cannot be written


def _says(outputs, sentence):
    """Whether a printed output begins with the sentence."""
    return any(
        _text(output.get("text") or "").startswith(sentence)
        for output in outputs
        if output.get("output_type") == "stream"
    )


def _rebuilt(cells, original):
    """The original with the answers among the cells, and one sentence a problem. Raises Refused."""
    keys = {_key(cell): cell for cell in original.cells}
    ids = {cell.id: _key(cell) for cell in original.cells}
    # without its mark, a cell is known by its id
    given = {(c.cell_type, c.source): c.id for c in original.cells if "nbgrader" not in c.metadata}
    found = [
        c.grade_id if c.grade_id in keys else ids.get(c.id) or given.get((c.kind, c.source))
        for c in cells
    ]
    marked = [cell for cell in original.cells if "nbgrader" in cell.metadata]
    there = {kind: [] for kind in (True, False)}
    for cell in marked:
        there[_is_check(cell)].append(_key(cell) in found)
    if all(2 * sum(part) < len(part) for part in there.values()):  # some names are in several
        raise Refused("This is another exercise: most of its answers and checks are not there.")
    problems = [*_counted(found, keys), *_altered(cells, found, keys)]

    last = {key: number for number, key in enumerate(found)}
    answers, between, place = {}, {}, None
    for number, (cell, key) in enumerate(zip(cells, found, strict=True)):
        if key is not None and last[key] == number:
            place, answers[key] = key, cell
        elif cell.kind in ("code", "markdown") and not _is_check(keys.get(key)):
            between.setdefault(place, []).append(cell)  # the student's own, or an earlier answer

    notebook = NotebookNode(original | {"cells": []})
    notebook.metadata = NotebookNode(stale=_stale(cells, found))
    notebook.cells += [_own(cell, f"own-{n}") for n, cell in enumerate(between.pop(None, []))]
    waiting = []  # an open answer stands before what was written in its place
    for key, cell in keys.items():
        cell = deepcopy(cell)
        answer = answers.get(key)
        if answer or _is_check(cell) or not _is_students(cell):
            notebook.cells += waiting
            waiting = []
        if answer and _is_students(cell) and answer.source != cell.source:
            cell.source, cell.metadata.student = answer.source, True
        notebook.cells.append(cell)
        own = enumerate(between.get(key, []))
        waiting += [_own(other, f"own-{cell.id}-{number}"[-64:]) for number, other in own]
    notebook.cells += waiting
    return problems, notebook


def _stale(cells, found):
    """Why what the hand-in saved may not be of these very cells; empty if it is."""
    places = [i for i, key in enumerate(found) if str(key).startswith(HAND_IN)]
    last = cells[places[-1]].count if places else 0
    if not last:
        return "The last check does not say when it ran"
    if any(cell.count >= last for cell in cells[: places[-1]]):
        return "Cells ran after the last check"
    return ""


def _key(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id") or cell.id


def _is_check(cell):
    return cell is not None and cell.metadata.get("nbgrader", {}).get("locked", False)


def _is_students(cell):
    """Whether what stands there is the student's: an answer, or given code that may be changed."""
    if "nbgrader" in cell.metadata:
        return cell.metadata.nbgrader.solution
    return cell.cell_type == "code"


def _own(cell, name):
    new = new_code_cell if cell.kind == "code" else new_markdown_cell
    return new(cell.source, id=name, metadata={"student": True})


def _counted(found, keys):
    """Sentences on the answers and checks that are not there exactly once."""
    for key, cell in keys.items():
        times = found.count(key)
        if "nbgrader" not in cell.metadata or times == 1:
            continue
        if _is_check(cell):
            if times:
                yield f"The check {key} is there {times} times: it counts once."
            else:
                yield f"The check {key} was missing: the original took its place."
        elif times:
            yield f"The answer {key} is there {times} times: the last one counts."
        else:
            yield f"The answer {key} is missing: the task is open."


def _altered(cells, found, keys):
    """Sentences on the checks and the given code that were changed."""
    different = {}
    for cell, key in zip(cells, found, strict=True):
        if key is not None:
            shown = HIDDEN.sub("", keys[key].source)
            same = cell.source.strip() in (shown.strip(), keys[key].source.strip())
            different[key] = different.get(key, False) or not same
    for key in filter(different.get, keys):
        if _is_check(keys[key]):
            yield f"The check {key} was changed: the original took its place."
        elif "nbgrader" not in keys[key].metadata and keys[key].cell_type == "code":
            yield f"The given cell {key} was changed: it runs as changed."


# --- code that reaches for the checks ---


def suspicious(notebook) -> list[str]:
    """One sentence for each place where the student's code changes modules or the grading.

    For an instructor to look at: honest code may do it, and other code may do it unseen.
    """
    trees, sentences, number = [], [], 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        number += 1
        students = cell.metadata.get("student", False)
        if len(cell.source) > LONGEST_PARSED:
            sentences.append(f"Code cell {number} is too long to be looked through.")
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(re.sub(r"(?m)^[ \t]*[%!].*", "", cell.source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # it does not run either
        trees.append((number, students, tree))
    modules = {name: path for _, _, tree in trees for name, path in _imported(tree)}
    for number, students, tree in trees:
        if students:
            deeds = dict.fromkeys(_deeds(tree, modules))
            sentences += [f"Code cell {number} {deed}." for deed in deeds]
    return sentences


def _imported(tree):
    """Pairs of a name and the top of the module that it was imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, (node.module or "").partition(".")[0]


def _deeds(tree, modules):
    """What a cell does to modules and to the variables of grading."""
    guarded = {name for name, top in modules.items() if top not in HARMLESS} | {"__builtins__"}
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.NamedExpr):
            targets = [node.target]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            targets = [ast.Name(node.name)]
        elif isinstance(node, ast.Call):
            yield from _called(node, guarded)
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                yield from _assigned(part, guarded)


def _assigned(target, guarded):
    if isinstance(target, ast.Name) and target.id in {"check", "answered"}:
        yield f"gives the name {target.id} another meaning"
    elif isinstance(target, ast.Attribute) and (
        _root(target.value) in guarded or _calls(target.value, "type")
    ):
        yield f"sets {_shown(target)}"
    elif isinstance(target, ast.Subscript):
        place = target.value
        inside = getattr(place, "attr", "")
        if inside == "environ":
            yield from _environment(target.slice)
        elif inside in {"modules", "__dict__"} or _calls(place, "vars", "globals"):
            yield f"sets {_shown(target)}"


def _called(node, guarded):
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in {"setattr", "delattr", "__setattr__"} and node.args:
        root = _root(node.args[0])
        if root in guarded or _calls(node.args[0], "type"):
            yield f"calls {name} on {_shown(node.args[0])}"
    elif name in {"putenv", "unsetenv"} or (
        name in {"pop", "update", "setdefault", "clear"}
        and getattr(getattr(node.func, "value", None), "attr", "") == "environ"
    ):
        yield from _environment(node.args[0] if node.args else None)
    elif name == "patch" or _root(node.func) == "mock":
        yield f"calls {_shown(node.func)}"


def _environment(key):
    """An own variable is harmless; one of grading, or one that only running tells, is not."""
    if not isinstance(key, ast.Constant) or str(key.value).startswith(GRADING_VARIABLES):
        yield "changes the environment variables of grading"


def _root(node):
    """`keras` of `keras.layers.Dense`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", None)


def _calls(node, *names):
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) in names


def _shown(node):
    """The code of a node, short."""
    try:
        return shorten(ast.unparse(node), 80)
    except RecursionError:
        return "something deeply nested"
