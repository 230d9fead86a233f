"""python -m tests.benchmarks [MODULE ...]: every section's table, or that of the modules named.

A module of this folder with a tuple SECTIONS takes part; a section returns rows. The exit code is
1 if a ratio is over its limit.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import torch

from tests.benchmarks.harness import Row, table

MODULES = sorted(
    path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem != "harness"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    chosen = parser.parse_args().modules or MODULES
    if unknown := ", ".join(set(chosen) - set(MODULES)):
        parser.error(f"no module {unknown}; there are {', '.join(MODULES)}")
    torch.set_num_threads(1)
    rows: list[Row] = []
    for module in chosen:
        for section in import_module(f"tests.benchmarks.{module}").SECTIONS:
            print(f"... {module}: {section.__name__}", file=sys.stderr)
            rows += section()
    print(table(rows))
    return int(not all(row.held for row in rows))


if __name__ == "__main__":
    sys.exit(main())
