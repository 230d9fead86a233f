"""Whose a submission is, by its name: in the forms that learning platforms give to download."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

# How learning platforms name the folders or files of a student in what they give to download
# (Moodle 4's mod/assign/classes/downloader.php, Canvas's lib/content_zipper.rb).
LAYOUTS = [
    re.compile(pattern)
    for pattern in (
        # Moodle: Anna Meier_1234567_assignsubmission_file_/pixelcnn.ipynb, or without the slash
        r"(?P<student>.+?)_assignsubmission_[a-z]+(?:_(?P<file>.*))?",
        # Canvas: meieranna_LATE_12345_6789012_pixelcnn-1.ipynb, or without names
        r"(?P<late>LATE_)?(?P<student>anon_[^_]+)_(?:\d+_(?P<file>.+)|(?:text|link)\.html)",
        # (names in small letters and without spaces, long numbers: a date does not look so)
        r"(?P<name>[^_A-Z\s]+)(?P<late>_LATE)?(?P<id>_\d{2,})_"
        r"(?:\d{3,}_(?P<file>.+)|(?:text|link)\.html)",
        # Blackboard: Homework 1_ameier_attempt_2024-05-03-23-58-01_pixelcnn.ipynb
        r"(?:.*?_)?(?P<student>[^_]+)_attempt_(?P<attempt>\d{4}(?:-\d\d){5})_?(?P<file>.+)",
    )
]
NUMBERED = re.compile(r".*\([0-9a-f]{8}\)")  # names that `plain` makes


class Layout(NamedTuple):
    """What a platform's name says; "" where it says nothing."""

    student: str
    attempt: str
    file: str  # its name before the platform named it
    late: bool


def layout(name: str, *, is_folder: bool = False) -> Layout | None:
    """What the name of a file or folder says, if it is one that a platform gives."""
    # Moodle alone makes folders: "WS_2024_25_meier" is one that an assistant has named.
    for pattern in LAYOUTS[:1] if is_folder else LAYOUTS:
        if named := pattern.fullmatch(name):
            said = named.groupdict("")
            student = said.get("student") or said["name"] + said["id"]
            return Layout(student, said.get("attempt", ""), said["file"], bool(said.get("late")))
    return None


def is_several(names: Iterable[str]) -> bool:
    """Whether platforms give these names to submissions of more than one student."""
    return len({named.student for name in names if (named := layout(name))}) > 1


def plain(name: str) -> str:
    """A name that can stand in a table, and is no other's: itself, if it can.

    "*" is the rule for all there, and "'" what a spreadsheet puts before a formula.
    """
    can = name.isprintable() and name == name.strip() and name != "*" and name[:1] != "'"
    if can and not NUMBERED.fullmatch(name):
        return name
    shown = "".join(c if c.isprintable() else "_" for c in name).strip(" '*")
    digest = sha256(name.encode(errors="backslashreplace")).hexdigest()
    return f"{shown} ({digest[:8]})".strip()
