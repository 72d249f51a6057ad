"""How fast grading is: copies of one solved set, by `helpers.grading` and by plain nbgrader.

Run by hand on a quiet machine: `.venv/bin/python tests/throughput.py --copies 50 --jobs 2`. Plain
nbgrader grades some of the same copies afterwards; it isolates nothing, so they are our own.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from test_exercises import ROOT, course, notebooks, run, solve


def handed_in(folder, name):
    """A set as one who solved it hands it in, with what the notebooks trained at home."""
    folder.mkdir()
    for stem, notebook in notebooks("exercises", name).items():
        solved = solve(notebook, notebooks("solutions", name)[stem])
        nbformat.write(solved, folder / f"{stem}.ipynb")
        command = ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
        run(sys.executable, *command, f"{stem}.ipynb", cwd=folder)  # beside it: <stem>.fit.npz
    return folder


def seconds(*command, cwd, **variables):
    started = time.monotonic()
    run(sys.executable, "-m", *command, cwd=cwd, **variables)
    return time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", default="start_here")
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--plain", type=int, default=10, help="copies for plain nbgrader")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = course(Path(name) / "course")
        solved = handed_in(Path(name) / "solved", options.set)
        for number in range(options.copies):
            copy = folder / "submitted" / f"student-{number:04}" / options.set
            shutil.copytree(solved, copy)
        ours = seconds(
            *("helpers.grading", str(folder / "submitted"), "--jobs", str(options.jobs)), cwd=ROOT
        )
        again = seconds("helpers.grading", str(folder / "submitted"), cwd=ROOT)
        grades = (folder / "submitted-graded" / "grades.csv").read_text().splitlines()[1:]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"COURSE_GRADING": "1", "JUPYTER_PREFER_ENV_PATH": "1", "PATH": path}
        seconds("nbgrader", "generate_assignment", options.set, cwd=folder, **variables)
        for copy in sorted((folder / "submitted").iterdir())[options.plain :]:
            shutil.rmtree(copy)
        plain = seconds("nbgrader", "autograde", options.set, cwd=folder, **variables)
    full = sum(",100,100," in row for row in grades)
    print(f"{options.copies} copies of {options.set}; {full} have 100 of 100 points")
    each, plain_each = ours / options.copies, plain / options.plain
    print(f"helpers.grading, sandboxed, --jobs {options.jobs}: {ours:.0f} s, {each:.1f} s a copy")
    print(f"nbgrader autograde, {options.plain} copies: {plain:.0f} s, {plain_each:.1f} s a copy")
    print(f"helpers.grading is {plain_each / each:.2f} times as fast; nothing new: {again:.0f} s")


if __name__ == "__main__":
    main()
