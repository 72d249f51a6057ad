"""The check in lesson 00: count the mistakes."""

import numbers

from helpers.checks import Check


def _judge_mistakes(answer, accuracy, pictures):
    if getattr(answer, "shape", None) == ():  # a NumPy number
        answer = answer.item()
    expected = round((1 - accuracy) * pictures)
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return f"The answer is a number, but {answer!r} is a {type(answer).__name__}."
    if abs(answer - expected) < 0.5:
        return None
    if abs(answer - (pictures - expected)) < 0.5:
        return f"{answer:g} is how many it got right. How many are left of {pictures}?"
    if 0 < answer < 1:
        return f"{answer:g} is a share. How many pictures is that, out of {pictures}?"
    return f"{answer:g} does not fit an accuracy of {accuracy:.3f} on {pictures} pictures."


mistakes = Check(
    _judge_mistakes,
    hint="Accuracy is the share of right answers. What is left over is the share of mistakes.",
    solution="mistakes = round((1 - accuracy) * len(labels))",
)
