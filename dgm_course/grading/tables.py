"""Tables that people edit in a spreadsheet: read in what it saved, and written back the same way.

What is not understood is refused with its file and line; nothing is guessed that could be a
number of points.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DELIMITERS = ",;\t|"
FORMATS = {
    b"PK": "an Excel or OpenDocument file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"{\\rtf": "an RTF file",
    b"%PDF": "a PDF",
}
NUMBER = re.compile(r"((0|[1-9][0-9]*)([.,][0-9]*)?|[.,][0-9]+)(E[+-]?[0-9]+)?", re.IGNORECASE)


@dataclass
class Table:
    """The cells of a file as they are, and how it was written.

    Args:
        header: names of columns, each stripped, in lower case, with _ for spaces.
        rows: the line in the file at which a row begins, and its cells, as many as the header's.
        text: the whole file.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]
    encoding: str = "utf-8"
    delimiter: str = ","
    newline: str = "\n"
    text: str = ""

    def at(self, line: int) -> str:
        return f"{self.path}, line {line}"

    def records(self, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """The line and the stripped cells of each row, in these columns; "" for a missing one."""
        places = {name: self.header.index(name) for name in columns if name in self.header}
        for line, cells in self.rows:
            found = {name: clean(cells[place]) for name, place in places.items()}
            yield line, {name: found.get(name, "") for name in columns}

    def with_rows(self, new: list[dict[str, str]]) -> bytes:
        """The file with rows at its end, all that is there as it is."""
        end = "" if self.text.endswith(("\n", "\r")) or not self.text else self.newline
        rows = [[row.get(name, "") for name in self.header] for row in new]
        added = in_cells(rows, self.delimiter, self.newline)
        try:
            return (self.text + end + added).encode(self.encoding)
        except UnicodeEncodeError:  # a name that Windows-1252 has no letters for
            return (self.text + end + added).encode()


def read_table(path: Path, required: set[str]) -> Table:
    """A table as spreadsheets save it as text.

    Understood are commas, semicolons, tabs and bars between cells, a first line ``sep=;``, UTF-8,
    UTF-16 and Windows-1252, every end of line, and empty rows.

    Args:
        required: names of columns that must be there.

    Raises:
        ValueError: if the file is no such table, a column is missing or double, or a row has more
            cells than there are columns.
        OSError: if it cannot be read.
    """
    text, encoding = _decoded(path)
    newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    begin = re.match(r'\ufeff?("?sep=(.)"?[ \t;,]*(?=[\r\n]))?', text, re.IGNORECASE)
    assert begin is not None
    start = begin.end()
    headers = {c: _header(text[start:], c) for c in begin[2] or DELIMITERS}
    delimiter = max(headers, key=lambda c: len(required & {*headers[c]}))
    header = headers[delimiter]
    if missing := ", ".join(sorted(required - {*header})):
        found = ", ".join(filter(None, header)) or "no column"
        raise ValueError(f"{path}: expected columns {missing}; got {found}")
    for name in {*header} - {""}:
        if header.count(name) > 1:
            raise ValueError(f"{path}: expected one column {name}, got {header.count(name)}")
    _, *rows = _rows(path, text[start:], delimiter)
    table = Table(path, header, [], encoding, delimiter, newline, text)
    table.rows = [(line, _as_wide(table, line, cells)) for line, cells in rows]
    return table


def _header(text: str, delimiter: str) -> list[str]:
    """The names of columns if this stands between cells."""
    for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        if any(map(clean, cells)):
            return [re.sub(r"[\s_.-]+", "_", clean(cell)).strip("_").lower() for cell in cells]
    return []


def _decoded(path: Path) -> tuple[str, str]:
    data = path.read_bytes()
    for start, kind in FORMATS.items():
        if data.startswith(start):
            raise ValueError(f"{path}: expected a table as text (CSV), got {kind}")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise ValueError(f"{path}: expected UTF-8, UTF-16 or Windows-1252, got UTF-32")
    if data.startswith(codecs.BOM_UTF16_BE) or data[:1] == b"\0":
        encodings = ["utf-16-be"]
    elif data.startswith(codecs.BOM_UTF16_LE) or data[1:2] == b"\0":
        encodings = ["utf-16-le"]
    else:
        encodings = ["utf-8", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise ValueError(f"{path}: expected text in UTF-8, UTF-16 or Windows-1252, got other bytes")


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(clean(cell) for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: not a row of cells: {error}") from error


def _as_wide(table: Table, line: int, cells: list[str]) -> list[str]:
    """A row with as many cells as the header; spreadsheets may leave away empty ones at the end."""
    width = len(table.header)
    if len(cells) > width:
        raise ValueError(
            f"{table.at(line)}: expected {width} cells, got {len(cells)}; "
            f"a cell with {table.delimiter!r} in it needs quotes around it"
        )
    others = {*DELIMITERS} - {table.delimiter}
    if len(cells) < width and any("".join(cells).count(c) >= width - 1 > 0 for c in others):
        raise ValueError(
            f"{table.at(line)}: expected {width} cells with {table.delimiter!r} between them, "
            f"got {len(cells)}"
        )
    return cells + [""] * (width - len(cells))


def clean(cell: str) -> str:
    """A cell without space around it, of whatever width, and byte order marks; é is one letter."""
    return unicodedata.normalize("NFC", cell.strip().strip("\ufeff\u200b").strip())


def number(cell: str, what: str, most: float = math.inf) -> float:
    """A number of a table, with a point or a comma before its decimals; 0 where it is empty.

    Raises:
        ValueError: if it is none, negative, over ``most``, or what a spreadsheet made a date of.
    """
    text = clean(cell)
    if not text:
        return 0.0
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) else math.nan
    if not 0 <= value <= most or value == math.inf:
        bound = "" if most == math.inf else f" to {most:g}"
        raise ValueError(f"expected {what} to be a number from 0{bound}, got {text!r}")
    return value


def csv_text(columns: list[str], rows: list[dict[str, str]]) -> str:
    """A CSV file in which no cell is a formula."""
    return in_cells([columns, *([row[name] for name in columns] for row in rows)])


def in_cells(rows: list[list[str]], delimiter: str = ",", newline: str = "\n") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=newline)
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return file.getvalue()


def harmless(text: str) -> str:
    """A cell that a spreadsheet takes for text."""
    text = printable(text).replace("\n", " ")
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def printable(text: str) -> str:
    """Text without what would steer a terminal or hide from a reader."""
    return "".join(
        c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text.expandtabs(4)
    )
