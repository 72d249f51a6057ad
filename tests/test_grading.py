"""Grading from a folder of submissions to reports, on tiny courses without TensorFlow."""

import ast
import csv
import importlib
import importlib.util
import io
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.grading import __main__ as command
from helpers.grading import pipeline, report, secret
from helpers.grading import sandbox as sandboxes

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("nbgrader"),
        reason="nbgrader is not installed: python -m pip install -r requirements-test.lock",
    ),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),  # nbgrader's own
]
HIDDEN = 'assert answer == 42, "✗ Not yet. Half of it is missing."'
SOLUTION = "answer = None  # your turn\n\n### BEGIN SOLUTION\nanswer = 42\n### END SOLUTION"
SHOWN = 'assert answer is not None, "Not answered yet."'
CHECK = f"{SHOWN}\n### BEGIN HIDDEN TESTS\n{HIDDEN}\n### END HIDDEN TESTS"
HAND_IN = """import os, numpy as np
pictures = np.load(os.environ["COURSE_SECRET"] + "/one.npy")
outputs = np.float32(pictures.mean(axis=(1, 2, 3)) > 3 * answer)
np.save(os.environ["COURSE_HANDED_IN"] + "/one.npy", outputs)"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5Erk"
PIXEL += "Jggg=="


def marked(grade_id, source, **marks):
    """A code cell with nbgrader's marks."""
    cell = new_code_cell(source, id=grade_id)
    cell.metadata.nbgrader = {"grade": False, "locked": False, "solution": False, "task": False}
    cell.metadata.nbgrader |= {"grade_id": grade_id, "schema_version": 3, **marks}
    return cell


def exercise(answer, check, *more):
    """A notebook with one task for 60 points and one for 40 that hands predictions in."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Tiny", id="title"),
            marked("answer", answer, solution=True),
            marked("check_answer", check, points=60, grade=True, locked=True),
            marked("check_hand_in", HAND_IN, points=40, grade=True, locked=True),
            *more,
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "P"}
    return notebook


def own(source):
    return new_code_cell(source)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one set; its secret pictures are black or white."""
    folder = tmp_path / "course"
    (folder / "solutions" / "tiny").mkdir(parents=True)
    nbformat.write(exercise(SOLUTION, CHECK), folder / "solutions" / "tiny" / "one.ipynb")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    spec = secret.Spec(40, nothing=0.6, full=0.9, count=20)
    labels = np.arange(20) % 2
    pictures = np.full((20, 4, 4, 3), labels[:, None, None, None] * 255, "uint8")
    monkeypatch.setattr(secret, "SPECS", {("tiny", "one"): spec})
    monkeypatch.setattr(secret, "draw", lambda set_, notebook, seed: (pictures, labels))
    return folder


@pytest.fixture
def hand_in(tmp_path):
    """`hand_in(student, answer, *own_cells)` or `hand_in(student, "not JSON")`."""

    def add(student, content, *more, name="tiny/one.ipynb"):
        path = tmp_path / "submitted" / student / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("answer"):
            notebook = exercise(content, SHOWN, *more)
            code = [cell for cell in notebook.cells if cell.cell_type == "code"]
            for count, cell in enumerate(code, 1):  # as after "run all"
                cell.execution_count = count
            nbformat.write(notebook, path)
        else:
            path.write_text(content)

    return add


@pytest.fixture
def grade(tmp_path, course):
    """Grade what was handed in; returns the rows of the table by student."""

    def run(**options):
        graded, _ = pipeline.grade(tmp_path / "submitted", course=course, **options)
        return table(graded)

    return run


def table(graded):
    with open(graded / "grades.csv", newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Runs notebooks in this process in place of a sandbox; a file lists the answers that ran."""
    places = {name: tmp_path / name for name in ("COURSE_SECRET", "COURSE_HANDED_IN")}
    for name, folder in places.items():
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    log = tmp_path / "executed"
    log.touch()

    def execute(notebook, *, files, secret, limits, sandbox=True):
        names, predictions = {}, places["COURSE_HANDED_IN"] / "one.npy"
        predictions.unlink(missing_ok=True)
        for name, content in secret.items():
            (places["COURSE_SECRET"] / name).write_bytes(content)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                try:
                    exec(cell.source, names)
                except Exception as error:
                    output = dict(ename=type(error).__name__, evalue=str(error), traceback=[])
                    cell.outputs.append(new_output("error", **output))
        with log.open("a") as file:
            file.write(notebook.cells[1].source + "\n")
        found = {"one.npy": predictions.read_bytes()} if predictions.exists() else {}
        return sandboxes.Execution(notebook, found, 1.0, 2.0, "finished", "It ran to its end.")

    monkeypatch.setattr(sandboxes, "execute", execute)
    monkeypatch.setattr(sandboxes, "trial", lambda limits: None)
    monkeypatch.setattr("nbgrader.api.get_alembic_version", lambda: "tests")  # it takes a second
    return lambda: sorted(log.read_text().splitlines())


# --- points ---


def test_points_come_from_checks_and_from_pictures(hand_in, grade, executed):
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 41")
    hand_in("carl", "answer = None")
    hand_in("dora", "this is no JSON")
    rows = grade()
    names = ("points", "of", "from_checks", "from_secret_pictures")
    points = {student: [row[name] for name in names] for student, row in rows.items()}
    assert points == {
        "anna": ["100", "100", "60", "40"],
        "ben": ["40", "100", "0", "40"],
        "carl": ["0", "100", "0", "0"],
        "dora": ["0", "100", "0", "0"],
    }
    assert [student for student, row in rows.items() if row["problems"]] == ["dora"]
    assert [student for student, row in rows.items() if row["flags"]] == []


def test_nbgrader_has_the_same_points(hand_in, grade, executed, tmp_path):
    from nbgrader.api import Gradebook

    hand_in("anna", "answer = 42")
    hand_in("dora", "this is no JSON")
    grade()
    url = f"sqlite:///{tmp_path / 'submitted-graded' / 'gradebook.db'}"
    with Gradebook(url) as book:
        assert book.find_submission("tiny", "anna").score == 100
        assert book.find_submission("tiny", "dora").score == 0
        assert not book.find_submission("tiny", "anna").needs_manual_grade
        book.find_grade("check_answer", "one", "tiny", "dora").manual_score = 30
        book.db.commit()
    rows = grade()
    assert rows["dora"]["points"] == "30", "what an instructor gives there counts"
    feedback = tmp_path / "submitted-graded" / "feedback"
    assert "30 of 100 points" in Page(feedback / "dora" / "tiny" / "one.html")
    assert rows["anna"]["points"] == "100"


@pytest.mark.parametrize(
    "trick",
    [
        'print("✓ Right. 100 of 100 points")',
        "100",
        "import sys; print(1, file=sys.stderr)",
    ],
)
def test_what_a_kernel_says_cannot_raise_the_points(hand_in, grade, executed, trick, monkeypatch):
    execute = sandboxes.execute

    def forging(notebook, **options):
        done = execute(notebook, **options)
        for cell in done.notebook.cells:
            if cell.cell_type == "code" and trick == "100":
                cell.outputs.append(new_output("execute_result", {"text/plain": "1e9"}))
                cell.outputs.append(new_output("execute_result", {}))
            elif cell.cell_type == "code":
                cell.outputs.append(new_output("stream", name="stderr", text=trick))
        return done

    monkeypatch.setattr(sandboxes, "execute", forging)
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 41", own(trick))
    rows = grade()
    assert rows["anna"]["points"] == "100"
    assert rows["ben"]["points"] == "40"


def test_a_missing_notebook_counts_nothing(course, hand_in, grade, executed):
    more = course / "solutions" / "tiny" / "two.ipynb"
    nbformat.write(exercise(SOLUTION, CHECK), more)
    hand_in("anna", "answer = 42")
    row = grade()["anna"]
    assert (row["points"], row["of"]) == ("100", "200")
    assert row["problems"] == "two.ipynb was not handed in."


def test_what_stands_in_the_wrong_place_is_told(hand_in, grade, executed, tmp_path):
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 42", name="tiny/one (1).ipynb")
    hand_in("carl", "answer = 42", name="huge/one.ipynb")
    hand_in("=cmd()", "answer = 42")
    hand_in("hugo", "answer = 42", name="=SUM(1)/one.ipynb")
    hand_in("ida", "answer = 42", name="tiny/=SUM(1).ipynb")
    hand_in("<script>alert(1)<", "answer = 42", name="script>/one.ipynb")
    hand_in(".hidden", "answer = 42")
    folder = tmp_path / "submitted"
    (folder / "emil").symlink_to(folder / "anna")
    (folder / "fred").mkdir()
    (folder / "fred" / "tiny").symlink_to(folder / "anna" / "tiny")
    (folder / "gina" / "tiny").mkdir(parents=True)
    (folder / "gina" / "tiny" / "one.ipynb").symlink_to("/etc/passwd")
    (folder / "notes.txt").touch()
    rows = grade()
    assert not [text for row in rows.values() for text in row.values() if text.startswith("=")]
    told = {student: row["problems"] for student, row in rows.items()}
    assert told["anna"] == ""
    assert "one.ipynb was not handed in" in told["ben"]
    assert "one (1).ipynb is no notebook of this set" in told["ben"]
    assert "There is no set huge" in told["carl"]
    assert "rename it" in told["'=cmd()"], "no formula"
    assert "rename it" in told["<script>alert(1)<"]
    assert "link" in told["emil"] and "link" in told["fred"] and "link" in told["gina"]
    assert "This is a file" in told["notes.txt"]
    assert ".hidden" not in told
    assert executed() == ["answer = 42"]


def test_what_was_trained_at_home_is_handed_to_the_notebook(
    hand_in, grade, executed, monkeypatch, tmp_path
):
    seen, execute = {}, sandboxes.execute

    def watching(notebook, *, files, **options):
        student = next(c.source for c in notebook.cells if c.source.startswith("answer"))[-4:]
        seen[student] = files, notebook.cells[0].source
        notebook.cells = [c for c in notebook.cells if "serve_fits" not in c.source]
        return execute(notebook, files=files, **options)

    monkeypatch.setattr(sandboxes, "execute", watching)
    for student in ("anna", "emil", "dora", "gina", "hugo"):
        hand_in(student, f"answer = 42  # {student}")
    fits = "{}/tiny/one.fit.npz".format
    (tmp_path / "submitted" / fits("anna")).write_bytes(b"weights")
    (tmp_path / "submitted" / fits("gina")).write_bytes(b"of an earlier answer")
    (tmp_path / "submitted" / fits("hugo")).write_bytes(b"of who knows what")
    for student, count in (("gina", 9), ("hugo", None)):  # after the last check; cleared
        path = tmp_path / "submitted" / student / "tiny" / "one.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[1 if count else 3].execution_count = count
        nbformat.write(notebook, path)
    (tmp_path / "submitted" / fits("emil")).symlink_to("/etc/passwd")
    rows = grade()
    assert seen["anna"][0] == {"one.fit.npz": b"weights"}
    assert "serve_fits()" in seen["anna"][1]
    for student in ("dora", "emil", "gina", "hugo"):
        assert seen[student] == ({}, "# Tiny")
    assert rows["emil"]["problems"].endswith("It is trained again.")
    assert "Cells ran after the last check" in rows["gina"]["problems"]
    assert "does not say when it ran" in rows["hugo"]["problems"]
    assert {row["points"] for row in rows.values()} == {"100"}

    (tmp_path / "submitted" / fits("anna")).write_bytes(b"other weights")
    grade()
    assert len(executed()) == 6, "another file is another submission"


# --- what may be wrong with the checks ---


def patched_course(course):
    check = "class check:\n    def x(answer):\n        assert answer == 42"
    notebook = exercise(SOLUTION, "check.x(answer)")
    notebook.cells.insert(0, new_code_cell(check, id="given"))
    nbformat.write(notebook, course / "solutions" / "tiny" / "one.ipynb")


def test_a_patched_check_is_flagged(course, hand_in, grade, executed):
    patched_course(course)
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 41\ncheck.x = lambda answer: None")
    rows = grade()
    assert rows["ben"]["points"] == "100", "a flag changes no points"
    assert "Accepts an answer that is wrong for sure: check.x." in rows["ben"]["flags"]
    assert rows["anna"]["flags"] == ""


def test_suspicious_code_is_flagged(hand_in, grade, executed):
    hand_in("ben", "answer = 42\nimport numpy\nnumpy.nonsense = 1")
    assert grade()["ben"]["flags"] == "Code cell 1 sets numpy.nonsense."
    del np.nonsense


def test_all_checks_and_no_pictures_is_flagged(hand_in, grade, executed):
    hand_in("ben", "answer = 42\nimport builtins")
    hand_in("anna", "answer = type('Six', (int,), {'__rmul__': lambda *_: 1000})(42)")
    rows = grade()
    assert rows["anna"]["from_checks"] == "60"
    assert rows["anna"]["from_secret_pictures"] == "0"
    assert "little better than chance" in rows["anna"]["flags"]
    assert rows["ben"]["flags"] == ""


def test_the_course_s_checks_refuse_the_wrong_answers_that_are_added(monkeypatch):
    monkeypatch.setenv("COURSE_GRADING", "1")
    asked = 0
    for path in sorted((ROOT / "exercises").glob("*/*.ipynb")):
        check = importlib.import_module(f"helpers.checks.{path.parent.name}")
        for cell in pipeline._canaries(nbformat.read(path, as_version=4), "5c0f"):
            assert ast.parse(cell.source)
            with pytest.raises(AssertionError):
                exec(cell.source, {"check": check})
            asked += 1
    assert asked > 40


# --- again, interrupted, on other machines ---


def test_only_what_changed_is_graded_again(course, hand_in, grade, executed, tmp_path):
    for number in range(3):
        hand_in(f"s{number}", f"answer = 4{number}")
    grade()
    assert executed() == ["answer = 40", "answer = 41", "answer = 42"]
    before = grade()
    assert len(executed()) == 3
    hand_in("s0", "answer = 43")
    assert {s for s, row in grade().items() if row != before[s]} == set()
    assert executed()[3:] == ["answer = 43"]

    (course / "helpers" / "checks").mkdir(parents=True)
    (course / "helpers" / "checks" / "tiny.py").write_text("stricter = True")
    grade()
    assert len(executed()) == 7, "other checks: all again"
    (tmp_path / "seed").write_text("another" * 8)
    grade(seed_file=tmp_path / "seed")
    assert len(executed()) == 10, "another seed: all again"
    grade(seed_file=tmp_path / "seed")
    (tmp_path / "submitted-graded" / "gradebook.db").unlink()
    assert grade(seed_file=tmp_path / "seed")["s2"]["points"] == "100"
    assert len(executed()) == 10, "a lost gradebook is written anew"


def test_a_killed_run_goes_on_where_it_stopped(hand_in, grade, executed, monkeypatch, tmp_path):
    students = [f"s{number}" for number in range(6)]
    for number, student in enumerate(students):
        hand_in(student, f"answer = {number}")
    execute, here = sandboxes.execute, os.getpid()

    def fatal(notebook, **options):
        if os.getpid() != here and len(executed()) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(notebook, **options)

    monkeypatch.setattr(sandboxes, "execute", fatal)
    process = multiprocessing.get_context("fork").Process(target=grade, daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    notebooks = tmp_path / "submitted-graded" / "state" / "notebooks"
    done = {path.parts[-3] for path in notebooks.glob("*/*/*.json")}
    assert 0 < len(done) < 6
    rows = grade()
    assert list(rows) == students
    assert set(executed()) == {f"answer = {n}" for n in range(6)}, "none is lost"
    for number, student in enumerate(students):
        if student in done:
            assert executed().count(f"answer = {number}") == 1, "none is graded twice"


def test_a_seed_is_made_once_for_its_owner_only(hand_in, grade, executed, tmp_path):
    hand_in("anna", "answer = 42")
    grade()
    seed = tmp_path / "submitted-graded" / "state" / "seed"
    first = seed.read_text()
    assert len(first) >= 32
    assert seed.stat().st_mode & 0o77 == 0
    grade()
    assert seed.read_text() == first


def test_a_lost_worker_costs_a_second_try_and_no_submission(hand_in, grade, executed, monkeypatch):
    for student in ("anna", "ben", "carl"):
        hand_in(student, f"answer = 42  # {student}")
    execute, lost = sandboxes.execute, []

    def fragile(notebook, **options):
        student = notebook.cells[1].source[-4:].strip()
        if student == "ben" or (student == "carl" and student not in lost):
            lost.append(student)
            raise ConnectionError("the worker is gone")
        return execute(notebook, **options)

    monkeypatch.setattr(sandboxes, "execute", fragile)
    rows = grade()
    assert sorted(lost) == ["ben", "ben", "carl"]
    assert {s: row["points"] for s, row in rows.items()} == {
        "anna": "100",
        "ben": "0",
        "carl": "100",
    }
    assert "was not graded (the worker is gone)" in rows["ben"]["problems"]
    monkeypatch.setattr(sandboxes, "execute", execute)
    assert grade()["ben"]["points"] == "100", "the next run tries it again"
    assert len(executed()) == 3


def test_a_page_that_cannot_be_made_stops_nobody(hand_in, grade, executed, monkeypatch):
    for student in ("anna", "ben"):
        hand_in(student, f"answer = 42  # {student}")
    write = report.write_feedback

    def unable(record, graded):
        if record["student"] == "anna":
            raise RecursionError("too deep")
        write(record, graded)

    monkeypatch.setattr(report, "write_feedback", unable)
    rows = grade()
    assert {s: row["points"] for s, row in rows.items()} == {"anna": "0", "ben": "100"}
    assert "was not graded (too deep)" in rows["anna"]["problems"]


def test_a_worker_gets_pictures_and_no_labels(hand_in, grade, executed, monkeypatch):
    run, tasks = pipeline.run, []
    monkeypatch.setattr(pipeline, "run", lambda task: tasks.append(task) or run(task))
    hand_in("anna", "answer = 42")
    grade()
    (task,) = tasks
    assert task["secret"].keys() == {"one.npy"} and task["files"] == {}
    assert np.load(io.BytesIO(task["secret"]["one.npy"])).shape == (20, 4, 4, 3)
    assert task.keys() == {"notebook", "files", "secret", "limits", "sandbox"}


def test_a_second_run_at_the_same_time_is_refused(hand_in, grade, executed, tmp_path):
    from filelock import FileLock

    hand_in("anna", "answer = 42")
    grade()
    with (
        FileLock(tmp_path / "submitted-graded" / "state" / "lock"),
        pytest.raises(pipeline.Problem, match="Another run is grading"),
    ):
        grade()


def test_what_others_disturbed_runs_once_more_alone(monkeypatch):
    running, calls = [], []

    def run(task):
        running.append(task)
        calls.append((task, len(running)))
        time.sleep(0.05)
        running.remove(task)
        return {"disturbed": task == "two", "task": task}

    monkeypatch.setattr(pipeline, "run", run)
    tasks = [(number, ({}, task)) for number, task in enumerate(("one", "two", "three"))]
    with ThreadPoolExecutor(2) as pool:
        done = list(pipeline._results(pool, 2, tasks))
    assert [(result["task"], error) for _, _, result, error in done][-1] == ("two", None)
    assert len(done) == 3 and [task for task, _ in calls].count("two") == 2
    assert calls[-1] == ("two", 1), "alone"


@pytest.mark.parametrize("seed", ["", "2026-winter"])
def test_a_seed_that_can_be_guessed_is_refused(hand_in, grade, executed, tmp_path, seed):
    hand_in("anna", "answer = 42")
    (tmp_path / "seed").write_text(seed)
    with pytest.raises(pipeline.Problem, match="can be guessed"):
        grade(seed_file=tmp_path / "seed")
    with pytest.raises(pipeline.Problem, match="There is no folder"):
        grade(seed_file=tmp_path / "nowhere" / "seed")


def test_points_given_by_hand_are_pointed_out_when_a_new_answer_comes(
    hand_in, grade, executed, tmp_path
):
    hand_in("anna", "answer = 41")
    grade()
    api = pytest.importorskip("nbgrader.api")
    with api.Gradebook(f"sqlite:///{tmp_path}/submitted-graded/gradebook.db") as book:
        book.find_grade("check_answer", "one", "tiny", "anna").manual_score = 12
        book.db.commit()
    assert grade()["anna"]["problems"] == ""
    hand_in("anna", "answer = 42")
    row = grade()["anna"]
    assert "points of check_answer were given by hand" in row["problems"]


def test_few_tasks_wait_at_a_time():
    """Tasks carry megabytes: they are made when there is room for them."""
    made, most = [], []

    def tasks():
        for number in range(20):
            made.append(number)
            yield number, ({}, {"number": number, "disturbed": False})

    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run", lambda task: time.sleep(0.01) or task)
        done = []
        for number, _, result, error in pipeline._results(pool, 2, tasks()):
            assert (number, error) == (result["number"], None)
            done.append(number)
            most.append(len(made) - len(done))
    assert sorted(done) == list(range(20))
    assert max(most) <= 3


def test_in_the_sandbox(hand_in, grade, sandboxed):
    """The real thing: what ends the kernel of one stops nobody else."""
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 42\nimport os\nos._exit(0)")
    rows = grade(jobs=2)
    assert {s: row["points"] for s, row in rows.items()} == {"anna": "100", "ben": "0"}
    assert "kernel" in rows["ben"]["problems"]


def test_a_dask_worker_is_killed_and_nothing_is_lost(
    hand_in, grade, tmp_path, sandboxed, monkeypatch
):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    students = [f"s{number}" for number in range(6)]
    for number, student in enumerate(students):
        hand_in(student, f"answer = 42 + {number % 2}\nimport time\ntime.sleep(1)")
    graded, finish = [], pipeline._Run.finish

    def counting(self, record, result, error):
        graded.append(record["student"])
        finish(self, record, result, error)

    monkeypatch.setattr(pipeline._Run, "finish", counting)
    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**options) as cluster, ThreadPoolExecutor(1) as pool:
        rows = pool.submit(grade, dask=cluster.scheduler_address)
        notebooks = tmp_path / "submitted-graded" / "state" / "notebooks"
        deadline = time.monotonic() + 200
        while not list(notebooks.glob("*/*/*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        rows = rows.result(300)
    assert sorted(graded) == students, "each is graded once"
    assert [row["points"] for row in rows.values()] == ["100", "40"] * 3
    assert list(rows) == students, "none is lost"
    assert all(row["problems"] == "" for row in rows.values())


@pytest.mark.parametrize("workers", [None, 0])
def test_dask_without_workers_says_so(hand_in, grade, executed, workers):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    hand_in("anna", "answer = 42")
    if workers is None:
        with pytest.raises(pipeline.Problem, match="no Dask scheduler at nowhere"):
            grade(dask="nowhere")
        return
    options = dict(n_workers=0, processes=False, dashboard_address=None)
    with (
        distributed.LocalCluster(**options) as cluster,
        pytest.raises(pipeline.Problem, match="has no workers"),
    ):
        grade(dask=cluster.scheduler_address)


# --- pages ---


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, text):
        self.text += f" {text} "

    def __contains__(self, text):
        """Whether the page shows a text, whatever tags and spaces stand in it."""
        return "".join(text.split()) in "".join(self.text.split())


ATTACK = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"


def attacking(notebook):
    """Outputs with everything that a page should not run."""
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.outputs = [
        new_output("stream", name="stdout", text=f"\x1b[31m{ATTACK}\x1b[0m{HIDDEN}"),
        new_output("display_data", {"image/png": PIXEL, "text/plain": ATTACK}),
        new_output("display_data", {"text/html": ATTACK, "text/plain": ATTACK}),
        new_output("display_data", {"image/svg+xml": f"<svg onload='x'>{ATTACK}</svg>"}),
        new_output("display_data", {"application/javascript": "alert(3)"}),
        new_output("display_data", {"text/markdown": ATTACK, "text/latex": ATTACK}),
        new_output("error", ename=ATTACK, evalue=ATTACK, traceback=[ATTACK, HIDDEN]),
    ]
    return notebook


@pytest.fixture
def page(hand_in, grade, executed, monkeypatch, tmp_path):
    """A function that grades an attacking submission and returns a page of it."""
    execute = sandboxes.execute

    def hostile(notebook, **options):
        return execute(attacking(notebook), **options)

    monkeypatch.setattr(sandboxes, "execute", hostile)
    own_words = new_markdown_cell(f"{ATTACK} [x](javascript:alert(4)) ![x](http://evil.example)")
    hand_in("anna", f"answer = 41\n# {ATTACK}", own_words, own(f"raise ValueError('{ATTACK}')"))
    grade()
    return lambda name: Page(tmp_path / "submitted-graded" / name)


@pytest.mark.parametrize("name", ["feedback/anna/tiny/one.html", "overview.html"])
def test_pages_run_nothing_and_load_nothing(page, name):
    found = page(name)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(found.tags)
    assert [key for key, _ in found.attributes if key.startswith("on")] == []
    places = [value for key, value in found.attributes if key in ("src", "href", "action", "data")]
    assert [p for p in places if not p.startswith(("#", "data:image/png;base64,"))] == []
    policy = [value for key, value in found.attributes if key == "content" and "src" in value]
    assert policy[0].startswith("default-src 'none'")


def test_feedback_tells_points_and_sentences_and_keeps_secrets(page):
    found = page("feedback/anna/tiny/one.html")
    assert "40 of 100 points" in found
    assert "Half of it is missing." in found
    assert "The model named 20 of 20 secret pictures rightly" in found
    assert "<script>alert(1)</script>" in found, "what was printed is text"
    assert found.tags.count("img") == 1, "plots are there"
    assert HIDDEN not in found and "HIDDEN TESTS" not in found
    assert "answer = 42" not in found, "the solution"
    assert SHOWN in found
    assert "# " + ATTACK in found, "the student's own code"


def test_the_overview_counts(hand_in, grade, executed, tmp_path):
    for number in range(4):
        hand_in(f"s{number}", f"answer = {41 + number // 3}")
    hand_in("zoe", "this is no JSON")
    grade()
    text = " ".join(Page(tmp_path / "submitted-graded" / "overview.html").text.split())
    assert "5 students, 5 sets handed in. 0 flags, 1 problem." in text
    assert "answer one 60 20 % 3 × Half of it is missing." in text
    assert "zoe tiny/one one.ipynb is not JSON" in text


def test_the_same_mistake_with_other_numbers_is_one_mistake():
    said = ["✗ Not yet. Expected 3, found 1.5.", "✗ Not yet. Expected 12, found -2."]
    assert {report._without_numbers(s) for s in said} == {"✗ Not yet. Expected …, found …."}


def test_without_the_sandbox_every_report_says_so(hand_in, course, executed, tmp_path, capsys):
    hand_in("anna", "answer = 42")
    graded, records = pipeline.grade(tmp_path / "submitted", course=course, sandbox=False)
    assert "Graded without the sandbox." in table(graded)["anna"]["flags"]
    for name in ("overview.html", "feedback/anna/tiny/one.html"):
        assert "without the sandbox" in Page(graded / name)
    assert "WITHOUT the sandbox" in report.summary(records, graded)
    graded, records = pipeline.grade(tmp_path / "submitted", course=course)
    assert table(graded)["anna"]["flags"] == "", "with the sandbox it is graded again"
    assert "WITHOUT" not in report.summary(records, graded)


# --- the command ---


def test_the_command_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="There is no folder .*gone"):
        command.main([str(tmp_path / "gone")])
    (tmp_path / "submitted").mkdir()
    with pytest.raises(SystemExit, match="There is no set 'x'. The course has .*start_here"):
        command.main([str(tmp_path / "submitted"), "--set", "x"])
    assert not (tmp_path / "submitted-graded").exists()


def test_without_a_sandbox_nothing_runs(hand_in, course, executed, monkeypatch, tmp_path):
    def closed(limits):
        raise sandboxes.SandboxUnavailable("bwrap is not installed.")

    monkeypatch.setattr(sandboxes, "trial", closed)
    monkeypatch.setattr(
        pipeline.grade, "__kwdefaults__", pipeline.grade.__kwdefaults__ | {"course": course}
    )
    hand_in("anna", "answer = 42")
    with pytest.raises(SystemExit, match="bwrap is not installed"):
        command.main([str(tmp_path / "submitted")])
    assert executed() == []


def test_the_command_prints_a_summary(hand_in, course, executed, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        pipeline.grade, "__kwdefaults__", pipeline.grade.__kwdefaults__ | {"course": course}
    )
    hand_in("anna", "answer = 42")
    hand_in("ben", "answer = 41")
    command.main([str(tmp_path / "submitted"), "--set", "tiny"])
    said = capsys.readouterr().out
    assert "tiny: 2 graded, 70.0 points on average" in said
    assert "submitted-graded/overview.html" in said
