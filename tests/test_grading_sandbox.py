"""The walls: what a process inside sees and may do, as root and as a normal user."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dgm_course.grading import sandbox, system_calls, walls
from dgm_course.grading.answers import CheckFailed
from dgm_course.grading.questions import Student
from dgm_course.grading.sandbox import Ended, Sandbox, check
from dgm_course.grading.walls import Limits, SandboxMissing
from tests.needs import needs
from tests.test_architecture import imports

LIMITS = Limits(seconds=60, seconds_in_all=600, processes=16, file_size=10**7, disk=10**7)
CLONE_NEW = {"USER": 0x10000000, "NS": 0x20000, "NET": 0x40000000, "PID": 0x20000000}
ASK = """
import glob, os, socket
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(name + ":"))
def ids(): return [os.getuid(), os.getgid(), os.getpid()]
def seen(path): return sorted(os.listdir(path))
def environment(): return sorted(os.environ)
def processes(): return len(glob.glob("/proc/[0-9]*"))
def interfaces(): return [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:]
def family(number):
    import errno
    try: socket.socket(number, socket.SOCK_DGRAM).close()
    except OSError as error: return errno.errorcode[error.errno]
    return ""
def worker_processes():
    import multiprocessing
    a, b = socket.socketpair()
    a.sendall(b"x")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return [b.recv(1) == b"x", *pool.map(abs, [-1, -2])]
def writable(path):
    try:
        with open(path + "/new", "w") as file: file.write("x")
        os.unlink(path + "/new")
        return True
    except OSError: return False
def readable(path):
    try:
        open(path, "rb").close(); return True
    except OSError: return False
def system_call(name, *arguments):
    import ctypes, errno
    from dgm_course.grading import system_calls
    column = system_calls.ARCHITECTURES[os.uname().machine][0]
    number = dict(system_calls.FORBIDDEN, clone=system_calls.CLONE)[name][column]
    ctypes.set_errno(0)
    ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    return errno.errorcode.get(ctypes.get_errno(), "")
def thread():
    import threading
    seen = []
    t = threading.Thread(target=seen.append, args=(1,))
    t.start()
    t.join()
    return seen
def forks():
    n = 0
    try:
        while n < 100:
            if os.fork() == 0:
                import time; time.sleep(20)
            n += 1
    except BlockingIOError: pass
    return n
"""


def ask(check: object, limits: Limits = LIMITS, code: str = ASK) -> None:
    """Run ``check(call)`` against the code, in a sandbox."""
    student = Student([], {}, 0, limits)
    try:
        student.ask({1: code}, check)  # type: ignore[arg-type]
        assert not student.stopped
    finally:
        student.close()


def check_walls(call: object) -> None:
    """What must hold for whoever runs the grader."""
    assert callable(call)
    root = Path(__file__).parent.parent
    assert len(call("seen", "/tmp")) == 1  # the question's own folder
    assert call("seen", "/dev/shm") == []
    assert call("status", "CapEff") == "0" * 16
    assert call("status", "CapBnd") == "0" * 16
    assert call("status", "NoNewPrivs") == "1"
    assert call("status", "Groups") in ("", str(os.getgid()), "65534")
    assert 0 not in call("ids")[:2] or os.getuid() == 0
    assert call("environment") == sorted({*walls.environment(""), "PWD"})
    assert call("processes") < 8
    assert call("interfaces") in ([], ["lo"])
    assert call("seen", "/course/dgm_course/grading") == sorted(
        name.removeprefix("grading/") for name in walls.IMPORTABLE if name.startswith("grading/")
    )
    assert not {"home", "var", "sys", "mnt", "opt", "run"} & {*call("seen", "/")}
    for path in (
        root / "pyproject.toml",
        root / "tests" / "grading" / "light.py",
        "/etc/passwd",
        root / "dgm_course" / "grading" / "grade.py",
        "/usr/bin/env",
        "/bin/sh",
    ):
        assert not call("readable", str(path)), path
    for path in (
        "/",
        "/dev",
        "/etc",
        "/course",
        "/course/dgm_course",
        "/usr/lib",
        "/proc",
        *map(walls.inside, (sys.prefix, sys.base_prefix, f"{sys.prefix}/lib")),
    ):
        assert not call("writable", path), path
    for path in ("/tmp", "/dev/shm", "."):
        assert call("writable", path), path
    for name in system_calls.FORBIDDEN:
        assert call("system_call", name, 0, 0, 0) == "EPERM", name
    for name, flag in CLONE_NEW.items():
        assert call("system_call", "clone", flag | signal.SIGCHLD, 0, 0, 0, 0) == "EPERM", name
    unix = int(socket.AF_UNIX)
    assert {call("family", number) for number in range(64) if number != unix} == {"EPERM"}
    assert call("family", unix) == ""
    assert call("worker_processes") == [True, 1, 2]  # as a DataLoader's
    assert call("thread") == [1]
    assert 5 < call("forks") < LIMITS.processes


@needs("bubblewrap")
def test_the_walls_hold() -> None:
    ask(check_walls)


ELSEWHERE = """
from tests.test_grading_sandbox import ask, check_walls
from dgm_course.grading import walls
assert walls.as_root() == {as_root}
assert ("--unshare-user" in walls.command(walls.Limits())) != {as_root}
ask(check_walls)
"""


def elsewhere(python: str, *before: str, as_root: bool) -> None:
    """The same test of the walls, in another process."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [*before, python, "-B", "-c", ELSEWHERE.format(as_root=as_root)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@needs("bubblewrap", "root")
def test_the_walls_hold_for_a_normal_user() -> None:
    """An interpreter or a checkout in a folder that only root may enter is shown to them."""
    root = Path(__file__).parent.parent
    paths = dict.fromkeys([sys.base_prefix, sys.prefix, str(root)])
    shown: list[str] = []
    closed = {first for path in paths if (first := first_closed(Path(path)))}
    for folder in sorted(closed):
        shown += ["--perms", "0755", "--tmpfs", str(folder)]
    for path in paths:
        if first := first_closed(Path(path)):
            for parent in reversed(Path(path).parents):
                if first in parent.parents:
                    shown += ["--perms", "0755", "--dir", str(parent)]
            shown += ["--ro-bind", path, path]
    outside = [str(shutil.which("bwrap")), "--dev-bind", "/", "/", *shown, "--chdir", str(root)]
    user = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    elsewhere(sys.executable, *outside, *user, as_root=False)


def first_closed(path: Path) -> Path | None:
    """The first folder on the way to a path that not everybody may enter."""
    return next((p for p in reversed([path, *path.parents]) if not p.stat().st_mode & 0o001), None)


@needs("bubblewrap")
def test_the_walls_hold_with_an_interpreter_below_tmp() -> None:
    """Nothing of it is seen in the private /tmp, nor can be changed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "bin").mkdir()
        python = Path(folder, "bin", "python")
        python.symlink_to(os.path.realpath(sys.executable))
        Path(folder, "lib").symlink_to(Path(sys.prefix, "lib"))
        home = Path(os.path.realpath(sys.executable)).parent
        Path(folder, "pyvenv.cfg").write_text(f"home = {home}\n")
        elsewhere(str(python), as_root=walls.as_root())


COPIES = (
    "python3.11/site-packages/dgm_course",
    "python3.9/dist-packages/dgm_course",
    "python3.11/site-packages/some/build/lib/dgm_course",
    "python3.11/site-packages/dgm_course-1.0-py3.11.egg",
    "src/dgm-course/dgm_course",
    "src/dgm-course/notebooks/assignments",
    "src/dgm-course/tests/assignment",
    "linked to",
)
ARCHIVES = (
    "python3.11/site-packages/dgm_course-1.0-py3-none-any.whl",
    "python3.11/site-packages/dgm_course-1.0-py3.10.egg",
    "cache/dgm-course-1.0.tar.gz",
)
OTHERS = ("python3.11/site-packages/torch", "src/dgm-course/docs", "python3.11/tests/assignments")


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with the course's answers at many depths, and with other things."""
    tmp_path.chmod(0o755)
    for folder in (*COPIES, *OTHERS):
        (tmp_path / folder / "grading").mkdir(parents=True)
        (tmp_path / folder / "grading" / "grade.py").write_text("answers")
    (tmp_path / "linked to" / "dgm_course-1.0.zip").write_text("answers")
    for name in ARCHIVES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("answers")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "dgm_course").symlink_to("../linked to")
    (tmp_path / "links" / "dgm-course.zip").symlink_to("/nowhere")
    (tmp_path / "python3.8").symlink_to("python3.11")
    return tmp_path


def test_every_copy_of_the_course_is_found(copies: Path, tmp_path_factory: object) -> None:
    expected = sorted(str(copies / name) for name in (*COPIES, *ARCHIVES))
    expected.append(str(copies / "linked to" / "dgm_course-1.0.zip"))
    assert walls.answers_below([str(copies)]) == sorted(expected)
    link = copies / "mounted"
    link.symlink_to(copies / "src")
    assert walls.answers_below([str(link)]) == [
        f"{link}/dgm-course/{name}"
        for name in ("dgm_course", "notebooks/assignments", "tests/assignment")
    ]


@needs("bubblewrap")
def test_no_copy_of_the_course_can_be_read(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = [*walls._folders(), str(copies)]
    monkeypatch.setattr(walls, "_folders", lambda: mounted)
    monkeypatch.delenv(walls.FOUND, raising=False)
    code = "def read():\n    import os\n    found = []\n"
    code += f"    for folder, _, names in os.walk({walls.inside(str(copies))!r}):\n"
    code += "        for name in names:\n            path = os.path.join(folder, name)\n"
    code += "            try:\n                if open(path).read(): found.append(path)\n"
    code += "            except OSError: pass\n"
    code += "    return found"

    def check(call: object) -> None:
        assert callable(call)
        readable = [Path(path).relative_to(walls.inside(str(copies))) for path in call("read")]
        assert sorted(map(str, readable)) == sorted(f"{name}/grading/grade.py" for name in OTHERS)

    ask(check, code=code)


def test_a_machine_whose_system_calls_are_unknown_is_refused() -> None:
    with pytest.raises(OSError, match="got riscv64"):
        system_calls.program("riscv64")
    assert len(system_calls.program("aarch64")) % 8 == 0


def decision(machine: str, number: int, first: int = 0) -> str:
    """What the filter says to a system call, read as the kernel reads it."""
    lines = list(struct.iter_unpack("<HBBI", system_calls.program(machine)))
    data = {0: number, 4: system_calls.ARCHITECTURES[machine][1], 16: first & 0xFFFFFFFF}
    at = value = 0
    while True:
        code, yes, no, operand = lines[at]
        at += 1
        if code == system_calls.RETURN:
            refused = errno.errorcode.get(operand & 0xFFFF, "")
            return "" if operand == system_calls.ALLOW else refused
        if code == system_calls.LOAD:
            value = data[operand]
        else:
            tests = {system_calls.EQUAL: value == operand, system_calls.AT_LEAST: value >= operand}
            tests[system_calls.ANY_BIT] = bool(value & operand)
            at += yes if tests[code] else no


@pytest.mark.parametrize("machine", system_calls.ARCHITECTURES)
def test_the_filter_refuses_what_it_names_and_nothing_else(machine: str) -> None:
    column = system_calls.ARCHITECTURES[machine][0]
    for name, numbers in system_calls.FORBIDDEN.items():
        assert decision(machine, numbers[column]) == "EPERM", name
    for name, numbers in system_calls.SOCKETS.items():
        families = [decision(machine, numbers[column], family) for family in (0, 1, 2, 10, 16, 40)]
        assert families == ["EPERM", "", "EPERM", "EPERM", "EPERM", "EPERM"], name
        assert decision(machine, numbers[column], 1 << 32 | 1) == ""  # the kernel takes an int
    assert decision(machine, system_calls.CLONE[column], CLONE_NEW["USER"]) == "EPERM"
    assert decision(machine, system_calls.CLONE[column], signal.SIGCHLD) == ""
    assert decision(machine, system_calls.CLONE3[column]) == "ENOSYS"
    for number in (0, 1, 42, 60, 200, 203):  # some of what is not named: read, write, connect
        assert decision(machine, number) == ""


@needs("bubblewrap", "root")
def test_another_user_for_each_job() -> None:
    commands = [walls.command(LIMITS) for _ in range(20)]
    uids = {words[words.index("--reuid") + 1] for words in commands}
    assert len(uids) == 20
    assert "0" not in uids


@needs("bubblewrap")
def test_nothing_outlives_a_sandbox() -> None:
    student = Student([], {}, 0, LIMITS)
    code = "import os, time\ndef f():\n    for _ in range(5):\n        if os.fork() == 0:\n"
    code += "            os.setsid()\n            time.sleep(100)\n    return 1"
    family: set[tuple[int, str]] = set()

    def check(call: object) -> None:
        assert callable(call)
        assert call("f") == 1
        assert student._sandbox is not None
        family.update(begun(pid) for pid in sandbox._family(student._sandbox._process.pid))

    student.ask({1: code}, check)
    assert len(family) >= 8
    assert few_are_left(family, 3)  # the first processes
    student.close()
    assert few_are_left(family, 0)


def begun(pid: int) -> tuple[int, str]:
    """A process and when it began, which another of the same number does not share."""
    try:
        return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return pid, "gone"


def few_are_left(family: set[tuple[int, str]], few: int) -> bool:
    """Whether at most ``few`` of these processes are there, or will be soon: killing takes time."""
    end = time.monotonic() + 60
    while sum(begun(pid) == (pid, start) for pid, start in family) > few:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@needs("bubblewrap")
def test_each_question_finds_a_fresh_process_and_an_empty_folder() -> None:
    code = "import os\nn = 0\ndef f():\n    global n\n    n += 1\n    open(f'/tmp/{n}', 'w')\n"
    code += "    open('/dev/shm/x', 'w')\n"
    code += "    return [n, len(os.listdir('/tmp')), len(os.listdir('/dev/shm'))]"
    student = Student([], {"weights.npz": b"abc"}, 0, LIMITS)
    answers = []
    for _ in range(3):
        student.ask({1: code}, lambda call: answers.append([call("f"), call("f")]))
    student.close()
    assert answers == [[[1, 2, 1], [2, 3, 1]]] * 3


@needs("bubblewrap")
def test_a_folder_that_cannot_be_removed_is_not_found_by_the_next_question() -> None:
    code = "import os\ndef f():\n    found = os.listdir('/tmp')\n    os.makedirs('/tmp/kept/it')\n"
    code += "    os.chmod('/tmp/kept', 0)\n    return found"
    student = Student([], {}, 0, LIMITS)
    found: list[str] = []
    for _ in range(2):
        student.ask({1: code}, lambda call: found.extend(call("f")))
    student.close()
    assert len(found) == 2  # each question's own folder
    assert "kept" not in found


@needs("bubblewrap")
def test_the_same_seed_draws_the_same() -> None:
    code = "import random\nimport numpy as np\ndef f(): return [random.random(), np.random.rand()]"
    drawn = []
    for seed in (1, 1, 2):
        student = Student([], {}, seed, LIMITS)
        for _ in range(2):
            student.ask({1: code}, lambda call: drawn.append(call("f")))
        student.close()
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3] != drawn[4]


@needs("bubblewrap")
def test_functions_call_back_and_objects_stay_inside() -> None:
    code = "def twice(f, x): return f(f(x))\nclass A:\n    def __init__(self, n): self.n = n\n"
    code += "    def __call__(self, x): return x + self.n\ndef apply(a, x): return a(x)"

    def check(call: object) -> None:
        assert callable(call)
        np.testing.assert_array_equal(call("twice", lambda x: 3 * x, np.arange(3)), [0, 9, 18])
        a = call("A", 5)
        assert str(a) == "an object of type A"
        assert (call(a, 1), call("apply", a, 2)) == (6, 7)
        with pytest.raises(CheckFailed, match="TypeError"):
            call("apply", a, None)
        with pytest.raises(ZeroDivisionError):  # the test's own function: no fault of the answer
            call("twice", lambda x: 1 // 0, 1)
        assert call("apply", a, 2) == 7

    ask(check, code=code)


@needs("bubblewrap")
def test_what_is_sent_is_bounded_by_what_a_test_can_need() -> None:
    code = "import numpy as np\ndef large(f, n): return f(np.zeros(n, np.int8))\n"
    code += "def many(f, n): return [f(np.zeros(10**6, np.int8)) for _ in range(n)]\n"
    code += "def wide(f, n): return f(*range(n))\ndef nested(f, n): return f([[0.0] * 100] * n)"
    student = Student([], {}, 0, replace(LIMITS, answers=10**7))
    received: list[int] = []

    def function(*arguments: object) -> int:
        received.append(len(arguments))
        return 1

    def check(call: object) -> None:
        assert callable(call)
        for name, n in (("large", 12_000_000), ("wide", 20_000), ("nested", 200)):
            with pytest.raises(CheckFailed, match="expected"):
                call(name, function, n)
        assert received == []
        assert call("large", function, 7_000_000) == 1
        call("many", function, 20)

    with pytest.raises(Ended, match="over 10000000 bytes of answers") as ended:
        student.ask({1: code}, check)
    student.close()
    assert ended.value.status == "over the limit"
    assert len(received) < 5


def test_without_bubblewrap_grading_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
        check()


@needs("bubblewrap")
def test_a_sandbox_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "command", lambda limits: ["bwrap", "--no-such-option"])
    with pytest.raises(SandboxMissing, match="no-such-option"):
        check()


def test_an_unsafe_process_is_limited_and_ended_too() -> None:
    student = Student([], {}, 0, Limits(seconds=2), unsafe=True)
    code = "import resource\ndef f(): return resource.getrlimit(resource.RLIMIT_FSIZE)[0]\n"
    code += "def g():\n    while True: pass"
    limits: list[int] = []
    student.ask({1: code}, lambda call: limits.append(call("f")))
    assert limits == [Limits().file_size]
    with pytest.raises(Ended, match="too long"):
        student.ask({1: code}, lambda call: call("g"))
    student.close()


@needs("bubblewrap")
def test_a_process_that_is_gone_is_noticed() -> None:
    with closing(Sandbox(LIMITS)) as process:
        process.begin()
        process._process.kill()
        with pytest.raises(Ended, match="ended"):
            process.receive(time.monotonic() + 30)


@needs("bubblewrap")
def test_a_pause_of_the_grader_is_no_time_of_the_students(tmp_path: Path) -> None:
    """The grader is stopped for longer than a question may take, and asked to go on."""
    code = """
import sys, threading, os, signal, time
from dgm_course.grading.questions import Student
from dgm_course.grading.walls import Limits
student = Student([], {}, 0, Limits(seconds=2, seconds_in_all=3))
def answer(call):
    print("asked", flush=True)
    print(call("f"), flush=True)
student.ask({1: "import time\\ndef f():\\n    time.sleep(0.7)\\n    return 5"}, answer)
student.ask({1: "def f(): return 6"}, answer)
student.close()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "5\nasked\n6\n"


@needs("bubblewrap")
@pytest.mark.parametrize(
    ("ran", "waited", "answers"),
    [(0.1, 1.5, True), (0.1, 0, False), (0.1, 100, False), (2.5, 1.5, False)],
)
def test_what_a_busy_machine_takes_is_given_back_up_to_twice_the_time(
    ran: float, waited: float, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([{7: (1.0, 1.0)}] * 2)  # as the sandbox starts, and the question
    later = {7: (1.0, 1.0 + waited), 8: (ran, 0.0)}
    monkeypatch.setattr(Sandbox, "_times", lambda _: next(times, later))
    seconds = 2.5 if waited < 100 else 60
    student = Student([], {}, 0, Limits(seconds=2, seconds_in_all=3))
    code = f"import time\ndef f():\n    time.sleep({seconds})\n    return 5"
    try:
        if answers:
            student.ask({1: code}, lambda call: np.testing.assert_equal(call("f"), 5))
        else:
            with pytest.raises(Ended, match="too long"):
                student.ask({1: code}, lambda call: call("f"))
    finally:
        student.close()


def test_what_students_may_import_imports_nothing_else_of_the_course() -> None:
    package = Path(walls.__file__).parent.parent
    seen = [package / name for name in walls.IMPORTABLE]
    files = [file for path in seen for file in ([path] if path.is_file() else path.glob("*.py"))]
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name, at_top in imports(tree, file.relative_to(package).as_posix()):
            course, _, part = name.partition(".")
            path = package / part.replace(".", "/")
            wanted = {module.with_suffix(".py") for module in (path, path.parent)}
            if course == "dgm_course" and part and at_top:
                assert wanted & {*files}, f"{file.name} imports {name}"
