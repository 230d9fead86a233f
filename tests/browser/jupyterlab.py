"""A real JupyterLab, as `dgm lab` starts it, and a lecture in it, with what a reader does there."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dgm_course.lectures.notebooks import NOTEBOOKS
from tests.browser.chromium import WATCH, Problems
from tests.lab import running_lab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

SETTINGS = {"@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"}}  # all cells stay
PROMPTS = "[...document.querySelectorAll('.jp-InputPrompt')].map(e => e.textContent)"
# What JupyterLab's menus call; a kernel that is still starting is waited for.
OPEN = """async name => {
  const widget = await jupyterapp.commands.execute('docmanager:open', {path: name});
  await widget.context.ready;
  await widget.sessionContext.ready;
  await widget.sessionContext.session.kernel.info;
}"""
CLOSE = """async () => {
  for (const widget of [...jupyterapp.shell.widgets('main')]) {
    const context = widget.context;
    if (context?.sessionContext) await context.sessionContext.shutdown();
    if (context) context.model.dirty = false;  // closed without a question
    widget.close();
  }
}"""
IDLE = "document.querySelector('#jp-main-statusbar').innerText.includes('| Idle')"
ERRORS = (  # in the outputs of cells, and below a panel's picture
    '[data-mime-type="application/vnd.jupyter.error"], '
    '[data-mime-type="application/vnd.jupyter.stderr"], '
    '.jp-OutputArea-output [role="alert"]'
)
AT_ITS_END = "xpath=.//*[contains(@class, 'noUi-handle')][@aria-valuenow = @aria-valuemax]"


class Lab(NamedTuple):
    """A running JupyterLab: its address, its token, its folder of notebooks, and a reader's tabs.

    The tabs share what the browser keeps. ``tab`` holds JupyterLab itself, which is loaded once:
    one notebook after the other is opened in it, as a reader does.
    """

    address: str
    token: str
    folder: Path
    tabs: BrowserContext
    tab: Page
    problems: Problems


@contextmanager
def jupyterlab(home: Path, browser: Browser) -> Iterator[Lab]:
    """`dgm lab` on loopback over a copy of the notebooks, with config folders of its own."""
    folder = home / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "DGM_COURSE_QUICK": "1",
        "OMP_NUM_THREADS": "1",
    }
    with running_lab(folder, home, port, "--expose-app-in-browser", **variables) as (_, url):
        address, _, token = url.partition("/lab?token=")
        tabs = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        tab, problems = open_tab(tabs, address, f"lab?reset&token={token}")
        tab.wait_for_function("window.jupyterapp && window.jupyterapp.restored", polling=100)
        yield Lab(address, token, folder, tabs, tab, problems)
        tabs.close()


def open_tab(tabs: BrowserContext, address: str, path: str) -> tuple[Page, Problems]:
    """A watched tab with ``path`` of the lab."""
    page = tabs.new_page()
    page.set_default_timeout(240_000)  # milliseconds; a busy machine is no fault
    problems = Problems(page, urlsplit(address).netloc)
    page.add_init_script(WATCH)
    page.goto(f"{address}/{path}")
    return page, problems


class NotebookPage:
    """A notebook, open in JupyterLab's tab and alone in it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.path = lab, lab.folder / name
        self.page, self.problems = lab.tab, lab.problems
        self.problems.found.clear()
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.evaluate(OPEN, name)
        # The execution indicator turns idle too early: Run All then silently runs nothing.
        status = self.page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle$"))
        status.wait_for()

    @contextmanager
    def tab(self, path: str) -> Iterator[Page]:
        """Go on in a tab of its own, with ``path`` of the lab, and then here again."""
        path = f"{path}{'&' if '?' in path else '?'}token={self.lab.token}"
        self.page, self.problems = open_tab(self.lab.tabs, self.lab.address, path)
        yield self.page
        self.page.close()
        self.page, self.problems = self.lab.tab, self.lab.problems

    def close(self) -> None:
        """Close it and its kernel: the next notebook wants the memory."""
        self.lab.tab.evaluate(CLOSE)

    def run_all(self, seconds: float = 600) -> None:
        """Run All Cells, and wait until the last one has run."""
        for name in ("Run", "Run All Cells"):
            self.page.get_by_role("menuitem", name=name, exact=True).click()
        self.page.wait_for_function(f"{PROMPTS}.some(text => text.includes('*'))", polling=100)
        done = f"{PROMPTS}.every(text => !text.includes('*'))"
        self.page.wait_for_function(done, polling=200, timeout=seconds * 1000)

    def unfinished(self) -> list[str]:
        """The prompts of code cells that have not run, with the place where they stand."""
        prompts = self.page.evaluate(PROMPTS)
        return [f"cell {i}: {text}" for i, text in enumerate(prompts) if "[ ]" in text]

    def errors(self) -> list[str]:
        """What cells and panels show as an error, and what the page itself met."""
        return [*self.page.locator(ERRORS).all_inner_texts(), *self.problems.found]

    def panels(self) -> list[Panel]:
        """The panels of the notebook, in order."""
        found = self.page.locator(".jp-OutputArea-output > .widget-vbox:has(img)")
        return [Panel(self, found.nth(i)) for i in range(found.count())]


class Panel:
    """A panel of `explore` or `live` in the page; each verb waits for the picture to change.

    The milliseconds from the reader's hand to the new picture are kept in ``took``.
    """

    def __init__(self, notebook: NotebookPage, root: Locator) -> None:
        self.page, self.root = notebook.page, root
        self.took: list[float] = []

    @property
    def is_live(self) -> bool:
        return self.root.get_by_role("button", name="Step", exact=True).count() > 0

    @property
    def picture(self) -> str:
        return str(self.root.locator("img").get_attribute("src"))

    def changes(self, what: str, act: Callable[[], object], seconds: float = 60) -> None:
        """Do ``act`` and wait until the picture that it leads to is in sight."""
        self.root.evaluate("panel => dgm.watch(panel)")
        act()
        try:
            self.page.wait_for_function("dgm.took !== null", polling=20, timeout=seconds * 1000)
        except Exception as error:
            text = self.root.inner_text()
            raise AssertionError(f"{what} changes no picture in the panel with {text!r}") from error
        self.took.append(self.page.evaluate("dgm.took"))

    def move_controls(self) -> None:
        """Every control by mouse and by keyboard."""
        self.root.scroll_into_view_if_needed()
        for i in range(self.root.locator(".widget-hslider").count()):
            self.move_slider(self.root.locator(".widget-hslider").nth(i))
        for i in range(self.root.locator(".widget-toggle-buttons").count()):
            self.press_toggles(self.root.locator(".widget-toggle-buttons").nth(i))
        for box in self.root.get_by_role("checkbox").all():
            self.changes("a click on the checkbox", box.click)
            box.focus()
            self.changes("Space on the checkbox", lambda: self.page.keyboard.press("Space"))

    def move_slider(self, slider: Locator) -> None:
        name = slider.locator("label").inner_text()
        key = "ArrowRight" if self.drag(slider) else "ArrowLeft"
        slider.locator(".noUi-handle").focus()
        self.changes(f"{key} on {name}", lambda: self.page.keyboard.press(key))

    def drag(self, slider: Locator) -> bool:
        """By the mouse, to the quarter of the track that is further away; whether leftwards."""
        name = slider.locator("label").inner_text()
        track = slider.locator(".noUi-target").bounding_box()
        at = slider.locator(".noUi-handle").bounding_box()
        assert track
        assert at
        x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        goes_left = x > track["x"] + track["width"] / 2
        target = track["x"] + track["width"] * (0.25 if goes_left else 0.75)
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        self.changes(f"dragging {name}", lambda: mouse.move(target, y))
        mouse.up()
        return goes_left

    def press_toggles(self, group: Locator) -> None:
        buttons = group.get_by_role("button").all()
        chosen = [b.evaluate("e => e.classList.contains('mod-active')") for b in buttons]
        others = [button for button, is_on in zip(buttons, chosen, strict=True) if not is_on]
        for button in others:
            self.changes("a toggle button", button.click)
        buttons[chosen.index(True)].focus()
        self.changes("Space on a toggle button", lambda: self.page.keyboard.press("Space"))

    def play_and_pause(self) -> None:
        """Pictures come while it plays, and none after the pause."""
        for play in self.root.locator(".widget-play").all():
            for thumb in self.root.locator(AT_ITS_END).all():
                self.changes("Home", partial(thumb.press, "Home"))  # else play stops at once
            button = play.locator("button").first  # it turns from play to pause
            self.changes("play", button.click)
            # A short slider may come to its end by itself, and its button shows play again.
            self.page.wait_for_function(
                "b => dgm.pictures > 1 || b.querySelector('.fa-play')", arg=button.element_handle()
            )
            button.evaluate("b => b.querySelector('.fa-pause') && b.click()")
            self.quiet()

    def quiet(self) -> None:
        """Wait until no new picture comes: on a busy machine there is a queue of ticks."""
        for _ in range(60):
            self.page.wait_for_function(IDLE, polling=50)
            self.root.evaluate("panel => dgm.watch(panel)")
            self.page.wait_for_timeout(350)  # a play button ticks every 200
            if self.page.evaluate("dgm.pictures") == 0:
                return
        raise AssertionError("pictures come after the pause")

    def press(self, name: str) -> None:
        button = self.root.get_by_role("button", name=name, exact=True)
        self.changes(name, button.click)
