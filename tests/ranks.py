"""Processes of a run, forked from one that has imported PyTorch once; some kill themselves.

A process gets the variables that torchrun sets. What it says goes to a file.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from dgm_course.runs import commands

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.ranks_preload"])


class Ended(NamedTuple):
    """Exit codes of all ranks, and what the first one said."""

    codes: list[int | None]
    said: str


class Event(NamedTuple):
    """What befalls a rank in its step, before the weights move or while a checkpoint is written."""

    kind: str  # "kill", "kill in writing", "term", "term in evaluation", "full disk"
    step: int
    rank: int = 0


def run(out: Path, *arguments: str, n: int = 1, event: Event | None = None) -> Ended:
    """``dgm train ARGUMENTS --out OUT`` by n ranks."""
    port, log = free_port(), out.with_suffix(".log")
    log.write_text("", encoding="utf-8")
    given = [*arguments, "--out", str(out)]
    ranks = [FORKS.Process(target=_rank, args=(r, n, port, given, event, log)) for r in range(n)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(90)
        if process.is_alive():
            process.kill()
            process.join()
    return Ended([process.exitcode for process in ranks], log.read_text(encoding="utf-8"))


def free_port() -> int:
    """A port at which ranks can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _rank(
    rank: int, n: int, port: int, arguments: list[str], event: Event | None, log: Path
) -> None:
    import torch

    torch.set_num_threads(1)
    if n > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_RANK": str(rank)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(n), "GLOO_SOCKET_IFNAME": "lo"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if event is not None and event.rank == rank:
        _prepare(event)
    said = log if rank == 0 else os.devnull
    with open(said, "a", encoding="utf-8", buffering=1) as file:
        with redirect_stdout(file), redirect_stderr(file):
            commands.train(arguments)


def _prepare(event: Event) -> None:
    from dgm_course.runs import checkpoints, train

    take_step, evaluate = train.Run._take_step, train.Run._evaluated
    write = checkpoints.write_whole

    def befall(self: Any, objectives: Any) -> bool:
        if self.step == event.step:
            os.kill(os.getpid(), signal.SIGKILL if event.kind == "kill" else signal.SIGTERM)
        return take_step(self, objectives)

    def kill_half_way(path: Path, data: Any) -> None:
        if path.name == f"step-{event.step:07d}.pt":
            os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
            data = data[: len(data) // 2]
        write(path, data)

    def on_a_full_disk(path: Path, data: Any) -> None:
        if path.name == f"step-{event.step:07d}.pt":  # the kernel's own refusal, in mid-write
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, resource.RLIM_INFINITY))
        write(path, data)

    def term_in_evaluation(self: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    if event.kind in ("kill", "term"):
        train.Run._take_step = befall  # type: ignore[method-assign]
    elif event.kind == "term in evaluation":
        train.Run._evaluated = term_in_evaluation  # type: ignore[method-assign]
    else:
        checkpoints.write_whole = kill_half_way if "kill" in event.kind else on_a_full_disk
    sys.stdout.flush()
