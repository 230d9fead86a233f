import shutil

# Windows has no make; there the README's plain pip commands take its place.
collect_ignore = [] if shutil.which("make") else ["test_makefile.py"]
