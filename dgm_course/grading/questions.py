"""Asks a student's code, in its sandbox, what the tests want to know: the other end of `worker`.

A question is one test cell. It finds the answers in a fresh process, so that a question that
crashes, hangs or tampers with its surroundings costs only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dgm_course.grading.answers import CheckFailed, Handle, NotAnswered
from dgm_course.grading.protocol import Function, ProtocolError, as_bytes
from dgm_course.grading.running import LONGEST
from dgm_course.grading.sandbox import Ended, Sandbox, running_time
from dgm_course.grading.walls import Limits

Call = Callable[..., Any]
MOST_CALL_BACKS = 100_000


@dataclass
class Student:
    """The code of one submission, held in a sandbox that is started when it is needed.

    Args:
        setup: sources of the release's first cells, run once.
        files: contents of the files beside the notebook, by name.
        seed: of the answers' random streams.
    """

    setup: Sequence[str]
    files: Mapping[str, bytes]
    seed: int
    limits: Limits = field(default_factory=Limits)
    unsafe: bool = False
    stopped: dict[int, str] = field(default_factory=dict)  # why a cell did not run to its end
    magics: dict[int, list[str]] = field(default_factory=dict)
    fatal: set[int] = field(default_factory=set)  # cells that ended the process

    def __post_init__(self) -> None:
        self._sandbox: Sandbox | None = None
        self._end = running_time() + self.limits.seconds_in_all

    def ask(self, cells: Mapping[int, str], test: Callable[[Call], None]) -> None:
        """Run ``test(call)``, where ``call`` answers from these cells (sources by their numbers).

        Raises:
            Ended: if the student's process ended or had to be ended.
            CheckFailed: from the test.
        """
        while True:
            if running_time() >= self._end:
                raise Ended("not run", "the time for the whole notebook was used up")
            is_fresh = self._sandbox is None
            sandbox = self._running()
            deadline = min(running_time() + self.limits.seconds, self._end)
            try:
                self._begin(sandbox, cells, deadline)
                break
            except Ended as error:
                self.close()
                if error.cell is not None:
                    self.fatal.add(error.cell)
                    self.stopped[error.cell] = f"{error.status}: {error}"
                elif is_fresh:  # otherwise an earlier question may have left something behind
                    raise
        question = _Question(sandbox, deadline)
        try:
            test(question.call)
        except Ended:
            self.close()
            raise
        except ProtocolError as error:
            self.close()
            raise Ended("crashed", f"what came was no answer: {error}") from error
        except Exception:  # a test that failed leaves the process as it was
            self._finish(question)
            raise
        self._finish(question)

    def _finish(self, question: _Question) -> None:
        """Let the question's process end; whatever it started ends too."""
        try:
            question.finish()
        except (Ended, ProtocolError):
            self.close()

    def _begin(self, sandbox: Sandbox, cells: Mapping[int, str], deadline: float) -> None:
        """Let a fresh process run the cells.

        Raises:
            Ended: if it came to no end, with the cell that ran if it is one of the student's.
        """
        rest = [[n, as_bytes(text)] for n, text in cells.items() if n not in self.fatal]
        files = [[name, np.frombuffer(data, np.uint8)] for name, data in self.files.items()]
        running: int | None = None
        sandbox.fresh()  # what is printed counts for each question by itself
        try:
            rests_on = {"cells": rest, "files": files, "seed": self.seed}
            sandbox.send(deadline, "question", **rests_on, seconds=self.limits.seconds)
            while True:
                kind, fields = sandbox.receive(deadline)
                if kind == "cells":
                    break
                if kind != "cell":
                    raise Ended("crashed", "the process ended")
                running = _integer(fields["number"])
            self._note(fields["problems"])
        except (Ended, KeyError, TypeError, ValueError) as error:
            ended = error if isinstance(error, Ended) else Ended("crashed", "it spoke out of turn")
            if running in cells and running not in self.fatal:
                ended.cell = running
            raise ended from None

    def _note(self, problems: Any) -> None:
        for number, error, magics in problems:
            if error:
                self.stopped[_integer(number)] = str(error)[:LONGEST]
            if magics:
                self.magics[_integer(number)] = [str(magic)[:LONGEST] for magic in magics]

    def _running(self) -> Sandbox:
        if self._sandbox is None:
            self._sandbox = Sandbox(self.limits, unsafe=self.unsafe)
            try:
                errors = self._sandbox.begin(self.setup)
            except Ended as error:  # before any code of the student's: it is not their fault
                raise RuntimeError(f"the sandbox does not start: {error}") from error
            if errors:
                raise RuntimeError(f"the release's set-up does not run in the sandbox: {errors}")
        return self._sandbox

    def close(self) -> None:
        """End the student's processes."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


class _Question:
    """The calls of one test cell."""

    def __init__(self, sandbox: Sandbox, deadline: float) -> None:
        self._sandbox, self._deadline = sandbox, deadline
        self._functions: list[Callable[..., Any]] = []
        self._call_backs = 0

    def call(self, target: str | Handle, *arguments: Any) -> Any:
        """As `answers.Answers.__call__`, answered by the sandboxed process."""
        fields = {"target": self._outward(target), "arguments": self._outward(list(arguments))}
        self._sandbox.send(self._deadline, "call", **fields)
        raised: Exception | None = None
        while True:
            kind, fields = self._sandbox.receive(self._deadline)
            if kind == "call back":
                try:
                    self._call_back(fields)
                except (Ended, ProtocolError):
                    raise
                except Exception as error:  # from the test's own function: it counts, whatever
                    raised = raised or error  # the student's code makes of it
                    self._sandbox.send(self._deadline, "stop", message=str(error)[:LONGEST])
                continue
            if kind == "ended":
                status = str(fields.get("status"))[:20]
                raise Ended("crashed", f"the process ended in the middle, with exit code {status}")
            if raised is not None:
                raise raised
            if kind == "value" and "value" in fields:
                return fields["value"]
            message = str(fields.get("message", "it gave no answer"))[:LONGEST]
            raise (NotAnswered if kind == "not answered" else CheckFailed)(message)

    def _call_back(self, fields: dict[str, Any]) -> None:
        self._call_backs += 1
        if self._call_backs > MOST_CALL_BACKS:
            raise Ended("over the limit", f"it called back over {MOST_CALL_BACKS} times")
        number, arguments = fields.get("number"), fields.get("arguments")
        if type(number) is not int or not 0 <= number < len(self._functions):
            raise ProtocolError("expected the number of a function")
        if type(arguments) is not list:
            raise ProtocolError("expected a list of arguments")
        value = self._functions[number](*arguments)
        self._sandbox.send(self._deadline, "returned", value=self._outward(value))

    def finish(self) -> None:
        """Say that there are no more calls, and wait for the end."""
        deadline = running_time() + 5
        self._sandbox.send(deadline, "end")
        kind, _ = self._sandbox.receive(deadline)
        if kind != "ended":
            raise ProtocolError("it spoke out of turn")

    def _outward(self, value: Any) -> Any:
        """A test's value for `protocol.pack`."""
        if isinstance(value, list | tuple):
            return [self._outward(item) for item in value]
        if isinstance(value, np.generic):
            return np.asarray(value)
        if callable(value):
            self._functions.append(value)
            return Function(len(self._functions) - 1)
        return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ProtocolError("expected a cell's number")
    return value
