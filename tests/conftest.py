import os

os.environ.pop("COURSE_TRACK", None)  # each test sets its own
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow
