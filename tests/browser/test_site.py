"""The site, opened from the file system in Chromium, with the network blocked."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from dgm_course.lectures.notebooks import LECTURES
from tests.browser.chromium import Problems


@pytest.fixture(scope="module")
def site(browser):
    """The pages, built with few frames and short training."""
    from docs.site.build import build

    return build(quick=True)


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    page = context.new_page()
    problems = Problems(page, "file")
    yield page
    context.close()
    assert not problems.found


def opened(page, path):
    page.goto(path.as_uri())
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise")
    page.wait_for_function(
        "!document.querySelector('.math') || document.querySelector('mjx-container')"
    )
    return page


# --- what is written ------------------------------------------------------------------------


class Page(HTMLParser):
    """The targets of a page's links and pictures, its anchors, its pictures without text."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors, self.no_alt, self.scripts = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values.get("id"), values.get("name") if tag == "a" else None}
        name = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag)
        if values.get(name):
            self.targets.append(values[name])
            if tag != "a":
                self.scripts.append(values[name])
        if tag == "img" and not values.get("alt"):
            self.no_alt.append(values.get("src"))


def test_links_anchors_pictures_and_scripts_are_there(site):
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    assert len(pages) > 10 + 2 * len(LECTURES)
    missing = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.exists() or (
                parts.fragment and file in pages and parts.fragment not in pages[file].anchors
            ):
                missing.append(f"{path.name}: {target}")
        elsewhere = [src for src in page.scripts if urlsplit(src).scheme in {"http", "https"}]
        assert not elsewhere, path
        assert not page.no_alt, path
    assert not missing
    assert not Page('<a href="x.html#y">').anchors & {"y"}  # what would be missed is not there


def test_the_first_page_leads_to_every_lecture(site):
    targets = Page((site / "index.html").read_text(encoding="utf-8")).targets
    for path in LECTURES:
        assert f"notebooks/{path.stem}.html" in targets


def test_the_site_is_small(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 60e6


# --- what moves -----------------------------------------------------------------------------


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_every_control_of_a_lecture_moves_its_picture_and_axe_finds_no_fault(
    site, page, lecture, record_property, screenshot
):
    opened(page, site / "notebooks" / f"{lecture.stem}.html")
    paint = page.evaluate("performance.getEntriesByType('paint')[0].startTime")
    record_property("browser", f"first paint from disk: {paint:.0f} ms")
    assert page.locator("mjx-container").count() > 10
    assert page.locator("[data-mml-node=merror]").count() == 0
    panels = page.locator(".dgm-panel.dgm-ready").all()
    cells = re.findall(r"^(?:explore|live)\(", source(lecture), re.MULTILINE)
    assert len(panels) == len(cells) > 0
    for panel in panels:
        for control in panel.locator("[data-control]").all():
            move(page, panel, control)
        screenshot(page, panel.get_attribute("id"))
    pictures = "[...document.images].every(i => i.loading === 'lazy' || i.naturalWidth > 0)"
    assert page.evaluate(pictures)
    # Code is coloured alike on all pages, and its contrast takes a third of the time.
    assert not serious_faults(page, *([] if lecture == LECTURES[0] else [".highlight pre"]))


def source(lecture):
    import nbformat

    return "\n".join(c.source for c in nbformat.read(lecture, 4).cells if c.cell_type == "code")


def move(page, panel, control):
    """By keyboard, then by mouse; the picture changes and is there."""
    image = panel.locator("img")

    def changes(act):
        before = image.get_attribute("src"), image.get_attribute("alt")
        act()
        assert (image.get_attribute("src"), image.get_attribute("alt")) != before
        image.evaluate("i => i.decode()")

    first = control.locator("input").first
    assert control.get_by_role(
        {"range": "slider", "checkbox": "checkbox", "radio": "radio"}[first.get_attribute("type")],
    ).first.evaluate("i => i.labels[0].textContent.trim()")
    if first.get_attribute("type") == "range":
        first.focus()
        at_end = first.input_value() == first.get_attribute("max")
        changes(lambda: page.keyboard.press("ArrowLeft" if at_end else "ArrowRight"))
        first.scroll_into_view_if_needed()
        box = first.bounding_box()
        right = int(first.input_value()) < int(first.get_attribute("max")) / 2
        x = box["x"] + box["width"] * (0.9 if right else 0.1)
        changes(lambda: page.mouse.click(x, box["y"] + box["height"] / 2))
    elif first.get_attribute("type") == "checkbox":
        changes(lambda: first.press("Space"))
        changes(first.click)
    else:
        control.locator("input:checked").focus()
        changes(lambda: page.keyboard.press("ArrowDown"))
        changes(lambda: control.locator("input:not(:checked)").first.click())
    for reset in control.locator(".dgm-reset").all():
        changes(reset.click)
        changes(control.locator(".dgm-step").click)
    for play in control.locator(".dgm-play").all():
        first.press("Home")
        before = image.get_attribute("src")
        play.click()
        assert play.inner_text() == "Pause"
        page.wait_for_function("([i, b]) => i.src !== b", arg=[image.element_handle(), before])
        if play.inner_text() == "Pause":
            play.click()
        assert play.inner_text() == "Play"


# --- for everybody --------------------------------------------------------------------------


def serious_faults(page, *coloured_alike):
    """What axe-core finds; of colours, outside what is coloured alike on other pages."""
    from docs.site.build import scripts

    page.evaluate((scripts() / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    shape = {"rules": {"color-contrast": {"enabled": False}}}  # the same in both modes
    contrast = {"runOnly": ["color-contrast"]}
    looks = [("light", shape, []), ("light", contrast, coloured_alike)]
    found = []
    for mode, rules, exclude in [*looks, ("dark", contrast, coloured_alike)]:
        page.emulate_media(color_scheme=mode, reduced_motion="reduce")
        page.wait_for_function(f"document.documentElement.dataset.theme === '{mode}'")
        options = {"preload": False, "resultTypes": ["violations"]} | rules
        run = "([exclude, options]) => axe.run({exclude}, options)"
        faults = page.evaluate(run, [exclude, options])["violations"]
        found += [
            f"{mode}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
            for fault in faults
            if fault["impact"] in {"serious", "critical"}
        ]
    return found


def test_axe_finds_no_serious_fault(site, page, screenshot):
    names = ["index", "docs/notation", "reference/index", "reference/dgm_course.widgets"]
    names += [f"docs/teaching/{path.stem}" for path in LECTURES]
    for name in names:
        opened(page, site / f"{name}.html")
        assert not serious_faults(page), name
        screenshot(page, name)


def test_axe_would_find_a_missing_text_and_a_faint_one(site, page):
    opened(page, site / "index.html")
    page.evaluate("document.querySelector('article img').removeAttribute('alt')")
    faint = "html[data-theme=dark] article p { color: #222 !important }"
    page.add_style_tag(content=faint)
    text, contrast = serious_faults(page)
    assert text.startswith("light: Images must have alternat")
    assert contrast.startswith("dark: Elements must meet")
