# Installed with the course (etc/ipython of the environment), for the kernels of its notebooks:
# keeps messages out of the lessons that tell a student nothing.
c = get_config()  # noqa: F821

# TensorFlow's C++ log, which no setting silences during the import, goes to the terminal instead.
c.IPKernelApp.capture_fd_output = False

# Keras 3.15 warns at every `fit(dataset)` that it ignores the default of its own argument.
c.IPKernelApp.exec_lines = [
    # two open lessons share a graphics card, if there is one
    "__import__('os').environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')",
    "__import__('warnings').filterwarnings('ignore', message='`shuffle=True` was passed')",
    # TensorFlow warns when several models are asked in one notebook, twice over
    "__import__('logging').getLogger('tensorflow').addFilter(lambda record: record.levelno > 30)",
]
