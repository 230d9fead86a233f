"""python -m docs.site.frames: record the panels of every lecture, for the site (`make frames`).

A lecture's notebook is executed, and each of its panels is driven over the values of its controls.
The frames are kept in _site/frames under a hash of the notebook, of the modules that it imports and
of the results that it names, so that a lecture that has not changed is not recorded again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from tqdm import tqdm

from dgm_course.data.stored import RESULTS
from dgm_course.lectures.notebooks import LECTURES

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "_site" / "frames"
RECORDERS_IMPORTS = """
from dgm_course import plots
from dgm_course.lectures import recording, rehearsal
"""
QUICK_FRAMES = 5  # a panel, with a twentieth of the training: for tests of the site
QUICK_STEPS = 10  # of a film


def key(notebook: Path, quick: bool) -> str:
    """The name of a lecture's frames: they change when what they are computed from does."""
    digest = hashlib.sha256()
    for path in [notebook, *depends_on(notebook), Path(__file__)]:
        digest.update(path.read_bytes())
    return f"{notebook.stem}-{'quick-' if quick else ''}{digest.hexdigest()[:12]}"


def depends_on(notebook: Path) -> list[Path]:
    """The package's files that a notebook imports, by itself or through others; its results.

    The recorder's own imports count for every notebook.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8")).get("cells", [])
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found: set[Path] = set()
    sources = [code, RECORDERS_IMPORTS]
    while sources:
        for path in set(_imported(sources.pop())) - found:
            found.add(path)
            sources.append(path.read_text(encoding="utf-8"))
    named = re.findall(r"results\(\"(\w+)\"\)", code)
    return sorted(found) + sorted(RESULTS / f"{name}.npz" for name in named)


def _imported(source: str) -> Iterator[Path]:
    """The files of dgm_course that a source imports, a package's own file with each of its."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for n in range(1, len(parts) + 1) if parts[0] == "dgm_course" else []:
                module = ROOT.joinpath(*parts[:n])
                files = [module / "__init__.py", module.with_suffix(".py")]
                yield from (file for file in files if file.is_file())


def record_lecture(notebook: Path, quick: bool, cache: Path = CACHE) -> Path:
    """Run a lecture in this process and write its frames and their manifest, if there are none."""
    from dgm_course import plots
    from dgm_course.lectures.recording import MAX_FRAMES, record
    from dgm_course.lectures.rehearsal import Rehearsal

    folder = cache / key(notebook, quick)
    if (folder / "manifest.json").is_file():
        return folder
    unfinished = cache / f"{folder.name}.unfinished-{os.getpid()}"
    unfinished.mkdir(parents=True)
    manifest = {}
    with mock.patch.object(plots, "show") if quick else nullcontext():  # the notebook has them
        panels = Rehearsal(notebook).run(quick=quick).panels
    budget = (QUICK_FRAMES, QUICK_STEPS) if quick else (MAX_FRAMES, None)
    for cell_id, panel in panels.items():
        recording = record(panel, budget[0], until=budget[1])
        frames = {}
        for state, (image, alt) in recording.frames.items():
            name = f"{hashlib.sha256(image).hexdigest()[:16]}.webp"  # equal pictures once
            (unfinished / name).write_bytes(image)
            frames[",".join(map(str, state))] = [name, alt]
        manifest[cell_id] = {
            "controls": [control._asdict() for control in recording.controls],
            "frames": frames,
            "film": recording.is_film,
            "size": recording.size,
        }
    text = json.dumps(manifest, ensure_ascii=False)
    (unfinished / "manifest.json").write_text(text, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


def record_all(notebooks: list[Path], quick: bool) -> dict[Path, Path]:
    """Each lecture's folder of frames. Each is run in a process of its own, two at a time."""
    folders = {notebook: CACHE / key(notebook, quick) for notebook in notebooks}
    missing = [n for n, folder in folders.items() if not (folder / "manifest.json").is_file()]
    os.environ["OMP_NUM_THREADS"] = "1"  # two processes on two cores
    os.environ["TQDM_DISABLE"] = "1"  # in those: one bar here, and not every lecture's training
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch.optim", "matplotlib.figure", "sklearn.datasets"])
    with ProcessPoolExecutor(2, mp_context=processes, max_tasks_per_child=1) as pool:
        recorded = pool.map(record_lecture, missing, itertools.repeat(quick))
        list(tqdm(recorded, "recording", len(missing), disable=not missing, unit="lecture"))
    return folders


def table(folders: dict[Path, Path]) -> str:
    """Frames and bytes of each panel, as Markdown."""
    lines = ["| lecture | panel | frames | kB |", "|---|---|---|---|"]
    for notebook, folder in folders.items():
        for cell_id, panel in json.loads((folder / "manifest.json").read_bytes()).items():
            names = {name for name, _ in panel["frames"].values()}
            size = sum((folder / name).stat().st_size for name in names)
            row = f"| {notebook.stem[:2]} | {cell_id} | {len(panel['frames'])} | {size // 1000} |"
            lines.append(row)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few frames, short training")
    options = parser.parse_args()
    folders = record_all(LECTURES, options.quick)
    current = {folder.name for folder in folders.values()}
    for old in CACHE.iterdir():  # of notebooks as they were
        if old.name not in current and ("-quick-" in old.name) == options.quick:
            shutil.rmtree(old)
    print(table(folders))


if __name__ == "__main__":
    main()
