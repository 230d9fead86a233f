"""One lecture as slides, by jupyterlab-rise, at 1280 × 720."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import nbformat
import pytest

from dgm_course.contents import VIEW
from tests.browser.chromium import WATCH, Problems
from tests.browser.jupyterlab import NotebookPage, Panel, jupyterlab
from tests.lectures import LECTURES

# The innermost slide in sight, and how far what it shows reaches to the right and down.
SLIDE = """() => {
  const slide = [...document.querySelectorAll('.reveal .slides section.present')].at(-1);
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


def wait_until_saved(path):
    for _ in range(600):
        if VIEW in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    raise AssertionError("the notebook is not saved")


@pytest.fixture(scope="module")
def deck(browser, tmp_path_factory):
    """The first lecture: run in JupyterLab, saved, and opened as slides."""
    with jupyterlab(tmp_path_factory.mktemp("home")) as lab:
        name = LECTURES[0].name
        notebook = NotebookPage(browser, lab, name)
        notebook.run_all()
        notebook.page.keyboard.press("Control+s")
        wait_until_saved(lab.folder / name)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        notebook.page = page = context.new_page()
        notebook.problems = Problems(page, urlsplit(lab.address).netloc)
        page.set_default_timeout(240_000)
        page.add_init_script(WATCH)
        page.goto(f"{lab.address}/rise/{name}?token={lab.token}")
        page.wait_for_selector(".reveal .slides section.present img, .reveal.ready")
        page.wait_for_selector(".reveal .widget-vbox img", state="attached")
        yield notebook
        context.close()


def test_the_core_pages_through_with_working_sliders_and_nothing_overflows(
    deck, record_property, screenshot
):
    page = deck.page
    cells = nbformat.read(LECTURES[0], 4).cells
    kinds = [cell.metadata.slideshow.slide_type for cell in cells]
    expected = sum(kind in {"slide", "subslide"} for kind in kinds)
    in_sight = page.locator(".reveal section.present:not(.stack) .widget-vbox:has(img)")
    seen, n_moved = {}, 0
    for _ in range(2 * expected):
        slide = page.evaluate(SLIDE)
        if slide["number"] in seen:
            break
        seen[slide["number"]] = slide
        screenshot(page, str(len(seen)))
        if in_sight.locator(".widget-hslider").count():
            panel = Panel(deck, in_sight.first)
            panel.drag(panel.root.locator(".widget-hslider").first)
            n_moved += 1
        page.evaluate("document.activeElement.blur()")  # from here on keys turn pages again
        page.keyboard.press("Space")
        page.wait_for_timeout(300)
    too_big = [s for s in seen.values() if s["bottom"] > 720 or s["right"] > 1281]
    texts = [
        f"{s['number']}: {s['bottom']:.0f}, {s['right']:.0f}: {s['text'][:30]}" for s in too_big
    ]
    assert not too_big, "\n".join(texts)
    assert len(seen) == expected
    assert n_moved > 0
    assert not deck.problems.found
    lowest = max(s["bottom"] for s in seen.values())
    record_property("browser", f"{expected} slides, the longest ends at {lowest:.0f} of 720 pixels")
