"""From a folder of submissions to a gradebook: what changed is run, scored and written down.

Tasks go through the interface of `concurrent.futures.Executor` and carry plain data: threads here
(each waits for a sandbox, which is a process of its own) or a Dask cluster. Everything that counts
points runs in this process, and this process runs nothing that a student wrote.
"""

import ast
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import secrets
import sys
from pathlib import Path

import nbformat
import numpy as np
from filelock import FileLock, Timeout
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from helpers import critters
from helpers.grading import report, secret, validation
from helpers.grading import sandbox as sandboxes
from helpers.grading.report import RIGHT
from helpers.grading.validation import HAND_IN, Refused

ROOT = Path(__file__).parents[2]
MOST_FIT_BYTES = 100_000_000  # of the weights that a notebook saved
CANARY = "canary-"  # how the id of a cell begins that asks a check a wrong answer
FITS = f"{CANARY}fits"  # id of the cell that serves what the notebook trained at home


class Problem(Exception):
    """What keeps a whole run from starting; the message is for the instructor."""


@dataclasses.dataclass
class Submission:
    """One notebook of one student; without a path there is only a problem to report."""

    student: str
    set: str
    notebook: str  # without .ipynb
    path: Path | None
    problem: str = ""


def grade(submissions, *, course=ROOT, only=None, jobs=1, dask=None, seed_file=None, sandbox=True):
    """Grade `submissions/<student>/<set>/<notebook>.ipynb`; what has not changed is not run again.

    Args:
        course: folder of `solutions/` and `nbgrader_config.py`.
        only: the one set to grade; None: all.
        jobs: how many notebooks run at a time on this machine.
        dask: address of a Dask scheduler; its workers run the notebooks in place of this machine.
        seed_file: the instructor's secret seed, made where it is missing.
        sandbox: whether student code is locked in; if not, every report says so.

    Returns:
        the folder `<submissions>-graded`, and the records, one a notebook (see `_Run.prepared`).

    Raises Problem, in a sentence, if nothing can be graded at all, and SandboxUnavailable.
    """
    submissions = Path(submissions).absolute()
    if not submissions.is_dir():
        raise Problem(f"There is no folder {submissions}: name the folder of the submissions.")
    sets = {}
    for path in sorted((Path(course) / "solutions").glob("*/*.ipynb")):
        sets.setdefault(path.parent.name, []).append(path.stem)
    if not sets:
        raise Problem(f"There are no solutions in {course}: this copy of the course cannot grade.")
    if only is not None and only not in sets:
        raise Problem(f"There is no set {only!r}. The course has {', '.join(sets)}.")
    found = list(find(submissions, sets, only))
    graded = submissions.with_name(submissions.name + "-graded")
    state = graded / "state"
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    seed = _seed(Path(seed_file or state / "seed"))
    try:
        with FileLock(state / "lock", timeout=0):
            grader = _Run(graded, Path(course), sandbox, seed)
            for name in {submission.set for submission in found} & sets.keys():
                for notebook in sets[name]:
                    grader.original(name, notebook)
            records = grader.records(found, jobs, dask)
            report.write(records, graded)
    except Timeout as error:
        raise Problem(f"Another run is grading into {graded}: wait for its end.") from error
    return graded, records


# --- what was handed in ---


def find(submissions, sets, only=None):
    """Every notebook that should be there, and whatever else stands in its place.

    Args:
        sets: names of the notebooks of each set.
    """
    for student in _entries(submissions):
        if problem := _misplaced(student):
            yield Submission(report.plain(student.name), "", "", None, problem)
            continue
        for folder in _entries(student):
            if only is not None and folder.name != only:
                continue
            if folder.name not in sets:
                problem = f"There is no set {report.plain(folder.name)} in the course."
            else:
                problem = _misplaced(folder)
            if problem:
                name = report.plain(folder.name)
                yield Submission(student.name, name, "", None, problem)
                continue
            notebooks = {entry.name: entry for entry in _entries(folder, ".ipynb")}
            for name in sets[folder.name]:
                path = notebooks.pop(f"{name}.ipynb", None)
                problem = "" if path else f"{name}.ipynb was not handed in."
                yield Submission(student.name, folder.name, name, path and Path(path), problem)
            for name in map(report.plain, list(notebooks)[:10]):
                problem = f"{name} is no notebook of this set: rename it or take it away."
                yield Submission(student.name, folder.name, name, None, problem)


def _entries(folder, ending=""):
    entries = [e for e in os.scandir(folder) if not e.name.startswith(".")]
    return sorted((e for e in entries if e.name.endswith(ending)), key=lambda e: e.name)


def _misplaced(entry):
    """Why an entry is no folder of a student or of a set; empty if it is one."""
    if not validation.is_name(entry.name):
        return "The name has characters other than letters, digits and . , _ ' @ + -: rename it."
    if entry.is_symlink():
        return "This is a link: hand in the folder itself."
    if not entry.is_dir():
        return "This is a file: notebooks belong into <student>/<set>/."
    if not os.access(entry.path, os.R_OK | os.X_OK):
        return "This folder cannot be opened: change its rights."
    return ""


def _seed(path):
    """The secret from which the pictures of this run are drawn."""
    if not path.parent.is_dir():
        raise Problem(f"There is no folder {path.parent}: name another file for the seed.")
    if not path.exists():
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    seed = path.read_text().strip()
    if len(seed) < 32:
        raise Problem(f"The seed in {path} can be guessed: delete the file, a long one is made.")
    return seed


# --- in a worker ---


def run(task):
    """Run one notebook in one sandbox. Plain data in, plain data out: it may be far away."""
    execution = sandboxes.execute(
        nbformat.from_dict(task["notebook"]),
        files=task["files"],
        secret=task["secret"],
        limits=sandboxes.Limits(**task["limits"]),
        sandbox=task["sandbox"],
    )
    return {
        "notebook": json.loads(json.dumps(execution.notebook)),
        "handed_in": dict(execution.handed_in),
        "seconds": execution.seconds,
        "cpu_seconds": execution.cpu_seconds,
        "outcome": execution.outcome,
        "sentence": execution.sentence,
        "disturbed": execution.disturbed,
    }


# --- here ---


class _Run:
    """One run of the grader over one folder."""

    def __init__(self, graded, course, sandbox, seed):
        self.graded, self.course, self.sandbox, self.seed = graded, course, sandbox, seed
        self.limits = sandboxes.Limits()
        limits = (self.limits.seconds, self.limits.cpu_seconds, self.limits.memory)
        self.gradebook = Gradebook(graded / "gradebook.db", course)
        self.originals, self.drawn = {}, {}
        self.nonce = secrets.token_hex(8)
        sources = sorted((course / "helpers" / "checks").glob("*.py"))
        sources += [Path(secret.__file__), Path(critters.__file__)]
        self.rules = _hash(seed, sandbox, limits, *(path.read_bytes() for path in sources))

    def records(self, found, jobs, dask):
        """The records of all submissions, in their order; graded is what has no valid one."""
        kept, fresh = {}, []
        for number, submission in enumerate(found):
            record = self.load(submission)
            if record is None:
                fresh.append((number, submission))
            else:
                kept[number] = record
                before = json.dumps(record["tasks"])
                if self.gradebook.is_new:
                    self.gradebook.write(record)
                else:
                    self.gradebook.read(record)
                changed = json.dumps(record["tasks"]) != before
                if changed or not report.feedback_path(self.graded, record).exists():
                    report.write_feedback(record, self.graded)
                    self.save(record)
                _drop_pictures(record)
        bar = tqdm(total=len(fresh), desc="Grading", unit="notebook", disable=None)
        with bar, contextlib.ExitStack() as stack:
            tasks = ((number, self.prepared(submission)) for number, submission in fresh)
            if any(submission.path for _, submission in fresh):
                executor, at_once = stack.enter_context(self.executor(jobs, dask))
            else:
                executor, at_once = None, 1
            for number, record, result, error in _results(executor, at_once, tasks):
                self.finish(record, result, error)
                _drop_pictures(record)
                kept[number] = record
                bar.update()
        return [kept[number] for number in range(len(found))]

    @contextlib.contextmanager
    def executor(self, jobs, dask):
        """An executor, and how many tasks it may hold: they carry megabytes."""
        if dask is None:
            if self.sandbox:
                sandboxes.trial(self.limits)
            pool = concurrent.futures.ThreadPoolExecutor(jobs)
            try:
                yield pool, jobs
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            return
        try:
            from distributed import Client

            client = Client(dask)
        except ImportError as error:
            raise Problem("--dask needs distributed: python -m pip install distributed") from error
        except (OSError, ValueError) as error:
            raise Problem(f"There is no Dask scheduler at {dask} ({error}).") from error
        with client:
            threads = sum(client.nthreads().values())
            if not threads:
                raise Problem(f"The Dask scheduler at {dask} has no workers: start some.")
            if self.sandbox:
                client.run(sandboxes.trial, self.limits)
            yield client.get_executor(), 2 * threads

    def original(self, set_, notebook):
        """The notebook that a submission is put back into; the gradebook knows it then."""
        if (set_, notebook) not in self.originals:
            self.originals[set_, notebook] = self.gradebook.original(set_, notebook)
        return self.originals[set_, notebook]

    def pictures(self, submission):
        """The pictures and labels drawn for this notebook; None if it hands in no predictions."""
        key = submission.set, submission.notebook
        if key in secret.SPECS and key not in self.drawn:
            self.drawn[key] = secret.draw(*key, self.seed)
        return self.drawn.get(key)

    # --- records: one JSON file a notebook ---

    def path(self, submission):
        names = submission.student, submission.set, f"{submission.notebook}.json"
        return self.graded.joinpath("state", "notebooks", *names)

    def fingerprint(self, submission):
        """Changes with whatever the grade depends on."""
        if submission.path is None:
            return _hash(submission.problem)
        parts = [self.rules, json.dumps(self.original(submission.set, submission.notebook))]
        for read in (validation.read_bytes, _fits):
            try:
                parts.append(read(submission.path))
            except Refused as refusal:
                parts.append(str(refusal))
        return _hash(*parts)

    def load(self, submission):
        """The record of an earlier run, if it still holds."""
        try:
            record = json.loads(self.path(submission).read_bytes())
        except (OSError, ValueError):
            return None
        return record if record["fingerprint"] == self.fingerprint(submission) else None

    def save(self, record):
        """Last of all: what has a record is done."""
        report.write_file(self.path(_submission(record)), json.dumps(record).encode())

    # --- before and after the sandbox ---

    def prepared(self, submission):
        """A record without its result, and the task for a worker; None if there is none."""
        record = {
            "student": submission.student,
            "set": submission.set,
            "notebook": submission.notebook,
            "fingerprint": self.fingerprint(submission),
            "sandbox": self.sandbox,
            "problems": [submission.problem] if submission.problem else [],
            "flags": [],
            "tasks": {},  # by grade_id: points, most, sentence
            "pictures": None,  # by secret.score: points, accuracy, sentence
            "seconds": 0.0,
            "cpu_seconds": 0.0,
            "outcome": "not run",
            "executed": None,  # the notebook with its outputs
        }
        if submission.path is None:
            return record, None
        original = self.original(submission.set, submission.notebook)
        try:
            record["problems"], notebook = validation.validate(submission.path, original)
            record["flags"] = validation.suspicious(notebook) if notebook else []
        except Exception as error:  # what a student thought of and nobody here did
            record["problems"], notebook = [f"It cannot be read ({report.plain(error)})."], None
        if notebook is None:
            return record, None
        files, hidden = {}, {}
        try:
            fits = _fits(submission.path)
            if fits and notebook.metadata.stale:
                record["problems"].append(f"{notebook.metadata.stale}: it is trained again.")
            elif fits:
                files[f"{submission.notebook}.fit.npz"] = fits
                serve = "from helpers.checks import handing_in\n\nhanding_in.serve_fits()"
                notebook.cells.insert(0, new_code_cell(serve, id=FITS))
        except Refused as refusal:
            record["problems"].append(f"{refusal} It is trained again.")
        if drawn := self.pictures(submission):
            content = io.BytesIO()
            np.save(content, drawn[0], allow_pickle=False)
            hidden[f"{submission.notebook}.npy"] = content.getvalue()
        notebook.cells += _canaries(original, self.nonce)
        return record, {
            "notebook": json.loads(json.dumps(notebook)),
            "files": files,
            "secret": hidden,
            "limits": dataclasses.asdict(self.limits),
            "sandbox": self.sandbox,
        }

    def finish(self, record, result, error):
        """Judge what a worker found, and write it down everywhere; the record comes last."""
        try:
            if error is not None:
                raise error
            if result is not None:
                self.judge(record, result)
            self.gradebook.write(record)
            self.suspect_good_checks(record)
            report.write_feedback(record, self.graded)
            if record["outcome"] != "sandbox failed":
                self.save(record)
        except Exception as failure:  # nothing that one student does may stop the others
            record["problems"].append(f"It was not graded ({report.plain(failure)}): grade again.")
            record |= {"outcome": "lost", "executed": None, "pictures": None, "tasks": {}}
            self.gradebook.write(record)

    def judge(self, record, result):
        """Put into the record what a worker found; points of the checks come with the gradebook."""
        record |= {name: result[name] for name in ("seconds", "cpu_seconds", "outcome")}
        finished = result["outcome"] == "finished"
        if not finished:
            record["problems"].append(result["sentence"])
        executed = nbformat.from_dict(result["notebook"])
        record["flags"] += _silent_canaries(executed, finished)
        executed.cells = [c for c in executed.cells if not c.id.startswith(CANARY)]
        record["executed"] = executed
        for cell in executed.cells:
            if _is_check(cell):
                errors = [o.evalue for o in cell.outputs if o.output_type == "error"]
                name = cell.metadata.nbgrader.grade_id
                record["tasks"][name] = {"sentence": errors[0] if errors else RIGHT}
        if drawn := self.pictures(_submission(record)):
            record["pictures"] = self.score(record, result["handed_in"], drawn[1])

    def score(self, record, handed_in, labels):
        """What the predictions are worth: nothing but an array comes out of the sandbox."""
        spec = secret.SPECS[record["set"], record["notebook"]]
        content = handed_in.get(f"{record['notebook']}.npy")
        score = secret.score(spec, content, labels)
        for name, task in record["tasks"].items():
            if name.startswith(HAND_IN) and (content or task["sentence"] == RIGHT):
                task["sentence"] = score.sentence
        return {
            "points": float(score.points),
            "accuracy": None if score.accuracy is None else float(score.accuracy),
            "sentence": score.sentence,
        }

    def suspect_good_checks(self, record):
        """All points from the kernel, none from the pictures: one of the two is not true."""
        tasks = [(n, t) for n, t in record["tasks"].items() if t.get("most")]
        checks = [t["points"] == t["most"] for n, t in tasks if not n.startswith(HAND_IN)]
        nothing = record["pictures"] and not record["pictures"]["points"]
        if nothing and checks and all(checks):
            record["flags"].append(
                "Every check passed, but the model names new pictures little better than chance."
            )


def _results(executor, at_once, tasks):
    """Number, record, result and error of each task, as they end; what failed is run once more.

    So is, alone and last, what others may have disturbed.
    """
    waiting, disturbed = {}, []

    def ended(least):
        while len(waiting) > least:
            done = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED").done
            for future in done:
                number, record, task, again = waiting.pop(future)
                try:
                    result = future.result()
                    if result["disturbed"] and again:
                        disturbed.append((number, record, task))
                    else:
                        yield number, record, result, None
                except Exception as error:
                    if again:
                        waiting[executor.submit(run, task)] = (number, record, task, False)
                    else:
                        yield number, record, None, error

    for number, (record, task) in tasks:
        if task is None:
            yield number, record, None, None
        else:
            waiting[executor.submit(run, task)] = (number, record, task, True)
        yield from ended(at_once)
    yield from ended(0)
    for number, record, task in disturbed:
        waiting[executor.submit(run, task)] = (number, record, task, False)
        yield from ended(0)


def _hash(*parts):
    """SHA-256 of the parts, of which none can run into the next."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


def _drop_pictures(record):
    """There may be thousands of records; from here on only their words are needed."""
    for cell in (record["executed"] or {"cells": []})["cells"]:
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                output.get("data", {}).pop(kind, None)


def _submission(record):
    return Submission(record["student"], record["set"], record["notebook"], None)


def _fits(notebook):
    """What a student's notebook saved when it trained; may be empty. Raises Refused."""
    path = notebook.with_name(f"{notebook.stem}.fit.npz")
    return validation.read_bytes(path, MOST_FIT_BYTES) if os.path.lexists(path) else b""


def _is_check(cell):
    marks = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and marks.get("grade", False) and not marks["solution"]


def _canaries(original, nonce):
    """Cells that ask each check an answer which is wrong for sure: it has to raise."""
    for cell in original.cells:
        if not _is_check(cell) or cell.metadata.nbgrader.grade_id.startswith(HAND_IN):
            continue
        call = ast.parse(validation.HIDDEN.sub("", cell.source)).body[0]
        if isinstance(call, ast.Expr) and isinstance(call.value, ast.Call):
            wrong = ", ".join([repr(nonce)] * len(call.value.args))
            name = ast.unparse(call.value.func)
            yield new_code_cell(f"{name}({wrong})", id=f"{CANARY}{cell.id}"[:64])


def _silent_canaries(executed, finished):
    """A sentence if checks passed an answer that is wrong for sure."""
    silent = [
        cell.source.partition("(")[0]
        for cell in executed.cells
        if cell.id.startswith(CANARY) and cell.id != FITS
        if not any(output.output_type == "error" for output in cell.outputs)
    ]
    if silent and finished:
        yield f"Accepts an answer that is wrong for sure: {', '.join(silent)}. Was it patched?"


# --- the gradebook ---


class Gradebook:
    """nbgrader's gradebook: the course's tasks, every student's points.

    Raises Problem if nbgrader is missing, or if the tasks changed under submissions.
    """

    def __init__(self, path, course):
        try:
            import nbgrader.api
            import nbgrader.preprocessors
        except ImportError as error:
            raise Problem(
                "Grading needs nbgrader: python -m pip install -r requirements-test.lock"
            ) from error
        self.api, self.steps = nbgrader.api, nbgrader.preprocessors
        self.path, self.course, self.is_new = path, course, not path.exists()
        self.url = f"sqlite:///{path}"
        binaries = str(Path(sys.executable).parent)  # nbgrader calls alembic by its bare name
        if binaries not in os.environ["PATH"].split(os.pathsep):
            os.environ["PATH"] = binaries + os.pathsep + os.environ["PATH"]

    def open(self):
        return self.api.Gradebook(self.url)

    def resources(self, **names):
        return {"nbgrader": {"db_url": self.url, **names}}

    def original(self, set_, notebook):
        """A notebook without answers, with hidden tests; its tasks are in the gradebook then."""
        from traitlets.config import PyFileConfigLoader

        config = PyFileConfigLoader("nbgrader_config.py", str(self.course)).load_config()
        solution = self.course / "solutions" / set_ / f"{notebook}.ipynb"
        cells = nbformat.read(solution, as_version=4)
        resources = self.resources(assignment=set_, notebook=notebook)
        with self.open() as book:
            book.update_or_create_assignment(set_)
        names = ("LockCells", "ClearSolutions", "ClearOutput", "ComputeChecksums", "SaveCells")
        try:
            for name in names:
                step = getattr(self.steps, name)(config=config)
                cells, _ = step.preprocess(cells, resources)
        except RuntimeError as error:
            raise Problem(
                f"The tasks of {set_} are not those of {self.path}, which has grades for them: "
                "move that file away, and it is written anew."
            ) from error
        return cells

    def write(self, record):
        """A record's points: the checks' by nbgrader from the cells, the pictures' as manual ones.

        Only the errors of a check count: not what it prints, shows or returns.
        """
        student, set_, notebook = record["student"], record["set"], record["notebook"]
        with self.open() as book:
            try:
                book.find_notebook(notebook, set_)
            except self.api.MissingEntry:
                return  # a notebook that the course does not have
            book.update_or_create_student(student)
            book.update_or_create_submission(set_, student)
        if record["executed"] is not None:
            executed = nbformat.from_dict(json.loads(json.dumps(record["executed"])))
            for cell in filter(_is_check, executed.cells):
                cell.outputs = [o for o in cell.outputs if o.output_type == "error"]
            resources = self.resources(assignment=set_, notebook=notebook, student=student)
            self.steps.SaveAutoGrades().preprocess(executed, resources)
        with self.open() as book:
            for grade in book.find_submission_notebook(notebook, set_, student).grades:
                if grade.manual_score is not None and not grade.name.startswith(HAND_IN):
                    record["problems"].append(
                        f"The points of {grade.name} were given by hand for what was handed in "
                        "before: look again."
                    )
                if record["executed"] is None:
                    grade.auto_score, grade.needs_manual_grade = 0, False
                if grade.name.startswith(HAND_IN):
                    grade.manual_score = (record["pictures"] or {"points": 0})["points"]
                    grade.needs_manual_grade = False
            book.db.commit()
        self.read(record)

    def read(self, record):
        """The points as the gradebook has them, with what an instructor changed there."""
        key = record["notebook"], record["set"], record["student"]
        with self.open() as book:
            try:
                grades = book.find_submission_notebook(*key).grades
            except self.api.MissingEntry:
                return
            for grade in grades:
                if grade.max_score:
                    task = record["tasks"].setdefault(grade.name, {"sentence": ""})
                    task |= {"points": float(grade.score), "most": float(grade.max_score)}
