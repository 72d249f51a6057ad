"""solutions/ is the one source of every exercise; exercises/ is generated from it."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "transfer-learning-course"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.directory_structure = "{nbgrader_step}/{student_id}/{assignment_id}"
# An untouched exercise runs: `answer = None` above the solution stays, and nothing takes its place.
c.ClearSolutions.code_stub = {"python": ""}
c.ClearSolutions.text_stub = "*Your turn: write here.*"
# Training takes longer than the 30 seconds that nbgrader allows a cell.
c.Execute.timeout = 1200
# A warning is not a mistake: nbgrader gives no points for a cell that wrote to stderr.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "."
