"""Grade a folder of submissions: `python -m helpers.grading SUBMISSIONS`."""

import argparse
import os
import sys
import warnings

from helpers.grading import pipeline, report
from helpers.grading.sandbox import SandboxUnavailable


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.grading",
        description="Grade SUBMISSIONS/<student>/<set>/<notebook>.ipynb into SUBMISSIONS-graded. "
        "What has not changed since the last run is not graded again.",
    )
    parser.add_argument("submissions", help="the folder of the submissions")
    parser.add_argument("--set", help="grade this set only")
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, (os.cpu_count() or 1) // 2),
        help="notebooks at a time (default: one for two cores, here %(default)s)",
    )
    parser.add_argument("--dask", metavar="ADDRESS", help="let the workers of this scheduler run")
    parser.add_argument("--seed-file", metavar="FILE", help="your secret seed (default: made once)")
    parser.add_argument(
        "--no-sandbox",
        action="store_true",
        help="run student code with your own rights; every report will say so",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    warnings.filterwarnings("ignore", module="nbgrader")  # of its database, for its authors
    try:
        graded, records = pipeline.grade(
            options.submissions,
            only=options.set,
            jobs=options.jobs,
            dask=options.dask,
            seed_file=options.seed_file,
            sandbox=not options.no_sandbox,
        )
    except (pipeline.Problem, SandboxUnavailable) as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        print("\nInterrupted. What is graded is kept: run the same again to go on.", flush=True)
        os._exit(130)  # without waiting for the notebooks that run: their sandboxes end with this
    print(report.summary(records, graded))


if __name__ == "__main__":
    main()
