"""Inside the sandbox: runs a student's cells and answers the grader's questions.

Nothing here is trusted: from the first cell on, everything in this process is in the student's
hands. The first process runs no student's code. For each question it forks: the child runs the
cells anew and answers until the question ends, then everything but the first process is killed and
/tmp emptied. So a question finds what the cells made and no trace of another question, while
PyTorch, which takes two seconds to import, is imported once.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.random  # noqa: F401  # else NumPy does so when it is needed, in every question

from dgm_course.grading.answers import Answers, CheckFailed, NotAnswered, seed_streams
from dgm_course.grading.protocol import MAX_ANSWER, ProtocolError, as_text, pack, read_frame
from dgm_course.grading.running import Page, short
from dgm_course.grading.system_calls import forbid

Read = Callable[[int], bytes]


def main() -> None:
    """Take the pipe from under stdin and stdout, prepare, then answer until it closes."""
    pipe_in, pipe_out = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a student prints is not mixed with what is answered

    def read(n: int) -> bytes:
        parts = []
        while n:
            part = os.read(pipe_in, min(n, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def write(frame: bytes) -> None:
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(pipe_out, rest) :]

    _, fields = read_frame(read)
    _limit(*fields["limits"])
    page = Page()
    sys.modules["__main__"] = page.module
    errors = [page.run(as_text(cell), f"set-up {i}")[0] for i, cell in enumerate(fields["cells"])]
    if torch := sys.modules.get("torch"):
        # As many threads would be made again in each process of a DataLoader, which then waits.
        vars(torch).update(set_num_threads=lambda _: None)
    write(pack("ready", errors=errors))
    # Other processes are ours to end only if no process of the grader's machine is visible here.
    walled = os.readlink("/proc/self/ns/pid") != sys.argv[1]
    while True:
        _, fields = read_frame(read)
        folder = tempfile.mkdtemp()
        if (child := os.fork()) == 0:
            os.chdir(folder)
            sys.path.insert(0, "")  # as in a kernel: what %%writefile wrote can be imported
            if not walled:
                os.setpgid(0, 0)
            try:
                _answer(fields, page, read, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ProcessLookupError):
            os.kill(-1 if walled else -child, signal.SIGKILL)  # -1: all but this one and the first
        shutil.rmtree(folder, ignore_errors=True)
        if walled and not _empty("/tmp", "/dev/shm"):
            os._exit(1)  # the next question gets a new sandbox
        write(pack("ended", status=status))


def _empty(*folders: str) -> bool:
    """Remove everything in these folders; whether nothing is left."""
    for folder in folders:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    return not any(os.listdir(folder) for folder in folders)


def _limit(address_space: int, processes: int, file_size: int) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")  # the first to go if memory runs out
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_size,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    forbid()


def _answer(
    question: dict[str, Any], page: Page, read: Read, write: Callable[[bytes], None]
) -> None:
    """Run the cells, then answer calls until the grader ends the question."""
    seconds = int(question["seconds"]) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for name, data in question["files"]:
        Path(name).write_bytes(data.tobytes())
    seed_streams(question["seed"])
    problems = []
    for number, cell in question["cells"]:
        write(pack("cell", number=number))
        problems.append([number, *page.run(as_text(cell), f"cell {number}")])
        sys.stdout.flush()
    write(pack("cells", problems=problems))
    answers = Answers(page.names)

    def call_back(number: int) -> Callable[..., Any]:
        def function(*arguments: Any) -> Any:
            write(pack("call back", MAX_ANSWER, number=number, arguments=list(arguments)))
            kind, fields = read_frame(read, call_back)
            if kind != "returned":
                raise CheckFailed(fields["message"])
            return fields["value"]

        return function

    while True:
        kind, fields = read_frame(read, call_back)
        if kind != "call":
            return
        try:
            result = answers(fields["target"], *fields["arguments"])
            frame = pack("value", MAX_ANSWER, value=result)
        except NotAnswered as error:
            frame = pack("not answered", message=short(str(error)))
        except (CheckFailed, ProtocolError) as error:
            frame = pack("failed", message=short(str(error)))
        except BaseException as error:  # exit() too: only the question ends
            frame = pack("failed", message=short(f"it raised {type(error).__name__}: {error}"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        write(frame)
