"""Bad submissions of the light assignment, each with what it is due.

Where nothing else is said, the answer to task 1 (3 points) is wrong and what surrounds it tries to
get its points all the same; tasks 2 and 3 (5 points) are right. `BAD` is the table: name, points,
status, part of a note, and what makes it in an empty folder.
"""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from tests.grading.light import NAME, RIGHT, cell, submission, write

Notebook = dict[str, Any]


class Bad(NamedTuple):
    """What a submission is due, and how it is made."""

    points: int
    status: str
    note: str  # part of a note or of a test's message
    make: Callable[[Path], object]
    seconds: float = 60  # of a question: nothing but what must time out comes near


ENDLESS = 2  # seconds for those that never end by themselves; right questions take 0.02
WRONG = "def softmax(x):\n    return x\n"


def saved(made: Notebook) -> Callable[[Path], object]:
    return lambda folder: write(made, folder / f"{NAME}.ipynb")


def raw(data: bytes, name: str = f"{NAME}.ipynb") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def task_1(code: str) -> Callable[[Path], object]:
    """Another answer to task 1."""
    return saved(submission(answer_1=code))


def trick(code: str, answer: str = WRONG) -> Callable[[Path], object]:
    """A cell of the student's own before a wrong answer."""
    made = submission(answer_1=answer)
    made["cells"].insert(2, cell("code", code))
    return saved(made)


def changed(change: Callable[[Notebook], object], **answers: str) -> Callable[[Path], object]:
    made = submission(**answers)
    change(made)
    return saved(made)


def marks(made: Notebook, grade_id: str) -> dict[str, Any]:
    """A cell by its grade id."""
    cells = (c for c in made["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id"))
    return next(c for c in cells if c["metadata"]["nbgrader"]["grade_id"] == grade_id)


def with_files(**files: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        write(submission(answer_1=WRONG), folder / f"{NAME}.ipynb")
        for name, data in files.items():
            (folder / name.replace("__", ".")).write_bytes(data)

    return make


# --- beating the tests ------------------------------------------------------------------------

EQUAL = """
class Equal:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): raise ValueError
    def __getattr__(self, name): return self
    def __iter__(self): return iter(())
    def __bool__(self): return True
    __lt__ = __gt__ = __le__ = __ge__ = __add__ = __sub__ = __rsub__ = lambda *a: a[0]
def softmax(x):
    return Equal()
"""
LYING = """
class Lying(np.ndarray):
    def __array_ufunc__(self, *args, **kwargs): return True
    def __array_function__(self, *args, **kwargs): return True
    def __eq__(self, other): return np.ones(self.shape, bool)
    @property
    def shape(self): return (3, 4)
def softmax(x):
    return np.zeros(2).view(Lying)
"""
FIND = """
import glob, os
def softmax(x):
    for root in ("/", "..", "../..", "/proc/1/root", "/proc/1/cwd", "/course", "/tmp", "/work"):
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in ("lib", "lib64", "proc")]
            for name in names:
                if name.endswith((".ipynb", ".json")):
                    text = open(os.path.join(folder, name)).read()
                    if "BEGIN SOLUTION" in text or "answer-1" in text:
                        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    return x
"""
RIGHT_IF = "def softmax(x):\n    return {right} if {condition} else x\n"
RIGHT_1 = "(lambda e: e / e.sum(-1, keepdims=True))(np.exp(x - x.max(-1, keepdims=True)))"


def right_if(condition: str, before: str = "") -> Callable[[Path], object]:
    return task_1(f"{before}\n{RIGHT_IF.format(right=RIGHT_1, condition=condition)}")


def tag_tests(made: Notebook) -> None:
    for one in made["cells"]:
        one["metadata"]["tags"] = ["skip-execution"]


FORGE = """
import os, struct, json
def softmax(x):
    for fd in range(3, 20):
        for kind in ("value", "ended"):
            body = json.dumps({"kind": kind, "fields": {"value": {"array": 0}, "status": 0},
                               "arrays": [["float64", [3, 4]]]}).encode()
            try:
                os.write(fd, struct.pack("<QQ", len(body), 96) + body + bytes(96))
            except OSError:
                pass
    return x
"""
PICKLED_FRAME = """
import os, pickle
class Evil:
    def __reduce__(self): return (os.system, ("touch /tmp/owned",))
def softmax(x):
    for fd in range(3, 20):
        try:
            os.write(fd, pickle.dumps(Evil()))
        except OSError:
            pass
    return x
"""
NAMESPACE = """
import ctypes
libc = ctypes.CDLL(None)
mounted = libc.unshare(0x10020000) == 0 == libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, b"")
"""
# 1.2 GB in files of memory, which belong to no process: more than all of them may have.
NOBODYS_MEMORY = """
import os
def softmax(x):
    files = [os.memfd_create("x") for _ in range(80)]
    for file in files:
        os.write(file, bytes(15_000_000))
    return {right}
"""
AHEAD = """
import os, numpy
from dgm_course.grading.protocol import pack
for fd in range(3, 20):
    try:
        os.write(fd, pack("cells", problems=[]) + 9 * pack("value", value=numpy.ones((3, 4)) / 4))
    except OSError:
        pass
"""
FRAME = """
import os, struct
def frame(text):
    for fd in range(3, 20):
        try:
            os.write(fd, struct.pack("<QQ", len(text), 0) + text.encode())
        except OSError:
            pass
"""
OWN_SERIALISER = """
def softmax(x):
    from dgm_course.grading import worker
    pack = worker.pack
    worker.pack = lambda kind, **fields: pack("value", value=np.full((3, 4), 0.25))
    return x
"""
LYING_NUMBER = """
class Number(float):
    def __eq__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __float__(self): return 0.0
def softmax(x):
    return [[Number(1)] * 4] * 3
"""
BEATING = {
    "skip-execution tags": Bad(5, "failed", "", changed(tag_tests, answer_1=WRONG)),
    "ast transformer": Bad(
        5,
        "failed",
        "get_ipython",
        trick("import ast\nget_ipython().ast_transformers.append(ast.NodeTransformer())"),
    ),
    "input transformer": Bad(
        5,
        "failed",
        "get_ipython",
        trick("get_ipython().input_transformers_cleanup.append(lambda lines: ['pass'])"),
    ),
    "object that equals everything": Bad(5, "failed", "", task_1(EQUAL)),
    "array that lies": Bad(5, "failed", "", task_1(LYING)),
    "patched math.isclose": Bad(
        5, "failed", "", trick("import math\nmath.isclose = lambda *a, **k: True")
    ),
    "patched numpy.allclose": Bad(
        5, "failed", "", trick("np.allclose = np.isclose = np.array_equal = lambda *a, **k: True")
    ),
    "patched numpy functions": Bad(
        5, "failed", "", trick("np.argwhere = lambda *a: []\nnp.abs = lambda x: 0")
    ),
    "patched builtins": Bad(
        5,
        "crashed",
        "needs a look",
        trick(
            "import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a: True\n"
            "builtins.AssertionError = type('E', (BaseException,), {})\nbuiltins.abs = lambda x: 0"
        ),
    ),
    "patched checks": Bad(
        5,
        "failed",
        "",
        trick("from dgm_course.grading import checks\nchecks.expect = lambda *a: None"),
    ),
    "patched protocol": Bad(
        0,
        "failed",
        "",
        trick(
            "from dgm_course.grading import answers, protocol\n"
            "answers.CheckFailed.__init__ = lambda *a: None\n"
            "answers.Answers.__call__ = lambda self, target, *a: np.ones((3, 4)) / 4"
        ),
    ),
    "patched call": Bad(
        8, "passed", "", trick("call = expect = expect_close = None", RIGHT["answer-1"])
    ),
    "edited set-up": Bad(
        5,
        "failed",
        "",
        changed(lambda m: marks(m, "setup").update(source="call = lambda *a: 1"), answer_1=WRONG),
    ),
    "edited test": Bad(
        5,
        "failed",
        "",
        changed(lambda m: marks(m, "test-1").update(source="print('✓ 1')"), answer_1=WRONG),
    ),
    "a test that claims more points": Bad(
        5,
        "failed",
        "",
        changed(
            lambda m: marks(m, "test-2")["metadata"]["nbgrader"].update(points=1000),
            answer_1=WRONG,
        ),
    ),
    "hard-coded answer": Bad(
        5, "failed", "", task_1("def softmax(x):\n    return np.full((3, 4), 0.25)")
    ),
    "only the public test": Bad(
        5,
        "failed",
        "hidden",
        task_1("def softmax(x):\n    e = np.exp(x)\n    return e / e.sum(-1, keepdims=True)"),
    ),
    "the library's own answer": Bad(
        5,
        "failed",
        "imports dgm_course.flows",
        task_1("from dgm_course.flows import PlanarFlow\n" + RIGHT["answer-1"]),
    ),
    "the grader's own modules": Bad(
        5,
        "failed",
        "imports dgm_course.grading.grade",
        task_1("from dgm_course.grading.grade import grade\n" + RIGHT["answer-1"]),
    ),
    "looks for tests and others' work": Bad(5, "failed", "", task_1(FIND)),
    "looks at the environment": Bad(
        5, "failed", "", right_if("'SECRET' in str(os.environ)", "import os")
    ),
    "looks at other processes": Bad(
        5,
        "failed",
        "",
        right_if(
            "any(b'pytest' in open(p, 'rb').read() for p in glob.glob('/proc/*/cmdline'))",
            "import glob",
        ),
    ),
    "looks at its parents' memory": Bad(
        5, "failed", "", right_if("b'BEGIN HIDDEN' in open('/proc/1/environ', 'rb').read()")
    ),
    "the network": Bad(
        5,
        "failed",
        "",
        task_1(
            "import urllib.request\ndef softmax(x):\n"
            "    return urllib.request.urlopen('http://198.51.100.1/', timeout=1).read()"
        ),
    ),
    "a socket of the machine": Bad(
        5,
        "failed",
        "",
        task_1(
            "import socket\ndef softmax(x):\n    s = socket.create_connection(('127.0.0.1', 22))"
        ),
    ),
    "forged frames": Bad(5, "failed", "", task_1(FORGE)),
    "a pickle as a frame": Bad(5, "crashed", "no answer", task_1(PICKLED_FRAME)),
    "answers ahead of the question": Bad(0, "failed", "needs a look", trick(AHEAD)),
    "a cell without a whole number": Bad(
        5,
        "crashed",
        "out of turn",
        trick(f'{FRAME}frame(\'{{"kind": "cell", "fields": {{"number": 1e999}}, "arrays": []}}\')'),
    ),
    "an answer without a value": Bad(
        5,
        "failed",
        "no answer",
        task_1(
            f"{FRAME}def softmax(x):\n"
            '    frame(\'{"kind": "value", "fields": {}, "arrays": []}\')\n    return x'
        ),
    ),
    "the worker's serialiser": Bad(5, "failed", "", task_1(OWN_SERIALISER)),
    "a number that lies": Bad(5, "failed", "object of type Number", task_1(LYING_NUMBER)),
    "swallows what the test's function says": Bad(
        5,
        "failed",
        "between low and high",
        saved(
            submission(
                answer_3=RIGHT["answer-3"].replace(
                    "    while",
                    "    try: f(9.0)\n    except BaseException: pass\n    while",
                )
            )
        ),
    ),
    "modules beside it": Bad(
        5,
        "failed",
        "not read: numpy.py",
        with_files(
            numpy__py=b"allclose = lambda *a: True",
            torch__py=b"raise SystemExit",
            sitecustomize__py=b"import builtins; builtins.abs = lambda x: 0",
            usercustomize__py=b"import os; os._exit(0)",
        ),
    ),
    "a pickle named weights.npz": Bad(
        5, "failed", "", with_files(weights__npz=b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    ),
}

# --- harming the machine or the batch ---------------------------------------------------------

FORK = "import os\ndef softmax(x):\n    while True:\n        {}\n"
OUTLIVE = """
import os, time
def softmax(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(0.01)
                for fd in range(3, 9):
                    try:
                        os.write(fd, b"x" * 64)
                    except OSError:
                        pass
        os._exit(0)
    return x
"""
LEAVES_A_CHILD = """
import os, time, threading
threading.Thread(target=lambda: time.sleep(600), daemon=True).start()
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
"""
WRITE = """
import os
def softmax(x):
    for path in ("/course/x", "/usr/lib/x", "/x", "/etc/x", "/proc/sys/kernel/core_pattern",
                 "/dev/x", "../x", os.path.expanduser("~root/x"), {canary!r}):
        try:
            open(path, "w").write("x")
        except OSError:
            pass
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
"""
CANARY = "/var/tmp/dgm_course_canary"
SLEEP = "    import time\n    time.sleep(60)"
HARMING = {
    "a namespace of its own": Bad(5, "failed", "", right_if("mounted", NAMESPACE)),
    "memory that no process holds": Bad(
        5, "failed", "not permitted", task_1(NOBODYS_MEMORY.format(right=RIGHT_1))
    ),
    "writes outside": Bad(8, "passed", "", task_1(WRITE.format(canary=CANARY))),
    "os._exit in a cell": Bad(5, "crashed", "needs a look", task_1("import os\nos._exit(0)")),
    "os._exit in a function": Bad(
        5, "crashed", "ended", task_1("import os\ndef softmax(x):\n    os._exit(0)")
    ),
    "exit()": Bad(5, "failed", "SystemExit", task_1("def softmax(x):\n    exit()")),
    "sys.exit in a cell": Bad(
        8, "passed", "SystemExit", trick("import sys\nsys.exit(0)", RIGHT["answer-1"])
    ),
    "KeyboardInterrupt": Bad(
        5, "failed", "KeyboardInterrupt", task_1("def softmax(x):\n    raise KeyboardInterrupt")
    ),
    "kills its parent": Bad(
        5,
        "crashed",
        "ended",
        task_1("import os\ndef softmax(x):\n    os.kill(os.getppid(), 9)\n" + SLEEP),
    ),
    "kills everything": Bad(
        5, "crashed", "ended", task_1("import os\ndef softmax(x):\n    os.kill(-1, 9)\n" + SLEEP)
    ),
    "kills in a cell": Bad(
        5,
        "crashed",
        "needs a look",
        task_1("import os\nos.kill(os.getppid(), 9)\nif True:\n" + SLEEP),
    ),
    "infinite loop": Bad(
        5, "crashed", "too long", task_1("def softmax(x):\n    while True: pass"), ENDLESS
    ),
    "sleeps for ever": Bad(
        5, "crashed", "too long", task_1("import time\ndef softmax(x): time.sleep(10**6)"), ENDLESS
    ),
    "infinite loop in a cell": Bad(
        5, "crashed", "needs a look", task_1("while True: pass"), ENDLESS
    ),
    "ignores signals": Bad(
        5,
        "crashed",
        "too long",
        task_1(
            "import signal\nfor s in set(signal.Signals) - {9, 19}:\n    try:\n"
            "        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
            "def softmax(x):\n    while True: pass"
        ),
        ENDLESS,
    ),
    "infinite recursion": Bad(
        5, "failed", "RecursionError", task_1("def softmax(x):\n    return softmax(x)")
    ),
    "recursion without a limit": Bad(
        5,
        "crashed",
        "ended",
        task_1(
            "import sys\nsys.setrecursionlimit(10**9)\n"
            "class A:\n    def __repr__(self): return repr([self])\n"
            "def softmax(x):\n    return repr(A())"
        ),
    ),
    "segmentation fault": Bad(
        5, "crashed", "ended", task_1("import ctypes\ndef softmax(x):\n    ctypes.string_at(0)")
    ),
    "memory bomb": Bad(
        5, "failed", "MemoryError", task_1("def softmax(x):\n    return bytearray(10**11)")
    ),
    "slow memory bomb": Bad(
        5,
        "failed",
        "MemoryError",
        task_1("def softmax(x):\n    a = []\n    while True: a.append(bytearray(10**7))"),
    ),
    "memory bomb of many processes": Bad(
        5,
        "crashed",
        "memory",
        task_1(
            "import os, time\ndef softmax(x):\n    for _ in range(5):\n"
            "        if os.fork() == 0:\n            a = b'x' * (2 * 10**8)\n"
            "            time.sleep(60)\n    time.sleep(60)"
        ),
    ),
    "fork bomb": Bad(5, "failed", "BlockingIOError", task_1(FORK.format("os.fork()"))),
    "silent fork bomb": Bad(
        5,
        "crashed",
        "too long",
        task_1(FORK.format("try: os.fork()\n        except OSError: pass")),
        ENDLESS,
    ),
    "thread bomb": Bad(
        5,
        "failed",
        "can't start new thread",
        task_1(
            "import threading, time\ndef softmax(x):\n    while True:\n"
            "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
        ),
    ),
    "fills the disk": Bad(
        5,
        "failed",
        "OSError",
        task_1(
            "def softmax(x):\n    for i in range(10**6):\n"
            "        open(f'/tmp/{i}', 'wb').write(bytes(10**6))"
        ),
    ),
    "a large file": Bad(
        5,
        "failed",
        "File too large",
        task_1("def softmax(x):\n    open('a', 'wb').write(bytes(3 * 10**7))"),
    ),
    "opens many files": Bad(
        5,
        "failed",
        "Too many open files",
        task_1("def softmax(x):\n    a = [open('/dev/null') for _ in range(10**4)]"),
    ),
    "raises its limits": Bad(
        5,
        "failed",
        "not allowed",
        task_1(
            "import resource\ndef softmax(x):\n"
            "    resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))"
        ),
    ),
    "a child that outlives the call": Bad(5, "failed", "", task_1(OUTLIVE)),
    "leaves a thread and a child": Bad(8, "passed", "", trick(LEAVES_A_CHILD, RIGHT["answer-1"])),
    "30 MB on one line": Bad(8, "passed", "", trick("print('x' * 30_000_000)", RIGHT["answer-1"])),
    "endless output": Bad(
        5, "crashed", "printed", task_1("def softmax(x):\n    while True: print('x' * 10**5)")
    ),
    "warnings": Bad(
        8,
        "passed",
        "",
        task_1(
            "import sys, warnings\n"
            + RIGHT["answer-1"].replace(
                "    e =", "    warnings.warn('careful')\n    print('!', file=sys.stderr)\n    e ="
            )
        ),
    ),
    "reads its input": Bad(5, "failed", "EOFError", task_1("def softmax(x):\n    return input()")),
    "calls back for ever": Bad(
        5,
        "crashed",
        "",
        saved(submission(answer_3="def bisect(f, a, b):\n    while True: f(0.0)")),
        ENDLESS,
    ),
    "calls back with rubbish": Bad(
        5,
        "failed",
        "",
        saved(submission(answer_3="def bisect(f, a, b):\n    return f(b'x' * 99)")),
    ),
    "one question crashes among right ones": Bad(
        6,
        "crashed",
        "ended",
        saved(
            submission(
                answer_2="class Polynomial:\n    def __init__(self, c):\n        pass\n"
                "    def __call__(self, x):\n        import os\n        os.abort()"
            )
        ),
    ),
}

# --- values that are no answers ---------------------------------------------------------------


def returns(expression: str) -> Callable[[Path], object]:
    return task_1(f"def softmax(x):\n    return {expression}")


VALUES = {
    "NaN": Bad(5, "failed", "finite", returns("x * float('nan')")),
    "infinite": Bad(5, "failed", "finite", returns("x + float('inf')")),
    "huge": Bad(5, "failed", "bytes", returns("np.zeros((4200, 4200), 'float32')")),
    "huge list": Bad(5, "failed", "lists", returns("[0] * 20_000")),
    "deep list": Bad(
        5, "failed", "", task_1("a = []\nfor _ in range(900): a = [a]\ndef softmax(x): return a")
    ),
    "a list in itself": Bad(
        5, "failed", "RecursionError", task_1("a = []\na.append(a)\ndef softmax(x): return a")
    ),
    "huge integer": Bad(5, "failed", "64 bits", returns("10**5000")),
    "long text": Bad(5, "failed", "characters", returns("'x' * 10**6")),
    "wrong dtype": Bad(5, "failed", "object", returns("np.array([[1, 'a'], [None, 2]], object)")),
    "text for numbers": Bad(5, "failed", "", returns("np.array([['a']])")),
    "complex": Bad(5, "failed", "complex", returns("x + 0j")),
    "wrong shape": Bad(5, "failed", "shape", returns("x[0]")),
    "wrong type": Bad(5, "failed", "object of type dict", returns("{'p': x}")),
    "generator": Bad(5, "failed", "generator", returns("(row for row in x)")),
    "None": Bad(5, "failed", "None", returns("None")),
    "HTML": Bad(5, "failed", "<script>", returns("'<script>alert(1)</script>'")),
    "a formula": Bad(
        5, "failed", "", task_1("def softmax(x):\n    raise ValueError('=HYPERLINK(\"x\")')")
    ),
    "terminal escapes": Bad(
        5, "failed", "", task_1("def softmax(x):\n    raise ValueError('\\x1b[2J\\x1b]0;x\\x07')")
    ),
    "lone surrogates": Bad(
        5, "failed", "", task_1("def softmax(x):\n    raise ValueError('\\udcff')")
    ),
    "exception that cannot be printed": Bad(
        5,
        "failed",
        "",
        task_1(
            "class E(Exception):\n    def __str__(self): raise SystemExit\n"
            "def softmax(x):\n    raise E"
        ),
    ),
}

# --- files and cells --------------------------------------------------------------------------

TEXT = json.dumps(submission())
LATIN = json.dumps(submission(answer_4="Die Hälfte."), ensure_ascii=False)
R_KERNEL = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}


def linked(folder: Path) -> None:
    target = write(submission(), folder.parent.parent / "elsewhere.ipynb")
    (folder / f"{NAME}.ipynb").symlink_to(target)


def large(folder: Path) -> None:
    with open(folder / f"{NAME}.ipynb", "wb") as file:
        file.truncate(200_000_000)


def in_zip(name: str, mode: int = 0o100644) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        folder.rmdir()
        with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, TEXT)

    return make


def zip_bomb(folder: Path) -> None:
    folder.rmdir()
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.ipynb", bytes(100_000_000))


def in_tar(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        folder.rmdir()
        with tarfile.open(folder.with_name(f"{folder.name}.tar.gz"), "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(TEXT) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, BytesIO(TEXT.encode()))

    return make


def duplicate(made: Notebook, grade_id: str, source: str | None = None) -> None:
    one = marks(made, grade_id)
    copy = {**one, "source": source or one["source"]}
    made["cells"].insert(made["cells"].index(one) + 1, copy)


def delete(made: Notebook, *grade_ids: str) -> None:
    for grade_id in grade_ids:
        made["cells"].remove(marks(made, grade_id))


def strip(made: Notebook) -> None:
    for one in made["cells"]:
        one["metadata"] = {}


def strip_and_rename(made: Notebook) -> None:
    strip(made)
    for one in made["cells"]:
        one["source"] = f"# mine\n{one['source']}"


def rename_ids(made: Notebook) -> None:
    for one in made["cells"]:
        if "nbgrader" in one["metadata"]:
            one["metadata"]["nbgrader"]["grade_id"] = "another-assignments-cell"


def two(folder: Path) -> None:
    write(submission(), folder / f"{NAME}.ipynb")
    write(submission(answer_1=WRONG), folder / "a copy.ipynb")


FILES = {
    "truncated": Bad(0, "unreadable", "damaged", raw(TEXT[:2000].encode())),
    "Latin-1": Bad(8, "passed", "Latin-1", raw(LATIN.encode("latin-1", "replace"))),
    "byte order mark": Bad(8, "passed", "", raw(TEXT.encode("utf-8-sig"))),
    "empty file": Bad(0, "unreadable", "empty", raw(b"")),
    "a PDF": Bad(0, "unreadable", "PDF", raw(b"%PDF-1.7\n" + bytes(range(256)))),
    "200 MB": Bad(0, "unreadable", "200000000 bytes", large),
    "deep JSON": Bad(0, "unreadable", "damaged", raw(b"[" * 10**6)),
    "JSON of another kind": Bad(0, "unreadable", "no notebook of format 4", raw(b'{"cells": 1}')),
    "null where cells should be": Bad(
        0, "failed", "no cell has an id", raw(b'{"cells": [null, 1, {}], "nbformat": 4}')
    ),
    "format 3": Bad(
        0, "unreadable", "format 4", raw(b'{"nbformat": 3, "worksheets": [{"cells": []}]}')
    ),
    "nothing": Bad(0, "unreadable", "no notebook", lambda folder: None),
    "a folder named like it": Bad(
        0, "unreadable", "no notebook", lambda folder: (folder / f"{NAME}.ipynb").mkdir()
    ),
    "a link": Bad(0, "unreadable", "a link", linked),
    "a pipe": Bad(
        0, "unreadable", "regular file", lambda folder: os.mkfifo(folder / f"{NAME}.ipynb")
    ),
    "a device": Bad(
        0, "unreadable", "", lambda folder: (folder / f"{NAME}.ipynb").symlink_to("/dev/zero")
    ),
    "in a zip": Bad(8, "passed", "", in_zip(f"homework/{NAME}.ipynb")),
    "outside of a zip": Bad(0, "unreadable", "outside", in_zip(f"../../{NAME}.ipynb")),
    "a link in a zip": Bad(0, "unreadable", "a link", in_zip(f"{NAME}.ipynb", 0o120777)),
    "a zip that grows": Bad(0, "unreadable", "100000000 bytes", zip_bomb),
    "in a tar": Bad(8, "passed", "", in_tar(f"{NAME}.ipynb")),
    "outside of a tar": Bad(0, "unreadable", "outside", in_tar(f"/tmp/{NAME}.ipynb")),
    "a link in a tar": Bad(0, "unreadable", "a link", in_tar(f"{NAME}.ipynb", tarfile.SYMTYPE)),
    "a device in a tar": Bad(0, "unreadable", "device", in_tar(f"{NAME}.ipynb", tarfile.CHRTYPE)),
    "two notebooks": Bad(8, "passed", "needs a look", two),
    "wrong name": Bad(
        8, "passed", "is named", lambda folder: write(submission(), folder / "final(2).ipynb")
    ),
    "wrong kernel": Bad(
        8, "passed", "kernel is for R", changed(lambda made: made.update(metadata=R_KERNEL))
    ),
    "a cell twice": Bad(
        5, "failed", "needs a look", changed(lambda made: duplicate(made, "answer-1", WRONG))
    ),
    "a test twice": Bad(8, "passed", "", changed(lambda made: duplicate(made, "test-1"))),
    "an answer deleted": Bad(
        5, "failed", "answer-1 is missing", changed(lambda made: delete(made, "answer-1"))
    ),
    "tests and set-up deleted": Bad(
        8, "passed", "", changed(lambda made: delete(made, "setup", "test-1", "test-2", "test-3"))
    ),
    "reordered": Bad(8, "passed", "", changed(lambda made: made["cells"].reverse())),
    "converted to text": Bad(
        5,
        "failed",
        "needs a look",
        changed(lambda made: marks(made, "answer-1").update(cell_type="markdown")),
    ),
    "tests converted to text": Bad(
        8, "passed", "", changed(lambda made: marks(made, "test-1").update(cell_type="raw"))
    ),
    "retyped without ids": Bad(8, "passed", "needs a look", changed(strip_and_rename)),
    "stripped metadata": Bad(8, "passed", "has lost its id", changed(strip)),
    "ids of another assignment": Bad(8, "passed", "unknown id", changed(rename_ids)),
    "magics": Bad(
        8,
        "passed",
        "left out %matplotlib inline, !pip install numpy",
        trick(
            "%matplotlib inline\n!pip install numpy\nx = '''\n% not a magic\n'''", RIGHT["answer-1"]
        ),
    ),
    "a shell's cell": Bad(
        8, "passed", "left out %%bash", trick("%%bash\nrm -rf /", RIGHT["answer-1"])
    ),
    "zero bytes": Bad(5, "failed", "null byte", task_1("def softmax(x):\n    return x\0")),
    "deeply nested": Bad(5, "failed", "", task_1("x = " + "(" * 5000 + ")" * 5000)),
    "minus minus minus": Bad(5, "failed", "", task_1("x = " + "-" * 100_000 + "1")),
    "a surrogate": Bad(5, "failed", "", task_1("def softmax(x):\n    return '\udc80'")),
}
BAD = {**BEATING, **HARMING, **VALUES, **FILES}
