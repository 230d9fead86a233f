import shutil
import sys

# Windows has no make; there the README's plain pip commands take its place.
collect_ignore = [] if shutil.which("make") else ["test_makefile.py"]
# Students' code is graded on Linux alone.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_grading_*.py"]
