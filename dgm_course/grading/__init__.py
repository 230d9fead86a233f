"""Home assignments: release, the student's own checks, and the protocol between tests and answers.

Import the modules themselves: the ``dgm`` command must start without PyTorch and Jupyter.
"""
