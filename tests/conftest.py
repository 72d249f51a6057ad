import os
from pathlib import Path

import pytest

for name in ("COURSE_TRACK", "COURSE_GRADING"):  # each test sets its own
    os.environ.pop(name, None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow


# Real photos, ImageNet weights and a hub module; tests that need them are skipped without.
TESTBED = Path(__file__).parents[2] / "shared" / "testbed"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
NO_NETWORK = dict.fromkeys(PROXIES, "http://127.0.0.1:9") | {"NO_PROXY": "", "no_proxy": ""}


@pytest.fixture(scope="session")
def sandboxed():
    """For tests that run something in a sandbox: they are skipped where there is none.

    Not so where COURSE_NEEDS_SANDBOX is set: there they fail.
    """
    from helpers.grading.sandbox import Limits, SandboxUnavailable, trial

    try:
        trial(Limits())
    except SandboxUnavailable as reason:
        if os.environ.get("COURSE_NEEDS_SANDBOX"):
            pytest.fail(f"COURSE_NEEDS_SANDBOX is set: {reason}")
        pytest.skip(f"nothing was run in a sandbox: {reason}")


@pytest.fixture
def said(capsys, request):
    """What a check of the set under test, which its module calls `check`, says to answers."""

    def run(task, *answers):
        capsys.readouterr()
        getattr(request.module.check, task)(*answers)
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def hints(capsys, request):
    """All hints of the set under test, as one text."""
    from helpers.checks import Check  # after the environment is set

    for task in vars(request.module.check).values():
        if isinstance(task, Check):
            task.hint()
    return capsys.readouterr().out
