"""Whose a submission is, and what of it is read, in folders, archives and downloads."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import re
import socket
import struct
import tarfile
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading import files
from dgm_course.grading.results import check_names, file_name
from dgm_course.grading.submissions import Entry, Unreadable, digest, find, read

NAME = "pixelcnn"
Tree = Mapping[str, bytes]  # contents by path; a path that ends with "/" is an empty folder


def write(tree: Tree, top: Path) -> Path:
    for name, data in tree.items():
        path = top / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return top


def zipped(tree: Tree, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(tree: Tree, *again: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in [*tree.items(), *again]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def taken(entry: Entry) -> tuple[bytes, bytes, str]:
    """The notebook, the weights, and what is said."""
    try:
        handed_in = read(entry, NAME)
    except Unreadable as error:
        return b"", b"", str(error)
    return handed_in.notebook, handed_in.files.get("weights.npz", b""), "; ".join(handed_in.notes)


def all_of(source: Path) -> dict[str, tuple[bytes, bytes, str]]:
    """What is read of each, by student and attempt."""
    entries, _ = find(source, NAME)
    assert len({(entry.student, entry.attempt) for entry in entries}) == len(entries)
    for entry in entries:
        digest(entry)
    return {f"{e.student}/{e.attempt}".rstrip("/"): taken(e) for e in entries}


def only(tree: Tree, tmp_path: Path) -> tuple[bytes, bytes, str]:
    """What is read of the one student in a tree."""
    (one,) = all_of(write(tree, tmp_path / "all")).values()
    return one


# --- what platforms give to download --------------------------------------------------------

MOODLE = "_assignsubmission_file_"
DOWNLOADS: dict[str, tuple[Tree, dict[str, tuple[bytes, bytes, str]]]] = {
    "Moodle, in folders": (
        {
            f"Anna Meier_11{MOODLE}/pixelcnn.ipynb": b"anna",
            f"Anna Meier_11{MOODLE}/weights.npz": b"w",
            "Anna Meier_11_assignsubmission_onlinetext_/onlinetext.html": b"hello",
            f"Ben Q_12{MOODLE}/Abgabe/pixelcnn.ipynb": b"ben",
            f"Cid_13{MOODLE}/abgabe.zip": zipped(
                {"abgabe/pixelcnn.ipynb": b"cid", "abgabe/weights.npz": b"v"}
            ),
            f"Dora_14{MOODLE}/.ipynb_checkpoints/pixelcnn-checkpoint.ipynb": b"dora",
            f"Eve_15{MOODLE}/abgabe.rar": b"Rar!\x1a\x07\x00",
            f"Finn_16{MOODLE}/": b"",
            "Gus_17_assignsubmission_onlinetext/onlinetext.html": b"<p>see my mail</p>",
            f"Anna Meier_18{MOODLE}/pixelcnn-Copy1.ipynb": b"her namesake",
            "Default group_assignsubmission_file/pixelcnn.ipynb": b"a team",
            "grading worksheet.csv": b"Identifier",
        },
        {
            "Anna Meier_11": (b"anna", b"w", ""),
            "Ben Q_12": (b"ben", b"", ""),
            "Cid_13": (b"cid", b"v", ""),
            "Dora_14": (b"dora", b"", "Jupyter's own copy"),
            "Eve_15": (b"", b"", "abgabe.rar (a RAR archive, which is not read: ask for a zip)"),
            "Finn_16": (b"", b"", "there is no notebook"),
            "Gus_17": (b"", b"", "onlinetext.html"),
            "Anna Meier_18": (b"her namesake", b"", "is named pixelcnn-Copy1.ipynb"),
            "Default group": (b"a team", b"", ""),
        },
    ),
    "Moodle, beside one another": (
        {
            f"Anna Meier_11{MOODLE}pixelcnn.ipynb": b"anna",
            f"Anna Meier_11{MOODLE}weights.npz": b"w",
            "Anna Meier_11_assignsubmission_onlinetext_onlinetext.html": b"hello",
            f"Participant_12{MOODLE}my_best_work.ipynb": b"blind",
            f"Mallory_13{MOODLE}Anna Meier_11{MOODLE}pixelcnn.ipynb": b"mallory",
        },
        {
            "Anna Meier_11": (b"anna", b"w", "onlinetext.html"),
            "Participant_12": (b"blind", b"", "is named my_best_work.ipynb"),
            "Mallory_13": (b"mallory", b"", ""),
        },
    ),
    "Canvas": (
        {
            "meieranna_123_9001_pixelcnn-1.ipynb": b"anna",
            "meieranna_123_9002_weights-1.npz": b"w",
            "meieranna_124_9003_pixelcnn.ipynb": b"her namesake",
            "osbornben_LATE_125_9004_pixelcnn.ipynb": b"ben",
            "osbornben_LATE_125_9005_weights.npz": b"v",
            "cid_126_9006_homework.zip": zipped({"pixelcnn.ipynb": b"cid"}),
            "dora_127_9007_report.pdf": b"%PDF",
            "eve_128_text.html": b"see my mail",
            "LATE_anon_x1y2z_9008_pixelcnn.ipynb": b"nobody",
            "anon_9zz9z_9009_pixelcnn.ipynb": b"another",
        },
        {
            "meieranna_123": (b"anna", b"w", "weights-1.npz is taken for weights.npz"),
            "meieranna_124": (b"her namesake", b"", ""),
            "osbornben_125": (b"ben", b"v", "handed in late, says Canvas"),
            "cid_126": (b"cid", b"", ""),
            "dora_127": (b"", b"", "report.pdf"),
            "eve_128": (b"", b"", "text.html"),
            "anon_x1y2z": (b"nobody", b"", "handed in late, says Canvas"),
            "anon_9zz9z": (b"another", b"", ""),
        },
    ),
    "Blackboard": (
        {
            "HW 1_anna_attempt_2024-05-03-23-58-01_pixelcnn.ipynb": b"first",
            "HW 1_anna_attempt_2024-05-03-23-58-01.txt": b"Name: Anna",
            "HW 1_anna_attempt_2024-05-04-09-00-00_pixelcnn.ipynb": b"second",
            "HW 1_ben_attempt_2024-05-03-10-00-00_pixelcnn.ipynb": b"ben",
            "HW 1_ben_attempt_2024-05-03-10-00-00_weights.npz": b"w",
        },
        {
            "anna/2024-05-03-23-58-01": (b"first", b"", ""),
            "anna/2024-05-04-09-00-00": (b"second", b"", ""),
            "ben": (b"ben", b"w", ""),
        },
    ),
    "nbgrader": (
        {
            "anna/pixelcnn/pixelcnn.ipynb": b"anna",
            "anna/pixelcnn/timestamp.txt": b"2024-05-03 10:00:00 UTC",
            "anna/flows/flows.ipynb": b"another assignment",
            "ben/pixelcnn/pixelcnn.ipynb": b"ben",
            "ben/pixelcnn/weights.npz": b"w",
        },
        {
            "anna": (b"anna", b"", "the folder pixelcnn, not flows"),
            "ben": (b"ben", b"w", ""),
        },
    ),
    "plain": (
        {
            "anna/pixelcnn.ipynb": b"anna",
            "anna/weights.npz": b"w",
            "ben.ipynb": b"ben",
            "cid/1/pixelcnn.ipynb": b"first",
            "cid/2/pixelcnn.ipynb": b"second",
            "dora.zip": zipped({"dora/Abgabe/code/pixelcnn.ipynb": b"dora"}),
            "eve.rar": b"Rar!\x1a\x07\x00",
            "pixelcnn-finn/notebooks/pixelcnn.ipynb": b"of a repository",
            "pixelcnn-finn/README.md": b"",
            "students.csv": b"student_id",
        },
        {
            "anna": (b"anna", b"w", ""),
            "ben": (b"ben", b"", ""),
            "cid/1": (b"first", b"", ""),
            "cid/2": (b"second", b"", ""),
            "dora": (b"dora", b"", ""),
            "eve": (b"", b"", "ask for a zip"),
            "pixelcnn-finn": (b"of a repository", b"", "not read: README.md"),
        },
    ),
}


RUN: Tree = {"students.csv": b"", "grades/run.json": b"{}", "grades/results/a.json": b"{}"}
FORMS = {
    "folder": lambda tree, at: write(tree, at),
    "zip": lambda tree, at: at.write_bytes(zipped(tree)),
    "zip of a folder": lambda tree, at: at.write_bytes(
        zipped({f"course-1/{name}": data for name, data in tree.items()})
    ),
}
# In these forms a download is known by its names; others look as one student's there.
WITHIN = {
    "folder in a folder": lambda tree, at: write(RUN, write(tree, at / "course-1").parent),
    "zip in a folder": lambda tree, at: write({"c.zip": zipped(tree), **RUN}, at),
}
CASES = [(name, form) for name in DOWNLOADS for form in FORMS]
CASES += [(name, form) for name in ("Moodle, in folders", "Canvas") for form in WITHIN]


@pytest.mark.parametrize(("platform", "form"), CASES)
def test_a_download_is_read_as_it_is(platform: str, form: str, tmp_path: Path) -> None:
    tree, expected = DOWNLOADS[platform]
    source = tmp_path / "all"
    {**FORMS, **WITHIN}[form](tree, source)
    found = all_of(source)
    assert {name: one[:2] for name, one in found.items()} == {
        name: one[:2] for name, one in expected.items()
    }
    for name, (_, _, said) in expected.items():
        assert said in found[name][2]


def test_a_download_among_other_submissions_is_nobodys(tmp_path: Path) -> None:
    names = [f"{student}{MOODLE}/pixelcnn.ipynb" for student in ("Anna_1", "Ben_2")]
    download = zipped(dict.fromkeys(names, b"x"))
    tree = {"anna/pixelcnn.ipynb": b"anna", "course.zip": download}
    tree |= {f"course 2/{name}": b"x" for name in names}
    found = all_of(write(tree, tmp_path))
    assert found["anna"] == (b"anna", b"", "")
    assert "several students" in found["course"][2]
    assert "several students" in found["course 2"][2]
    assert len(found) == 3


# --- which notebook ---------------------------------------------------------------------------

CHECKPOINT = ".ipynb_checkpoints/pixelcnn-checkpoint.ipynb"
WHICH: dict[str, tuple[Tree, bytes, str]] = {
    "a checkpoint beside it": ({CHECKPOINT: b"old", "pixelcnn.ipynb": b"new"}, b"new", ""),
    "a checkpoint beside another name": (
        {CHECKPOINT: b"old", "solved.ipynb": b"new"},
        b"new",
        "is named solved.ipynb",
    ),
    "a checkpoint in a folder": (
        {CHECKPOINT: b"old", f"x/{CHECKPOINT}": b"old", "x/pixelcnn.ipynb": b"new"},
        b"new",
        "",
    ),
    "a checkpoint outside of its folder": (
        {"pixelcnn-checkpoint.ipynb": b"old", "z.ipynb": b"new"},
        b"new",
        "is named z.ipynb",
    ),
    "Jupyter's copy": (
        {"pixelcnn-Copy1.ipynb": b"old", "pixelcnn.ipynb": b"new"},
        b"new",
        "2 notebooks: graded pixelcnn.ipynb, not pixelcnn-Copy1.ipynb; needs a look",
    ),
    "a browser's copy": ({"a.ipynb": b"old", "pixelcnn (1).ipynb": b"new"}, b"new", "2 notebooks"),
    "Colab's copy": ({"a.ipynb": b"old", "Kopie von pixelcnn.ipynb": b"new"}, b"new", "2 notebo"),
    "the nearer of two": ({"old/pixelcnn.ipynb": b"old", "pixelcnn.ipynb": b"new"}, b"new", "2 no"),
    "capitals": ({"PixelCNN.IPYNB": b"new"}, b"new", "is named"),
    "a checkpoint beside an archive": (
        {CHECKPOINT: b"old", "all.zip": zipped({"x/pixelcnn.ipynb": b"new"}), "weights.npz": b""},
        b"new",
        "",
    ),
    "pictures named as on Canvas": (
        {"pixelcnn.ipynb": b"new", "loss_10_20_a.png": b"", "error_10_20_a.png": b""},
        b"new",
        "not read: error_10_20_a.png, loss_10_20_a.png",
    ),
    "what other systems leave": (
        {"__MACOSX/._pixelcnn.ipynb": b"x", "~$pixelcnn.ipynb": b"x", "pixelcnn.ipynb": b"new"},
        b"new",
        "",
    ),
}


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "zip in a zip", "an attempt"])
@pytest.mark.parametrize("case", WHICH)
def test_of_several_notebooks(case: str, form: str, tmp_path: Path) -> None:
    tree, notebook, said = WHICH[case]
    tree = {f"work/{name}": data for name, data in tree.items()}
    forms: dict[str, Tree] = {
        "folder": {f"anna/{name}": data for name, data in tree.items()},
        "zip": {"anna.zip": zipped(tree)},
        "tar": {"anna.tgz": gzip.compress(tarred(tree))},
        "zip in a zip": {"anna/work.zip": zipped({"again.zip": zipped(tree)})},
        "an attempt": {"anna/other/x.ipynb": b"", **{f"anna/{name}": tree[name] for name in tree}},
    }
    found = all_of(write(forms[form], tmp_path / "all"))
    got = found["anna/work" if form == "an attempt" else "anna"]
    assert got[0] == notebook
    prefixes = "anna.zip/work/", "anna.tgz/work/", "work.zip/again.zip/work/", "work/"
    text = got[2]
    for prefix in prefixes:
        text = text.replace(prefix, "")
    assert said in text
    assert said or not text


def test_weights_beside_the_notebook_count(tmp_path: Path) -> None:
    tree = {"a/b/weights.npz": b"old", "a/x/pixelcnn.ipynb": b"n", "a/x/weights (1).npz": b"new"}
    assert only(tree, tmp_path)[:2] == (b"n", b"new")
    other = {"a/pixelcnn.ipynb": b"n", "a/weights.zip": zipped({"weights.npz": b"w"})}
    assert only(other, tmp_path / "2")[:2] == (b"n", b"w")


def test_of_equal_names_in_an_archive_the_last_counts(tmp_path: Path) -> None:
    tree = {"PK/pixelcnn.ipynb": b"old", "PK/weights.npz": b"old"}
    again = ("PK/pixelcnn.ipynb", b"new"), ("PK/weights.npz", b"new")
    notebook, weights, said = only({"anna.tar": tarred(tree, *again)}, tmp_path)
    assert (notebook, weights) == (b"new", b"new")
    assert "2 notebooks" in said


def test_names_in_a_download_that_lead_outside_are_nobodys(tmp_path: Path) -> None:
    names = ["/etc/pixelcnn.ipynb", "../x/pixelcnn.ipynb", "anna/../ben/pixelcnn.ipynb"]
    tree = {**dict.fromkeys(names, b"bad"), "ben/pixelcnn.ipynb": b"ben"}
    (tmp_path / "all").write_bytes(zipped(tree))
    found = all_of(tmp_path / "all")
    assert found.pop("ben") == (b"ben", b"", "")
    assert {name: one[0] for name, one in found.items()} == {"etc": b"", "..": b"", "anna": b""}
    assert all("leads outside" in said for _, _, said in found.values())


# --- who is a student -------------------------------------------------------------------------


def test_results_of_a_run_and_litter_are_no_students(tmp_path: Path) -> None:
    run = {
        "run.json": b"{}",
        "results/anna.json": b"{}",
        "by_hand/scores.csv": b"",
        "grades.csv": b"",
    }
    tree = {f"grades/{name}": data for name, data in run.items()}
    tree |= {f"begun/{name}": run[name] for name in ["run.json"]}
    tree |= {f"old/{name}": data for name, data in run.items() if name != "run.json"}
    litter = ["__MACOSX/x.ipynb", ".ipynb_checkpoints/x.ipynb", "Thumbs.db", "desktop.ini"]
    litter += ["~$x.ipynb", ".DS_Store", "@eaDir/x.ipynb", "lost+found/", ".git/x.ipynb"]
    tree |= dict.fromkeys(litter, b"")
    own = ["anna/pixelcnn.ipynb", "anna/results/x.json", "anna/run.json", "results/pixelcnn.ipynb"]
    tree |= dict.fromkeys(own, b"")
    entries, others = find(write({**tree, "students.csv": b""}, tmp_path))
    assert [entry.student for entry in entries] == ["anna", "results"]
    ran = [f"{name} (results of a run)" for name in ("begun", "grades", "old")]
    assert others == [*ran, "students.csv"]


def test_results_beside_the_submissions_are_no_students(tmp_path: Path) -> None:
    tree = {
        "run.json": b"{}",
        "results/a.json": b"{}",
        "feedback/a.html": b"",
        "by_hand/x/a.txt": b"",
    }
    entries, others = find(write({**tree, "anna/pixelcnn.ipynb": b""}, tmp_path))
    assert [entry.student for entry in entries] == ["anna"]
    assert len(others) == 4


STUDENTS = [
    *("anna", "Anna", "ANNA", "anna.", "anna ", " anna", "é", "e\u0301", "RUBRIC", "rubric", "*"),
    *("scores", "run", "results", "con", "CON", "aux.x", "nul", "com1", "a@b", "a%40b", "=1+1"),
    *("'=1+1", "-1", "x" * 120, "X" * 120, "a\x1bb", "a\\x1bb", "a\nb", "a b", "(684888c0)"),
    *("a=1", "Rubric.txt", "a,b", '"', "<b>", "$(x)", "LPT9.txt"),
]


def folded(name: str) -> str:
    """As the least discerning file system that tells capitals apart sees it."""
    return unicodedata.normalize("NFC", name).rstrip(". ")


def test_no_student_takes_anothers_place(tmp_path: Path) -> None:
    """Each has a name of its own in tables, and files of its own on every system."""
    tree = {f"{name}/pixelcnn.ipynb": name.encode() for name in STUDENTS}
    entries, _ = find(write(tree, tmp_path))
    assert {taken(entry)[0].decode() for entry in entries} == {*STUDENTS}
    students = [entry.student for entry in entries]
    assert len({*students}) == len(STUDENTS) - 1  # é is one letter or two: two attempts of one
    assert {"anna", "Anna", "é", "RUBRIC", "=1+1", "a@b"} <= {*students}
    assert not {"*", "anna ", " anna", "a\x1bb"} & {*students}
    assert all(student.isprintable() for student in students)
    names = [file_name(student, attempt) for student in STUDENTS for attempt in ("", "1", "A")]
    assert len({folded(name) for name in [*names, "RUBRIC"]}) == len(names) + 1
    assert len({folded(f"{name}.txt") for name in [*names, "RUBRIC"]}) == len(names) + 1
    devices = {"con", "nul", "com1", "aux", "lpt9", "rubric"}
    assert not any(name.split(".")[0].rstrip(" ").lower() in devices for name in names)
    assert not any(name.startswith((".", " ")) or name.endswith((".", " ")) for name in names)
    assert {file_name("."), file_name("..")} == {"%2E", "%2E%2E"}
    assert file_name("anna meier_11") == "anna meier_11"
    assert file_name("Anna Meier_11") == "Anna Meier_11"


def test_a_folder_that_takes_two_names_for_one_is_refused(tmp_path: Path) -> None:
    twins = [Entry("anna", "", tmp_path), Entry("Anna", "", tmp_path)]
    (tmp_path / "run.json").touch()
    check_names(tmp_path, twins)
    (tmp_path / "RUN.JSON").touch()  # as it were, on a file system without capitals
    check_names(tmp_path, [*twins[:1], Entry("Berta", "", tmp_path)])
    with pytest.raises(ValueError, match="anna and Anna are one name"):
        check_names(tmp_path, twins)


# --- one entry's fault ------------------------------------------------------------------------


def no_access(tree: Path, patch: pytest.MonkeyPatch) -> None:
    (tree / "bad").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "bad":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    patch.setattr(os, "scandir", refuse)


def vanish(tree: Path, patch: pytest.MonkeyPatch) -> None:
    write({"bad/pixelcnn.ipynb": b"x"}, tree)
    opened = files._open

    def gone(path: Path) -> Any:
        if "bad" in path.parts:
            raise FileNotFoundError(2, "No such file or directory")
        return opened(path)

    patch.setattr(files, "_open", gone)


def a_socket(tree: Path, patch: pytest.MonkeyPatch) -> None:
    (tree / "bad").mkdir()
    patch.chdir(tree / "bad")  # its path may have 108 characters
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("pixelcnn.ipynb")


def encrypted(name: str) -> bytes:
    data = bytearray(zipped({name: b"x" * 99}))
    for at in (6, data.index(b"PK\1\2") + 8):
        data[at] |= 1
    return bytes(data)


def method(number: int) -> bytes:
    data = bytearray(zipped({"pixelcnn.ipynb": b"x" * 99}))
    for at in (8, data.index(b"PK\1\2") + 10):
        data[at : at + 2] = struct.pack("<H", number)
    return bytes(data)


def place(tree: Tree) -> Callable[[Path, pytest.MonkeyPatch], object]:
    return lambda top, _: write(tree, top)


FAULTS: dict[str, tuple[str, Callable[[Path, pytest.MonkeyPatch], object]]] = {
    "a folder without access": ("Permission denied", no_access),
    "a file that vanishes": ("No such file", vanish),
    "a socket": ("not a regular file", a_socket),
    "a pipe": ("not a regular file", lambda top, _: os.mkfifo(top / "bad.ipynb")),
    "a link to nowhere": ("a link", lambda top, _: (top / "bad.ipynb").symlink_to("nowhere")),
    "a loop": ("a link", lambda top, _: (top / "bad.zip").symlink_to("bad.zip")),
    "not a zip": ("damaged", place({"bad.zip": b"PK\3\4 and no more"})),
    "text": ("damaged", place({"bad.tar.gz": b"hello"})),
    "a cut zip": ("damaged", place({"bad.zip": zipped({"pixelcnn.ipynb": b"x" * 999})[:90]})),
    "a cut gzip": (
        "damaged",
        place({"bad.tgz": gzip.compress(tarred({"a": os.urandom(9999)}))[:99]}),
    ),
    "rar named zip": ("a RAR archive, which is not read: ask", place({"bad.zip": b"Rar!\x1a\x07"})),
    "7z": ("a 7z archive, which is not read: ask", place({"bad.7z": b"7z\xbc\xaf\x27\x1c"})),
    "PDF named zip": ("a PDF", place({"bad.zip": b"%PDF-1.7"})),
    "encrypted": (
        "encrypted: ask for one without",
        place({"bad.zip": encrypted("pixelcnn.ipynb")}),
    ),
    "encrypted zip in a zip": (
        "encrypted",
        place({"bad.zip": zipped({"in.zip": encrypted("pixelcnn.ipynb")})}),
    ),
    "deflate64": ("packed in a way that is not read: ask", place({"bad.zip": method(9)})),
    "Zstandard": ("packed in a way that is not read", place({"bad.zip": method(93)})),
    "too deep": ("too deep", place({"bad/1/2/3/4/pixelcnn.ipynb": b"x"})),
    "too deep in a zip": ("too deep", place({"bad.zip": zipped({"1/2/3/4/pixelcnn.ipynb": b"x"})})),
    "outside": ("leads outside", place({"bad.zip": zipped({"../anna/pixelcnn.ipynb": b"x"})})),
    "outside, from Windows": (
        "outside",
        place({"bad.zip": zipped({"..\\x\\pixelcnn.ipynb": b"x"})}),
    ),
    "zips in one another": (
        "not read: bad.zip/b.zip/c.zip/d.zip",
        place({"bad.zip": zipped({"b.zip": zipped({"c.zip": zipped({"d.zip": b"PK"})})})}),
    ),
    "many files": (
        "10001 files, the limit is 10000",
        place({"bad.zip": zipped(dict.fromkeys(map(str, range(10_001)), b""), zipfile.ZIP_STORED)}),
    ),
}


@pytest.mark.parametrize("beside", [["anna"], []])
@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_students(
    case: str, beside: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, make = FAULTS[case]
    top = tmp_path / "all"
    top.mkdir()
    write({f"{name}/pixelcnn.ipynb": b"anna" for name in beside}, top)
    make(top, monkeypatch)
    found = all_of(top)
    notebook, _, why = found.pop("bad")
    assert notebook == b""
    assert said in why
    assert found == dict.fromkeys(beside, (b"anna", b"", ""))


def test_a_name_that_is_no_utf_8_is_one_students(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/b\xfcd/\xff")
    write({"anna/pixelcnn.ipynb": b"anna", "b\udcfcd/\udcff/pixelcnn.ipynb": b"x"}, tmp_path)
    found = all_of(tmp_path)
    assert [one[0] for one in found.values()] == [b"anna", b"x"]
    assert all(name.isprintable() for name in found)


def test_what_is_no_archive_of_submissions_is_said(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"PK and no more")
    with pytest.raises(ValueError, match=r"all\.zip cannot be read"):
        find(tmp_path / "all.zip")


# --- bounds -----------------------------------------------------------------------------------

ZEROS = bytes(950_000)
MANY = [f"{i}.ipynb" for i in range(240)]


def lying(size: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip whose notebook claims another size."""
    data = bytearray(zipped({"pixelcnn.ipynb": bytes(2_000_000)}, method))
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def overlapping(n: int) -> bytes:
    """A zip whose n members are the same bytes."""
    data = zipped({"a.ipynb": ZEROS})
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    last = bytearray(data[end:])
    last[8:16] = struct.pack("<HHI", n, n, n * (end - start))
    return data[:start] + n * data[start:end] + bytes(last)


def sparse() -> bytes:
    """A tar with one file of holes only, in GNU's old format."""
    info = tarfile.TarInfo("pixelcnn.ipynb")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (1_500_000, 0)
    header[483:495] = b"%011o\0" % 1_500_000
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + bytes(1024)


BOMBS: dict[str, tuple[str, Callable[[], Tree]]] = {
    "sixty notebooks": (
        "60 notebooks",
        lambda: {"bad.zip": zipped({f"{i}.ipynb": ZEROS for i in range(60)})},
    ),
    # newer Pythons refuse such an archive themselves
    "overlapping": ("400 notebooks|Overlapped entries", lambda: {"bad.zip": overlapping(400)}),
    "too large": ("2000000 bytes, the limit is", lambda: {"bad.zip": lying(2_000_000)}),
    "claims to be small": ("Bad CRC", lambda: {"bad.zip": lying(100)}),
    "bzip2, claims to be small": (
        "more than 1000000 bytes",
        lambda: {"bad.zip": lying(100, zipfile.ZIP_BZIP2)},
    ),
    "sixty archives": (
        "more than 5000000 bytes",
        lambda: {"bad.zip": zipped({f"{i}.zip": ZEROS for i in range(60)})},
    ),
    "an archive of archives of notebooks": (
        "480 notebooks",
        lambda: {
            "bad.zip": zipped(
                dict.fromkeys(
                    (f"{i}.zip" for i in range(8)),
                    zipped({f"{i}.ipynb": ZEROS for i in range(60)}),
                )
            )
        },
    ),
    "tar": (
        "more than 5000000 bytes",
        lambda: {"bad.tgz": gzip.compress(bytes(512) * 11_000, 1)},
    ),
    "tar.bz2": (
        "more than 5000000 bytes",
        lambda: {"bad.tar.bz2": bz2.compress(ZEROS) * 8},
    ),
    "many files in many archives": (
        "more than 500 files in all",
        lambda: {
            "bad.zip": zipped(
                dict.fromkeys((f"{i}.zip" for i in range(4)), zipped(dict.fromkeys(MANY, b"")))
            )
        },
    ),
    "a long name before many": (
        "its name has 60004 characters, the limit is 500",
        lambda: {"bad.zip": zipped({f"{'x' * 60_000}.zip": zipped(dict.fromkeys(MANY, b""))})},
    ),
    "sparse": ("1500000 bytes", lambda: {"bad.tar": sparse()}),
}


@pytest.mark.parametrize("case", BOMBS)
def test_what_is_unpacked_is_bounded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits of a twentieth, so that the bombs are made in no time."""
    monkeypatch.setattr(files, "LARGEST_SUM", files.LARGEST_SUM // 20)
    monkeypatch.setattr(files, "MEMBERS", files.MEMBERS // 20)
    for suffix, limit in files.LIMITS.items():
        monkeypatch.setitem(files.LIMITS, suffix, limit // 20)
    said, make = BOMBS[case]
    top = write({"anna/pixelcnn.ipynb": b"anna", **make()}, tmp_path)
    (size,) = [path.stat().st_size for path in top.glob("bad.*")]
    assert size < 500_000
    tracemalloc.start()
    try:
        entries, _ = find(top, NAME)
        digests = [digest(entry) for entry in entries]
        listed = tracemalloc.get_traced_memory()[1]
        found = {entry.student: taken(entry) for entry in entries}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert re.search(said, found["bad"][2])
    assert found["anna"] == (b"anna", b"", "")
    assert len({*digests}) == 2
    assert listed < 5_000_000
    assert peak < 13_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_are_read(method: int, tmp_path: Path) -> None:
    (tmp_path / "anna.zip").write_bytes(zipped({"pixelcnn.ipynb": b"anna" * 99}, method))
    assert all_of(tmp_path)["anna"][0] == b"anna" * 99


# --- what a result rests on -------------------------------------------------------------------

BEFORE: Tree = {
    f"Anna_1{MOODLE}/pixelcnn.ipynb": b"a",
    f"Anna_1{MOODLE}/x.ipynb": b"a",
    f"Ben_2{MOODLE}/all.zip": zipped({"b": b""}),
}
CHANGES: dict[str, tuple[set[str], Mapping[str, bytes | None]]] = {
    "the notebook": ({"Anna_1"}, {f"Anna_1{MOODLE}/pixelcnn.ipynb": b"b"}),
    "its size": ({"Anna_1"}, {f"Anna_1{MOODLE}/pixelcnn.ipynb": b"aa"}),
    "weights": ({"Anna_1"}, {f"Anna_1{MOODLE}/weights.npz": b"w"}),
    "a file that is not read": ({"Anna_1"}, {f"Anna_1{MOODLE}/note.txt": b""}),
    "an archive": ({"Ben_2"}, {f"Ben_2{MOODLE}/all.zip": zipped({"c": b""})}),
    "its name": ({"Anna_1"}, {f"Anna_1{MOODLE}/x.ipynb": None, f"Anna_1{MOODLE}/y.ipynb": b"a"}),
    "another student": (set(), {f"Cid_3{MOODLE}/pixelcnn.ipynb": b"a"}),
    "litter": (set(), {f"Anna_1{MOODLE}/.DS_Store": b"a", f"Anna_1{MOODLE}/Thumbs.db": b"a"}),
}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_digest_changes_with_what_is_handed_in(
    case: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.Reader, "read", lambda *_: pytest.fail("unpacked"))
    digests = []
    for i, changed in enumerate([BEFORE, {**BEFORE, **CHANGES[case][1]}]):
        tree = {name: data for name, data in changed.items() if data is not None}
        source = tmp_path / f"{i}"
        if form == "folder":
            write(tree, source)
        else:
            source.write_bytes(zipped(tree))
        digests.append({entry.student: digest(entry) for entry in find(source, NAME)[0]})
    before, after = digests
    assert {student for student in before if before[student] != after[student]} == CHANGES[case][0]


def test_folders_that_an_assistant_has_numbered_are_not_taken_for_canvas(tmp_path: Path) -> None:
    names = ["WS_2024_25_kunz", "WS_2024_25_meier", "group_1_2_b", "hw_anna_attempt_3"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "light.ipynb").write_bytes(b"{}")
    entries, others = find(tmp_path)
    assert ([entry.student for entry in entries], others) == (names, [])


def test_dated_and_numbered_files_are_not_taken_for_canvas(tmp_path: Path) -> None:
    names = ["WS_2024_25_kunz", "WS_2024_25_meier", "pixelcnn_2024_11_27", "group_3_2024_pixelcnn"]
    entries, _ = find(write({f"{name}.ipynb": b"" for name in names}, tmp_path))
    assert {entry.student for entry in entries} == {*names}
