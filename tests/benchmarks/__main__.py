"""python -m tests.benchmarks: every section's table; exit code 1 if a ratio is over its limit."""

from __future__ import annotations

import sys

import torch

from tests.benchmarks import planar
from tests.benchmarks.harness import Row, table


def main() -> int:
    torch.set_num_threads(1)
    rows: list[Row] = []
    for section in planar.SECTIONS:
        print(f"... {section.__name__}", file=sys.stderr)
        rows += section()
    print(table(rows))
    return int(not all(row.held for row in rows))


if __name__ == "__main__":
    sys.exit(main())
