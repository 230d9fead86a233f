"""Tables of the first page and of the site's course map: lectures, decks, what nothing covers."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dgm_course.lectures import clock
from dgm_course.lectures.cells import source_of
from dgm_course.lectures.ledger import (
    ASSIGNMENT,
    ROOT,
    Deck,
    Entry,
    Ledger,
    Section,
    Topic,
    picture_of,
    read_sections,
    uncovered,
)
from dgm_course.lectures.notebooks import read_lecture

WIDTH, HEIGHT = 240, 130  # pixels that a small picture fits into

WAYS = """\
## Three ways through

The course is made from the decks of three courses. For each deck: which section covers which \
slides, and what it reaches there. *1.4* is section 4 of lecture 1. Names in *italics* are \
lectures to come. Slides count in a deck's order; a PDF with overlays may be a page or two off. \
For every row `docs/ledger.toml` also names the function that computes it and the test that \
checks it.
"""


class Place(NamedTuple):
    """Where a page stands: its way to the notebooks, and how it addresses their sections."""

    notebooks: str
    is_site: bool

    def section(self, notebook: str, section: Section) -> str:
        """The address of a section."""
        if self.is_site:  # MyST names a heading as GitHub does
            anchor = re.sub(r"[^\w\- ]", "", section.heading.lower()).replace(" ", "-")
        else:
            # JupyterLab 4 follows a heading's name only where the notebook is open already.
            anchor = f"cell-id={section.cell}"
        return f"{self.notebooks}{notebook}.ipynb#{anchor}"


class Shown(NamedTuple):
    """A lecture as the page shows it; one to come has no address and no sections."""

    entry: Entry
    title: str
    question: str
    read: str = ""
    run: str = ""
    sections: dict[str, Section] = {}
    picture: bytes = b""

    @property
    def name(self) -> str:
        return f"{self.entry.number} · {self.title}"


def shown(ledger: Ledger, root: Path = ROOT) -> dict[int, Shown]:
    """The lectures, with what their notebooks say of them.

    Raises:
        ValueError: if a notebook has no question, or not the picture that the ledger names.
    """
    lectures = {}
    for number, entry in ledger.lectures.items():
        if not entry.notebook:
            lectures[number] = Shown(entry, entry.title, entry.question)
            continue
        path = root / "notebooks" / f"{entry.notebook}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = notebook["cells"]
        question = re.search(r"\*\*([^*]+\?)\*\*", source_of(cells[0]))
        figure = next((picture_of(c) for c in cells if c["id"] == entry.picture), "")
        if question is None or not figure:
            what = f"cell {entry.picture!r} with a figure" if question else "question in bold"
            raise ValueError(f"{path.name} must have a {what}")
        parts = clock.sections(notebook)
        core, whole = (
            sum(part.stated or part.measured for part in parts if part.is_core >= only)
            for only in (True, False)
        )
        about = read_lecture(path)
        lectures[number] = Shown(
            entry,
            about.title,
            question[1],
            read=f"{core:.0f} / {whole:.0f}",
            run=about.minutes,
            sections={section.name: section for section in read_sections(cells)},
            picture=small(base64.b64decode(figure), entry.crop),
        )
    return lectures


def small(png: bytes, crop: tuple[float, ...] = (0, 0, 1, 1)) -> bytes:
    """A part of a picture, small and in 64 colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    left, top, right, bottom = (
        round(share * length) for share, length in zip(crop, picture.size * 2, strict=True)
    )
    part = picture.crop((left, top, right, bottom))
    part.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    part = part.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    part.save(buffer, format="png", compress_level=9)
    return buffer.getvalue()


# --- parts of a page ----------------------------------------------------------------------


def the_lectures(lectures: dict[int, Shown], place: Place) -> str:
    """The lectures that stand, as a table with pictures, and those to come."""
    standing = [lecture for lecture in lectures.values() if lecture.entry.notebook]
    to_come = [lecture for lecture in lectures.values() if not lecture.entry.notebook]
    rows = [
        [
            _linked(lecture, place, bold=True) + f"<br>{lecture.question}",
            lecture.read,
            lecture.run,
            _numbers(lecture.entry.builds_on, lectures, place),
        ]
        for lecture in standing
    ]
    header = ["lecture and question", "minutes aloud: core / all", "minutes to run", "builds on"]
    if not place.is_site:  # there the home page shows the pictures
        header = ["", *header]
        for row, lecture in zip(rows, standing, strict=True):
            row.insert(0, f"![{lecture.entry.alt}](attachment:{file_of(lecture)})")
    text = (
        "## The lectures\n\nA lecture's **core** is what fits into an hour; the rest is for a "
        "second one, or for home. Minutes aloud are those of a lecturer who reads the text and "
        "lets the class look at each figure. *Builds on* names the lectures to read before.\n\n"
        + _table(header, rows)
    )
    if to_come:
        rows = [
            [f"*{each.name}*", each.question, _numbers(each.entry.builds_on, lectures, place)]
            for each in to_come
        ]
        header = ["lecture", "question", "builds on"]
        text += "\n\n**Lectures to come.**\n\n" + _table(header, rows)
    return text + "\n"


def the_ways(ledger: Ledger, lectures: dict[int, Shown], place: Place) -> Iterator[tuple[str, str]]:
    """For each course its key and its text: an order of lectures, and its decks, row by row."""
    for course in ledger.courses:
        way = " → ".join(_linked(lectures[number], place) for number in course.way)
        parts = [
            f"### {course.key}",
            f"{course.name}.",
            f"**Our lectures in an order for this course:** {way}",
        ]
        for deck in ledger.decks:
            if deck.course == course.key:
                rows = [_row(topic, lectures, place) for topic in deck.topics]
                header = ["slides", "topic", "section", "what it reaches"]
                parts += [f"#### {course.key} · {deck.title}", _table(header, rows)]
        yield course.key, "\n\n".join(parts) + "\n"


def _row(topic: Topic, lectures: dict[int, Shown], place: Place) -> list[str]:
    places = []
    for number, name in topic.where:
        lecture = lectures[number]
        section = lecture.sections[name]
        address = place.section(lecture.entry.notebook, section)
        heading = section.heading
        places.append(f"[{number}.{heading.replace('. ', ' ', 1)}]({address})")
    if topic.assignment:
        places.append(f"[home assignment]({_assignment(topic.assignment, place)})")
    places += [f"*{lectures[number].name}*" for number in topic.planned]
    return [topic.slides, topic.topic, "<br>".join(places) or "—", topic.number]


def what_is_missing(ledger: Ledger, lectures: dict[int, Shown]) -> str:
    """The slides that nothing covers yet: those that wait for a lecture, and those that do not."""
    found = uncovered(ledger)
    n_topics = sum(len(deck.topics) for deck in ledger.decks)
    unplanned = [
        f"- {topic.topic} ({_slides(deck, [topic])})" for deck, topic in found if not topic.planned
    ]
    rows = []
    for number, lecture in lectures.items():
        waiting = [
            _slides(deck, topics)
            for deck in ledger.decks
            if (topics := [t for d, t in found if d is deck and number in t.planned])
        ]
        if waiting:
            rows.append([f"*{lecture.name}*", "; ".join(waiting)])
    parts = [
        "## What nothing covers yet",
        f"The five decks have {n_topics} topics, and {n_topics - len(found)} of them have a "
        f"section. {len(unplanned)} topics have neither a section nor a plan:",
        "\n".join(unplanned),
        "All other topics wait for a lecture to come:",
        _table(["lecture to come", "slides that wait for it"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def _slides(deck: Deck, topics: Iterable[Topic]) -> str:
    """As "MIPT 5: 10, 11–12"."""
    name = deck.key.replace(deck.course.lower(), deck.course).replace("-", " ")
    return f"{name}: {', '.join(topic.slides for topic in topics)}"


def the_assignment(place: Place) -> str:
    return (
        "## Home assignment\n\n"
        f"[A small PixelCNN]({_assignment('pixelcnn', place)}), 20 points: build it from its masks "
        "up, train it on digits, draw from it. It belongs to lecture 5. Copy the notebook, fill it "
        "in, and before you hand it in let `dgm assignment check pixelcnn.ipynb` tell you whether "
        "it is accepted, what is still empty, and how many points it has.\n"
    )


def _assignment(name: str, place: Place) -> str:
    return place.notebooks + ASSIGNMENT.format(name).removeprefix("notebooks/")


def file_of(lecture: Shown) -> str:
    """The name of its small picture."""
    return f"{lecture.entry.notebook}.png"


def _linked(lecture: Shown, place: Place, bold: bool = False) -> str:
    if not lecture.entry.notebook:
        return f"*{lecture.name}*"
    stars = "**" * bold
    return f"{stars}[{lecture.name}]({place.notebooks}{lecture.entry.notebook}.ipynb){stars}"


def _numbers(numbers: Iterable[int], lectures: dict[int, Shown], place: Place) -> str:
    links = []
    for number in numbers:
        notebook = lectures[number].entry.notebook
        links.append(f"[{number}]({place.notebooks}{notebook}.ipynb)" if notebook else f"{number}")
    return ", ".join(links) or "—"


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([c.replace("|", "\\|") for c in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
