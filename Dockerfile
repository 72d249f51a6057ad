# Grading on macOS and Windows, where there is no bubblewrap: the same grader in a container.
# Every notebook runs in the same sandbox with the same limits (helpers/grading/sandbox.py); the
# container adds the outer wall. The folder class/ here holds submissions/ and gets submissions-graded/.
#
#   docker build --tag course-grading .
#   docker run --rm --init --network none --memory 12g --pids-limit 4096 \
#       --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
#       --security-opt systempaths=unconfined \
#       --volume "$PWD/class:/class" course-grading /class/submissions
#
# The three security options open user namespaces and a /proc of its own to the sandbox inside;
# Docker keeps them closed by default. They do not open the container to student code, which has
# neither rights nor a network nor these files. --memory: 8 GB for a notebook and 4 for the grader,
# for each further one of --jobs 8 more.
FROM python:3.12-slim-bookworm

RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home grader

WORKDIR /course
COPY requirements.txt requirements.lock requirements-test.lock pyproject.toml README.md LICENSE \
    ipython_kernel_config.py jupyterlab_overrides.json nbgrader_config.py ./
COPY helpers helpers
RUN pip install --no-cache-dir --requirement requirements.lock --requirement requirements-test.lock
COPY solutions solutions
COPY results results

# Not root: a process of root's that broke out of its sandbox would have more rights.
USER grader
ENTRYPOINT ["python", "-m", "helpers.grading"]
