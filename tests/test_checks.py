"""Each check: the right answer, the same written otherwise, plausible wrong ones, an open one."""

import numpy as np
import pytest

from helpers.checks import lesson_00

ACCURACY, PICTURES = 0.91, 1000  # 90 mistakes


def said(capsys, answer):
    lesson_00.mistakes(answer, ACCURACY, PICTURES)
    return capsys.readouterr().out


@pytest.mark.parametrize("answer", [90, 90.0, np.int64(90), np.array(90), (1 - 0.91) * 1000])
def test_right(capsys, answer):
    assert said(capsys, answer) == "✓ Right.\n"


def test_open_is_not_wrong(capsys):
    assert said(capsys, None).startswith("Not answered yet")


@pytest.mark.parametrize(
    "answer, sentence",
    [
        (910, "how many it got right"),
        (1 - 0.91, "✗ Not yet. 0.09 is a share"),
        (9, "does not fit"),
        ("90", "is a str"),
        (True, "is a bool"),
    ],
)
def test_wrong_answers_get_their_own_sentence(capsys, answer, sentence):
    text = said(capsys, answer)
    assert text.startswith("✗ Not yet.") and sentence in text


def test_hint_does_not_give_the_answer_away_and_the_solution_is_right(capsys):
    lesson_00.mistakes.hint()
    hint = capsys.readouterr().out
    lesson_00.mistakes.solution()
    solution = capsys.readouterr().out
    assert "round(" not in hint
    scope = {"accuracy": ACCURACY, "labels": range(PICTURES)}
    exec(solution, scope)
    assert said(capsys, scope["mistakes"]) == "✓ Right.\n"
