"""python -m tests.kills: kill -9 at ten random steps of a run by two ranks; is the end the same?

Each run is killed once, in one of its ranks, and resumed. Prints a line for each.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from pathlib import Path

import torch

from dgm_course.runs.history import read_history
from tests.ranks import Event, run

N_STEPS, EVERY = 60, 10
GIVEN = ["iwae", "--tiny"]
for pair in (f"steps={N_STEPS}", f"save_every={EVERY}", "samples=10"):
    GIVEN += ["--set", pair]


def end_of(out: Path) -> str:
    """A digest of the weights and of the history without its clock."""
    state = torch.load(out / "checkpoints" / f"step-{N_STEPS:07d}.pt", weights_only=True)
    digest = hashlib.sha256()
    for weight in state["model"].values():
        digest.update(weight.numpy().tobytes())
    for line in read_history(out / "history.jsonl"):
        digest.update(str({**line, "seconds": 0}).encode())
    return digest.hexdigest()[:16]


def main() -> int:
    draw, different = random.Random(23), 0
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder, "alone")
        run(alone, *GIVEN, n=2)
        print(f"not killed: {end_of(alone)}", flush=True)
        for i in range(10):
            out, step, rank = Path(folder, str(i)), draw.randrange(1, N_STEPS), draw.randrange(2)
            codes = run(out, *GIVEN, n=2, event=Event("kill", step, rank)).codes
            said = run(out, *GIVEN, "--resume", n=2).said.splitlines()
            how = next(line for line in said if line.startswith(("resumed", "no checkpoint")))
            how = how.partition(f" in {out}")[0]
            found = end_of(out)
            different += found != end_of(alone)
            print(
                f"rank {rank} killed at step {step}, exit codes {codes}: {how}; end {found}",
                flush=True,
            )
    print(f"{10 - different} of 10 ends are the same to the bit")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
