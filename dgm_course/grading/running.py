"""Runs cells as Jupyter does, without Jupyter: in the sandbox and in a student's own check alike.

What a kernel has and Python has not is here: magics, the last value in ``_``, top-level ``await``,
``display`` and ``get_ipython``, and a ``from __future__`` that holds for the cells after it.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

LONGEST = 2_000  # characters of a message
FUTURES = 0
for _name in __future__.all_feature_names:
    FUTURES |= getattr(__future__, _name).compiler_flag
PLAIN_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun")  # what they run is Python
RUNS = re.compile(r"%?time\s+(?=\S)")  # so does it here, in the cell's own names
AUTOMAGIC = re.compile(r"(?:pip|conda|cd|ls|cat|mkdir|load_ext|matplotlib|timeit)\s+\S.*")
MAGIC = re.compile(r"(?P<to>[^=!%?]*=\s*)?(?P<how>[%!]).*")
WINDOW = re.compile(r"\b(?:matplotlib|mpl|plt)\.(?:use|switch_backend)\([^()\n]*\)")  # none here


class Stopped(KeyboardInterrupt):
    """Ctrl-C by whoever runs the cells; a cell that raises KeyboardInterrupt itself goes on."""


class Page:
    """A notebook's module ``__main__``, in which cell after cell runs.

    Args:
        names: more names, or others than a kernel's.
    """

    def __init__(self, **names: Any) -> None:
        self.module = types.ModuleType("__main__")
        self.names = self.module.__dict__
        shell = _Shell(self.names)
        self.names.update(
            get_ipython=lambda: shell,
            display=_display,
            exit=sys.exit,
            quit=sys.exit,
            In=[""],
            Out={},
        )
        self.names.update(names)
        self._flags, self._shown = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, None

    def run(self, source: str, name: str) -> tuple[str, list[str]]:
        """Run a cell up to its first error: the error, or "", and the magics that were left out."""
        name = f"<{name}>"
        source, magics = without_magics(source)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        try:
            self._make_at_home(source)
            self._execute(source, name)
        except Stopped:
            raise
        except BaseException as error:
            return _said(error, name), magics
        return "", magics

    def _execute(self, source: str, name: str) -> None:
        only_parse = self._flags | ast.PyCF_ONLY_AST
        tree = compile(source, name, "exec", only_parse, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._value(tree, name, "exec")
        if last is not None:
            value = self._value(ast.Expression(last.value), name, "eval")
            # An own _, as of gettext or of a loop, stays what it is.
            if value is not None and self.names.get("_", self._shown) is self._shown:
                self.names["_"] = self._shown = value

    def _value(self, tree: Any, name: str, mode: str) -> Any:
        code = compile(tree, name, mode, self._flags, dont_inherit=True)
        self._flags |= code.co_flags & FUTURES
        value = eval(code, self.names)
        if code.co_flags & inspect.CO_COROUTINE:
            import asyncio

            value = asyncio.run(value)
        return value

    def _make_at_home(self, source: str) -> None:
        """Let what a cell asks of IPython itself be answered here."""
        if "get_ipython" in source and "IPython" in source:
            import IPython

            IPython.get_ipython = IPython.core.getipython.get_ipython = self.names["get_ipython"]


class _Shell:
    """What ``get_ipython()`` gives: magics that do nothing, but for those that make something."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.user_ns = names
        self.events = types.SimpleNamespace(register=_nothing, unregister=_nothing)
        self.system = self.set_next_input = self.magic = _nothing

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"get_ipython() has no {name} where answers are graded")

    def getoutput(self, command: str) -> list[str]:
        return []

    def run_line_magic(self, name: str, line: str = "", *_: Any) -> Any:
        if name == "capture":
            return types.SimpleNamespace(stdout="", stderr="", outputs=[], show=_nothing)
        if name == "timeit":
            unknown = dict.fromkeys(("average", "best", "worst", "stdev"), float("nan"))
            return types.SimpleNamespace(**unknown, timings=[], all_runs=[], loops=0, repeat=0)
        return None

    def run_cell_magic(self, name: str, line: str, cell: str) -> Any:
        if name in ("writefile", "file") and (words := line.split()):
            with Path(words[-1]).open("a" if "-a" in words else "w", encoding="utf-8") as file:
                file.write(cell)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _display(*_: Any, **options: Any) -> Any:
    if options.get("display_id"):
        return types.SimpleNamespace(display=_nothing, update=_nothing)
    return None


def _said(error: BaseException, name: str) -> str:
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == name]
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # an exception of the cell's own may do anything when it is printed
        text = type(error).__name__
    return short(text + "".join(f" (line {line})" for line in lines[:1]))


def short(message: str) -> str:
    return message if len(message) <= LONGEST else message[:LONGEST] + " ..."


# --- magics ---------------------------------------------------------------------------------


def without_magics(source: str) -> tuple[str, list[str]]:
    """A cell as plain Python, and the magics that were taken out of it."""
    magics: list[str] = []
    lines = _without_margin(source.replace("\r\n", "\n").split("\n"))
    at = next((i for i, line in enumerate(lines) if line.strip()), 0)
    first = lines[at].strip()
    if first.startswith("%%"):
        magics.append(first[:80])
        name, *words = first.split()
        if name not in PLAIN_MAGICS:
            how, _, line = first[2:].partition(" ")
            body = "\n".join(lines[at + 1 :])
            if how in ("writefile", "file"):
                return f"get_ipython().run_cell_magic({how!r}, {line!r}, {body!r})", magics
            return "", magics
        names = [word for word in words if word.isidentifier()]
        is_kept = name == "%%capture" and names
        lines[at] = f"{names[0]} = get_ipython().run_line_magic('capture')" if is_kept else ""
    for i, line in enumerate(lines):
        if match := WINDOW.search(line):
            magics.append(match.group()[:80])
            lines[i] = WINDOW.sub("None", line)
    # A line may begin with % inside a string: take out only what the parser stumbles on.
    for _ in range(len(lines)):
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
            if not 0 <= at < len(lines) or (plain := _plain(lines[at].strip())) is None:
                break
            if not RUNS.match(lines[at].strip()):
                magics.append(lines[at].strip()[:80])
            indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            goes_on, lines[at] = lines[at].rstrip().endswith("\\"), indent + plain
            while goes_on and (at := at + 1) < len(lines):
                goes_on, lines[at] = lines[at].rstrip().endswith("\\"), ""
        except (ValueError, RecursionError, MemoryError):
            break
    return "\n".join(lines), magics


def _plain(line: str) -> str | None:
    """What stands for a line with a magic; None if there is none in it."""
    if match := RUNS.match(line):
        return line[match.end() :]
    if line.endswith("?") or line.startswith("?") or AUTOMAGIC.match(line):
        return "pass"
    if match := MAGIC.fullmatch(line):
        if not match["to"]:
            return "pass"
        if match["how"] == "!":
            return f"{match['to']}[]"
        name = line[match.end("to") + 1 :].partition(" ")[0]
        return f"{match['to']}get_ipython().run_line_magic({name!r})"
    return None


def _without_margin(lines: list[str]) -> list[str]:
    """Lines without the indentation, or Python's prompts, that all of them have in common."""
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(">>> "):
        return [re.sub(r"^(>>>|\.\.\.)( |$)", "", line) for line in lines]
    margin = first[: len(first) - len(first.lstrip())]
    return [line.removeprefix(margin) for line in lines] if margin else lines
