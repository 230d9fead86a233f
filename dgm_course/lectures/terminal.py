"""A command's output and its end, on terminals and pipes of any kind."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn

import click


class Outlet(io.TextIOWrapper):
    """A standard stream that takes any text, and goes on when nobody reads it any more.

    What the encoding lacks is written by its number, a cross as ``\\u2717``. When a pipe is closed
    early (``| head``), the rest goes nowhere: what counts are a command's files and its exit code.
    """

    @classmethod
    def around(cls, stream: io.TextIOWrapper) -> Outlet:
        buffering = stream.line_buffering
        encoding, buffer = stream.encoding, stream.detach()
        return cls(buffer, encoding, "backslashreplace", line_buffering=buffering)

    @property
    def buffer(self) -> NoReturn:
        raise AttributeError("buffer")  # click would write UTF-8 to it where ASCII was asked for

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()  # what is left in the buffer


def prepare_streams() -> None:
    """Let stdout and stderr of this process take any text, also where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # else the next file that is opened gets its number, and what it writes
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
            setattr(sys, name, nowhere)
        elif type(stream) is io.TextIOWrapper:
            setattr(sys, name, Outlet.around(stream))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Commands(click.Group):
    """Commands that write to any terminal, and end as shells expect when they are stopped."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        prepare_streams()
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            context.exit(130)
