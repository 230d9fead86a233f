"""python -m docs.site.frames: record the panels of every lecture, for the site (`make frames`).

A lecture's notebook is executed, and each of its panels is driven over the values of its controls.
The frames are kept in _site/frames under a hash of the notebook and the package, so that a lecture
that has not changed is not recorded again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "_site" / "frames"
QUICK_FRAMES = 5  # a panel, with a twentieth of the training: for tests of the site
QUICK_STEPS = 10  # of a film


def key(notebook: Path, quick: bool) -> str:
    """The name of a lecture's frames: they change when its notebook or the package does."""
    digest = hashlib.sha256()
    results = sorted((notebook.parent / "results").glob("*.npz"))
    for path in [notebook, *results, *sorted((ROOT / "dgm_course").rglob("*.py")), Path(__file__)]:
        digest.update(path.read_bytes())
    return f"{notebook.stem}-{'quick-' if quick else ''}{digest.hexdigest()[:12]}"


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
    (unfinished / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


def record_all(notebooks: list[Path], quick: bool) -> dict[Path, Path]:
    """Each lecture's folder of frames. Each is run in a process of its own, two at a time."""
    folders = {notebook: CACHE / key(notebook, quick) for notebook in notebooks}
    missing = [n for n, folder in folders.items() if not (folder / "manifest.json").is_file()]
    os.environ["OMP_NUM_THREADS"] = "1"  # two processes on two cores
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch.optim", "matplotlib.figure", "sklearn.datasets"])
    with ProcessPoolExecutor(2, mp_context=processes, max_tasks_per_child=1) as pool:
        recorded = pool.map(record_lecture, missing, itertools.repeat(quick))
        list(tqdm(recorded, "recording", len(missing), unit="lecture", disable=not missing))
    return folders


def table(folders: dict[Path, Path]) -> str:
    """Frames and bytes of each panel, as Markdown."""
    lines = ["| lecture | panel | frames | kB |", "|---|---|---|---|"]
    for notebook, folder in folders.items():
        for cell_id, panel in json.loads((folder / "manifest.json").read_text()).items():
            names = {name for name, _ in panel["frames"].values()}
            size = sum((folder / name).stat().st_size for name in names)
            row = f"| {notebook.stem[:2]} | {cell_id} | {len(panel['frames'])} | {size // 1000} |"
            lines.append(row)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few frames, short training")
    options = parser.parse_args()
    from dgm_course.lectures.notebooks import LECTURES

    folders = record_all(LECTURES, options.quick)
    current = {folder.name for folder in folders.values()}
    for old in CACHE.iterdir():  # of notebooks as they were
        if old.name not in current and ("-quick-" in old.name) == options.quick:
            shutil.rmtree(old)
    print(table(folders))


if __name__ == "__main__":
    main()
