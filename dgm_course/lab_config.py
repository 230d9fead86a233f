"""What `dgm lab` sets in JupyterLab, by files in a folder that lasts as long as it runs."""

from __future__ import annotations

import json
from pathlib import Path

# Defaults: what the user has chosen before stays.
OVERRIDES = {
    # JupyterLab asks whether it may fetch news unless this setting answers, whatever news_url is.
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    # By default sliders run in a second thread beside a training cell, draw from the same random
    # stream, and so change what it computes.
    "@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"},
}
# Slides: a theme whose letters are not fetched from elsewhere, and no animation to wait for.
RISE = {"jupyterlab-rise:plugin": {"theme": "white", "transition": "none"}}

# The page of jupyterlab-rise (0.43) lacks a module that the widget manager of ipywidgets (8.1)
# asks for and can do without; where it is missing, no slider moves on a slide. This extension
# lends an empty one. In JupyterLab itself the real one is there, and stays.
CONSOLE = """\
(window._JUPYTERLAB ??= {})["dgm-slides"] = {
  init(shared) {
    const IConsoleTracker = { name: "no consoles on slides" };
    const get = () => Promise.resolve(() => ({ IConsoleTracker }));
    shared["@jupyterlab/console"] ??= { "4.6.2": { get, from: "dgm-slides", eager: false } };
  },
  get() {
    const plugin = { id: "dgm-slides:console", autoStart: true, activate() {} };
    return Promise.resolve(() => ({ __esModule: true, default: plugin }));
  },
};
"""
EXTENSION = {
    "name": "dgm-slides",
    "version": "0.1.0",
    "jupyterlab": {"_build": {"load": "static/remoteEntry.js", "extension": "./extension"}},
}


def write_lab_config(folder: Path, has_rise: bool) -> None:
    """Write settings (for JUPYTER_CONFIG_PATH) and the slides' extension (for JUPYTER_PATH)."""
    settings = folder / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(OVERRIDES | (RISE if has_rise else {})))
    if has_rise:
        extension = folder / "labextensions" / "dgm-slides"
        (extension / "static").mkdir(parents=True)
        (extension / "static" / "remoteEntry.js").write_text(CONSOLE)
        (extension / "package.json").write_text(json.dumps(EXTENSION))
