"""The folders of nbval's kernels: those of `dgm run`, whatever is tested."""

import contextlib

from dgm_course.lectures.lab_config import writable_folders


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # xdist's workers inherit the variables
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        stack.enter_context(writable_folders())
