"""What grading costs: many submissions of the real assignment, then a few with 1 and 2 jobs.

python -m tests.grading.scale 300 --jobs 2    # make grade-scale
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from dgm_course.grading.batch import Batch
from dgm_course.grading.grade import Assignment
from dgm_course.grading.submissions import find
from tests.assignment import SOURCE
from tests.grading.real import RIGHT, Real, fill, write


def run(folder: Path, out: str, jobs: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds, and the results in the order of students."""
    batch = Batch(Assignment.read(SOURCE), folder / out, seed=1)
    entries, _ = find(folder / "submissions")
    start = time.perf_counter()
    for _ in tqdm(batch.run(entries, jobs), total=len(entries), desc=f"{jobs} jobs"):
        pass
    seconds = time.perf_counter() - start
    return seconds, [json.loads(p.read_text()) for p in sorted((folder / out).glob("*/*.json"))]


def not_as_due(real: Real, result: dict[str, Any]) -> bool:
    """Whether a right submission lost a point, or a wrong one none at its task."""
    lost = [test["id"] for test in result["tests"] if test["points"] < test["out_of"]]
    if real.task:
        return real.task not in {name.removeprefix("test-")[0] for name in lost}
    return tuple(lost) != real.misses


def without_training(result: dict[str, Any]) -> float:
    """Seconds of a submission, less those of the training question."""
    training = sum(t["seconds"] for t in result["tests"] if t["id"].startswith("test-7"))
    return float(result["seconds"] - training)


@click.command()
@click.argument("n", type=int)
@click.option("--jobs", type=int, default=2)
def main(n: int, jobs: int) -> None:
    """Grade N submissions and say what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "many")
        chosen = fill(folder, n)
        seconds, results = run(folder, "out", jobs)
        pairs = list(zip(chosen, results, strict=True))
        wrong = [
            (real.name, result["student"]) for real, result in pairs if not_as_due(real, result)
        ]
        click.echo(f"{n} submissions, {jobs} jobs: {seconds:.0f} s; not as due: {wrong or 'none'}")
        few = Path(name, "few")
        for i in range(6):
            write(RIGHT[i], few / "submissions" / f"s{i}")
        for jobs in (1, 2):
            seconds, results = run(few, f"out{jobs}", jobs)
            cost = statistics.median(map(without_training, results))
            click.echo(
                f"{len(results)} right ones, {jobs} jobs: {seconds / len(results):.1f} s each; "
                f"median without the training question {cost:.1f} s"
            )


if __name__ == "__main__":
    main()
