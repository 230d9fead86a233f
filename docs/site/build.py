"""python -m docs.site.build: the site, in _site/html (`make site`; it works from a memory stick).

The sources are staged in _site/source, laid out as in the repository, so that links between
notebooks and notes hold. In the staged copy a panel's cell shows its recorded frames.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat

from dgm_course.lectures.ledger import read_ledger
from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.start import course_map
from dgm_course.lectures.tables import file_of, shown
from dgm_course.probability import read_likelihoods
from docs.site.frames import ROOT, record_all

SITE = ROOT / "_site"
HERE = Path(__file__).parent
SITE_MB, LECTURE_MB = 150, 6.5  # at most, with twenty-one lectures
NOT_SHOWN = {"__init__", "cli", "grading", "lectures", "runs"}  # commands have their --help
NOTES = {
    False: "Recorded, without a kernel: these are the pictures the model drew at these values.",
    True: "Recorded, without a kernel. Moving one slider puts the others back where they started.",
}
FILM_NOTE = "Recorded, without a kernel: one training run, step by step."


def repository() -> str:
    """The repository's address, from pyproject.toml; empty until it is known."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(settings["tool"]["dgm_course"]["repository"]).rstrip("/")


def badges(notebook: Path) -> str:
    """Links that open a notebook with a kernel; empty until the repository's address is known."""
    url = repository()
    owner_and_name = url.removeprefix("https://github.com/")
    if owner_and_name == url:  # both services know their own addresses for GitHub only
        return ""
    path = notebook.relative_to(ROOT).as_posix()
    up = "../" * (path.count("/"))
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/main?urlpath=lab/tree/{path}"
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{path}"
    return (
        f"[![Open in Binder]({up}docs/images/binder.svg)]({binder}) "
        f"[![Open in Colab]({up}docs/images/colab.svg)]({colab}) "
        f"(in Colab run `%pip install git+{url}` first)"
    )


# --- panels ---------------------------------------------------------------------------------


def panel_html(cell_id: str, panel: dict[str, Any], folder: str) -> str:
    """The markup of a recorded panel; panel.js moves it."""
    start = [control["start"] for control in panel["controls"]]
    file, alt = panel["frames"][",".join(map(str, start))]
    width, height = panel["size"]
    sliders = [i for i, c in enumerate(panel["controls"]) if c["kind"] in {"slider", "count"}]
    combinations = 1
    for control in panel["controls"]:
        combinations *= len(control["labels"])
    note = FILM_NOTE if panel["film"] else NOTES[len(panel["frames"]) < combinations]
    data = {"frames": panel["frames"], "start": start, "sliders": sliders, "folder": folder}
    controls = "".join(
        control_html(f"{cell_id}-{i}", control, panel["film"])
        for i, control in enumerate(panel["controls"])
    )
    script = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return (
        f'<div class="dgm-panel" id="panel-{cell_id}"><div class="dgm-controls">{controls}</div>'
        f'<img class="dgm-frame" src="{folder}{file}" alt="{html.escape(alt)}" width="{width}" '
        f'height="{height}"><p class="dgm-note">{note}</p>'
        f'<script type="application/json">{script}</script></div>'
    )


def control_html(name: str, control: dict[str, Any], is_film: bool) -> str:
    labels, start = control["labels"], control["start"]
    title = html.escape(control["name"])
    data = f"data-control data-labels='{html.escape(json.dumps(labels), quote=True)}'"
    if control["kind"] == "choice":
        radios = "".join(
            f'<label><input type="radio" name="{name}" value="{i}"{" checked" * (i == start)}> '
            f"{html.escape(label)}</label>"
            for i, label in enumerate(labels)
        )
        return f"<fieldset {data}><legend>{title}</legend>{radios}</fieldset>"
    if control["kind"] == "tick":
        checked = " checked" * (start == 1)
        return f'<div {data}><label><input type="checkbox"{checked}> {title}</label></div>'
    play = '<button type="button" class="dgm-play">Play</button>'
    if is_film:
        play += '<button type="button" class="dgm-step">Step</button>'
        play += '<button type="button" class="dgm-reset">Reset</button>'
    return (
        f'<div {data}>{play * (control["kind"] == "count")}<label for="{name}">{title}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(labels) - 1}" step="1" '
        f'value="{start}" aria-valuetext="{html.escape(labels[start])}">'
        f"<output>{html.escape(labels[start])}</output></div>"
    )


# --- staging --------------------------------------------------------------------------------


def stage(site: Path, lectures: dict[Path, Path]) -> Path:
    """Lay out the sources, the frames and the scripts; the folder of the sources."""
    source, extra = site / "source", site / "extra"
    for folder in (source, extra, site / "scripts"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "teaching").glob("*.md")]
    handed_out = sorted((ROOT / "notebooks" / "assignments").glob("*/release/**/*.ipynb"))
    there = {*pages, *lectures, *handed_out}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        write(source, page.relative_to(ROOT), mend_links(text, page, there))
    shutil.copytree(ROOT / "docs" / "images", source / "docs" / "images")
    for notebook, frames in lectures.items():
        shutil.copytree(frames, extra / "frames" / notebook.stem)
        stage_notebook(source, notebook, there, json.loads((frames / "manifest.json").read_bytes()))
        (extra / "frames" / notebook.stem / "manifest.json").unlink()
    for notebook in handed_out:
        stage_notebook(source, notebook, there, {})
    for path in sorted((ROOT / "dgm_course").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not {*parts} & NOT_SHOWN:
            write(source, Path("reference", f"{'.'.join(parts)}.md"), reference(parts))
    write(source, Path("reference", "index.md"), toctree("The library", ["dgm_course*"]))
    write(source, Path("teaching.md"), toctree("For lecturers", ["docs/teaching/*"]))
    write(source, Path("course_map.md"), course_map())
    write(source, Path("likelihoods.md"), likelihoods())
    write(source, Path("references.md"), references(list(lectures)))
    write(source, Path("index.md"), home(list(lectures), handed_out, source))
    shutil.copy(scripts() / "mathjax" / "es5" / "tex-svg-full.js", site / "scripts")
    return source


def scripts() -> Path:
    """The npm packages of the lock file."""
    folder = SITE / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "package-lock.json").read_bytes()
    done = folder / "installed-lock.json"
    if not done.is_file() or done.read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(npm, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        done.write_bytes(lock)
    return folder / "node_modules"


def reference(parts: tuple[str, ...]) -> str:
    """The page of a module, from its docstrings."""
    module = ".".join(parts)
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def write(source: Path, path: Path, text: str) -> None:
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    (source / path).write_text(text, encoding="utf-8")


def toctree(title: str, globs: list[str], hidden: bool = False) -> str:
    lines = "\n".join(globs)
    options = ":glob:\n:maxdepth: 1\n" + ":hidden:\n" * hidden
    heading = f"# {title}\n\n" * bool(title)
    return f"{heading}```{{toctree}}\n{options}\n{lines}\n```\n"


def stage_notebook(source: Path, path: Path, there: set[Path], panels: dict[str, Any]) -> None:
    """A notebook with its panels' frames, and one heading at the top instead of three."""
    notebook = nbformat.read(path, 4)
    up = "../" * len(path.relative_to(ROOT).parent.parts)
    texts = [cell.source for cell in notebook.cells[1:] if cell.cell_type == "markdown"]
    has_parts = any(text.startswith("# ") for text in texts)
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = mend_links(cell.source, path, there)
            if i == 0 and (links := badges(path)):
                cell.source += f"\n\n{links}"
            if i and has_parts:  # "# Core" under the title; the summary belongs to no part
                cell.source = re.sub(r"^(#+ )", r"#\1", cell.source, flags=re.MULTILINE)
                cell.source = re.sub(
                    r"^### (Summary|References)$", r"## \1", cell.source, flags=re.MULTILINE
                )
        elif cell.id in panels:
            markup = panel_html(cell.id, panels[cell.id], f"{up}frames/{path.stem}/")
            for output in cell.outputs:
                if output.output_type in {"execute_result", "display_data"}:
                    output.data = {"text/html": markup}
    text = nbformat.writes(notebook)
    write(source, path.relative_to(ROOT), text)


def mend_links(text: str, page: Path, there: set[Path]) -> str:
    """Leave links between pages, send those to code to the repository, or take them away."""

    def mend(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        file = (page.parent / path).resolve()
        if file in there or file.suffix in {".png", ".svg"}:
            return match[0]
        inside = file.relative_to(ROOT)
        if inside.parts[0] == "dgm_course" and not {*inside.parts, file.stem} & NOT_SHOWN:
            is_file = file.suffix == ".py"
            name = ".".join(inside.with_suffix("").parts) if is_file else "index"
            up = "../" * (len(page.relative_to(ROOT).parts) - 1)
            return f"[{words}]({up}reference/{name}.md)"
        if url := repository():
            return f"[{words}]({url}/blob/main/{inside}{hash_}{anchor})"
        return words

    return re.sub(r"(?<!!)\[([^]]*)\]\(([^)\s]+)\)", mend, text)


# --- pages that are made --------------------------------------------------------------------


def home(lectures: list[Path], handed_out: list[Path], source: Path) -> str:
    """The first page: the README's opening, and a card for each lecture."""
    (source / "pictures").mkdir(exist_ok=True)
    about = {lecture.entry.notebook: lecture for lecture in shown(read_ledger()).values()}
    cards = []
    for lecture in (about[path.stem] for path in lectures):
        (source / "pictures" / file_of(lecture)).write_bytes(lecture.picture)
        cards.append(
            f"```{{container}} dgm-card\n![{lecture.entry.alt}](pictures/{file_of(lecture)})\n\n"
            f"[{lecture.name}](notebooks/{lecture.entry.notebook}.ipynb)\n\n{lecture.question}\n\n"
            f"{lecture.run} min on two cores\n```\n"
        )
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    tail = (
        "Which section covers which slides of which deck: see the [course map](course_map.md). "
        "The pictures move on these pages, too: their sliders swap frames that were recorded when "
        "the site was built. With Python the models compute them as you move: see the "
        "repository's README.\n"
    )
    trees = [
        ("Lectures", [p.relative_to(ROOT).with_suffix("").as_posix() for p in lectures]),
        ("Assignment", [p.relative_to(ROOT).with_suffix("").as_posix() for p in handed_out]),
        (
            "More",
            [
                "course_map",
                "likelihoods",
                "docs/notation",
                "references",
                "reference/index",
                "teaching",
            ],
        ),
    ]
    loose = sorted(p.stem for p in (ROOT / "docs").glob("*.md") if p.stem != "notation")
    trees[-1][1].extend(f"docs/{name}" for name in loose)
    contents = "\n".join(
        toctree("", names, hidden=True).replace(":glob:", f":caption: {title}")
        for title, names in trees
        if names
    )
    grid = "````{container} dgm-cards\n" + "\n".join(cards) + "````\n"
    return "\n".join(["# Deep generative models\n", opening + "\n", tail, grid, contents])


def likelihoods() -> str:
    """The table of likelihoods on the test digits."""
    lines = [
        "# Likelihoods on the digits\n",
        "Mean −log p(x) of the test digits (8 × 8 pixels) under every model of the course that has "
        "a likelihood or a bound on it, the least probable first. The errors are standard errors "
        "over the test images. A bound says that −log p(x) is at most so much.\n",
        "| model | kind | levels | nats | bits per dimension | parameters | seconds to train |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in read_likelihoods():
        learned = "" if row.n_parameters is None else f"{row.n_parameters:,}"
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        nats = f"{row.nats.value:.1f} ± {row.nats.standard_error:.1f}"
        bits = f"{row.bits_per_dim.value:.3f} ± {row.bits_per_dim.standard_error:.3f}"
        about = [row.name, row.kind, row.levels, nats, bits, learned, seconds]
        lines.append(f"| {' | '.join(map(str, about))} |")
    return "\n".join(lines) + "\n"


def references(lectures: list[Path]) -> str:
    """What the lectures cite, by lecture."""
    parts = ["# References\n"]
    for path in lectures:
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "markdown" and "## References" in cell.source:
                cited = cell.source.split("## References", 1)[1].strip()
                parts.append(f"## Lecture {int(path.stem[:2])}\n\n{cited}\n")
    return "\n".join(parts)


# --- building -------------------------------------------------------------------------------


def build(quick: bool) -> Path:
    """Record what is not recorded, stage, and let Sphinx build; the folder of the pages."""
    site = SITE / "quick" if quick else SITE
    source, pages = stage(site, record_all(LECTURES, quick)), site / "html"
    shutil.rmtree(pages, ignore_errors=True)
    environment = os.environ | {
        "DGM_SITE_SCRIPTS": str(site / "scripts"),
        "DGM_SITE_REPOSITORY": repository(),
        "PYTHONPATH": str(ROOT),
    }
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-E"]
    folders = ["-c", str(HERE), "-d", str(site / "doctrees"), str(source), str(pages)]
    subprocess.run([*sphinx, *folders], check=True, env=environment)
    shutil.copytree(site / "extra", pages, dirs_exist_ok=True)
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few frames, short training")
    pages = build(parser.parse_args().quick)
    sizes = megabytes(pages)
    print(f"{pages / 'index.html'}: {sizes['the site']:.1f} MB")
    if heavy := too_heavy(sizes):
        parser.exit(1, "\n".join(heavy) + "\n")


def megabytes(pages: Path) -> dict[str, float]:
    """The size of the whole site, and of each lecture: its page and its frames."""

    def size(*roots: Path) -> float:
        files = (path for root in roots for path in [root, *root.rglob("*")] if path.is_file())
        return sum(path.stat().st_size for path in files) / 1e6

    return {"the site": size(pages)} | {
        page.stem: size(page, pages / "frames" / page.stem)
        for page in sorted((pages / "notebooks").glob("*.html"))
    }


def too_heavy(sizes: dict[str, float]) -> list[str]:
    """A sentence for each part that is over its budget: a site is copied to sticks, too."""
    return [
        f"{name} has {size:.1f} MB; at most {most:g} MB are allowed"
        for name, size in sizes.items()
        if size > (most := SITE_MB if name == "the site" else LECTURE_MB)
    ]


if __name__ == "__main__":
    main()
