"""From a Moodle download to a CSV by the commands of the manual, with what happens in between."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.grading import light
from tests.needs import needs
from tests.test_grading_submissions import zipped

N = 40
WRONG = "def softmax(x):\n    return x\n"
SLOW = f"import time\ntime.sleep(1.2)\n{light.SOFTMAX}"


def notebook(answer: str = light.SOFTMAX) -> bytes:
    return json.dumps(light.submission(answer_1=answer)).encode()


# What students hand in, by the files in their folders, and what the tests give for it.
GRADED: list[tuple[dict[str, bytes], int]] = [
    ({"light.ipynb": notebook(SLOW)}, 8),
    ({"light.ipynb": notebook()}, 8),
    ({"light.ipynb": notebook(WRONG), "figure.png": b"\x89PNG"}, 5),
    ({"Abgabe/light.ipynb": notebook()}, 8),
    ({"abgabe.zip": zipped({"light.ipynb": notebook()})}, 8),
    ({"light (2).ipynb": notebook(WRONG)}, 5),
    ({"light.ipynb": notebook(), "weights.npz": b"none"}, 8),
    ({"light.ipynb": notebook("raise SystemExit")}, 5),
]
DAMAGED: list[dict[str, bytes]] = [
    {"light.pdf": b"%PDF-1.7"},
    {"light.ipynb": b""},
    {"light.ipynb": notebook()[:500]},
    {"abgabe.rar": b"Rar!\x1a\x07\x00"},
    {"light.ipynb": b"null"},
]


def name(i: int) -> str:
    return f"{'Ann Bob Cem Dóra Eve'.split()[i % 5]} Müller_{100 + i}"


def class_of_forty() -> tuple[dict[str, dict[str, bytes]], dict[str, float]]:
    """Everybody's files, and points: every fifth has a notebook that can be read."""
    files, due = {}, {}
    for i in range(N):
        has, due[name(i)] = GRADED[i // 5] if i % 5 == 0 else (DAMAGED[i // 5 % 5], 0)
        files[name(i)] = has
    return files, due


def download(files: dict[str, dict[str, bytes]], path: Path) -> None:
    """As Moodle's "Download all submissions"."""
    folders = {
        f"{student}_assignsubmission_file_/{file}": data
        for student, has in files.items()
        for file, data in has.items()
    }
    path.write_bytes(zipped(folders))


def in_spreadsheet(path: Path, points: Callable[[str], str]) -> None:
    """Fill in points and save as a spreadsheet does where the decimal sign is a comma."""
    text = path.read_bytes().decode("utf-8" if path.read_bytes()[:1] == b"s" else "cp1252")
    rows = [*csv.reader(io.StringIO(text), delimiter=";" if ";" in text else ",")]
    if rows[0][0] == "student_id":
        rows = [["Tutor", *row] for row in rows]
    for row in rows[1:]:
        row[4] = row[4] or points(row[1])
        row[5] = row[5] or "gut; nur knapp, „fast“"
    file = io.StringIO()
    csv.writer(file, delimiter=";", lineterminator="\r\n").writerows(rows)
    path.write_bytes(file.getvalue().encode("cp1252"))


@needs("bubblewrap")
def test_forty_submissions_from_zip_to_csv(tmp_path: Path) -> None:
    files, due = class_of_forty()
    light.write_source(tmp_path)
    out, moodle = tmp_path / "grades", tmp_path / "Numbers-light-4711.zip"
    download(files, moodle)

    def dgm(command: str, *options: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "dgm_course.cli"]
        words += [*light.command(command, tmp_path, moodle.name, out.name), *options]
        words += ["--jobs", "2", "--timeout", "3"] if command == "grade" else []
        pipe = subprocess.PIPE
        # A group of its own, as a terminal gives to each command: Ctrl-Z stops all of it.
        return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def finish(process: subprocess.Popen[str]) -> str:
        said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        return said

    def wait_for(n: int, process: subprocess.Popen[str]) -> None:
        while len([*out.glob("results/*.json")]) < n and process.poll() is None:
            time.sleep(0.02)

    def scores() -> dict[str, tuple[float, float]]:
        with open(out / "grades.csv", encoding="utf-8", newline="") as file:
            rows = {row["student_id"]: row for row in csv.DictReader(file)}
        return {who: (float(row["raw_score"]), float(row["score"])) for who, row in rows.items()}

    first = dgm("grade", "--seed", "3")
    wait_for(2, first)
    os.killpg(first.pid, signal.SIGSTOP)
    time.sleep(4)  # longer than a test may take
    os.killpg(first.pid, signal.SIGCONT)
    wait_for(25, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    said = finish(dgm("grade"))
    assert "of 40 are graded already" in said
    assert scores() == {who: (points, points) for who, points in due.items()}

    by_hand = {who: 0.5 * (i % 5) for i, who in enumerate(w for w in due if due[w])}
    by_hand[name(1)] = 0.5
    table = out / "by_hand" / "scores.csv"
    in_spreadsheet(table, lambda who: f"{by_hand[who]:.1f}".replace(".", ","))
    finish(dgm("report"))
    total = {who: points + by_hand.get(who, 0) for who, points in due.items() if who != name(1)}
    assert {who: score for who, (_, score) in scores().items() if who != name(1)} == total

    files[name(10)] = {"light.ipynb": notebook()}  # was wrong
    files[name(1)] = {"light.ipynb": notebook()}  # could not be read
    download(files, moodle)
    assert "38 of 40 are graded already" in finish(dgm("grade"))
    in_spreadsheet(table, lambda who: f"{by_hand[who]:.1f}".replace(".", ","))
    finish(dgm("report"))
    due |= {name(10): 8, name(1): 8}
    assert scores() == dict.fromkeys(due, ()) | {
        who: (points + by_hand.get(who, 0),) * 2 for who, points in due.items()
    }
    assert table.read_bytes().decode("cp1252").count("„fast“") == len(by_hand)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "timed out" not in page
    assert "not graded yet" not in page
