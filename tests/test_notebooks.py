"""The notebook rules that nbval does not see, and the exercises."""

import importlib
import re
import statistics

import nbformat
import pytest

from dgm_course.lectures.notebooks import LECTURES, NOTEBOOKS
from dgm_course.lectures.rehearsal import Rehearsal
from dgm_course.widgets import Panel
from tests.exercises import exercises

ROOT = NOTEBOOKS.parent
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module", params=LECTURES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, 4)


@pytest.fixture(scope="module")
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def lecture(path):
    return Rehearsal(path).run()


def outputs(code, *kinds):
    return [o for cell in code for o in cell.outputs if o.output_type in kinds]


# --- the stored file ------------------------------------------------------------------------


def test_there_is_a_lecture():
    assert LECTURES


def test_is_executed_from_top_to_bottom(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not outputs(code, "error")
    assert not [o for o in outputs(code, "stream") if o.name == "stderr"]


def test_is_small(path, code):
    assert path.stat().st_size <= 1_000_000
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 8


def test_nbval_has_something_to_compare(code):
    texts = [
        o
        for o in outputs(code, "stream", "display_data", "execute_result")
        if o.output_type == "stream" or "text/plain" in o.data
    ]
    assert len(texts) >= 6


def test_nothing_stored_depends_on_the_run(path, notebook, code):
    assert "widgets" not in notebook.metadata
    for cell in code:
        assert "execution" not in cell.metadata
    for output in outputs(code, "display_data", "execute_result"):
        assert set(output.data) - {WIDGET}, "a progress bar was stored"
        assert "VBox(" not in output.data.get("text/plain", "")
    assert not re.search(r"\d+/\d+ \[\d+:\d+", path.read_text(encoding="utf-8"))


def test_every_figure_has_alternative_text(code):
    figures = 0
    for cell in code:
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                figures += 1
                alt = output.metadata["image/png"]["alt"]
                assert len(alt) > 20
                assert cell.metadata["mystnb"]["image"]["alt"] == alt
    assert figures >= 3


def test_first_cells(path, notebook):
    first, imports = notebook.cells[:2]
    assert re.match(rf"# {path.stem[:2]} · \w", first.source)
    assert re.search(r"\*\*.+\?\*\*", first.source), "the question that it answers"
    assert re.search(r"\d+ minutes? on two cores", first.source)
    assert "docs/notation.md" in first.source
    assert imports.cell_type == "code"
    assert imports.source.splitlines()[-1].startswith("seed_everything(")
    later = [c.source for c in notebook.cells[2:] if c.cell_type == "code"]
    assert not re.search(r"^(import|from) ", "\n".join(later), re.MULTILINE)


def test_has_both_parts_a_summary_and_references(notebook):
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts(notebook)), re.MULTILINE)
    for heading in ("Core", "Further", "Where this differs from the slides", "Summary"):
        assert heading in headings
    assert headings[-1] == "References"


def drawing_lengths(code):
    drawing = [c.source for c in code if re.search(r"^def draw_", c.source, re.MULTILINE)]
    return [len(source.splitlines()) for source in drawing]


def test_drawing_is_short(code):
    lengths = drawing_lengths(code)
    assert lengths
    assert statistics.median(lengths) <= 12, sorted(lengths)


PREDICT = re.compile(r"^\*Predict", re.MULTILINE)
ANSWER = re.compile(
    r"^<details>\n<summary>What happens</summary>\n\n.+?\n\n</details>$", re.DOTALL | re.MULTILINE
)


def unanswered(cells):
    """The texts that ask for a prediction which no later answer follows, each answer for one."""
    asked = []
    for cell in cells:
        if cell.cell_type == "markdown":
            found = [*PREDICT.finditer(cell.source), *ANSWER.finditer(cell.source)]
            for match in sorted(found, key=lambda match: match.start()):
                if match.re is PREDICT:
                    asked.append(cell.source)
                elif asked:
                    asked.pop()
    return asked


def test_every_predict_is_answered(notebook):
    assert any(PREDICT.search(text) for text in texts(notebook))
    assert not unanswered(notebook.cells)


def test_a_question_without_an_answer_is_found():
    ask = nbformat.v4.new_markdown_cell("*Predict, then move:* where?")
    answer = nbformat.v4.new_markdown_cell(
        "<details>\n<summary>What happens</summary>\n\nThere.\n\n</details>"
    )
    assert not unanswered([ask, answer])
    assert unanswered([ask, answer, ask]) == [ask.source]
    assert unanswered([answer, ask]) == [ask.source]
    answer.source = answer.source.replace("\n\n", "\n")  # Markdown inside would not be rendered
    assert unanswered([ask, answer])


def texts(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


# --- links and names ------------------------------------------------------------------------

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(text):
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)


def missing_links(text, folder):
    local = [link for link in links(text) if "://" not in link]
    return [link for link in local if not (folder / link).exists()]


def test_local_links_lead_somewhere(path, notebook):
    assert not missing_links("\n".join(texts(notebook)), path.parent)
    for page in PAGES:
        assert not missing_links(page.read_text(encoding="utf-8"), page.parent), page
    assert missing_links("see [this](nowhere.md)", ROOT) == ["nowhere.md"]


def test_web_links_are_https_and_arxiv_links_name_their_number(notebook):
    for text, url in re.findall(r"\[([^]]+)\]\((\w+://[^)]+)\)", "\n".join(texts(notebook))):
        assert url.startswith("https://")
        if "arxiv.org" in url:
            assert url.rsplit("/", 1)[1] in text


def modules():
    files = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / "dgm_course").rglob("*.py")]
    names = {".".join(file.parts).removesuffix(".__init__") for file in files}
    return [importlib.import_module(name) for name in sorted(names - {"dgm_course.cli"})]


def public_names():
    names = set()
    for module in modules():
        names |= {module.__name__.rpartition(".")[2], *vars(module)}
    return names


def unknown_names(text, known):
    """Names in backticks that look like the library's (CamelCase or a call) and are not."""
    spoken = re.findall(r"`([A-Za-z_][\w.]*)(?:\(\))?`", text)
    return [name for name in spoken if name.split(".")[0] not in known]


def test_referenced_symbols_exist(notebook):
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    known = public_names() | set(re.findall(r"\w+", code))
    for text in texts(notebook):
        assert not unknown_names(text, known)
    assert unknown_names("see `PlanarFlowe.inverse`", known)
    for owner, member in re.findall(r"`([A-Z]\w+)\.(\w+)`", "\n".join(texts(notebook))):
        (found,) = {vars(m)[owner] for m in modules() if owner in vars(m)}
        assert hasattr(found, member)


def test_the_readme_names_every_lecture(path):
    (row,) = (
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if path.name in line
    )
    notebook, module, paper = links(row)
    assert (ROOT / notebook) == path
    assert (ROOT / module).exists()
    assert paper.startswith("https://")


# Environment variables that the pages speak of; any other word in capitals was to be filled in.
VARIABLES = {"ATEN_CPU_CAPABILITY", "DGM_COURSE_QUICK", "JOB_COMPLETION_INDEX"}
VARIABLES |= {"SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_CPUS_PER_TASK"}
VARIABLES |= {"GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "SLURM_JOB_ID"}


def test_no_placeholder_is_left():
    for page in PAGES:
        words = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", page.read_text("utf-8")))
        assert words <= VARIABLES, page


def test_every_lecture_has_its_teachers_page(path):
    page = ROOT / "docs" / "teaching" / f"{path.stem}.md"
    text = page.read_text(encoding="utf-8")
    for heading in ("45 minutes", "90 minutes", "Sliders", "Misconceptions", "Solutions"):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), heading


# --- what runs ------------------------------------------------------------------------------


def test_every_slider_moves_its_picture(lecture):
    explored = {k: p for k, p in lecture.panels.items() if hasattr(p, "controls")}
    assert explored
    for cell_id, panel in explored.items():
        for name, control in panel.controls.items():
            before = panel.picture.value
            control.value = other_value(control)
            assert panel.picture.value != before, f"{cell_id}: {name} changes nothing"
            assert not panel.error.value


def test_sliders_start_where_the_text_says(lecture):
    """A front end snaps a value to the slider's steps: a default between two would not be shown."""
    for cell_id, panel in lecture.panels.items():
        for name, control in getattr(panel, "controls", {}).items():
            if hasattr(control, "step"):
                steps = (control.value - control.min) / control.step
                assert abs(steps - round(steps)) < 1e-6, f"{cell_id}: {name}"


def other_value(control):
    if isinstance(control.value, bool):
        return not control.value
    if hasattr(control, "options"):
        return next(option for option in control.options if option != control.value)
    return control.min if control.value != control.min else control.max


def test_every_live_panel_plays_steps_and_resets(lecture):
    for panel in lecture.panels.values():
        if hasattr(panel, "controls"):
            continue
        pictures = [panel.picture.value]
        panel.play.playing = True
        panel.play.value += 1
        pictures.append(panel.picture.value)
        panel.step.click()
        pictures.append(panel.picture.value)
        assert len(set(pictures)) == 3
        panel.reset.click()
        assert panel.picture.value == pictures[0]


def exercise_cells(lecture):
    """answer's name -> its cell and the cell that checks it."""
    found = {}
    for cell, following in zip(lecture.cells, lecture.cells[1:], strict=False):
        if "exercise" in cell.metadata.get("tags", []):
            (name,) = re.findall(r"^(\w+) = \.\.\.$", cell.source, re.MULTILINE)
            found[name] = cell, following
    return found


def test_exercises_are_those_with_solutions(lecture):
    cells = exercise_cells(lecture)
    assert len(cells) >= 4
    assert set(cells) == set(exercises(lecture.path.stem))


def test_exercises_tell_right_from_wrong(lecture):
    for name, (answer, check) in exercise_cells(lecture).items():
        solution, wrong, *others = exercises(lecture.path.stem)[name]
        printed = answered(lecture, answer.source, check)
        assert printed == f"{name}: not answered yet\n"
        for source in [solution, *(right for rights in others for right in rights)]:
            assert answered(lecture, source, check).startswith(f"✓ {name}: right."), source
        why = answered(lecture, solution, check).partition("right. ")[2].strip()
        assert len(wrong) >= 2
        for source in wrong:
            printed = answered(lecture, source, check)
            assert printed.startswith(f"✗ {name}: not yet. Expected "), source
            assert "Hint: " in printed, source
            assert why not in printed, "the reason is for a right answer: there is a second try"
            assert "Traceback" not in printed
            assert " at 0x" not in printed, source


def answered(lecture, source, check):
    names = dict(lecture.names)
    lecture.execute(source, "answer", names)
    return lecture.execute(check.source, check.id, names)


def test_no_solution_stands_in_the_notebook(path, code):
    lines = {line.strip() for cell in code for line in cell.source.splitlines()}
    for name, (solution, *_) in exercises(path.stem).items():
        assert f"{name} = ..." in lines
        assert solution.splitlines()[-1].strip() not in lines


def test_panels_are_described_where_no_kernel_runs(lecture):
    for panel in lecture.panels.values():
        assert isinstance(panel, Panel)
        assert panel._repr_mimebundle_()["text/plain"] == panel.text
