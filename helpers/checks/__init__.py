"""Checks that teach: `check.task(answer)`, and for each task `.hint()` and `.solution()`."""


class Check:
    """One task's check.

    Args:
        judge: function of the student's answers; returns None if they are right, else one or two
            sentences: what was expected, what was found, where to look.
        hint: a nudge that does not give the answer away.
        solution: the answer, as code or text.

    Call the check with the answer. None is an open answer, which is not a wrong one.
    """

    def __init__(self, judge, hint, solution):
        self._judge, self._hint, self._solution = judge, hint, solution

    def __call__(self, answer, *context):
        if answer is None:
            print("Not answered yet: replace None by your answer and run the cell again.")
            return
        problem = self._judge(answer, *context)
        print("✓ Right." if problem is None else f"✗ Not yet. {problem}")

    def hint(self):
        print(self._hint)

    def solution(self):
        print(self._solution)
