"""The table of hostile submissions."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from nbformat.v4 import new_code_cell

from hostile.exercise import cells, write_notebook

NAME = "start_here.ipynb"
ROOT = Path(__file__).parents[2]
RIGHT = "answer = 4\nmodel = None\n"  # the sum, and nothing for the pictures


@dataclasses.dataclass(frozen=True)
class Hostile:
    """One submission, and what must come of it; no points for the secret pictures in any case.

    Args:
        name: what it tries.
        write: makes the folder `<student>/start_here`.
        outcome: of the run in the sandbox, or several that are as good; "not run" if refused.
        says: stands in the report's problems, flags, sentences of tasks or outputs.
        checks: points of the checks, of 60; None: whatever it forged.
        student: name of the student's folder, if that is the attack.
    """

    name: str
    write: Callable
    outcome: str | tuple
    says: str = ""
    checks: int | None = 0
    student: str = ""


def code(source):
    """Hands in the exercise with this answer."""
    return changed(lambda content: None, source)


def changed(change, answer=RIGHT):
    """Hands in the exercise after a function of the list of its cells."""

    def write(folder):
        content = cells(answer)
        change(content)
        write_notebook(folder / NAME, content)

    return write


def raw(content):
    """Hands in these bytes in place of a notebook."""

    def write(folder):
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(content)

    return write


def forged(model):
    """Hands in predictions made by this expression of `pictures`."""
    return code(f"answer = 4\ndef model(pictures): return {model}")


def written(statements):
    """Hands in what these statements do with `path`, the file of the predictions."""
    lines = "\n".join(f"    {line}" for line in statements.split("\n"))
    return code(
        "answer = 4\nimport os\npath = os.environ['COURSE_HANDED_IN'] + '/start_here.npy'\n"
        f"def model(pictures):\n{lines}\n    raise ValueError('done')"
    )


# --- using up the machine ---

MACHINE = [
    Hostile("endless loop", code("while True: pass"), "timeout", "'while True: pass' was running"),
    Hostile(
        "waits for the time limit on every cell",
        changed(lambda c: c.__setitem__(slice(2, 2), sleepers(50))),
        "timeout",
    ),
    Hostile("fork bomb", code("import os\nwhile True: os.fork()"), ("processes", "memory")),
    Hostile(
        "fork bomb of a shell",
        code("import os\nos.system('f() { f | f & }; f'); os.system('sleep 99')"),
        "processes",
    ),
    Hostile(
        "thread bomb",
        code(
            "import threading, time\n"
            "while True: threading.Thread(target=time.sleep, args=(99,)).start()"
        ),
        ("processes", "died"),
    ),
    Hostile("memory bomb", code("x = []\nwhile True: x.append(b'x' * 10**7)"), "memory"),
    Hostile(
        "memory bomb of many processes",
        code(
            "import os, time\n"
            "for _ in range(20):\n"
            "    if not os.fork():\n"
            "        x = b'x' * 10**8; time.sleep(99)\n"
            "time.sleep(99)"
        ),
        "memory",
    ),
    Hostile(
        "memory that no process shows",
        code(
            "import mmap\n"
            "for n in range(100):\n"
            "    x = mmap.mmap(-1, 10**8); x.write(b'x' * 10**8); x.madvise(mmap.MADV_DONTNEED)"
        ),
        "finished",
        "Operation not permitted",
    ),
    Hostile(
        "memory of a device",
        code("import mmap\nf = open('/dev/zero', 'r+b')\nx = mmap.mmap(f.fileno(), 10**8)"),
        "finished",
        "No such device",
    ),
    Hostile(
        "memory in files without a name",
        code(
            "import os\n"
            "files = [os.memfd_create('x') for n in range(100)]\n"
            "for file in files: os.write(file, bytes(10**8))"
        ),
        "finished",
        "Operation not permitted",
    ),
    Hostile(
        "disk filler",
        code(
            "import time\n"
            "try:\n"
            "    for n in range(10**6): open(f'x{n}', 'wb').write(bytes(10**6))\n"
            "except OSError: time.sleep(99)"
        ),
        "disk",
    ),
    Hostile(
        "file of a terabyte", code("open('x', 'wb').truncate(10**12)"), "finished", "File too large"
    ),
    Hostile(
        "fills the shared memory",
        code("for n in range(10**6): open(f'/dev/shm/x{n}', 'wb').write(bytes(10**6))"),
        "finished",
        "No space left on device",
    ),
    Hostile(
        "prints a gigabyte", code("for _ in range(10**6): print('x' * 1000)"), ("output", "memory")
    ),
    Hostile(
        "prints a gigabyte in one piece",
        code("print('x' * 10**9)"),
        ("output", "memory", "timeout"),
    ),
    Hostile(
        "huge base64 output",
        code(
            "import base64\nfrom IPython.display import display\n"
            "display({'image/png': base64.b64encode(bytes(3 * 10**7)).decode()}, raw=True)"
        ),
        ("output", "memory"),
    ),
    Hostile(
        "a hundred thousand outputs",
        code("from IPython.display import display\nfor n in range(10**5): display('x' * 1000)"),
        "output",
    ),
    Hostile(
        "floods the pipe out of the sandbox",
        code(
            "import os\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    try:\n"
            "        if 'pipe' in os.readlink(f'/proc/{p}/fd/1'):\n"
            "            f = open(f'/proc/{p}/fd/1', 'wb', 0)\n"
            "            while True: f.write(b'\\n' * 10**6)\n"
            "    except OSError: pass"
        ),
        "output",
    ),
    Hostile(
        "threads that outlive the cell",
        code(
            f"{RIGHT}import threading\n"
            "def spin():\n"
            "    while True: print('still here')\n"
            "for _ in range(3): threading.Thread(target=spin).start()"
        ),
        ("finished", "timeout", "output", "memory"),
        checks=None,
    ),
    Hostile(
        "processes that outlive the notebook",
        code(f"{RIGHT}import subprocess\nsubprocess.Popen(['sleep', 'MINUTES'])"),
        "finished",
        checks=60,
    ),
]


def sleepers(count):
    return [new_code_cell("import time\ntime.sleep(3)", id=f"sleep-{n}") for n in range(count)]


# --- ending the kernel ---

KERNEL = [
    Hostile("kernel kill", code("import os\nos.kill(os.getpid(), 9)"), "died", "kernel ended"),
    Hostile("kills all processes", code("import os\nos.kill(-1, 9)"), "died"),
    Hostile("kills the client", code("import os\nos.kill(os.getppid(), 9)"), "died"),
    Hostile("stops the client", code("import os\nos.kill(os.getppid(), 19)"), "timeout"),
    Hostile("os._exit", code("import os\nos._exit(0)"), "died"),
    Hostile("sys.exit", code(f"{RIGHT}import sys\nsys.exit(0)"), "finished", "", 60),
    Hostile("exit()", code(f"{RIGHT}exit()"), ("finished", "died"), checks=None),
    Hostile("segmentation fault", code("import ctypes\nctypes.string_at(0)"), "died"),
    Hostile("asks for input", code("answer = int(input())"), "finished", "StdinNotImplemented"),
    Hostile(
        "sends what is no message",
        code(
            f"{RIGHT}k = get_ipython().kernel\n"
            "k.iopub_socket.send_multipart([b'', b'<IDS|MSG>', b'', b'{', b'{', b'{', b'{'])\n"
            "k.session.send(k.iopub_socket, 'status', {}, parent=k.get_parent())"
        ),
        ("finished", "died", "timeout"),
        checks=None,
    ),
    Hostile(
        "forged comm messages",
        code(
            f"{RIGHT}k = get_ipython().kernel\n"
            "state = {'_model_module': '@jupyter-widgets/output', '_model_name': 'OutputModel'}\n"
            "for content in {'comm_id': 'x', 'target_name': 'jupyter.widget',\n"
            "                'data': {'state': state}}, {'data': None}, {}:\n"
            "    k.session.send(k.iopub_socket, 'comm_open', content, parent=k.get_parent())"
        ),
        ("finished", "died", "timeout"),
        checks=None,
    ),
]

# --- looking and reaching out; OUTSIDE: the folder of all submissions; PORT: somebody listens;
# MINUTES, above: as long as nothing else sleeps ---

OUTSIDE = [
    Hostile(
        "reads other submissions, solutions, gradebook",
        code(
            "import os, sys\n"
            "found = []\n"
            "for folder, folders, names in os.walk('/'):\n"
            "    if folder in ('/proc', '/usr', sys.prefix, sys.base_prefix): folders.clear()\n"
            "    else: found += [n for n in names if n.endswith(('.ipynb', '.db'))]\n"
            "for p in ('OUTSIDE', 'OUTSIDE-graded', 'EXERCISE', 'HELPERS/../solutions',\n"
            "          'HELPERS/../tests', '/root/.ssh', '/etc/passwd', '/etc/shadow', '/sys'):\n"
            "    if os.path.exists(p): found.append(p)\n"
            "print('found', found)"
        ),
        "finished",
        "found []",
    ),
    Hostile(
        "writes outside",
        code(
            "import os\n"
            "written = []\n"
            "for p in ('OUTSIDE', 'OUTSIDE-graded', 'HELPERS', 'PREFIX', '/', '/etc', '/usr',\n"
            "          '/dev', '/job', '/job/secret', '/proc/sys/kernel', '/root'):\n"
            "    for name in ('hostile', 'core_pattern', '__init__.py', 'start_here.npy'):\n"
            "        try: open(f'{p}/{name}', 'ab').close(); written.append(p)\n"
            "        except OSError: pass\n"
            "print('written', written)"
        ),
        "finished",
        "written []",
    ),
    Hostile(
        "network calls",
        code(
            "import socket\n"
            "reached = []\n"
            "for host in ('127.0.0.1', '8.8.8.8', 'example.org', '::1'):\n"
            "    try: socket.create_connection((host, PORT), timeout=1); reached.append(host)\n"
            "    except OSError: pass\n"
            "print('reached', reached)"
        ),
        "finished",
        "reached []",
    ),
    Hostile(
        "looks for other processes",
        code(
            "import os\n"
            "print('processes', len([p for p in os.listdir('/proc') if p.isdigit()]) < 8)"
        ),
        "finished",
        "processes True",
    ),
    Hostile(
        "mounts, new namespaces, more rights",
        code(
            "import os, ctypes\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "done = [n for n in (0x10000000, 0x20000, 0x40000000) if libc.unshare(n) == 0]\n"
            "done += ['mount'] * (libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0)\n"
            "done += ['root'] * (libc.setuid(0) == 0)\n"
            "print('done', done)"
        ),
        "finished",
        "done []",
    ),
]

# --- forging points ---

FORGED = [
    Hostile(
        "patches the checks",
        code(
            "import helpers.checks\n"
            "helpers.checks.Check.__call__ = lambda *a: print('✓ Right.')\n"
            "answer = 5\ndef model(pictures): return [0] * len(pictures)"
        ),
        "finished",
        "sets helpers.checks.Check.__call__",
        checks=None,
    ),
    Hostile(
        "gives check another meaning",
        code("from unittest import mock\ncheck = mock.Mock()\nanswer = 4\nmodel = 1"),
        "finished",
        "gives the name check another meaning",
        checks=None,
    ),
    Hostile(
        "patches builtins",
        code(
            "import builtins\n"
            "builtins.AssertionError = builtins.Exception = type('E', (BaseException,), {})\n"
            "builtins.len = lambda x: 0\nanswer = 4\nmodel = lambda pictures: 0"
        ),
        ("finished", "died", "timeout"),
        "sets builtins.len",
        checks=None,
    ),
    Hostile(
        "patches numpy",
        code(
            "import numpy as np\n"
            "np.load = lambda *a, **k: [1] * 200\n"
            "np.mean = np.all = lambda *a, **k: 1\nanswer = 4\ndef model(pictures): return pictures"
        ),
        "finished",
        "sets np.mean",
        checks=None,
    ),
    Hostile(
        "patches Keras",
        code(
            "import sys, types\n"
            "sys.modules['keras'] = keras = types.ModuleType('keras')\n"
            "import keras\nkeras.Model = object\n"
            "answer = 4\ndef model(pictures): return [1] * len(pictures)"
        ),
        "finished",
        "sets keras.Model",
        checks=None,
    ),
    Hostile(
        "an answer that equals everything",
        code(
            "class Any:\n"
            "    def __eq__(self, other): return True\n"
            "    def __add__(self, other): return self\n"
            "answer = Any()\ndef model(pictures): return [Any()] * len(pictures)"
        ),
        "finished",
        checks=None,
    ),
    Hostile(
        "runs no cell any more",
        code(
            "answer = 5\nip = get_ipython()\n"
            "ip.kernel.shell.run_cell = ip.kernel.shell.run_cell_async = lambda *a, **k: None"
        ),
        ("finished", "died", "timeout"),
        checks=None,
    ),
    Hostile(
        "forges printed results",
        code("print('✓ Right. 100 of 100 points.')\nanswer = 5"),
        "finished",
        "Expected 4, found 5.",
    ),
    Hostile(
        "forges what the sandbox says",
        code(
            "import json, os\n"
            "lines = [{'ready': True}, *({'done': n, 'outputs': []} for n in range(9)),\n"
            "         {'handed_in': '../../x.npy', 'content': ''}, {'handed_in': 5},\n"
            "         {'handed_in': 'start_here.npy', 'content': 'AAAA'}, {'end': 'finished'}, 7,\n"
            "         {'done': -1, 'outputs': []}, {'done': 10**9, 'outputs': []},\n"
            "         {'done': 3, 'outputs': [[], {}, None, {'output_type': 'stream'}]}]\n"
            "text = '\\n'.join(map(json.dumps, lines)) + '\\n' + '[' * 10**5 + '\\n'\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    try:\n"
            "        if 'pipe' in os.readlink(f'/proc/{p}/fd/1'):\n"
            "            open(f'/proc/{p}/fd/1', 'w').write(text)\n"
            "    except OSError: pass\n"
            "os.kill(os.getppid(), 9)"
        ),
        ("finished", "died"),
        "No points for the secret pictures",
        checks=None,
    ),
    Hostile(
        "replaces check cells",
        changed(lambda c: c[3].update(source="print('✓ Right.')"), "answer = 5"),
        "finished",
        "The check check_total was changed: the original took its place.",
    ),
    Hostile(
        "deletes check cells",
        changed(lambda c: c.__delitem__(slice(3, None)), "answer = 5"),
        "finished",
        "The check check_total was missing",
    ),
    Hostile(
        "duplicate cell ids",
        changed(lambda c: c.extend([c[2], c[3], c[3]]), "answer = 5"),
        "finished",
        "The check check_total is there 3 times",
    ),
    Hostile(
        "deletes metadata",
        changed(lambda c: [cell.metadata.clear() for cell in c], "answer = 5"),
        "finished",
        "Expected 4, found 5.",
    ),
    Hostile(
        "deletes metadata and ids",
        changed(
            lambda c: [(cell.metadata.clear(), cell.update(id=f"x{n}")) for n, cell in enumerate(c)]
        ),
        "not run",
        "another exercise",
    ),
    Hostile(
        "more points in its metadata",
        changed(lambda c: c[3].metadata.nbgrader.update(points=10**6)),
        "finished",
        checks=60,
    ),
    Hostile(
        "asks to skip the checks",
        changed(
            lambda c: c[3].metadata.update(tags=["skip-execution", "raises-exception"]),
            "answer = 5",
        ),
        "finished",
        "Expected 4, found 5.",
    ),
]

# --- files that are not what they should be ---


def _symlink(folder):
    folder.mkdir(parents=True)
    (folder / NAME).symlink_to(ROOT / "solutions" / "start_here" / NAME)


def _linked_folder(folder):
    folder.parent.mkdir(parents=True)
    folder.symlink_to(ROOT / "solutions" / "start_here")


def _pipe(folder):
    folder.mkdir(parents=True)
    os.mkfifo(folder / NAME)


def _folder(folder):
    (folder / NAME).mkdir(parents=True)


def _many_cells(folder):
    cell = {"cell_type": "code", "id": "x", "metadata": {}, "outputs": [], "source": "while 1: 1"}
    content = {"cells": [cell] * 100_000, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    raw(json.dumps(content).encode())(folder)


def _zip_bomb(folder):
    """Weights that were trained at home: three megabytes that unfold to three gigabytes."""

    def run_at_home(content):
        for count, cell in enumerate(content):
            if cell.cell_type == "code":
                cell.execution_count = count

    changed(run_at_home)(folder)
    with (
        zipfile.ZipFile(folder / "start_here.fit.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("fits.npy", "w", force_zip64=True) as file,
    ):
        shape = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3000000000,), }"
        file.write(b"\x93NUMPY\x01\x00v\x00" + shape.ljust(117) + b"\n")
        for _ in range(300):
            file.write(bytes(10**7))


def _odd_names(folder):
    code(RIGHT)(folder)
    for name in ("..ipynb", "$(touch x).ipynb", "<script>alert(1)</script>".replace("/", "|")):
        (folder / f"{name}.ipynb").write_text("{}")


FILES = [
    Hostile("not JSON", raw(b"\x00\xff import os"), "not run", "not JSON"),
    Hostile("empty file", raw(b""), "not run", "not JSON"),
    Hostile("JSON, but no notebook", raw(b"[1, 2]"), "not run", "not a notebook"),
    Hostile("nested a million deep", raw(b"[" * 10**6), "not run", "not JSON"),
    Hostile("a zip file", raw(b"PK\x03\x04" + bytes(1000)), "not run", "not JSON"),
    Hostile("broken cells", raw(b'{"cells": [{}, 5, null]}'), "not run", "is broken"),
    Hostile("over 20 MB", raw(b" " * 21 * 10**6), "not run", "at most 20"),
    Hostile("100,000 cells", _many_cells, "not run", "100,000 cells"),
    Hostile("a symlink to the solution", _symlink, "not run", "is a link"),
    Hostile("a symlink to the folder of solutions", _linked_folder, "not run", "is a link"),
    Hostile("a pipe in place of a file", _pipe, "not run", "is not a file"),
    Hostile("a folder in place of a file", _folder, "not run", "is not a file"),
    Hostile(
        "half a character",
        code(f"{RIGHT}'\ud800'"),
        "finished",
        checks=60,
    ),
    Hostile("zip bomb of weights", _zip_bomb, "memory"),
    Hostile("names that a shell would run", _odd_names, "finished", checks=60),
    Hostile("path traversal in names", code(RIGHT), "not run", "rename it", 0, "x\\..\\..\\y"),
    Hostile("a name of HTML", code(RIGHT), "not run", "rename it", 0, "<script>alert(1)<"),
    Hostile("a name of a formula", code(RIGHT), "not run", "rename it", 0, "=cmd|' C'!A0"),
    Hostile("a name of several lines", code(RIGHT), "not run", "rename it", 0, "a\nb,100,100"),
]

# --- into the pages that people read ---

INJECTED = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\x1b]0;x\x07\u202e"
PAGES = [
    Hostile(
        "HTML and ANSI in what it prints",
        code(f"{RIGHT}print({INJECTED!r})\nraise ValueError({INJECTED!r})"),
        "finished",
        "<script>",
        60,
    ),
    Hostile(
        "HTML and ANSI in its source and its answer",
        code(f"# {INJECTED}\nanswer, model = {INJECTED!r}, None"),
        "finished",
        "Expected 4",
    ),
    Hostile(
        "HTML, SVG and scripts as outputs",
        code(
            f"{RIGHT}from IPython.display import display\n"
            f"x = {INJECTED!r}\n"
            "for kind in ('text/html', 'image/svg+xml', 'application/javascript', 'text/latex',\n"
            "             'text/markdown', 'image/png', 'image/jpeg', 'text/plain', x):\n"
            "    display({kind: x}, raw=True, metadata={x: x, kind: {'width': x, 'height': x}})"
        ),
        "finished",
        "<script>",
        60,
    ),
    Hostile(
        "HTML in a cell of text",
        changed(lambda c: c.append(dict(c[0], id="mine", source=INJECTED))),
        "finished",
        "",
        60,
    ),
]

# --- predictions that are none ---

PREDICTIONS = [
    Hostile("wrong shape", forged("pictures"), "finished", "No points", 60),
    Hostile("too few", forged("[1]"), "finished", "No points", 60),
    Hostile("NaN", forged("[float('nan')] * len(pictures)"), "finished", "not finite", 60),
    Hostile("text", forged("['cat'] * len(pictures)"), "finished", "No points", 60),
    Hostile("objects, pickled", forged("[print, None] * 100"), "finished", "No points", 60),
    Hostile("enormous", forged("np.zeros((200, 1000))"), "finished", "No points", 60),
    Hostile("no points for luck", forged("[1] * len(pictures)"), "finished", "0 of 40", 60),
    Hostile(
        "a header that promises a terabyte",
        written(
            "text = b\"{'descr': '<f8', 'fortran_order': False, 'shape': (200, 10**12)}\"\n"
            "text = text.replace(b'10**12', b'1' + b'0' * 12).ljust(117) + b'\\n'\n"
            "open(path, 'wb').write(b'\\x93NUMPY\\x01\\x00v\\x00' + text)"
        ),
        "finished",
        "No points",
        60,
    ),
    Hostile(
        "a pickle that runs a command",
        written(
            "import pickle\n"
            "class Run:\n"
            "    def __reduce__(self): return os.system, ('touch OUTSIDE/hostile',)\n"
            "open(path, 'wb').write(pickle.dumps(Run()))"
        ),
        "finished",
        "No points",
        60,
    ),
    Hostile(
        "a symlink as predictions",
        written("os.symlink('OUTSIDE/../seed', path)"),
        "finished",
        "No points",
        60,
    ),
    Hostile("a pipe as predictions", written("os.mkfifo(path)"), "finished", "No points", 60),
    Hostile("a folder as predictions", written("os.mkdir(path)"), "finished", "No points", 60),
    Hostile(
        "a thousand files of predictions",
        written("for n in range(1000): open(f'{path[:-4]}{n}.npy', 'wb').write(bytes(10**4))"),
        "finished",
        "No points",
        60,
    ),
]

CORPUS = [*MACHINE, *KERNEL, *OUTSIDE, *FORGED, *FILES, *PAGES, *PREDICTIONS]
