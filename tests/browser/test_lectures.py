"""Every lecture in JupyterLab, in Chromium: run, moved by hand, shown as slides."""

from __future__ import annotations

import nbformat
import pytest

from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.views import VIEW
from tests.browser.jupyterlab import NotebookPage, Panel
from tests.lab import wait_for

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


@pytest.mark.parametrize("lecture", LECTURES[:1], ids=lambda path: path.stem, indirect=True)
def test_the_core_pages_through_as_slides_and_nothing_overflows(
    lecture, record_property, screenshot
):
    """By jupyterlab-rise, at 1280 × 720, with the kernel in which the cells have run."""
    lecture.page.keyboard.press("Control+s")
    wait_for(lambda: VIEW in lecture.path.read_text(encoding="utf-8"))
    lecture.open_tab(f"rise/{lecture.path.name}")
    page = lecture.page
    page.set_viewport_size({"width": 1280, "height": 720})
    page.wait_for_selector(".reveal .slides section.present img, .reveal.ready")
    page.wait_for_selector(".reveal .widget-vbox img", state="attached")
    cells = nbformat.read(lecture.path, 4).cells
    kinds = [cell.metadata.slideshow.slide_type for cell in cells]
    expected = sum(kind in {"slide", "subslide"} for kind in kinds)
    in_sight = page.locator(".slides > .present > .present .widget-vbox:has(img):visible")
    seen, n_moved = {}, 0
    for _ in range(2 * expected):
        slide = page.evaluate(SLIDE)
        if slide["number"] in seen:
            break
        seen[slide["number"]] = slide
        screenshot(page, str(len(seen)))
        if in_sight.locator(".widget-hslider").count():
            panel = Panel(lecture, in_sight.first)
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
    assert not lecture.problems.found
    lowest = max(s["bottom"] for s in seen.values())
    record_property("browser", f"{expected} slides, the longest ends at {lowest:.0f} of 720 pixels")
