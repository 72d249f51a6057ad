"""How fast grading is: copies of one solved set, by `helpers.grading` and by plain nbgrader.

Run by hand on a quiet machine: `.venv/bin/python tests/throughput.py --copies 50 --jobs 2`. Some
of the same copies are graded one at a time afterwards, by both; plain nbgrader isolates nothing, so
they are our own. What comes out is a row of results/grading.csv.
"""

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
from test_exercises import ROOT, course, notebooks, run, solve

RESULTS = ROOT / "results" / "grading.csv"


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
    parser.add_argument("--plain", type=int, default=10, help="copies graded one at a time")
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
        records = (folder / "submitted-graded" / "state" / "notebooks").rglob("*.json")
        cpu = sum(json.loads(path.read_text())["cpu_seconds"] for path in records)
        again = seconds("helpers.grading", str(folder / "submitted"), cwd=ROOT)
        grades = (folder / "submitted-graded" / "grades.csv").read_text().splitlines()[1:]
        plain = single = float("nan")
        if options.plain:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            variables = {"COURSE_GRADING": "1", "JUPYTER_PREFER_ENV_PATH": "1", "PATH": path}
            seconds("nbgrader", "generate_assignment", options.set, cwd=folder, **variables)
            for copy in sorted((folder / "submitted").iterdir())[options.plain :]:
                shutil.rmtree(copy)
            shutil.rmtree(folder / "submitted-graded")
            single = seconds(
                *("helpers.grading", str(folder / "submitted"), "--jobs", "1"), cwd=ROOT
            )
            plain = seconds("nbgrader", "autograde", options.set, cwd=folder, **variables)
    row = {
        "set": options.set,
        "copies": options.copies,
        "all_points": sum(",100,100," in row for row in grades),
        "jobs": options.jobs,
        "seconds_a_copy": ours / options.copies,
        "processor_seconds_a_copy": cpu / options.copies,
        "seconds_nothing_new": again,
        "copies_one_at_a_time": options.plain,
        "seconds_one_at_a_time": single / max(options.plain, 1),
        "nbgrader_seconds_a_copy": plain / max(options.plain, 1),
        "date": datetime.date.today().isoformat(),
        "command": "python tests/" + " ".join(map(os.path.basename, sys.argv)),
    }
    print(*(f"{name}: {value}" for name, value in row.items()), sep="\n")
    table = pd.DataFrame([row])
    if RESULTS.exists():
        earlier = pd.read_csv(RESULTS)
        same = (earlier["set"] == options.set) & (earlier["copies"] == options.copies)
        table = pd.concat([earlier[~same], table])
    table.to_csv(RESULTS, index=False, float_format="%.1f")


if __name__ == "__main__":
    main()
