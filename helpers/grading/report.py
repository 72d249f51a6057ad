"""What grading leaves to read: a page for each student, a table, an overview for the instructor.

All pages stand alone and run no scripts. What a student wrote or printed appears in them as text
and as PNG or JPEG pictures, never as HTML.
"""

import collections
import csv
import functools
import html
import io
import os
import re
import statistics
import textwrap
from pathlib import Path

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_output

from helpers.grading.validation import HAND_IN, HIDDEN

LONGEST = 20_000  # characters of a cell's source and of an output that a page shows
BINS = 10  # of the distribution of points
COMMONEST = 3  # wrong answers shown of a task
COLUMNS = ["student", "set", "points", "of", "from_checks", "from_secret_pictures", "flags"]
COLUMNS += ["seconds", "problems"]
RIGHT = "✓ Right."  # what a check says that passes


def write_file(path, content):
    """Bytes into a file, which is whole or absent; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    temporary.write_bytes(content)
    temporary.replace(path)


def plain(text):
    """A name or an error that a student chose, as short harmless ASCII."""
    return ascii(str(text))[1:-1][:100] or "?"


def label(grade_id):
    return grade_id.removeprefix("check_").replace("_", " ")


def points(value):
    return f"{value:.1f}".removesuffix(".0")


# --- a page for the student ---


def feedback_path(graded, record):
    return Path(graded, "feedback", record["student"], record["set"], f"{record['notebook']}.html")


def write_feedback(record, graded):
    """The page of one notebook: what ran, what each check said, and the points."""
    if not record["notebook"]:
        return  # something that is no notebook: only the instructor hears of it
    counted = [task for _, task in _counted(record)]
    page = _template("feedback.html.j2").render(
        record=record,
        earned=sum(task["points"] for task in counted),
        most=sum(task["most"] for task in counted),
        body=_body(record) if record["executed"] else "",
    )
    write_file(feedback_path(graded, record), page.encode("utf-8", "replace"))


def _body(record):
    """The cells as HTML: nothing of the student's in it but text and pictures."""
    notebook = nbformat.from_dict(record["executed"])
    # plain text: highlighting takes minutes for code that is written to that end
    notebook.metadata = nbformat.from_dict(
        {"language_info": {"name": "text", "pygments_lexer": "text"}}
    )
    checks = [cell for cell in notebook.cells if not cell.metadata.get("student", False)]
    hidden = {line for cell in checks for line in _hidden_lines(cell.source)}
    cells = []
    for cell in notebook.cells:
        students = cell.metadata.get("student", False)
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and students:
            # as it was written: even a Markdown renderer can be attacked
            text = new_output("stream", name="stdout", text=_shown(cell.source, hidden))
            cells.append(new_code_cell("", outputs=[text]))
            cells[-1].transient = {"remove_source": True}  # the exporter's mark
        elif cell.cell_type == "markdown":
            cells.append(cell)
        elif cell.cell_type == "code":
            check = marks.get("grade", False) and not marks.get("solution", False)
            source = HIDDEN.sub("", cell.source).rstrip() if not students else cell.source
            outputs = [_output(output, check, hidden) for output in cell.outputs]
            if check and marks["grade_id"] in record["tasks"]:
                outputs.append(_verdict(record["tasks"][marks["grade_id"]]))
            cells.append(new_code_cell(_shown(source, hidden), outputs=list(filter(None, outputs))))
            cells[-1].metadata.alt = "What this cell drew"
    notebook.cells = cells
    body, _ = _exporter().from_notebook_node(notebook)
    return body


def _hidden_lines(source):
    """The lines of hidden tests that would tell something if a student printed them."""
    for line in "\n".join(HIDDEN.findall(source)).splitlines():
        if len(line.strip()) > 8 and not line.strip().startswith(("#", "import ", "from ")):
            yield line.strip()


def _shown(text, hidden):
    for line in hidden:
        text = text.replace(line, "[hidden]")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[The rest is left out.]"


def _output(output, check, hidden):
    """An output fit to be shown; None for what the verdict of a check says already."""
    if output.output_type == "stream":
        return new_output("stream", name=output.name, text=_shown(output.text, hidden))
    if output.output_type == "error":
        if check:
            return None  # its traceback would show hidden tests
        trace = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
        return new_output("error", traceback=[_shown(trace, hidden)])
    data = {kind: output.data[kind] for kind in ("image/png", "image/jpeg") if kind in output.data}
    return new_output(
        "display_data", data or {"text/plain": _shown(output.data.get("text/plain", ""), hidden)}
    )


def _verdict(task):
    if "most" not in task:
        return None
    kind = "right" if task["points"] == task["most"] else "warning"
    said = "" if task["sentence"] == RIGHT else task["sentence"]  # the check says that itself
    told = f"{points(task['points'])} of {points(task['most'])} points. {said}"
    return new_output("display_data", {"text/html": f'<p class="{kind}">{html.escape(told)}</p>'})


@functools.cache
def _exporter():
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    return exporter


@functools.cache
def _template(name):
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    rooms = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    rooms.globals.update(points=points, label=label)
    return rooms.get_template(name)


# --- for the instructor ---


def write(records, graded):
    """`grades.csv` and `overview.html` of all records."""
    rows = _rows(records)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    for row in rows:
        told = {name: " ".join(row[name]) for name in ("flags", "problems")}
        told |= {"student": row["student"], "set": row["set"]}
        told = {name: re.sub("^(?=[=+@-])", "'", text) for name, text in told.items()}  # no formula
        numbers = {"points", "of", "from_checks", "from_secret_pictures"}
        writer.writerow(row | told | {name: points(row[name]) for name in numbers})
    write_file(graded / "grades.csv", table.getvalue().encode("utf-8", "replace"))

    page = _template("overview.html.j2").render(
        name=graded.name.removesuffix("-graded"),
        students=len({record["student"] for record in records}),
        rows=rows,
        sets=[
            s for name in dict.fromkeys(r["set"] for r in rows) if (s := _set(name, rows, records))
        ],
        flags=[(record, flag) for record in records for flag in record["flags"]],
        problems=[(record, problem) for record in records for problem in record["problems"]],
        unsafe=sum(record["seconds"] > 0 and not record["sandbox"] for record in records),
    )
    write_file(graded / "overview.html", page.encode("utf-8", "replace"))


def _rows(records):
    """One row for each student and set, as in `COLUMNS`; flags and problems are lists."""
    groups = {}
    for record in records:
        groups.setdefault((record["student"], record["set"]), []).append(record)
    rows = []
    for (student, name), group in groups.items():
        tasks = [item for record in group for item in _counted(record)]
        secret = sum(task["points"] for grade_id, task in tasks if grade_id.startswith(HAND_IN))
        earned = sum(task["points"] for _, task in tasks)
        flags = [flag for record in group for flag in record["flags"]]
        if not all(record["sandbox"] for record in group):
            flags.insert(0, "Graded without the sandbox.")
        rows.append(
            {
                "student": student,
                "set": name,
                "points": earned,
                "of": sum(task["most"] for _, task in tasks),
                "from_checks": earned - secret,
                "from_secret_pictures": secret,
                "flags": flags,
                "seconds": round(sum(record["seconds"] for record in group)),
                "problems": [problem for record in group for problem in record["problems"]],
            }
        )
    return rows


def _counted(record):
    """The tasks of a record that count points, by grade_id."""
    return [(name, task) for name, task in record["tasks"].items() if task.get("most")]


def _set(name, rows, records):
    """What the overview says about one set; None if it is none of the course."""
    rows = [row for row in rows if row["set"] == name and row["of"]]
    records = [record for record in records if record["set"] == name]
    ran = [record for record in records if record["seconds"]]
    if not rows:
        return None
    most, earned = max(row["of"] for row in rows), [row["points"] for row in rows]
    counts = collections.Counter(min(int(BINS * p / most), BINS - 1) for p in earned)
    width = most / BINS
    bins = [
        {
            "count": counts[n],
            "height": 100 * counts[n] / max(counts.values()),
            "label": f"{points(n * width)} to {points((n + 1) * width)}",
        }
        for n in range(BINS)
    ]
    slowest = max(ran, key=lambda record: record["seconds"], default={"student": "none"})
    seconds = [record["seconds"] for record in ran] or [0]
    cpu = [record["cpu_seconds"] for record in ran] or [0]
    return {
        "name": name,
        "count": len(rows),
        "most": most,
        "mean": statistics.mean(earned),
        "median": statistics.median(earned),
        "bins": bins,
        "tasks": list(_tasks(records)),
        "seconds_median": statistics.median(seconds),
        "seconds_most": max(seconds),
        "slowest": slowest["student"],
        "cpu_median": statistics.median(cpu),
        "cpu_most": max(cpu),
    }


def _tasks(records):
    """Of each task of a set: who solved it, and the commonest sentences for who did not."""
    answers = {}
    for record in records:
        for name, task in _counted(record):
            answers.setdefault((record["notebook"], name), []).append(task)
    for (notebook, name), tasks in sorted(answers.items(), key=lambda item: item[0][0]):
        wrong = {}
        for task in tasks:
            if task["points"] < task["most"]:
                wrong.setdefault(_without_numbers(task["sentence"]), []).append(task["sentence"])
        commonest = sorted(filter(None, wrong), key=lambda said: -len(wrong[said]))[:COMMONEST]
        yield {
            "notebook": notebook,
            "name": name,
            "most": tasks[0]["most"],
            "share": round(100 * statistics.mean(task["points"] == task["most"] for task in tasks)),
            "wrong": [{"count": len(wrong[w]), "example": _short(wrong[w][0])} for w in commonest],
        }


def _without_numbers(sentence):
    """The same sentence for all who made the same mistake with other numbers."""
    return re.sub(r"-?\d[\d.,]*(?<![.,])", "…", sentence)


def _short(sentence):
    return textwrap.shorten(sentence.removeprefix("✗ Not yet. "), 240)


def summary(records, graded):
    """What the terminal says at the end."""
    rows, lines = _rows(records), []
    for name in dict.fromkeys(row["set"] for row in rows if row["of"]):
        scores = [row["points"] for row in rows if row["set"] == name and row["of"]]
        lines.append(
            f"{name}: {len(scores)} graded, {statistics.mean(scores):.1f} points on average"
        )
    for what in ("flags", "problems"):
        found = [record for record in records if record[what]]
        if found:
            lines.append(f"{len(found)} of {len(records)} notebooks have {what}.")
    if not all(record["sandbox"] for record in records):
        lines.append("Student code ran WITHOUT the sandbox.")
    return "\n".join([*lines, f"Look at {graded / 'overview.html'}"])
