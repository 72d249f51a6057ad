"""What runs inside the sandbox: a Jupyter kernel and the client that hands it one cell at a time.

`sandbox.execute` starts it, in a folder of its own. It answers in lines of JSON on its stdout:
`{"ready": true}`, for each cell `{"started": 3}` and `{"done": 3, "outputs": [...]}`, for a file of
predictions `{"handed_in": "name.npy", "content": "<base64>"}`, and last `{"end": "finished"}`.
Student code can forge every one of them: whoever reads them believes nothing else of them than
that they are what this submission wants to say.
"""

import base64
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

# jsonschema would compile a grammar of web addresses, which takes longer than all else here.
sys.modules["rfc3987_syntax"] = None

import nbformat.v4  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import DeadKernelError  # noqa: E402


def say(**message):
    print(json.dumps(message), flush=True)


class Client(NotebookClient):
    """Drops outputs beyond `most` bytes, all cells together; ends at ten times as many."""

    most = heard = 0
    reply = None

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] not in ("status", "execute_input"):
            self.heard += len(json.dumps(msg["content"], default=str))
        if self.heard > 10 * self.most:
            say(done=cell_index, outputs=cell.outputs)
            self.end("output")
        if self.heard > self.most and msg["msg_type"] not in ("status", "error", "execute_input"):
            return None
        return super().process_message(msg, cell, cell_index)

    def executed(self, cell, cell_index, execute_reply):
        self.reply = execute_reply["content"]

    def run(self, index):
        """Run one cell; one that fails has an error among its outputs, however it failed."""
        cell = self.nb.cells[index]
        self.execute_cell(cell, index)
        if self.reply["status"] != "ok" and not any(o.output_type == "error" for o in cell.outputs):
            error = {"ename": self.reply.get("ename", "Stopped"), "evalue": "", "traceback": []}
            cell.outputs.append(nbformat.v4.new_output("error", **error))

    def end(self, outcome):
        """Leave at once: a hostile kernel would not answer a polite request to shut down."""
        say(end=outcome)
        if self.km.provisioner and self.km.provisioner.process:
            self.km.provisioner.process.kill()
        os._exit(0)


def hand_in(folder, names, most, sent):
    """Send the first `most` bytes of each of these files that has changed since it was sent."""
    for name in names:
        try:
            file = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        about = os.fstat(file)
        version = (about.st_ino, about.st_mtime_ns, about.st_size)
        if stat.S_ISREG(about.st_mode) and sent.get(name) != version:
            sent[name] = version
            say(handed_in=name, content=base64.b64encode(os.read(file, most)).decode())
        os.close(file)


def main(job, disk, output, most, processes):
    """Run the cells of `job/cells.json` (sources; an empty one is not run) in this folder."""
    os.nice(10)  # the watchdog outside goes first
    if processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    shutil.copytree(job / "files", ".", dirs_exist_ok=True)
    sources = json.loads((job / "cells.json").read_text())
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    client = Client(notebook, kernel_name="python3", allow_errors=True, timeout=None)
    client.most = output
    client.on_cell_executed = client.executed
    client.store_widget_state = client.record_timing = False
    client.coalesce_streams = True
    client.extra_arguments = ["--HistoryManager.enabled=False"]
    answers, names, sent = Path(os.environ["COURSE_HANDED_IN"]), os.listdir(job / "secret"), {}
    with client.setup_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        say(ready=True)
        for index, source in enumerate(sources):
            if not source.strip():
                continue
            say(started=index)
            try:
                client.run(index)
            except DeadKernelError:
                client.end("died")
            cell = notebook.cells[index]
            say(done=index, outputs=cell.outputs, count=cell.execution_count)
            hand_in(answers, names, most, sent)
        client.end("finished")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
