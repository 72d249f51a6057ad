"""The sandbox: what works inside, what comes out, and what is said where there is none.

Attacks from inside are in `hostile/`.
"""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import datasets
from helpers.grading import sandbox
from helpers.grading.sandbox import Limits, SandboxUnavailable, execute, trial

ROOT = Path(__file__).parents[1]
CHECK = """
import numpy as np, os
from pathlib import Path
pictures = np.load(Path(os.environ["COURSE_SECRET"], "a.npy"))
for name in "a.npy", "b.npy":
    np.save(Path(os.environ["COURSE_HANDED_IN"], name), pictures + 1)
"""


def run(*sources, files=None, hidden=None, locked=True, **limits):
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    limits = Limits(**{"seconds": 60} | limits)
    return execute(notebook, files=files or {}, secret=hidden or {}, limits=limits, sandbox=locked)


def npy(numbers):
    """The file of an array of uint8."""
    content = io.BytesIO()
    np.save(content, np.frombuffer(numbers, "uint8"))
    return content.getvalue()


def outputs(execution):
    """The text of each cell's outputs; of an error its kind."""
    return [
        "".join(o.get("text") or o.get("ename") or o.data["text/plain"] for o in cell.outputs)
        for cell in execution.notebook.cells
    ]


def living(pids):
    """Which of these processes live on, a minute later at most."""
    there = [process for process in psutil.process_iter() if process.pid in set(pids)]
    _, alive = psutil.wait_procs(there, timeout=60)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


# --- what runs ---


@pytest.mark.parametrize("locked", [True, False], ids=["sandbox", "no sandbox"])
def test_a_notebook_runs_to_its_end(locked, request):
    if locked:
        request.getfixturevalue("sandboxed")
    pictures = npy(b"\x00\x00\x00")
    execution = run(
        "print(open('saved.txt').read(), end='')",
        "1 / 0",
        "import sys; sys.exit(0)",
        "input()",
        CHECK,
        "",
        "import os; os.environ['COURSE_GRADING'], os.environ.get('JPY_SESSION_NAME')",
        "from helpers.checks import SOLUTIONS; SOLUTIONS.exists()",
        files={"saved.txt": b"mine"},
        hidden={"a.npy": pictures},
        locked=locked,
    )
    texts = outputs(execution)
    assert execution.outcome == "finished", execution.sentence
    assert texts[:2] == ["mine", "ZeroDivisionError"]
    assert texts[2].startswith("SystemExit") and texts[3] == "StdinNotImplementedError"
    assert texts[4:] == ["", "", "('1', None)", str(not locked)]
    assert execution.handed_in == {"a.npy": npy(b"\x01\x01\x01")}  # b.npy was not asked for
    assert execution.cpu_seconds > 0 and 0 < execution.seconds < 60


def test_cells_after_the_end_of_the_kernel_have_an_error(sandboxed):
    notebook = new_notebook(cells=[new_code_cell(s) for s in ("1", "import os; os._exit(0)", "2")])
    notebook.cells += [new_markdown_cell("text"), new_code_cell("  ")]
    before = json.dumps(notebook)
    execution = execute(notebook, files={}, secret={}, limits=Limits(seconds=60))
    assert execution.outcome == "died"
    assert "The cell that begins with 'import os; os._exit(0)' was running" in execution.sentence
    kinds = [[o.output_type for o in c.get("outputs", [])] for c in execution.notebook.cells]
    assert kinds == [["execute_result"], ["error"], ["error"], [], []]
    assert execution.notebook.cells[2].outputs[0].evalue == execution.sentence
    assert json.dumps(notebook) == before


def test_the_time_limit_holds_without_a_sandbox(tmp_path):
    started = tmp_path / "started"
    source = f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(99)"
    execution = run(source, locked=False, seconds=15)
    assert execution.outcome == "timeout" and 15 <= execution.seconds < 40
    assert not execution.disturbed, "it slept"
    assert living([int(started.read_text())]) == []


def test_processor_time_is_limited_apart_from_the_clock(sandboxed):
    execution = run("while True: pass", cpu_seconds=3)
    assert execution.outcome == "timeout" and "3 seconds of processor time" in execution.sentence
    assert 3 <= execution.cpu_seconds < 10


def test_who_had_to_wait_for_the_processor_was_disturbed(sandboxed, monkeypatch):
    monkeypatch.setattr(sandbox, "_waited", lambda root: 5)
    execution = run("import time; time.sleep(99)", seconds=8)
    assert execution.outcome == "timeout" and execution.disturbed


def test_waiting_for_the_processor_is_counted():
    """Two busy threads of one processor: each waits about half of the time."""
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "os.fork()\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(2)
        waited = sandbox._waited(psutil.Process(process.pid))
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
    assert waited > 0.5


def test_nothing_runs_on_when_the_grader_is_killed(sandboxed, tmp_path):
    code = (
        "from nbformat.v4 import *\nfrom helpers.grading.sandbox import *\n"
        "nb = new_notebook(cells=[new_code_cell('import time; time.sleep(99)')])\n"
        "execute(nb, files={}, secret={}, limits=Limits())"
    )
    grader = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    below = []
    while len(below) < 4 and grader.poll() is None:  # bwrap, its process 1, client, kernel
        time.sleep(0.1)
        below = psutil.Process(grader.pid).children(recursive=True)
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    assert living([process.pid for process in below]) == []


# --- pictures ---


def test_drawn_pictures_are_there_and_stay_as_they_are(sandboxed, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    kept = datasets.drawn(["cat", "dog"], train=4)
    (tmp_path / "my-own-photos" / "train").mkdir(parents=True)
    (tmp_path / "my-own-photos" / "manifest.json").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    execution = run(
        "import os\nfrom helpers import datasets",
        "f = datasets.drawn(['cat', 'dog'], train=4); sorted(os.listdir(f / 'train'))",
        "open(f / 'train' / 'cat' / '00000.png', 'ab')",
        "g = datasets.drawn(['cat', 'dog'], train=6); len(os.listdir(g / 'train' / 'cat'))",
        "{n for n in os.listdir(f.parent) if 'lock' not in n} == {f.name, g.name}",
    )
    assert outputs(execution) == ["", "['cat', 'dog']", "OSError", "3", "True"]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert kept.is_dir()


# --- what comes out: a program in bwrap's place says it ---


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Runs a notebook of two cells in a sandbox that prints these lines, and nothing else."""

    def run_(*lines, command="cat lines", **limits):
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "lines").write_text("\n".join(text) + "\n")
        program = tmp_path / "bwrap"
        program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{command}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sandbox, "_program", lambda: str(program))
        return run("1", "2", hidden={"a.npy": b""}, **limits)

    return run_


DONE = [{"ready": True}, {"done": 1, "outputs": []}, {"end": "finished"}]


def shown(says, *given):
    execution = says({"done": 0, "outputs": list(given)}, *DONE)
    assert execution.outcome == "finished"
    nbformat.validate(execution.notebook)
    return execution.notebook.cells[0].outputs


def test_text_has_no_colours_and_no_control_characters(says):
    text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07\u202ereversed\ud800\x00\x9b31m é ✓\n\tnext"
    [output] = shown(says, {"output_type": "stream", "name": "stdout", "text": text})
    assert output.text == "red ]0;titlereversed?31m é ✓\n\tnext"


def test_long_text_is_cut(says):
    [output] = shown(says, {"output_type": "stream", "name": "stderr", "text": "x" * 10**6})
    assert len(output.text) < 101_000 and output.text.endswith("\n[The rest is left out.]")


def test_only_plain_text_and_pictures_are_kept(says):
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501
    data = {"text/html": "<b>1</b>", "image/svg+xml": "<svg/>", "application/javascript": "1"}
    data |= {"text/plain": "1", "image/png": picture, "image/jpeg": '"><script>'}
    shows = {"output_type": "display_data", "data": data, "metadata": {"image/png": {"width": "x"}}}
    [output] = shown(says, shows, shows | {"data": {"text/html": "<b>1</b>"}})
    assert output.data == {"text/plain": "1", "image/png": picture} and output.metadata == {}


def test_an_error_stays_an_error_whatever_is_in_it(says):
    [output] = shown(says, {"output_type": "error", "ename": None, "traceback": [5, "\x1b[31mx"]})
    assert (output.ename, output.evalue, output.traceback) == ("", "", ["", "x"])


def test_of_many_outputs_the_first_and_the_error_are_kept(says):
    line = {"output_type": "stream", "name": "stdout", "text": "x"}
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    kept = shown(says, *[line] * 1000, error, *[line] * 1000)
    assert len(kept) == 201 and kept[-1].ename == "E"


@pytest.mark.parametrize(
    "line",
    [
        {"done": 0},
        {"done": 0, "outputs": "x"},
        {"done": 2, "outputs": []},
        {"done": -2, "outputs": []},
        {"done": "0", "outputs": []},
        {"end": "finished", "done": 5},
        {"handed_in": "../a.npy", "content": ""},
        {"handed_in": "b.npy", "content": ""},
        {"handed_in": "a.npy", "content": "no base64"},
        {"handed_in": "a.npy", "content": "A" * (2**21)},
        {"handed_in": None, "content": ["AAAA"]},
        "[" * 10**5,
        "9" * 10**5,
        '{"done": 1e999, "outputs": [NaN]}',
        "null",
        "\x00",
        "",
    ],
    ids=lambda line: str(line)[:40],
)
def test_what_makes_no_sense_is_passed_over(says, line):
    execution = says(line, *DONE)
    assert execution.outcome == "died"  # cell 0 never ended
    assert execution.notebook.cells[0].outputs[0].ename == "NotRun"
    assert execution.handed_in == {}


def test_predictions_come_back_in_their_last_version(says):
    sent = [{"handed_in": "a.npy", "content": content} for content in ("AAAA", "////")]
    assert says(*sent, *DONE).handed_in == {"a.npy": b"\xff\xff\xff"}


def test_a_flood_is_cut_off(says):
    execution = says(command="yes", output=10**6, seconds=30)
    assert execution.outcome == "output"
    execution = says(*[{"started": 0}] * 10**5, *DONE)
    assert execution.outcome == "sandbox failed"  # the rest was not read


def test_a_sandbox_that_does_not_start_is_said(says):
    execution = says(command="echo bwrap: no room >&2; exit 1")
    assert (execution.outcome, execution.sentence) == (
        "sandbox failed",
        "It was not run: bwrap: no room",
    )


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "x\0", "x" * 300])
def test_names_that_are_no_names_of_files(says, name):
    execution = run("1", files={name: b""}, locked=False)
    assert execution.outcome == "sandbox failed" and execution.sentence


# --- what is said where there is no sandbox ---


def test_bubblewrap_is_missing(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    for start in (lambda: trial(Limits()), lambda: run("1")):
        with pytest.raises(SandboxUnavailable, match="apt install bubblewrap.*dnf install"):
            start()


def test_another_system(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="needs Linux.*Docker"):
        trial(Limits())


def test_a_trial_that_fails_says_why(tmp_path, monkeypatch):
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sandbox, "_program", lambda: str(program))
    with pytest.raises(SandboxUnavailable, match="did not start .bwrap: No permissions"):
        trial(Limits())


def test_a_trial_that_isolates_nothing_is_noticed(tmp_path, monkeypatch):
    program = tmp_path / "bwrap"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"')
    program.chmod(0o755)
    monkeypatch.setattr(sandbox, "_program", lambda: str(program))
    with pytest.raises(SandboxUnavailable, match=f"does not isolate: .*{ROOT}/tests can be read"):
        trial(Limits())


@pytest.mark.parametrize(
    "setting, value, advice",
    [
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone=1"),
        ("proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces=15000"),
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "/etc/apparmor.d/bwrap"),
        (".dockerenv", "", "--security-opt seccomp=unconfined"),
        ("run/.containerenv", "", "--security-opt systempaths=unconfined"),
        ("etc/os-release", "", "ask who administers"),
    ],
)
def test_the_remedy_fits_the_system(tmp_path, setting, value, advice):
    (tmp_path / setting).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / setting).write_text(value)
    assert advice in sandbox.remedy("bwrap: setting up uid map: Permission denied", tmp_path)


def test_an_old_bubblewrap_and_packages_elsewhere():
    assert "0.8 or newer" in sandbox.remedy("bwrap: Unknown option --disable-userns")
    assert sys.prefix in sandbox.remedy("ModuleNotFoundError: No module named 'ipykernel'")
