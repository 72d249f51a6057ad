"""The repository itself: which helper may import which, and how much a clone weighs."""

import ast
import re
import subprocess
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A helper imports only from rows below its own.
LAYERS = [
    {"pretraining"},  # nothing imports it
    {"checks", "grading"},
    {"small_cnn"},
    {"experiments", "explain", "predict", "prefetch"},
    {"plots"},
    {"tracks"},
    {"datasets", "pretrained", "hub_layer", "features", "vgg16"},
    {"critters", "downloads"},
]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "helpers").rglob("*.py"))


def row(module):
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def imported_helpers(source, package="helpers"):
    """What a module of `package` imports from `helpers`, anywhere in its code: `{"tracks"}`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            paths = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        names |= {path.split(".")[1] for path in paths if path.startswith("helpers.")}
    return names


def wrong_imports(module, source):
    """The imports of a module, such as `tracks` or `checks.vgg16`, that do not go down."""
    top, *rest = module.split(".")
    package = f"helpers.{top}" if rest else "helpers"
    others = imported_helpers(source, package) - {top}
    return sorted(name for name in others if row(name) <= row(top))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down(path):
    module = ".".join(path.with_suffix("").parts[1:])
    source = (ROOT / path).read_text("utf-8")
    if module == "__init__":
        assert imported_helpers(source) == set()
    else:
        assert wrong_imports(module, source) == []


def test_imports_upwards_and_sideways_are_noticed():
    source = "from helpers import critters, features, pretraining, tracks"
    assert wrong_imports("datasets", source) == ["features", "pretraining", "tracks"]
    source = "from helpers.checks import Check\nfrom . import Check\nfrom ..grading import grade"
    assert wrong_imports("checks.vgg16", source) == ["grading"]


@pytest.mark.parametrize(
    "source",
    [
        "import helpers.tracks as t",
        "from helpers import tracks",
        "from helpers.tracks import current",
        "from . import tracks",
        "from .tracks import current",
        "def f():\n    from helpers import tracks",
    ],
)
def test_every_way_to_import_is_seen(source):
    assert imported_helpers(f"import numpy\nfrom os import path\n{source}") == {"tracks"}


def locked(name):
    """The versions in a lock, by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text("utf-8"), re.M))


def test_students_install_no_tools_and_tools_change_no_version():
    course, tools = locked("requirements.lock"), locked("requirements-test.lock")
    assert {"nbgrader", "ruff"} <= tools.keys() - course.keys()
    assert {p for p in course.keys() & tools.keys() if course[p] != tools[p]} == set()


def test_a_clone_stays_small():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    paths = [ROOT / name.decode() for name in names if name]
    sizes = {str(path): path.stat().st_size for path in paths if path.exists()}
    assert {name: size for name, size in sizes.items() if size > 35e6} == {}
    assert sum(sizes.values()) < 60e6
