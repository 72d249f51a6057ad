"""exercises/ is what solutions/ generate; nbgrader grades both; students get a whole bundle."""

import csv
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.checks import Check
from helpers.grading import pipeline

ROOT = Path(__file__).parents[1]
SETS = sorted(path.name for path in (ROOT / "solutions").iterdir() if path.is_dir())
QUICKEST = "start_here"
INSTRUCTORS = {".ci", ".dockerignore", "Dockerfile", "INSTRUCTOR.md"}
INSTRUCTORS |= {"nbgrader_config.py", "requirements-test.lock", "solutions", "tests"}
BUNDLE = "transfer-learning-course"

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
needs_nbgrader = pytest.mark.skipif(
    not importlib.util.find_spec("nbgrader"),
    reason="nbgrader is not installed: python -m pip install -r requirements-test.lock",
)


def run(*command, cwd, **variables):
    """Run a command; its output is in the message if it fails."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def make(*arguments, cwd):
    """`make` with the Python that runs this test, whatever environment that is."""
    binaries = f"BIN={Path(sys.executable).parent}"
    installed = ("-o", ".venv/tools-installed", "-o", ".venv/installed-in")
    return run("make", binaries, *installed, *arguments, cwd=cwd)


def files(folder):
    """What is in the folders of a folder, by name: the sets, without the README beside them."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.glob("*/**/*")
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    }


def notebooks(folder, name):
    """The notebooks of a set, by name."""
    paths = sorted((ROOT / folder / name).glob("*.ipynb"))
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def cells(notebook, **marks):
    """The cells with these nbgrader marks, by grade_id: `cells(notebook, solution=True)`."""
    marked = {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}
    return {
        grade_id: cell
        for grade_id, cell in marked.items()
        if all(cell.metadata.nbgrader[mark] == value for mark, value in marks.items())
    }


def split_off(source, part):
    """What stands between the marks of "SOLUTION" or "HIDDEN TESTS", and the rest."""
    before, _, rest = source.partition(f"### BEGIN {part}\n")
    inside, _, after = rest.partition(f"### END {part}")
    return inside.strip(), before + after.lstrip("\n")


# --- one source ---


def course(folder, source=ROOT / "solutions"):
    """A folder in which `make exercises` works."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(source, folder / "solutions")
    for name in ("Makefile", "nbgrader_config.py"):
        shutil.copy(ROOT / name, folder)
    return folder


@needs_make
@needs_nbgrader
def test_exercises_are_what_the_solutions_generate(tmp_path):
    make("exercises", cwd=course(tmp_path))
    expected, found = files(tmp_path / "exercises"), files(ROOT / "exercises")
    different = [n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]
    assert sorted(different) == [], "edit solutions/, then `make exercises` (never exercises/)"


def marked(grade_id, source, **marks):
    """A code cell with nbgrader's marks."""
    cell = new_code_cell(source, id=grade_id)
    cell.metadata.nbgrader = {"grade": False, "locked": False, "solution": False, "task": False}
    cell.metadata.nbgrader |= {"grade_id": grade_id, "schema_version": 3, **marks}
    return cell


def tiny_course(folder, source):
    """A course of one set with one task; its check warns."""
    check = "import sys\n\nprint('careful', file=sys.stderr)\nassert a == 1"
    cells = [marked("one", source, solution=True)]
    cells += [marked("check_one", check, grade=True, locked=True, points=100)]
    notebook = new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "P"}
    (folder / "written" / "tiny").mkdir(parents=True)
    nbformat.write(notebook, folder / "written" / "tiny" / "one.ipynb")
    course(folder, folder / "written")
    for name in ("README.md", "tiny/one.ipynb", "gone/old.ipynb"):
        path = folder / "exercises" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as before")
    return folder


GOOD = "a = None  # your turn\n\n### BEGIN SOLUTION\na = 1\n### END SOLUTION"


@needs_make
@needs_nbgrader
def test_generating_replaces_what_is_there_and_leaves_nothing_else(tmp_path):
    folder = tiny_course(tmp_path, GOOD)
    before = {path.name for path in folder.iterdir()}
    make("exercises", cwd=folder)
    assert {path.name for path in folder.iterdir()} == before, "no gradebook, no folder to work in"
    assert (folder / "exercises" / "README.md").read_text() == "as before"
    assert list(files(folder / "exercises")) == ["tiny/one.ipynb"], "a set that is gone goes"
    notebook = nbformat.read(folder / "exercises" / "tiny" / "one.ipynb", as_version=4)
    assert notebook.cells[0].source.strip() == "a = None  # your turn"


@needs_make
@needs_nbgrader
@pytest.mark.parametrize("damage", ["no end", "no notebook"])
def test_a_wrong_solution_stops_make_and_changes_nothing(tmp_path, damage):
    folder = tiny_course(tmp_path, GOOD.replace("END", "AND") if damage == "no end" else GOOD)
    if damage == "no notebook":
        (folder / "solutions" / "tiny" / "one.ipynb").write_text("{")
    before = files(folder / "exercises")
    with pytest.raises(RuntimeError, match="(?s)error processing assignment 'tiny'.*Error"):
        make("exercises", cwd=folder)
    assert files(folder / "exercises") == before


# --- what a set must have ---


@pytest.mark.parametrize("name", SETS)
def test_points_of_a_set_add_up_to_100(name):
    points = [
        cell.metadata.nbgrader.points
        for notebook in notebooks("solutions", name).values()
        for cell in cells(notebook, grade=True).values()
    ]
    assert sum(points) == 100, points


@pytest.mark.parametrize("name", SETS)
def test_every_task_has_its_answer_its_check_and_its_trio(name):
    module = importlib.import_module(f"helpers.checks.{name}")
    tasks = {task: value for task, value in vars(module).items() if isinstance(value, Check)}
    answers = {}
    for stem, notebook in notebooks("solutions", name).items():
        for grade_id in cells(notebook, solution=True, grade=False):
            assert grade_id not in answers, "two answers of one name"
            answers[grade_id] = f"{name}/{stem}"
        checked = cells(notebook, solution=False, grade=True)
        expected = {f"check_{g}" for g, place in answers.items() if place == f"{name}/{stem}"}
        handed_in = set(checked) - expected
        assert expected <= set(checked) and len(handed_in) == 1
        assert handed_in.pop().startswith("check_hand_in")
        for grade_id, cell in checked.items():
            assert cell.source.startswith(f"check.{grade_id.removeprefix('check_')}(")
    assert {task: value.notebook for task, value in tasks.items()} == answers
    assert all(task == value.judge.__name__ for task, value in tasks.items())


@pytest.mark.parametrize("name", SETS)
def test_exercises_are_open_and_give_nothing_away(name):
    released = notebooks("exercises", name)
    for stem, notebook in notebooks("solutions", name).items():
        # a later exercise of the set may begin where an earlier one ended
        everything = "\n".join(cell.source for cell in released[stem].cells)
        assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN TESTS)", everything)
        for grade_id, cell in cells(notebook).items():
            open_cell = cells(released[stem])[grade_id]
            for part in ("SOLUTION", "HIDDEN TESTS"):
                secret, rest = split_off(cell.source, part)
                if secret:
                    assert secret not in everything
                    if cell.cell_type == "code":
                        assert open_cell.source.strip() == rest.strip()
        for grade_id, cell in cells(released[stem], solution=True, grade=False).items():
            stub = r"(\w+ = )+None  # your turn(: .+)?"  # perhaps with the shape of an answer
            assert re.fullmatch(stub, cell.source.strip()), grade_id


# --- nbgrader's own grading ---


def solve(exercise, solution):
    """The exercise as a student hands it in: with the answers, without the hidden tests."""
    for grade_id, cell in cells(exercise, solution=True).items():
        source = cells(solution)[grade_id].source
        cell.source = re.sub(r"### (BEGIN|END) SOLUTION\n?", "", source)
    return exercise


def hand_in(folder, name):
    """What two students hand in, "solved" and "untouched", of the exercises in a folder."""
    for exercise in (folder / "exercises" / name).glob("*.ipynb"):
        for student in ("solved", "untouched"):
            notebook = nbformat.read(exercise, as_version=4)
            if student == "solved":
                solution = folder / "solutions" / name / exercise.name
                notebook = solve(notebook, nbformat.read(solution, as_version=4))
            target = folder / "submitted" / student / name / exercise.name
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)


def grade(folder, name):
    """Score and highest score of both, as nbgrader counts."""
    variables = {"COURSE_GRADING": "1", "JUPYTER_PREFER_ENV_PATH": "1", "TQDM_DISABLE": "1"}
    # nbgrader calls alembic by its bare name
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def nbgrader(*arguments):
        run(sys.executable, "-m", "nbgrader", *arguments, cwd=folder, **variables)

    nbgrader("generate_assignment", name)
    hand_in(folder, name)
    nbgrader("autograde", name)
    nbgrader("export")
    with open(folder / "grades.csv") as table:
        return {
            row["student_id"]: (float(row["score"]), float(row["max_score"]))
            for row in csv.DictReader(table)
        }


@needs_nbgrader
def test_a_warning_costs_no_points(tmp_path):
    folder = tiny_course(tmp_path, GOOD)
    shutil.rmtree(folder / "exercises")
    assert grade(folder, "tiny") == {"solved": (100, 100), "untouched": (0, 100)}


@needs_nbgrader
def test_nbgrader_gives_solved_all_points_and_untouched_none(tmp_path):
    assert grade(course(tmp_path), QUICKEST) == {"solved": (100, 100), "untouched": (0, 100)}
    (path,) = (tmp_path / "autograded" / "solved" / QUICKEST).glob("*.ipynb")
    solution = notebooks("solutions", QUICKEST)[path.stem]
    graded = nbformat.read(path, as_version=4)
    for grade_id, cell in cells(graded, solution=False, grade=True).items():
        assert cell.source == cells(solution)[grade_id].source, "hidden tests take part"


@pytest.mark.slow
@needs_nbgrader
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own
@pytest.mark.parametrize("name", SETS)
def test_the_sandbox_gives_solved_all_points_and_untouched_none(tmp_path, name, sandboxed):
    """Pictures of a secret seed included: nothing was trained at home."""
    shutil.copytree(ROOT / "exercises" / name, tmp_path / "exercises" / name)
    hand_in(course(tmp_path), name)
    graded, records = pipeline.grade(tmp_path / "submitted", course=tmp_path)
    told = [problem for record in records for problem in record["problems"] + record["flags"]]
    with open(graded / "grades.csv", encoding="utf-8") as table:
        scores = {row["student"]: (row["points"], row["of"]) for row in csv.DictReader(table)}
    sentences = [t["sentence"] for r in records for t in r["tasks"].values()]
    assert scores == {"solved": ("100", "100"), "untouched": ("0", "100")}, sentences
    assert told == []


# --- what students get ---


def copy_of_the_tree(folder, *left_out):
    """This repository without git's folder, environments and caches."""
    names = (".git", ".venv", ".*_cache", "__pycache__", ".ipynb_checkpoints", ".generated")
    junk = shutil.ignore_patterns(*names, *left_out)

    def ignored(path, entries):
        top = {"pretraining", "release"} if Path(path) == ROOT else set()  # see .gitignore
        return junk(path, entries) | top

    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


def unpacked(folder):
    with zipfile.ZipFile(folder / "release" / f"{BUNDLE}.zip") as bundle:
        bundle.extractall(folder / "unpacked")
    return folder / "unpacked" / BUNDLE


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundle of a copy without git, unpacked."""
    folder = copy_of_the_tree(tmp_path_factory.mktemp("release") / "course")
    (folder / "gradebook.db").touch()
    (folder / "submitted").mkdir()
    (folder / "notebooks" / "__pycache__").mkdir()
    (folder / "notebooks" / "__pycache__" / "x.pyc").touch()
    make("-o", "exercises", "release", cwd=folder)
    return unpacked(folder)


@needs_make
def test_the_bundle_is_the_course_without_what_is_the_instructors(bundle):
    names = {path.name for path in bundle.iterdir()}
    assert not names & INSTRUCTORS
    assert not names & {"gradebook.db", "submitted", "release", ".git"}
    for folder in ("notebooks", "exercises", "helpers", "results"):
        tracked = {p for p in (ROOT / folder).rglob("*") if p.is_file()}
        tracked = {p.relative_to(ROOT) for p in tracked if "__pycache__" not in p.parts}
        given = {p.relative_to(bundle) for p in (bundle / folder).rglob("*") if p.is_file()}
        assert {p for p in tracked if ".ipynb_checkpoints" not in p.parts} == given


@needs_make
def test_the_bundle_has_what_its_installation_needs(bundle):
    assert "pip install -r requirements.lock" in run("make", "-n", "lab", cwd=bundle)
    assert "requirements-test.lock" not in run("make", "-n", "test", cwd=bundle)
    project = (bundle / "pyproject.toml").read_text("utf-8")
    shared = project.partition("[tool.hatch.build.targets.wheel.shared-data]")[2]
    needed = re.findall(r'^"([\w.]+)" = ', shared, re.M)
    needed += ["requirements.txt", "requirements.lock", "LICENSE", "helpers/__init__.py"]
    assert [name for name in needed if not (bundle / name).is_file()] == []


@needs_make
def test_links_of_the_bundle_lead_somewhere_in_it(bundle):
    texts = {path: path.read_text("utf-8") for path in bundle.rglob("*.md")}
    for path in bundle.rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        texts[path] = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    broken = [
        f"{path.relative_to(bundle)}: {target}"
        for path, text in texts.items()
        for target in re.findall(r"\]\(([^)#\s]+)", text)
        if not re.match(r"https?:|mailto:|attachment:", target)
        and not (path.parent / target).exists()
    ]
    assert broken == []


@needs_make
def test_the_bundle_holds_solutions_back(bundle):
    code = "from helpers.checks import start_here as check; check.mistakes.solution()\n"
    code += "import helpers; print(helpers.__file__)"
    lines = run(sys.executable, "-c", code, cwd=bundle, PYTHONPATH=str(bundle)).splitlines()
    assert str(bundle / "helpers" / "__init__.py") in lines
    sentence = "The solutions are not part of this copy: your instructor releases them later."
    assert sentence in lines


@needs_make
def test_pytest_finds_the_notebooks_of_the_bundle(bundle):
    found = run(sys.executable, "-m", "pytest", "--collect-only", "-q", cwd=bundle)
    for path in [*bundle.glob("notebooks/*.ipynb"), *bundle.glob("exercises/*/*.ipynb")]:
        assert path.relative_to(bundle).as_posix() in found


@needs_make
@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_release_from_git_has_only_what_git_knows(tmp_path):
    folder = copy_of_the_tree(tmp_path / "course", "*.h5", "*.keras", "variables.data*")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    run(*git, "init", "-q", cwd=folder)
    run(*git, "add", "-A", cwd=folder)
    run(*git, "commit", "-q", "-m", "all", cwd=folder)
    (folder / "notebooks" / "mine.ipynb").write_text("private")
    make("-o", "exercises", "release", cwd=folder)
    assert not (unpacked(folder) / "notebooks" / "mine.ipynb").exists()
    assert (unpacked(folder) / "notebooks" / "00_start_here.ipynb").exists()

    (folder / "exercises" / "new").mkdir()
    (folder / "exercises" / "new" / "1.ipynb").write_text("{}")
    with pytest.raises(RuntimeError, match="exercises/new/1.ipynb\nThese would be missing"):
        make("-o", "exercises", "release", cwd=folder)


def test_every_file_is_either_for_students_or_for_instructors():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = run("git", "-c", "safe.directory=*", "ls-files", cwd=ROOT).splitlines()
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    students = set(re.search(r"^STUDENTS := (.*)$", makefile, re.M)[1].split())
    assert not students & INSTRUCTORS
    unknown = {name.split("/")[0] for name in tracked} - students - INSTRUCTORS
    assert unknown == set(), "name it in STUDENTS (Makefile) or in INSTRUCTORS (here)"
