"""An installed Chromium, driven by Playwright: no browser is fetched, and none leaves loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ELSEWHERE = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
# As root Chromium has no sandbox; the rest keeps it from talking to anybody.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

# The time from the reader's hand to the picture in sight. A watch is set on a panel; the first
# key, click or drag after it starts the clock; it stops in the frame after the one in which the
# new picture, decoded, has been drawn.
WATCH = """
window.dgm = {
  panel: null, start: null, took: null, pictures: 0,
  watch(panel) {
    const picture = () => panel.querySelector('img')?.src;
    let shown = picture();
    Object.assign(this, {panel, start: null, took: null, pictures: 0});
    this.observer?.disconnect();
    this.observer = new MutationObserver(async () => {
      const image = panel.querySelector('img');
      if (!image || image.src === shown) return;
      shown = image.src;
      this.pictures += 1;
      await image.decode();
      requestAnimationFrame(() => setTimeout(() => { this.took ??= performance.now() - this.start; }));
    });
    this.observer.observe(panel,
      {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
  },
};
for (const kind of ['keydown', 'click', 'change', 'pointermove'])
  document.addEventListener(kind, event => {
    if (kind !== 'pointermove' || event.buttons) window.dgm.start ??= event.timeStamp;
  }, {capture: true});
"""  # noqa: E501


def executable() -> str | None:
    """The path of an installed Chromium or Chrome; None if there is none, or no Playwright."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return None
    found = (shutil.which(name) for name in (os.environ.get("CHROMIUM", ""), *NAMES) if name)
    files = (path for path in ELSEWHERE if Path(path).is_file())
    return next(filter(None, found), None) or next(files, None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a fresh profile, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()


class Problems:
    """What must not happen in a page: an uncaught error, a request beyond ``home``."""

    def __init__(self, page: Page, home: str) -> None:
        self.home = home
        self.found: list[str] = []
        page.on("pageerror", lambda error: self.found.append(f"page error: {error}"))
        page.on("crash", lambda _: self.found.append("the page crashed"))
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url))

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"data", "blob", "attachment"}:  # the last before JupyterLab fills it in
            return
        if parts.scheme == "file" and self.home == "file":
            return
        if parts.netloc != self.home:
            self.found.append(f"a request left the machine: {url}")
