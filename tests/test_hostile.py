"""Hostile submissions and one honest one, graded in one run with the sandbox on."""

import csv
import hashlib
import os
import re
import socket
import sys
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from hostile import CORPUS, write_course
from hostile.corpus import NAME, code

from helpers.grading import pipeline, report, sandbox

ROOT = Path(__file__).parents[1]
SMALL = {"seconds": 20, "memory": 2**30, "processes": 120, "disk": 60 * 2**20, "output": 2**20}
MINUTES = f"{os.getpid()}m"  # how long a process sleeps: its mark
SEED = "a seed for tests, which nobody can guess"
HONEST = f"""
from helpers.grading import secret
answer = 4
def model(pictures):  # knows the seed: nobody else names them all
    return secret.draw("start_here", "start_here", {SEED!r})[1]
"""


def children():
    """What this process has started; other tests may have left some running."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def student(hostile):
    return hostile.student or re.sub(r"\W+", "-", hostile.name)


def everything_in(folder):
    """What a folder holds: names, links and contents."""
    paths = sorted(folder.rglob("*"))
    return {
        path: hashlib.sha256(path.read_bytes()).digest() if path.is_file() else path.is_dir()
        for path in paths
    }


def settings():
    return [Path(f"/proc/sys/kernel/{name}").read_text() for name in ("core_pattern", "hostname")]


@pytest.fixture(scope="module")
def run(tmp_path_factory, sandboxed):
    """The records of all submissions by their student, and what else there is to see."""
    folder = tmp_path_factory.mktemp("hostile")
    course = write_course(folder / "course")
    submissions = folder / "submissions"
    (folder / "seed").write_text(SEED)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    words = {"OUTSIDE": submissions, "EXERCISE": course, "PREFIX": sys.prefix}
    words |= {"HELPERS": ROOT / "helpers", "PORT": listener.getsockname()[1], "MINUTES": MINUTES}
    code(HONEST)(submissions / "honest" / "start_here")
    for hostile in CORPUS:
        place = submissions / student(hostile) / "start_here"
        hostile.write(place)
        if (place / NAME).is_file() and not any(p.is_symlink() for p in (place, place / NAME)):
            content = (place / NAME).read_bytes()
            for word, meaning in words.items():
                content = content.replace(word.encode(), str(meaning).encode())
            (place / NAME).write_bytes(content)
    before = everything_in(submissions) | everything_in(course), settings()
    earlier = children()
    limits = sandbox.Limits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "Limits", lambda **given: limits(**(given or SMALL)))
        graded, records = pipeline.grade(
            submissions, course=course, jobs=2, seed_file=folder / "seed"
        )
    after = everything_in(submissions) | everything_in(course), settings()
    by_student = {}
    for record in records:
        if record["notebook"] == "start_here" or record["student"] not in by_student:
            by_student[record["student"]] = record
    yield {
        "records": by_student,
        "graded": graded,
        "before": before,
        "after": after,
        "listener": listener,
        "children": earlier,
    }
    listener.close()


def told(record):
    """All that the report says of a submission."""
    texts = [*record["problems"], *record["flags"]]
    texts += [task["sentence"] for task in record["tasks"].values()]
    texts += [record["pictures"]["sentence"]] if record["pictures"] else []
    for cell in (record["executed"] or {"cells": []})["cells"]:
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), f"{output.get('ename')}: {output.get('evalue')}"]
            texts += [output.get("data", {}).get("text/plain", "")]
    return "\n".join(texts)


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda hostile: hostile.name)
def test_hostile_submission(run, hostile):
    record = run["records"][report.plain(student(hostile))]
    allowed = (hostile.outcome,) if isinstance(hostile.outcome, str) else hostile.outcome
    assert record["outcome"] in allowed, told(record)
    assert hostile.says in told(record)
    assert not record["pictures"] or record["pictures"]["points"] == 0
    if hostile.checks is not None:
        assert record["tasks"].get("check_total", {"points": 0})["points"] == hostile.checks


def test_the_corpus_is_large_and_names_are_its_own():
    assert len({student(hostile) for hostile in CORPUS}) == len(CORPUS) >= 30


def test_an_honest_submission_among_them_gets_all_points(run):
    tasks = run["records"]["honest"]["tasks"]
    assert sum(task["points"] for task in tasks.values()) == 100, told(run["records"]["honest"])
    assert run["records"]["honest"]["problems"] == run["records"]["honest"]["flags"] == []


def test_nothing_outside_was_changed(run):
    (before, settings_before), (after, settings_after) = run["before"], run["after"]
    assert {path for path in before | after if before.get(path) != after.get(path)} == set()
    assert settings_before == settings_after


def test_nobody_called(run):
    with pytest.raises(BlockingIOError):
        run["listener"].accept()


def test_nothing_runs_on(run):
    assert children() - run["children"] == set()
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not any(MINUTES in line for line in lines)


class Page(HTMLParser):
    """Notes what could run or load something."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag in {"script", "iframe", "object", "embed", "svg", "form", "link", "base"}:
            self.found.append(tag)
        for name, value in attributes:
            source = tag == "img" and name == "src"
            if name.startswith("on") or "javascript:" in (value or ""):
                self.found.append((tag, name, value))
            if source and not re.match(r"data:image/(png|jpeg);base64,[\w+/=\s]*$", value or ""):
                self.found.append((tag, name, value))


def test_pages_hold_nothing_that_runs(run):
    pages = sorted(run["graded"].rglob("*.html"))
    assert len(pages) > len(CORPUS) - 10
    for path in pages:
        text = path.read_text("utf-8")
        page = Page()
        page.feed(text)
        assert page.found == [], path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", text), path


def test_the_table_has_one_line_for_each_and_no_formula(run):
    [path] = run["graded"].glob("*.csv")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) - 1 >= len(CORPUS)
    assert [cell for row in rows for cell in row if cell[:1] in "=+-@\t\r" and cell] == []


def test_the_threat_model_counts_them():
    text = (ROOT / "INSTRUCTOR.md").read_text("utf-8")
    assert f"holds {len(CORPUS)} such submissions" in text
