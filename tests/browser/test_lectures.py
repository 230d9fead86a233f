"""Every lecture in JupyterLab, in Chromium: run, moved by hand, shown as slides."""

from __future__ import annotations

import contextlib
import os

import nbformat
import pytest

from dgm_course.lectures.cells import is_lesson
from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.views import VIEW
from tests.browser.jupyterlab import NotebookPage, Panel
from tests.lab import wait_for


def stored(path):
    """The notebook in its file, which JupyterLab writes in place: a reader may meet half of it."""

    def whole():
        with contextlib.suppress(ValueError):
            return nbformat.read(path, 4)

    return wait_for(whole)


# --- controls -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LECTURES, ids=lambda path: path.stem)
def lecture(request, lab):
    """A lecture of which every cell has run, for all the tests below."""
    notebook = NotebookPage(lab, request.param.name)
    notebook.run_all()
    yield notebook
    notebook.close()


def test_every_control_moves_its_picture(lecture, record_property, screenshot):
    panels = lecture.panels()
    assert not lecture.unfinished()
    assert not lecture.errors()
    assert panels
    for i, panel in enumerate(panels):
        if panel.is_live:
            start = panel.picture
            panel.play_and_pause()
            panel.press("Step")
            panel.press("Reset")
            assert panel.picture == start
        else:
            panel.move_controls()
            panel.play_and_pause()
        screenshot(lecture.page, f"panel-{i + 1}")
    took = sorted(t for panel in panels if not panel.is_live for t in panel.took)
    slow = took[int(0.95 * len(took))]
    record_property("browser", f"slider to picture, 95th of 100: {slow:.0f} ms, n = {len(took)}")
    assert not lecture.errors()


# --- slides ---------------------------------------------------------------------------------

# The innermost slide in sight, and how far what it shows reaches to the right and down.
SLIDE = """() => {
  const slide = [...document.querySelectorAll(
    '.reveal .slides > section.present, .reveal .slides > section.present > section.present'
  )].at(-1);
  let right = 0, bottom = 0, what = '';
  for (const e of slide.querySelectorAll('*')) {
    const box = e.getBoundingClientRect();
    const hidden = e.closest('mjx-assistive-mml, .noUi-base, [aria-hidden=true]');
    if (!box.width || !box.height || hidden) continue;
    if (getComputedStyle(e).visibility === 'hidden') continue;
    if (box.bottom > bottom || box.right > right) what = e.className;
    right = Math.max(right, box.right);
    bottom = Math.max(bottom, box.bottom);
  }
  const all = [...document.querySelectorAll('.reveal .slides section')];
  const text = slide.textContent.trim().slice(0, 60);
  return { number: all.indexOf(slide), right, bottom, text, what: String(what) };
}"""


def test_the_core_pages_through_as_slides_and_nothing_overflows(
    lecture, record_property, screenshot, request
):
    """By jupyterlab-rise, at 1280 × 720, with the kernel in which the cells have run.

    Of the first lecture; of every lecture in CI, and with --all-slides.
    """
    everything = os.environ.get("CI") == "true" or request.config.getoption("--all-slides")
    if lecture.path.name != LECTURES[0].name and not everything:
        pytest.skip("slides of the other lectures: --all-slides")
    lecture.page.keyboard.press("Control+s")
    wait_for(lambda: VIEW.encode() in lecture.path.read_bytes())
    kinds = [c.metadata.slideshow.slide_type for c in stored(lecture.path).cells]
    expected = sum(kind in {"slide", "subslide"} for kind in kinds)
    with lecture.tab(f"rise/{lecture.path.name}") as page:
        page.set_viewport_size({"width": 1280, "height": 720})
        page.wait_for_selector(".reveal .slides section.present img, .reveal.ready")
        page.wait_for_selector(".reveal .widget-vbox img", state="attached")
        slides, n_moved = paged_through(lecture, page, 2 * expected, screenshot)
        assert not lecture.problems.found
    too_big = [s for s in slides if s["bottom"] > 720 or s["right"] > 1281]
    assert not too_big, "\n".join(
        f"{s['number']}: {s['bottom']:.0f}, {s['right']:.0f}: {s['text'][:30]}" for s in too_big
    )
    assert len(slides) == expected
    assert n_moved > 0
    lowest = max(s["bottom"] for s in slides)
    record_property("browser", f"{expected} slides, the longest ends at {lowest:.0f} of 720 pixels")


def settled(page):
    """What the slide in sight shows, once formulas and pictures have their place."""
    slide = None
    while slide != (slide := page.evaluate(SLIDE)):
        page.wait_for_timeout(100)
    return slide


def paged_through(lecture, page, most, screenshot):
    """What each slide shows, to the last, and how many sliders have moved on the way."""
    from playwright.sync_api import TimeoutError

    in_sight = page.locator(".slides > .present > .present .widget-vbox:has(img):visible")
    seen, n_moved = {}, 0
    for _ in range(most):
        slide = settled(page)
        if slide["number"] in seen:
            break
        seen[slide["number"]] = slide
        screenshot(page, str(len(seen)))
        if not n_moved and in_sight.locator(".widget-hslider").count():
            panel = Panel(lecture, in_sight.first)
            panel.drag(panel.root.locator(".widget-hslider").first)
            n_moved += 1
        page.evaluate("document.activeElement.blur()")  # from here on keys turn pages again
        page.keyboard.press("Space")
        with contextlib.suppress(TimeoutError):  # of the last slide
            page.wait_for_function(f"({SLIDE})().number !== {slide['number']}", timeout=1000)
    return [*seen.values()], n_moved


# --- folded code ----------------------------------------------------------------------------


@pytest.mark.parametrize("lecture", LECTURES[:1], ids=lambda path: path.stem, indirect=True)
def test_folded_cells_have_run_open_by_a_click_and_are_printed(lecture, screenshot):
    page = lecture.page
    page.set_viewport_size({"width": 1280, "height": 900})
    cells = [c for c in stored(lecture.path).cells if c.cell_type == "code"]
    folded = [i for i, cell in enumerate(cells) if not is_lesson(cell)]
    assert 0 < len(folded) < len(cells)
    assert not lecture.unfinished()
    code = page.locator(".jp-Notebook .jp-CodeCell")
    inputs = ".jp-Cell-inputArea .cm-content"
    shown = [code.nth(i).locator(inputs).count() > 0 for i in range(len(cells))]
    assert [i for i, is_shown in enumerate(shown) if not is_shown] == folded
    screenshot(page, "folded")
    first = code.nth(folded[1])
    first.locator(".jp-InputPlaceholder, .jp-Placeholder").first.click()
    first.locator(inputs).wait_for()
    # JupyterLab prints a notebook as nbconvert draws it, on this server.
    address = f"{lecture.lab.address}/nbconvert/html/{lecture.path.name}?download=false"
    printed = page.request.get(f"{address}&token={lecture.lab.token}").text()
    assert "seed_everything" in printed  # of the import cell, which is folded
