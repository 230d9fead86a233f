"""The ledger names what exists, its reader says what does not, and the first page is made of it."""

import base64
import io
import json
import re

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dgm_course.lectures import ledger, start, tables
from dgm_course.lectures.ledger import problems, read_ledger, uncovered
from dgm_course.lectures.notebooks import LECTURES, NOTEBOOKS

ROOT = NOTEBOOKS.parent


@pytest.fixture(scope="module")
def ours():
    return read_ledger()


@pytest.fixture(scope="module")
def page():
    return nbformat.read(NOTEBOOKS / start.FIRST_PAGE, 4)


# --- the ledger -----------------------------------------------------------------------------


def test_everything_that_the_ledger_names_exists(ours):
    assert problems(ours) == []
    assert len(ours.decks) == 5
    assert sum(len(deck.topics) for deck in ours.decks) > 150


def test_every_lecture_to_come_is_awaited_by_slides(ours):
    waiting = {number for _, topic in uncovered(ours) for number in topic.planned}
    assert waiting == {number for number, e in ours.lectures.items() if not e.notebook}


def with_topic(ours, **changes):
    """The ledger with its first deck's first covered topic changed."""
    deck = ours.decks[0]
    topics = (deck.topics[0]._replace(**changes), *deck.topics[1:])
    return ours._replace(decks=(deck._replace(topics=topics), *ours.decks[1:]))


def with_deck(ours, **changes):
    return ours._replace(decks=(ours.decks[0]._replace(**changes), *ours.decks[1:]))


def with_entry(ours, number, **changes):
    entry = ours.lectures[number]._replace(**changes)
    return ours._replace(lectures=ours.lectures | {number: entry})


def with_way(ours, way):
    return ours._replace(courses=(ours.courses[0]._replace(way=way), *ours.courses[1:]))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"where": ((99, "Where?"),)}, "no lecture 99"),
        ({"where": ((21, "Where?"),)}, "lecture 21 is to come: name it as planned"),
        ({"where": ((1, "What does a stack?"),)}, "no section 'What does a stack?' in lecture 1"),
        ({"where": ((1, "Wht does a stack do, layer by layer?"),)}, "the nearest is 'What does a"),
        ({"planned": (99,)}, "no lecture 99, which is planned to cover it"),
        ({"planned": (1,)}, "lecture 1 is no longer planned but stands: name its section"),
        ({"function": "dgm_course.flows.PlanarFlw"}, "dgm_course.flows has no PlanarFlw"),
        ({"function": "dgm_course.flows.PlanarFlow.forth"}, "PlanarFlow has no forth"),
        ({"function": "nowhere.at_all"}, "no function nowhere.at_all: no module nowhere"),
        ({"test": "tests/test_nowhere.py::test_it"}, "no file tests/test_nowhere.py"),
        ({"test": "tests/test_flows.py::test_log_dt"}, "no test tests/test_flows.py::test_log_dt"),
        ({"test": "tests/test_flows.py"}, "no test tests/test_flows.py"),
        ({"claim": "the mass is 2"}, "no claim 'the mass is 2' in its lectures"),
        ({"test": "", "number": "0.5 nats"}, "the number '0.5 nats' stands on no claim"),
        ({"number": "7.77 nats"}, "no claim in its lectures has the number 7.77 of '7.77 nats'"),
        ({"assignment": "pixelrnn"}, "no assignment 'pixelrnn'"),
    ],
)
def test_a_topic_that_names_what_does_not_exist_is_told(ours, changes, what):
    (found,) = (p for p in problems(with_topic(ours, **changes)) if "mipt-5, slides 2 (" in p)
    assert what in found


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (lambda ours: with_deck(ours, no_topic="1"), "mipt-5: no topic has slides 32"),
        (lambda ours: with_deck(ours, slides=31), "mipt-5: outside of 1 to 31: slides 32"),
        (lambda ours: with_deck(ours, no_topic="1, 2, 32"), "in one: slides 2"),
        (lambda ours: with_deck(ours, course="MIT"), "mipt-5: no course 'MIT'"),
        (lambda ours: with_way(ours, ours.courses[0].way[1:]), "its way leaves out 1"),
        (lambda ours: with_way(ours, (*ours.courses[0].way, 99)), "no lecture 99 for its way"),
        (lambda ours: with_way(ours, (4, *ours.courses[0].way)), "builds on 2, which comes later"),
        (lambda ours: with_entry(ours, 3, builds_on=(99,)), "lecture 3: it builds on 99"),
        (lambda ours: with_entry(ours, 2, builds_on=(3,)), "lecture 2: it builds on 3"),
        (lambda ours: with_entry(ours, 1, picture="show-nothing"), "lecture 1: no cell 'show-no"),
        (
            lambda ours: with_entry(ours, 21, question=""),
            "one to come needs a title and a question",
        ),
        (lambda ours: with_entry(ours, 1, notebook="01_flows"), "lecture 1: no notebook 01_flows"),
        (lambda ours: with_entry(ours, 1, notebook=""), "01_planar_flows.ipynb stands, and no"),
    ],
)
def test_a_broken_deck_course_or_lecture_is_told(ours, break_it, what):
    assert any(what in found for found in problems(break_it(ours)))


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (
            'slide = "2"',
            r"topic with topic = 'x', slide = '2'.*unexpected keyword argument 'slide'",
        ),
        ("", "missing 1 required positional argument: 'slides'"),
    ],
)
def test_a_key_that_nobody_reads_is_refused(tmp_path, table, what):
    deck = (
        'key = "d"\ncourse = "c"\ntitle = "t"\nsource = "s"\nslides = 2\nfirst = 1\nno_topic = ""'
    )
    path = tmp_path / "ledger.toml"
    topic = f'[[decks.topics]]\ntopic = "x"\n{table}\n'
    path.write_text(f"lectures = []\ncourses = []\n[[decks]]\n{deck}\n{topic}")
    with pytest.raises(ValueError, match=what):
        read_ledger(path)


def test_a_module_that_cannot_import_is_not_taken_for_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        ledger.missing_name("half_there.function")


def test_a_number_may_be_a_rounded_claim(ours):
    assert problems(with_topic(ours, number="0.51 nats")) == []  # the claim says 0.5108
    assert problems(with_topic(ours, number="0.52 nats"))


def test_slides_are_read_as_a_lecturer_writes_them():
    assert ledger.slide_numbers("35–36, 41") == [35, 36, 41]


def test_what_nothing_covers_is_listed(ours):
    (open_deck, open_topic), *_ = [(d, t) for d, t in uncovered(ours) if not t.planned]
    result = CliRunner().invoke(ledger.main, ["--deck", open_deck.key])
    assert result.exit_code == 0, result.output
    assert f"{open_topic.topic}: nothing" in result.output
    (awaited, *_) = [topic for topic in open_deck.topics if topic.planned and not topic.where]
    assert f"{awaited.topic}: planned for lecture {awaited.planned[0]}" in result.output
    covered = next(topic for topic in open_deck.topics if topic.where and topic.function)
    assert covered.topic not in result.output
    everything = CliRunner().invoke(ledger.main, ["--all"]).output
    assert covered.topic in everything
    assert covered.function in everything
    assert CliRunner().invoke(ledger.main, ["--deck", "oxford"]).exit_code == 2


# --- the first page -------------------------------------------------------------------------


def test_the_first_page_is_what_the_ledger_and_the_notebooks_make(page):
    again = start.first_page()
    remake = "run python -m dgm_course.lectures.start"
    assert [cell.id for cell in page.cells] == [cell.id for cell in again.cells], remake
    for stored, made in zip(page.cells, again.cells, strict=True):
        assert stored.source == made.source, f"{stored.id}: {remake}"
        pictures, wanted = (cell.get("attachments", {}) for cell in (stored, made))
        assert pictures.keys() == wanted.keys(), remake
        for name in pictures:  # what another release of Pillow makes differs by a few levels
            difference = pixels(pictures[name]) - pixels(wanted[name])
            assert np.abs(difference).mean() < 4, f"{name}: {remake}"


def pixels(attachment):
    picture = Image.open(io.BytesIO(base64.b64decode(attachment["image/png"])))
    return np.asarray(picture.convert("RGB"), dtype=float)


def test_the_first_page_has_run_and_is_small(page):
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2]
    assert (NOTEBOOKS / start.FIRST_PAGE).stat().st_size < 400_000
    answer, panel = code
    assert "source_hidden" not in answer.metadata.get("jupyter", {})
    assert panel.metadata["jupyter"]["source_hidden"]
    printed = "".join(output.get("text", "") for output in panel.outputs)
    assert printed == "factor: not answered yet\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [("2", "✓ factor: right."), ("2.0", "✓"), ("4", "✗ factor"), ("0.5", "✗ factor: not yet")],
)
def test_the_first_exercise_tells_right_from_wrong(answer, says, capsys):
    names = {}
    exec(start.ANSWER.replace("...", answer), names)
    exec(start.PANEL, names)
    assert capsys.readouterr().out.startswith(says)


def test_the_first_panel_moves():
    names = {}
    exec(start.ANSWER, names)
    exec(start.PANEL.replace("explore(draw", "panel = explore(draw"), names)
    before = names["panel"].picture.value
    names["panel"].controls["s"].value = 2.0
    assert names["panel"].picture.value != before
    assert not names["panel"].error.value


def links(text):
    return re.findall(r"\]\(((?!attachment:|\w+://)[^()\s]+)\)", text)


def test_every_link_of_the_first_page_leads_somewhere(page):
    headings = {}
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    assert len(links(text)) > 150
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = NOTEBOOKS / (path or start.FIRST_PAGE)
        assert target.exists(), link
        if anchor:
            if target not in headings:
                headings[target] = anchors(target)
            assert anchor in headings[target], link


def anchors(path):
    """What JupyterLab finds: a heading of the page that is open, a cell of any page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    headings = {h.replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    ids = {f"cell-id={cell['id']}" for cell in cells}
    return headings if path.name == start.FIRST_PAGE else ids


def test_pictures_have_alternative_texts(page, ours):
    (cell,) = (cell for cell in page.cells if cell.id == "lectures")
    shown = re.findall(r"!\[([^]]*)\]\(attachment:([^)]+)\)", cell.source)
    assert [name for _, name in shown] == [f"{path.stem}.png" for path in LECTURES]
    assert all(len(alt) > 20 for alt, _ in shown)
    assert {name for _, name in shown} == set(cell.attachments)


def test_every_topic_stands_on_the_first_page_and_on_the_map(page, ours):
    first = "\n".join(cell.source for cell in page.cells)
    site = start.course_map()
    for deck in ours.decks:
        for topic in deck.topics:
            row = f"| {topic.slides} | {topic.topic.replace('|', chr(92) + '|')} |"
            assert row in first
            assert row in site
    assert "attachment:" not in site


def test_a_section_is_addressed_as_its_readers_find_it():
    section = ledger.Section("2. How can a determinant cost O(D)?", "core-2", {})
    assert section.name == "How can a determinant cost O(D)?"
    here = tables.Place("", is_site=False).section("01_planar_flows", section)
    assert here == "01_planar_flows.ipynb#cell-id=core-2"
    site = tables.Place("notebooks/", is_site=True).section("01_planar_flows", section)
    assert site == "notebooks/01_planar_flows.ipynb#2-how-can-a-determinant-cost-od"


def test_a_lecture_without_a_question_or_picture_cannot_be_shown(ours):
    broken = with_entry(ours, 1, picture="show-nothing")
    with pytest.raises(ValueError, match=r"01_planar_flows.ipynb must have a cell 'show-nothing'"):
        tables.shown(broken)
