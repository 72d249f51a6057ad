"""Submissions that attack the grader, each with the outcome it must get: the table is `CORPUS`.

They are handed in for the small exercise that `write_course` makes: two points of sixty and forty,
for a sum and for naming secret pictures, graded as every set of the course is.
"""

from hostile.corpus import CORPUS
from hostile.exercise import write_course

__all__ = ["CORPUS", "write_course"]
