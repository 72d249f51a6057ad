import os

import pytest

for name in ("COURSE_TRACK", "COURSE_GRADING"):  # each test sets its own
    os.environ.pop(name, None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow


@pytest.fixture
def said(capsys, request):
    """What a check of the set under test, which its module calls `check`, says to answers."""

    def run(task, *answers):
        capsys.readouterr()
        getattr(request.module.check, task)(*answers)
        return capsys.readouterr().out.strip()

    return run
