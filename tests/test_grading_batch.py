"""Three hundred submissions of the light assignment: however they are graded, the same grades."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote

import pytest

from dgm_course.files import write_whole
from dgm_course.grading.batch import run_seed, shard
from dgm_course.grading.results import file_name
from dgm_course.grading.submissions import Entry
from tests.grading import light
from tests.grading.bad import BAD
from tests.needs import needs

DGM = [sys.executable, "-m", "dgm_course.cli"]
N = 300
POISON = [
    "os._exit in a function",
    "kills everything",
    "forged frames",
    "a pickle as a frame",
    "segmentation fault",
    "leaves a thread and a child",
    "a child that outlives the call",
    "modules beside it",
]
DAMAGED = ["truncated", "empty file", "a PDF", "200 MB", "deep JSON", "a link", "a pipe", "nothing"]


def fill(folder: Path) -> None:
    """Most damaged, which is quick; of the others most right, among wrong ones and poison."""
    texts = [json.dumps(light.submission(answer_1=text)) for text in ("", light.SOFTMAX)]
    for i in range(N):
        student = folder / "submissions" / f"s{i:03d}"
        student.mkdir(parents=True)
        if i % 6 != 1:
            BAD[DAMAGED[i // 3 % len(DAMAGED)]].make(student)
        elif i % 36 == 1:
            BAD[POISON[i // 36 % len(POISON)]].make(student)
        else:
            (student / "light.ipynb").write_text(texts[i % 5 > 0])


def start(folder: Path, out: str, *options: str) -> subprocess.Popen[bytes]:
    words = [*light.command("grade", folder, "submissions", out), "--seed", "11", *options]
    return subprocess.Popen([*DGM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=1500)
    assert process.returncode == 0, said.decode()[-2000:]


def report(folder: Path, out: str) -> None:
    words = light.command("report", folder, out=out)
    subprocess.run([*DGM, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of submissions, graded one after the other into ``serial``."""
    made = tmp_path_factory.mktemp("batch")
    light.write_source(made)
    fill(made)
    finish(start(made, "serial", "--jobs", "1"))
    return made


def grades(folder: Path, out: str) -> str:
    return (folder / out / "grades.csv").read_text()


@needs("bubblewrap")
@pytest.mark.slow
def test_nobody_is_lost_and_everybody_gets_their_due(folder: Path) -> None:
    rows = [line.split(",") for line in grades(folder, "serial").splitlines()[1:]]
    assert [row[3] for row in rows] == [f"s{i:03d}" for i in range(N)]
    for i, row in enumerate(rows):
        poison = BAD[POISON[i // 36 % len(POISON)]] if i % 36 == 1 else None
        due = 0 if i % 6 != 1 else poison.points if poison else 8 if i % 5 > 0 else 5
        assert float(row[7]) == due, row


@needs("bubblewrap")
@pytest.mark.slow
def test_two_shards_killed_at_ten_random_moments_give_the_same_grades(folder: Path) -> None:
    """Side by side, one of them with two jobs; one and the other is killed and begun again."""

    def begin(i: int) -> subprocess.Popen[bytes]:
        return start(folder, "killed", "--shard", f"{i}/2", "--jobs", str(i + 1))

    chance = random.Random(5)
    out, done = folder / "killed" / "results", 0
    shards = [begin(0), begin(1)]
    for i in [0, 1] * 5:
        enough = done + chance.randrange(20)
        while len([*out.glob("*.json")]) < enough and shards[i].poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.2))
        assert shards[i].poll() is None  # it is killed in the middle
        shards[i].send_signal(signal.SIGKILL)
        shards[i].communicate()
        results = [json.loads(path.read_text()) for path in out.glob("*.json")]
        assert all(result["student"] and result["tests"] for result in results)
        assert done <= len(results)
        done = len(results)
        shards[i] = begin(i)
    for process in shards:
        finish(process)
    report(folder, "killed")
    assert grades(folder, "killed") == grades(folder, "serial")


# --- the parts --------------------------------------------------------------------------------


def test_shards_share_the_students_and_leave_none_out() -> None:
    entries = [Entry(f"s{i // 2}", str(i % 2), Path()) for i in range(14)]
    shards = [shard(entries, i, 3) for i in range(3)]
    assert sorted(entry for part in shards for entry in part) == sorted(entries)
    students = [{entry.student for entry in part} for part in shards]
    assert not students[0] & students[1] | students[1] & students[2] | students[0] & students[2]


def test_a_run_keeps_its_seed(tmp_path: Path) -> None:
    seed = run_seed(tmp_path / "out", "light", None)
    assert run_seed(tmp_path / "out", "light", None) == seed
    assert run_seed(tmp_path / "out", "light", seed) == seed
    with pytest.raises(ValueError, match="was begun with --seed"):
        run_seed(tmp_path / "out", "light", seed + 1)
    with pytest.raises(ValueError, match="grades of light"):
        run_seed(tmp_path / "out", "pixelcnn", None)


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grades.csv"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "student", ["a", "ä b", "../x", "a/b", "a@b", "=1+1", "\x1b[2J", "x" * 300, "ä" * 200, "\udcff"]
)
def test_names_of_files_stay_in_their_folder(student: str) -> None:
    name = file_name(student, "1")
    assert "/" not in name
    assert len(name) < 250
    assert name.isascii()
    assert name.isprintable()
    assert len({file_name(student), file_name(student, "1"), file_name(f"{student}@1")}) == 3
    assert file_name(student) != file_name(student + "x")


@needs("bubblewrap")
def test_the_teachers_notes_example_grades_two_shards(tmp_path: Path) -> None:
    """As a SLURM array would run it, on four submissions of the light assignment."""
    notes = Path(__file__).parent.parent / "docs" / "teaching" / "grading.md"
    (script,) = re.findall(r"```sh\n(.*?)```", notes.read_text(), re.DOTALL)
    folder, python = quote(str(tmp_path / "assignments")), quote(sys.executable)
    script = script.replace("pixelcnn", f"light --assignments {folder}")
    script = script.replace("dgm ", f"{python} -m dgm_course.cli ")
    light.write_source(tmp_path)
    for i in range(4):
        light.write(light.submission(), tmp_path / "submissions" / f"s{i}" / "light.ipynb")
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    folders = {"SUBMISSIONS": str(tmp_path / "submissions"), "OUT": str(tmp_path / "out")}
    shards = [
        subprocess.Popen(
            ["bash", "-c", script],
            env={**os.environ, **array, **folders, "SLURM_ARRAY_TASK_ID": str(i)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for i in (0, 1)
    ]
    for process in shards:
        finish(process)
    report(tmp_path, "out")
    rows = [line.split(",") for line in grades(tmp_path, "out").splitlines()[1:]]
    assert [(row[3], row[7]) for row in rows] == [(f"s{i}", "8.0") for i in range(4)]
