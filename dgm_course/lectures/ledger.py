"""The ledger: which section of which lecture covers which slides of the decks.

``python -m dgm_course.lectures.ledger`` lists the slides that nothing covers yet.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click

from dgm_course.lectures.cells import source_of
from dgm_course.lectures.notebooks import NOTEBOOKS, lectures_in

ROOT = NOTEBOOKS.parent
ASSIGNMENT = "notebooks/assignments/{0}/release/{0}.ipynb"


class Topic(NamedTuple):
    """What some slides of a deck are about, and where the course has it.

    Args:
        slides: numbers as a lecturer reads them, "11–12" or "14, 19".
        where: lectures' numbers with the headings of sections, without the headings' numbers.
        planned: lectures to come that cover the topic, or more of it.
        function: the dotted name of what computes it.
        test: ``file::name``, or the beginning of a name.
        number: what the lecture reaches, with its unit.
        claim: the notebook's claim that the number stands on.
        assignment: a home assignment on it.
    """

    slides: str
    topic: str
    where: tuple[tuple[int, str], ...] = ()
    planned: tuple[int, ...] = ()
    function: str = ""
    test: str = ""
    number: str = ""
    claim: str = ""
    assignment: str = ""


class Deck(NamedTuple):
    """A deck of slides, numbered from ``first``; those of ``no_topic`` say nothing to cover."""

    key: str
    course: str
    title: str
    source: str
    slides: int
    first: int
    no_topic: str
    topics: tuple[Topic, ...]


class Entry(NamedTuple):
    """A lecture: one that stands has a notebook, one to come has a title and a question."""

    number: int
    builds_on: tuple[int, ...]
    notebook: str = ""
    picture: str = ""
    crop: tuple[float, ...] = (0, 0, 1, 1)
    alt: str = ""
    title: str = ""
    question: str = ""


class Course(NamedTuple):
    """A course that decks are of: its name there, and the way through our lectures."""

    key: str
    name: str
    way: tuple[int, ...]


class Ledger(NamedTuple):
    """The lectures by number, the courses, and their decks."""

    lectures: dict[int, Entry]
    courses: tuple[Course, ...]
    decks: tuple[Deck, ...]


class Section(NamedTuple):
    """A section of a notebook: its heading, its first cell, its claims with their bands."""

    heading: str
    cell: str
    claims: dict[str, str]

    @property
    def name(self) -> str:
        """The heading without its number, which changes when a section is added."""
        return re.sub(r"^\d+\.\s*", "", self.heading)


def read_ledger(path: Path = ROOT / "docs" / "ledger.toml") -> Ledger:
    """Read the ledger; what it names may still not exist, see ``problems``.

    Raises:
        ValueError: if a table has a key that nobody reads, or lacks one.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    lectures = [_row(Entry, table) for table in tables["lectures"]]
    courses = tuple(_row(Course, table) for table in tables["courses"])
    decks = []
    for table in tables["decks"]:
        topics = tuple(_row(Topic, topic) for topic in table["topics"])
        decks.append(_row(Deck, table | {"topics": topics}))
    return Ledger({lecture.number: lecture for lecture in lectures}, courses, tuple(decks))


def _row(kind: Any, table: dict[str, Any]) -> Any:
    try:
        return kind(**{key: _frozen(value) for key, value in table.items()})
    except TypeError as error:
        what = ", ".join(f"{key} = {value!r}" for key, value in list(table.items())[:2])
        raise ValueError(f"the ledger's {kind.__name__.lower()} with {what}: {error}") from None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


# --- what the notebooks hold ----------------------------------------------------------------


def read_sections(cells: Iterable[Any]) -> list[Section]:
    """The sections of a lecture: its headings of the second level, with what is claimed below."""
    found: list[Section] = []
    for cell in cells:
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^## (.+)$", source_of(cell), re.MULTILINE)
            found.extend(Section(heading.strip(), cell["id"], {}) for heading in headings)
        elif found:
            printed = "".join("".join(o.get("text", "")) for o in cell.get("outputs", []))
            claims = re.findall(r"^✓ (.+) \[([^]]*)\]$", printed, re.MULTILINE)
            found[-1].claims.update(claims)
    return found


# --- what is wrong --------------------------------------------------------------------------


def problems(ledger: Ledger, root: Path = ROOT) -> list[str]:
    """What the ledger names and does not exist, and slides that it forgot: a sentence for each."""
    found = []
    contents: dict[int, list[Section]] = {}
    for entry in ledger.lectures.values():
        start = f"lecture {entry.number}: "
        path = root / "notebooks" / f"{entry.notebook}.ipynb"
        for other in entry.builds_on:
            if other not in ledger.lectures or other >= entry.number:
                found.append(f"{start}it builds on {other}, which is no earlier lecture")
        if entry.notebook and not path.is_file():
            found.append(f"{start}no notebook {path.name}")
        elif entry.notebook:
            contents[entry.number], pictures = _held_by(path)
            if entry.picture not in pictures:
                near = _nearest(entry.picture, pictures)
                found.append(f"{start}no cell {entry.picture!r} with a figure{near}")
        elif not (entry.title and entry.question):
            found.append(f"{start}one to come needs a title and a question")
    known = {entry.notebook for entry in ledger.lectures.values()}
    found += [
        f"{path.name} stands, and no lecture of the ledger has it"
        for path in lectures_in(root / "notebooks")
        if path.stem not in known
    ]
    for course in ledger.courses:
        found += [f"course {course.key}: {what}" for what in _off_the_way(course, ledger)]
    for deck in ledger.decks:
        found += [f"{deck.key}: {what}" for what in _forgotten(deck, ledger)]
        for topic in deck.topics:
            start = f"{deck.key}, slides {topic.slides} ({topic.topic}): "
            found += [start + what for what in _wrong(topic, ledger, contents, root)]
    return found


@cache
def _held_by(path: Path) -> tuple[list[Section], list[str]]:
    """A notebook's sections, and its cells that show a figure."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return read_sections(cells), [cell["id"] for cell in cells if picture_of(cell)]


def picture_of(cell: Any) -> str:
    """The last figure that a cell shows, a PNG in base 64; empty if it shows no figure."""
    shown = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
    return next(("".join(picture) for picture in reversed(shown) if picture), "")


def _off_the_way(course: Course, ledger: Ledger) -> Iterator[str]:
    """Lectures that its decks need and its way leaves out, and those that come too early in it."""
    topics = [topic for deck in ledger.decks if deck.course == course.key for topic in deck.topics]
    needed = {number for topic in topics for number in (*dict(topic.where), *topic.planned)}
    if missing := needed - set(course.way):
        yield f"its way leaves out {', '.join(map(str, sorted(missing)))}"
    for i, number in enumerate(course.way):
        if number not in ledger.lectures:
            yield f"no lecture {number} for its way"
        elif late := set(ledger.lectures[number].builds_on) & set(course.way[i:]):
            yield f"lecture {number} builds on {min(late)}, which comes later in its way"


def _forgotten(deck: Deck, ledger: Ledger) -> Iterator[str]:
    """Slides of a deck that stand nowhere, or twice where one says that they have no topic."""
    if deck.course not in {course.key for course in ledger.courses}:
        yield f"no course {deck.course!r}"
    there = set(range(deck.first, deck.first + deck.slides))
    named = {n for topic in deck.topics for n in slide_numbers(topic.slides)}
    without = set(slide_numbers(deck.no_topic))
    for what, numbers in {
        "no topic has slides": there - named - without,
        f"outside of {min(there)} to {max(there)}: slides": (named | without) - there,
        "said to have no topic, and in one: slides": named & without,
    }.items():
        if numbers:
            yield f"{what} {', '.join(map(str, sorted(numbers)))}"


def slide_numbers(slides: str) -> list[int]:
    """The numbers that "35–36, 41" stands for."""
    numbers: list[int] = []
    for part in slides.split(","):
        first, _, last = part.strip().partition("–")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _wrong(
    topic: Topic, ledger: Ledger, contents: dict[int, list[Section]], root: Path
) -> Iterator[str]:
    for number, name in topic.where:
        if number not in ledger.lectures:
            yield f"no lecture {number}"
        elif not ledger.lectures[number].notebook:
            yield f"lecture {number} is to come: name it as planned"
        elif name not in (names := [section.name for section in contents.get(number, [])]):
            yield f"no section {name!r} in lecture {number}{_nearest(name, names)}"
    for number in topic.planned:
        if number not in ledger.lectures:
            yield f"no lecture {number}, which is planned to cover it"
        elif ledger.lectures[number].notebook:
            yield f"lecture {number} is no longer planned but stands: name its section"
    if topic.function and (what := missing_name(topic.function)):
        yield what
    if topic.test and (what := missing_test(topic.test, root)):
        yield what
    claims = {
        claim: band
        for number in dict(topic.where)
        for section in contents.get(number, [])
        for claim, band in section.claims.items()
    }
    if topic.claim and topic.claim not in claims:
        yield f"no claim {topic.claim!r} in its lectures{_nearest(topic.claim, claims)}"
    if topic.number and not (topic.claim or topic.test):
        yield f"the number {topic.number!r} stands on no claim and no test"
    claimed = [number for pair in claims.items() for number in _numbers(" ".join(pair))]
    for digits in re.findall(r"\d+\.\d+", topic.number):
        ulp = 10.0 ** -len(digits.partition(".")[2])
        if not any(abs(float(digits) - claim) <= 0.5 * ulp for claim in claimed):
            yield f"no claim in its lectures has the number {digits} of {topic.number!r}"
    if topic.assignment and not (root / ASSIGNMENT.format(topic.assignment)).is_file():
        yield f"no assignment {topic.assignment!r}"


def _numbers(text: str) -> list[float]:
    """The numbers in a text, and what "ln 512" comes to."""
    found = [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)]
    return found + [math.log(int(n)) for n in re.findall(r"\bln ([1-9]\d*)\b", text)]


def missing_name(dotted: str) -> str:
    """Empty if a dotted name can be imported, else what is missing."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        name = ".".join(parts[:n])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # it is there, and what it imports is not
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return f"no function {dotted}: {name} has no {part}{_nearest(part, dir(found))}"
            found, name = getattr(found, part), f"{name}.{part}"
        return ""
    return f"no function {dotted}: no module {parts[0]}"


def missing_test(test: str, root: Path = ROOT) -> str:
    """Empty if ``file::name`` is a test, or the beginning of one; else what is missing."""
    file, _, name = test.partition("::")
    if not (root / file).is_file():
        return f"no test {test}: no file {file}"
    names = _tests_in(root / file)
    if name and any(there.startswith(name) for there in names):
        return ""
    return f"no test {test}{_nearest(name, names)}"


@cache
def _tests_in(path: Path) -> tuple[str, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"; the nearest is {close[0]!r}" if close else ""


# --- what is missing ------------------------------------------------------------------------


def uncovered(ledger: Ledger) -> list[tuple[Deck, Topic]]:
    """The topics that no section covers yet, those that a lecture to come will cover included."""
    return [(deck, t) for deck in ledger.decks for t in deck.topics if not t.where]


@click.command()
@click.option("--deck", "key", help="One deck only, by its key in docs/ledger.toml.")
@click.option("--all", "show_all", is_flag=True, help="Also what is covered, and by what.")
def main(key: str | None, show_all: bool) -> None:
    """List the slides that no section of a lecture covers yet, deck by deck."""
    ledger = read_ledger()
    if key not in {None, *(keys := [deck.key for deck in ledger.decks])}:
        raise click.UsageError(f"no deck {key!r}; there are {', '.join(keys)}")
    for deck in ledger.decks:
        if key not in {None, deck.key}:
            continue
        covered = [topic for topic in deck.topics if topic.where]
        click.echo(f"{deck.key}: {len(covered)} of {len(deck.topics)} topics have a section")
        for topic in deck.topics:
            if topic.where and not show_all:
                continue
            places = [f"lecture {number}, {name}" for number, name in topic.where]
            places += [f"planned for lecture {number}" for number in topic.planned]
            click.echo(f"  {topic.slides:>10}  {topic.topic}: {'; '.join(places) or 'nothing'}")
            for what in filter(
                None, (topic.function, topic.test, topic.number) if show_all else ()
            ):
                click.echo(f"{'':14}{what}")


if __name__ == "__main__":
    main()
