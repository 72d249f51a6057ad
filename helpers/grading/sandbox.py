"""Run a student's notebook where it can do no harm, and read what came of it.

Kernel and Jupyter client both run inside `bubblewrap` (see `inside.py`), so that no trusted process
ever speaks the Jupyter protocol with student code. Out of the sandbox leads one pipe. What comes
through it is cut off at a limit, read after everything inside is dead, and nothing of it is kept
but plain text, PNG and JPEG pictures and the arrays that were handed in.

Inside there is no network, no other process, no file but the operating system, this Python, the
course's helpers and its drawn pictures (all read-only), the submission's own files, and a private
folder in memory for everything that is written. The track is that of the drawn world, whatever the
grader's is. Bubblewrap limits neither memory nor processes: a
watchdog outside counts them, and ends the sandbox.
"""

import base64
import contextlib
import copy
import errno
import io
import itertools
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat.v4
import psutil
from nbformat import NotebookNode

from helpers.datasets import cache
from helpers.grading.secret import MOST_BYTES

HELPERS = Path(__file__).absolute().parents[1]
EVERY = 0.2  # seconds between two looks of the watchdog
RESERVE = 512 * 2**20  # bytes of memory that the machine keeps for itself
TEXT = 100_000  # characters kept of one output
OUTPUTS = 200  # kept of one cell
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
# The kind of processor, its mmap, and what is closed: memory that no process shows (memfd_create,
# memfd_secret, shmget, msgget, mq_open) and io_uring_setup, bpf, userfaultfd, perf_event_open,
# add_key, request_key and keyctl, which no notebook needs.
CLOSED_CALLS = {
    "x86_64": (0xC000003E, 9, (319, 447, 29, 68, 240, 425, 321, 323, 298, 248, 249, 250)),
    "aarch64": (0xC00000B7, 222, (279, 447, 194, 186, 180, 425, 280, 282, 241, 217, 218, 219)),
}


class SandboxUnavailable(RuntimeError):
    """Student code cannot be isolated on this machine; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """What one notebook may use, all its processes together.

    Args:
        seconds: by the clock, from the start of the sandbox.
        cpu_seconds: of processor time, all cores added.
        memory: bytes, resident, with the files in its private folder.
        processes: processes and threads; TensorFlow starts more threads where there are more cores.
        disk: bytes of its private folder, and of any one file.
        output: bytes of all cells' outputs together, as JSON.
    """

    seconds: float = 600
    cpu_seconds: float = 1200
    memory: int = 8 * 2**30
    processes: int = field(default_factory=lambda: 200 + 16 * (os.cpu_count() or 1))
    disk: int = 2**30
    output: int = 10 * 2**20


@dataclass(frozen=True)
class Execution:
    """What came of one notebook.

    Args:
        notebook: a copy of what was given, with sources and outputs of plain text, and pictures. A
            code cell that did not run to its end has an error among its outputs.
        handed_in: what the notebook wrote to COURSE_HANDED_IN, `{name: bytes}`, at most 1 MB each.
        seconds, cpu_seconds: what it took.
        outcome: "finished", or what ended it: "timeout", "memory", "processes", "disk", "output",
            "died" (its kernel ended) or "sandbox failed" (no student code ran).
        sentence: the outcome in words, for a report.
        disturbed: whether it may have been ended for what others did: the machine was out of
            memory, or it waited for the processor, more than it ran, until its time was up.
    """

    notebook: NotebookNode
    handed_in: dict
    seconds: float
    cpu_seconds: float
    outcome: str
    sentence: str
    disturbed: bool = False


def execute(notebook, *, files, secret, limits, sandbox=True):
    """Run a notebook from top to bottom; nothing that student code does raises here.

    Args:
        notebook: NotebookNode. Only sources of code cells reach the sandbox.
        files: `{name: bytes}`, laid beside the notebook.
        secret: `{name: bytes}`, in the read-only folder that COURSE_SECRET names. Of what the
            notebook writes to the folder COURSE_HANDED_IN, the files of the same names come back.
        limits: `Limits`.
        sandbox: False runs it as an ordinary process with all rights of whoever calls this. Then
            only the limits hold.

    Raises SandboxUnavailable if there is no `bwrap` program.
    """
    program = _program() if sandbox else None
    started = time.monotonic()
    watchdog, said = _Watchdog(limits, sandbox), bytearray()
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        job = Path(folder) / "job"
        try:
            _write_job(job, notebook, files, secret)
        except (OSError, ValueError) as error:
            said += f"Its files cannot be laid out: {error}".encode()
        else:
            inside = Path("/tmp") if sandbox else Path(folder)
            seen = Path("/job") if sandbox else job
            # Counted for each sandbox since Linux 5.14, before for all processes of the user (it
            # does not bind a grader who is root). The watchdog comes first, but it may be short of
            # time where many processes run.
            linux = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
            most = 2 * limits.processes if sandbox and linux >= (5, 14) else 0
            numbers = limits.disk, limits.output, MOST_BYTES + 1, most
            run = [sys.executable, "-P", "-m", "helpers.grading.inside", seen, *map(str, numbers)]
            environment = _environment(seen, inside, sandbox)
            if sandbox:
                with _filter() as calls:
                    command = [*_bubblewrap(program, limits, job, calls), *run]
                    watchdog.run(said, command, env=environment, pass_fds=[calls.fileno()])
            else:
                for name in ("home", "work", "handed_in"):
                    (inside / name).mkdir()
                watchdog.run(said, run, env=environment, cwd=inside / "work")
    seconds = time.monotonic() - started
    return _execution(notebook, secret, said, watchdog, limits, seconds)


def trial(limits):
    """Start an empty sandbox and look whether it holds; return None.

    Raises SandboxUnavailable, with the remedy, if it does not start or does not isolate.
    """
    closed = ["/", "/usr", "/dev", "/proc/sys/kernel/core_pattern", str(HELPERS), sys.prefix]
    unseen = [str(HELPERS.parent / "solutions"), str(HELPERS.parent / "tests")]
    look = (
        "import os, ipykernel.kernelapp, helpers.grading\n"
        f"found = [p + ' can be written to' for p in {closed} if os.access(p, os.W_OK)]\n"
        f"found += [p + ' can be read' for p in {unseen} if os.path.exists(p)]\n"
        "found += ['it has a network'] * (len(open('/proc/net/dev').readlines()) > 3)\n"
        "print('; '.join(found) or 'isolated')"
    )
    program = _program()
    with tempfile.TemporaryDirectory(prefix="grading-") as folder, _filter() as calls:
        command = [*_bubblewrap(program, limits, Path(folder), calls), sys.executable, "-c", look]
        given = {"env": _environment(Path("/job"), Path("/tmp"), True), "timeout": 60}
        given |= {"capture_output": True, "text": True, "pass_fds": [calls.fileno()]}
        try:
            done = subprocess.run(command, **given)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxUnavailable(f"The trial sandbox did not start: {error}") from error
    if done.returncode == 0 and done.stdout.strip() == "isolated":
        return
    if done.returncode == 0:
        raise SandboxUnavailable(f"The trial sandbox does not isolate: {done.stdout.strip()}.")
    reason = done.stderr.strip().split("\n")[-1]
    raise SandboxUnavailable(f"The trial sandbox did not start ({reason}). {remedy(reason)}")


def _program():
    if sys.platform != "linux":
        raise SandboxUnavailable(
            "The sandbox needs Linux: grade in the Docker image instead (see Dockerfile)."
        )
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxUnavailable(
            "Student code runs only in a sandbox, and its program, bwrap, is not installed: "
            "sudo apt install bubblewrap (Debian, Ubuntu) or sudo dnf install bubblewrap (Fedora)."
        )
    return program


def remedy(reason, root=Path("/")):
    """What to do when a sandbox does not start, from bwrap's message and the system's settings."""

    def setting(name):
        with contextlib.suppress(OSError):
            return (root / "proc/sys" / name).read_text().strip()

    if "nknown option" in reason:
        return "Bubblewrap 0.8 or newer is needed (bwrap --version), or the Docker image."
    if "No module named" in reason:
        return f"The sandbox has the packages in {sys.prefix} only: install the course there."
    advice = []
    if setting("kernel/unprivileged_userns_clone") == "0":
        advice.append("User namespaces are closed: sudo sysctl kernel.unprivileged_userns_clone=1")
    if setting("user/max_user_namespaces") == "0":
        advice.append("User namespaces are closed: sudo sysctl user.max_user_namespaces=15000")
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        advice.append(
            "AppArmor closes user namespaces to bwrap (Ubuntu 23.10 and newer): write\n"
            "abi <abi/4.0>,\ninclude <tunables/global>\n"
            "profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\n"
            "to /etc/apparmor.d/bwrap, then: sudo systemctl reload apparmor"
        )
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        advice.append(
            "This is a container: start it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        )
    return "\n".join(advice) or "User namespaces may be closed: ask who administers this machine."


def _write_job(job, notebook, files, secret):
    sources = [cell.source if cell.cell_type == "code" else "" for cell in notebook.cells]
    for room, contents in {"files": files, "secret": secret}.items():
        (job / room).mkdir(parents=True)
        for name, content in contents.items():
            if name in ("", ".", "..") or "/" in name:
                raise ValueError(f"{name!r} is not the name of a file.")
            (job / room / name).write_bytes(content)
    (job / "cells.json").write_text(json.dumps(sources))


@contextlib.contextmanager
def _filter():
    """A file with the rules that close some calls of the operating system to the sandbox.

    It is a program for the kernel's filter (seccomp in Linux' documentation): compare the number
    of the call with each closed one; jump to "allowed" or to "not permitted".
    """
    kind, mmap, closed = CLOSED_CALLS.get(platform.machine(), (0, 0, ()))
    no = 8 + len(closed) + 1  # where "not permitted" stands, after "allowed"
    rules = [(0x20, 0, 0, 4), (0x15, 0, no - 2, kind)]  # load the processor's kind; is it this?
    rules += [(0x20, 0, 0, 0), (0x35, no - 4, 0, 2**30)]  # load the number; is it of another set?
    rules += [(0x15, no - i - 1, 0, call) for i, call in enumerate(closed, 4)]
    # mmap: load its flags; are they "shared" and "anonymous"?
    rules += [(0x15, 0, 3, mmap), (0x20, 0, 0, 40), (0x54, 0, 0, 0x21), (0x15, 1, 0, 0x21)]
    rules += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x50000 | errno.EPERM)]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(struct.pack("=HBBI", *rule) for rule in rules if kind))
        file.seek(0)
        yield file


def _bubblewrap(program, limits, job, calls):
    """The command line that everything inside is appended to."""
    command = [program, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    if os.fstat(calls.fileno()).st_size:
        command += ["--seccomp", str(calls.fileno())]
    command += ["--uid", "1000", "--gid", "1000", "--hostname", "grading"]
    command += ["--die-with-parent", "--new-session", "--dev", "/dev"]
    command += ["--dev-bind", "/dev/null", "/dev/zero"]  # which is memory that no process shows
    # Read-only as a whole: a grader who is root could otherwise be attacked through /proc/sys.
    command += ["--proc", "/proc", "--remount-ro", "/proc"]
    command += ["--size", str(64 * 2**20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    command += ["--size", str(limits.disk), "--tmpfs", "/tmp"]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        link = os.path.islink(name)
        command += ["--symlink", os.readlink(name), name] if link else ["--ro-bind-try", name, name]
    visible = ["/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/localtime"]
    visible += [sys.base_prefix, os.path.realpath(sys.base_prefix), sys.prefix, str(HELPERS)]
    visible.append(str(HELPERS.parent / "results"))  # stored measurements, which tasks read
    for path in dict.fromkeys(visible):
        if not path.startswith("/usr/") and path != "/usr":
            command += ["--ro-bind-try", path, path]
    # The course's own data sets, not what an instructor may have adopted beside them.
    for data in sorted(cache.root().glob("critters-*/manifest.json")):
        if not (data.parent / cache.UNFINISHED).exists():
            command += ["--ro-bind", str(data.parent), f"/tmp/home/.cache/{data.parent.name}"]
    command += ["--ro-bind", str(job), "/job", "--dir", "/tmp/work", "--dir", "/tmp/home/.cache"]
    return [*command, "--dir", "/tmp/handed_in", "--chdir", "/tmp/work", "--remount-ro", "/", "--"]


def _environment(job, inside, sandbox):
    return {
        "COURSE_CACHE": str(inside / "home/.cache" if sandbox else cache.root()),
        "COURSE_GRADING": "1",
        "COURSE_HANDED_IN": str(inside / "handed_in"),
        "COURSE_SECRET": str(job / "secret"),
        "COURSE_TRACK": "critters",
        "HOME": str(inside / "home"),
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",  # else as many threads as cores in every worker that draws
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(HELPERS.parent),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TQDM_DISABLE": "1",
        "USER": "student",
    }


class _Watchdog:
    """Runs one command, counts what it uses, and ends it when a limit is reached."""

    def __init__(self, limits, sandbox):
        self.limits, self.sandbox, self.outcome = limits, sandbox, None
        self.short = self.starved = False  # the machine, of memory; the notebook, of processor time
        self.cpu_seconds, self.first = 0.0, None  # first: process 1 in the sandbox

    def run(self, said, command, **given):
        """Append the output of `subprocess.Popen(command, **given)` to `said`, up to the limit."""
        most = self.limits.output + 8 * MOST_BYTES  # and a few versions of what is handed in
        deadline = time.monotonic() + self.limits.seconds
        process = subprocess.Popen(
            command,
            **given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        listener = threading.Thread(target=_listen, args=(process.stdout, most, said), daemon=True)
        root = psutil.Process(process.pid)
        listener.start()
        try:
            while self.outcome is None and process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(EVERY)
                if time.monotonic() > deadline:
                    self.outcome = "timeout"
                    self.starved = _waited(root) > max(self.cpu_seconds, self.limits.seconds / 4)
                elif len(said) >= most:
                    self.outcome = "output"
                else:
                    self.outcome = self._count(root)
        finally:
            self._kill(process, root)
            listener.join(10)
            if not listener.is_alive():
                process.stdout.close()

    def _count(self, root):
        """Name the limit that is exceeded, or None."""
        with contextlib.suppress(psutil.Error):
            members = [root, *root.children(recursive=True)]
            if self.sandbox and len(members) > 1:
                self.first = self.first or members[1]
            if len(members) > self.limits.processes:
                return "processes"
            tasks = memory = cpu = 0
            for member in members:
                with contextlib.suppress(OSError):  # what the system ends first if memory runs out
                    Path(f"/proc/{member.pid}/oom_score_adj").write_text("1000")
                with contextlib.suppress(psutil.Error), member.oneshot():
                    tasks += member.num_threads()
                    memory += member.memory_info().rss
                    cpu += sum(member.cpu_times()[:4])  # its own and its ended children's
            self.cpu_seconds = max(self.cpu_seconds, cpu)
            used, free = _private_folder(members)
            # What the system holds for a process, as what waits in pipes, is in nobody's count.
            self.short = psutil.virtual_memory().available < RESERVE
            if tasks > self.limits.processes:
                return "processes"
            if memory + used > self.limits.memory or self.short:
                return "memory"
            if free < self.limits.disk / 100:
                return "disk"
            if cpu > self.limits.cpu_seconds:
                return "timeout"

    def _kill(self, process, root):
        """End a command and all that it started; a sandbox ends with its process 1."""
        with contextlib.suppress(psutil.Error):
            for member in [self.first] if self.first else root.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    member.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5 if self.first else 0)  # bwrap clears away its dead
        process.kill()
        process.wait()


def _waited(root):
    """Seconds that the threads of a process and of its children were ready to run, and did not."""
    waited = 0
    with contextlib.suppress(psutil.Error):
        for member in [root, *root.children(recursive=True)]:
            for thread in Path(f"/proc/{member.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    waited += int(thread.read_text().split()[1]) / 1e9
    return waited


def _private_folder(members):
    """Bytes used and free in the sandbox's /tmp, seen from outside; 0 and inf without one."""
    if len(members) > 2:  # bwrap, its process 1 in the sandbox, and what runs there
        with contextlib.suppress(OSError):
            seen = os.statvfs(f"/proc/{members[2].pid}/root/tmp")
            if os.stat(f"/proc/{members[2].pid}/root/tmp").st_dev != os.stat("/tmp").st_dev:
                block = seen.f_frsize
                return (seen.f_blocks - seen.f_bfree) * block, seen.f_bfree * block
    return 0, float("inf")


def _listen(pipe, most, said):
    while len(said) < most and (chunk := pipe.read(2**16)):
        said += chunk


def _execution(notebook, secret, said, watchdog, limits, seconds):
    """Make sense of what the sandbox said, all of which a student may have forged."""
    notebook = copy.deepcopy(notebook)
    cells = dict(enumerate(notebook.cells))
    code = {i: c for i, c in cells.items() if c.cell_type == "code"}
    for cell in notebook.cells:
        cell.source = _plain(cell.source)
    for cell in code.values():
        cell.outputs, cell.execution_count = [], None
    done, handed_in, running, ready, end, noise = set(), {}, None, False, None, ""
    for line in itertools.islice(io.BytesIO(said), 100 + 20 * len(cells)):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            noise = line.decode("utf-8", "replace").strip() or noise
            continue
        match message:
            case {"ready": True}:
                ready = True
            case {"started": int(index)} if index in code:
                running = index
            case {"done": int(index), "outputs": list(outputs)} if index in code:
                code[index].outputs = _cleaned(outputs)
                count = message.get("count")
                code[index].execution_count = count if type(count) is int else None
                done.add(index)
            case {"handed_in": str(name), "content": str(content)} if name in secret:
                with contextlib.suppress(ValueError):
                    content = base64.b64decode(content, validate=True)
                    if len(content) <= MOST_BYTES:
                        handed_in[name] = content
            case {"end": "finished" | "died" | "output" as outcome}:
                end = outcome
    waiting = [i for i, cell in code.items() if cell.source.strip() and i not in done]
    outcome = watchdog.outcome or (end or "died" if ready else "sandbox failed")
    if outcome == "finished" and waiting:
        outcome = "died"
    sentence = _sentence(outcome, limits, watchdog, seconds, noise)
    if running in waiting and outcome not in ("finished", "sandbox failed"):
        first = textwrap.shorten(_plain(code[running].source), 60)
        sentence += f" The cell that begins with {first!r} was running."
    for index in waiting:
        error = {"ename": "NotRun", "evalue": sentence, "traceback": [sentence]}
        code[index].outputs.append(nbformat.v4.new_output("error", **error))
    disturbed = watchdog.starved or (outcome == "memory" and watchdog.short)
    return Execution(
        notebook, handed_in, seconds, watchdog.cpu_seconds, outcome, sentence, disturbed
    )


def _sentence(outcome, limits, watchdog, seconds, noise):
    if outcome == "timeout" and seconds < limits.seconds:
        return f"It was stopped after {limits.cpu_seconds:g} seconds of processor time."
    if outcome == "memory" and watchdog.short:
        return "It was stopped because the machine was running out of memory."
    return {
        "finished": f"It ran to its end in {seconds:.0f} seconds.",
        "timeout": f"It was stopped after {limits.seconds:g} seconds.",
        "memory": f"It was stopped because it used more than {_size(limits.memory)} of memory.",
        "processes": f"It was stopped because it started more than {limits.processes} "
        "processes and threads.",
        "disk": f"It was stopped because it filled the {_size(limits.disk)} of disk that it has.",
        "output": f"It was stopped because it printed more than {_size(limits.output)}.",
        "died": "It was not graded to its end because its kernel ended.",
        "sandbox failed": f"It was not run: {_plain(noise)[-300:] or 'the sandbox did not start'}",
    }[outcome]


def _size(count):
    return f"{count / 2**30:.3g} GB" if count >= 2**30 else f"{count / 2**20:.3g} MB"


def _cleaned(outputs):
    """The first outputs of a cell, and its error, wherever it stands."""
    late = [o for o in outputs[OUTPUTS:] if isinstance(o, dict) and o.get("output_type") == "error"]
    cleaned = [_clean(output) for output in outputs[:OUTPUTS] + late[:1]]
    return [output for output in cleaned if output]


def _clean(output):
    """An output as plain text and pictures, or None if nothing is left of it."""
    match output:
        case {"output_type": "stream", "name": "stdout" | "stderr" as name, "text": str(text)}:
            return nbformat.v4.new_output("stream", name=name, text=_plain(text))
        case {"output_type": "error"}:
            lines = output.get("traceback")
            lines = [_plain(line) for line in lines] if isinstance(lines, list) else []
            names = {name: _plain(output.get(name)) for name in ("ename", "evalue")}
            return nbformat.v4.new_output("error", **names, traceback=lines[-100:])
        case {"output_type": "display_data" | "execute_result" as kind, "data": dict(data)}:
            kept = {name: _picture(data[name], name) for name in PICTURES if name in data}
            kept["text/plain"] = _plain(data.get("text/plain"))
            kept = {name: content for name, content in kept.items() if content}
            return nbformat.v4.new_output(kind, data=kept) if kept else None


def _plain(text):
    """Text without colours, control characters and what UTF-8 cannot hold, cut to `TEXT`."""
    if not isinstance(text, str):
        return ""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text[: 2 * TEXT])
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "", text)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= TEXT else f"{text[:TEXT]}\n[The rest is left out.]"


def _picture(text, kind):
    """The picture as clean base64, or None."""
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            content = base64.b64decode(re.sub(r"\s", "", text), validate=True)
            if content.startswith(PICTURES[kind]):
                return base64.b64encode(content).decode()
