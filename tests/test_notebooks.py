"""Notebooks as files: what a reader sees without running them. nbval runs them."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISES = sorted(
    path
    for folder in ("exercises", "solutions")
    for path in (ROOT / folder).rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
MAX_PICTURE = 60_000
MAX_FILE = 900_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/|[A-Z]:\\+Users\\")
TENSORFLOW_LOG = re.compile(
    r"absl::InitializeLog|oneDNN custom operations|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF] "
    r"|^[IWEF]\d{4} \d\d:\d\d:\d\d",
    re.MULTILINE,
)
EMBEDDED_PICTURE = re.compile(r"data:image/[\w+.-]+;base64,([\w+/=]+)")


def code_cells(notebook):
    """The code cells that hold any code."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def is_checked(cell):
    return "nbval-check-output" in cell.metadata.get("tags", [])


def texts(notebook):
    """Every piece of text of a notebook, source or output; pictures are left out."""
    for cell in notebook.cells:
        yield cell.source
    for output in outputs(notebook):
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield EMBEDDED_PICTURE.sub("", str(data))


def pictures(notebook):
    """The size in bytes of every picture: shown by a cell, attached, or embedded in HTML."""
    bundles = [output.get("data", {}) for output in outputs(notebook)]
    for cell in notebook.cells:
        bundles += cell.get("attachments", {}).values()
        bundles += [{"text/html": cell.source}]
    for bundle in bundles:
        for kind, data in bundle.items():
            if kind == "image/svg+xml":
                yield len(data.encode())
            elif kind.startswith("image/"):
                yield len(base64.b64decode(data))
            else:
                yield from (len(base64.b64decode(b)) for b in EMBEDDED_PICTURE.findall(str(data)))


def lesson_problems(notebook):
    """What is wrong with the stored outputs of a lesson, one sentence each."""
    problems = path_problems(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        problems.append(f"not one clean run from top to bottom: execution counts {counts}")
    for output in outputs(notebook):
        if output.output_type == "error":
            problems.append(f"a stored output is an error: {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            problems.append(f"a stored output is on stderr: {output.text[:80]!r}")
    for text in texts(notebook):
        if log := TENSORFLOW_LOG.search(text):
            problems.append(f"TensorFlow's log is in it: {text[log.start() :][:80]!r}")
    if not any(is_checked(cell) for cell in code_cells(notebook)):
        problems.append("no cell has the tag nbval-check-output")
    for cell in code_cells(notebook):
        if is_checked(cell) and not cell.outputs:
            problems.append(f"a checked cell has no stored output: {cell.source[:60]!r}")
        if "NBVAL_" in cell.source:
            problems.append(f"use a cell tag, students read the comment: {cell.source[:60]!r}")
    for size in pictures(notebook):
        if size > MAX_PICTURE:
            problems.append(f"a picture of {size} bytes, at most {MAX_PICTURE} are allowed")
    return problems


def exercise_problems(notebook):
    """What is wrong with an exercise or a solution, which are stored without outputs."""
    problems = path_problems(notebook)
    if outputs(notebook) or any(c.execution_count is not None for c in code_cells(notebook)):
        problems.append("has stored outputs: clear them")
    return problems


def path_problems(notebook):
    return [
        f"a path of one machine: {text[max(0, found.start() - 20) :][:80]!r}"
        for text in texts(notebook)
        if (found := MACHINE_PATH.search(text))
    ]


def test_lessons_are_numbered_without_a_gap():
    assert LESSONS
    assert [path.name[:3] for path in LESSONS] == [f"{i:02}_" for i in range(len(LESSONS))]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson(path):
    assert lesson_problems(nbformat.read(path, as_version=4)) == []
    assert path.stat().st_size < MAX_FILE


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: str(path.relative_to(ROOT)))
def test_exercise(path):
    assert exercise_problems(nbformat.read(path, as_version=4)) == []


def stdout(text):
    return new_output("stream", name="stdout", text=text)


def picture(size):
    data = base64.b64encode(bytes(size)).decode()
    return new_output("display_data", data={"image/png": data, "text/plain": "<Figure>"})


def html_picture(size):
    html = f'<img src="data:image/png;base64,{base64.b64encode(bytes(size)).decode()}">'
    return new_output("display_data", data={"text/html": html})


def run(number, output, source="print(x)", tags=()):
    """A code cell that has been run."""
    outputs = [] if output is None else [output]
    cell = new_code_cell(source, execution_count=number, outputs=outputs)
    cell.metadata.tags = list(tags)
    return cell


CHECKED = run(1, stdout("20 pictures\n"), tags=["nbval-check-output"])


def test_a_good_lesson_has_no_problems():
    text = new_markdown_cell("See https://example.org/home/page and `../tmp/x`.")
    cells = [text, CHECKED, new_code_cell(""), run(2, picture(MAX_PICTURE)), run(3, None)]
    assert lesson_problems(new_notebook(cells=cells)) == []


BAD_LESSONS = {
    "never run": ([new_code_cell("print(x)"), CHECKED], "execution counts"),
    "run in another order": ([CHECKED, run(3, None), run(2, None)], "execution counts"),
    "stopped half-way": ([CHECKED, run(None, None)], "execution counts"),
    "error": ([CHECKED, run(2, new_output("error", ename="E", evalue="v"))], "an error: E: v"),
    "stderr": ([CHECKED, run(2, new_output("stream", name="stderr", text="50%|"))], "stderr"),
    "log on stdout": (
        [CHECKED, run(2, stdout("ok\n2025-01-31 10:00:00.123456: I tensorflow/core/x.cc:1] b"))],
        "TensorFlow's log",
    ),
    "log of absl": (
        [CHECKED, run(2, stdout("W0000 00:00:1738317600.1 9 x.cc:4]"))],
        "TensorFlow's",
    ),
    "nothing checked": ([run(1, stdout("20"))], "no cell has the tag"),
    "checked without output": ([run(1, None, tags=["nbval-check-output"])], "no stored output"),
    "comment for a tag": ([CHECKED, run(2, None, "# NBVAL_CHECK_OUTPUT\n1")], "use a cell tag"),
    "large picture": ([CHECKED, run(2, picture(MAX_PICTURE + 1))], "a picture of 60001 bytes"),
    "large picture in HTML": ([CHECKED, run(2, html_picture(MAX_PICTURE + 1))], "a picture of"),
    "path in a source": ([CHECKED, run(2, None, "open('/home/ann/x')")], "a path of one machine"),
    "path in an output": ([CHECKED, run(2, stdout("saved to /tmp/x"))], "a path of one machine"),
    "path in prose": ([CHECKED, new_markdown_cell(r"C:\Users\ann")], "a path of one machine"),
}


@pytest.mark.parametrize("cells, problem", BAD_LESSONS.values(), ids=BAD_LESSONS.keys())
def test_a_bad_lesson_is_noticed(cells, problem):
    problems = lesson_problems(new_notebook(cells=cells))
    assert len(problems) == 1
    assert problem in problems[0]


def test_exercises_keep_no_outputs():
    assert exercise_problems(new_notebook(cells=[new_code_cell("answer = None")])) == []
    for cell in (CHECKED, run(1, None)):
        assert exercise_problems(new_notebook(cells=[cell])) == ["has stored outputs: clear them"]
    assert exercise_problems(new_notebook(cells=[new_code_cell("'/root/x'")]))
