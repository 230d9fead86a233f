"""What `dgm lab` sets in JupyterLab, by files in a folder that lasts as long as it runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
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


def without_home(folder: Path) -> dict[str, str]:
    """Variables that move Jupyter's own folders below ``folder``, where home cannot be written."""
    from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

    moved = {}
    for kind, place in {
        "CONFIG": jupyter_config_dir(),
        "DATA": jupyter_data_dir(),
        "RUNTIME": jupyter_runtime_dir(),
    }.items():
        try:
            os.makedirs(place, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError:
            moved[f"JUPYTER_{kind}_DIR"] = str(folder / kind.lower())
    return moved


def lab_arguments(
    folder: Path, port: int | None, extra: Sequence[str], uid: int | None
) -> list[str]:
    """The arguments of jupyter lab: our defaults, less what ``extra`` sets, then ``extra``."""
    given = {argument.partition("=")[0] for argument in extra}
    defaults = [
        ("--ServerApp.root_dir", "--notebook-dir", f"={folder}"),
        ("--ServerApp.ip", "--ip", "=127.0.0.1"),
        ("--LabApp.news_url", "", "=None"),
        *[
            ("--LabApp.default_url", "", f"=/lab/tree/{page.name}")
            for page in folder.glob("00_*.ipynb")  # the first page, not an empty launcher
        ],
        ("--ServerApp.contents_manager_class", "", "=dgm_course.lectures.contents.LectureContents"),
        ("--LabApp.check_for_updates_class", "", "=jupyterlab.NeverCheckForUpdate"),
    ]
    if port is not None:
        defaults.append(("--ServerApp.port", "", f"={port}"))
    if uid == 0:
        defaults.append(("--allow-root", "--ServerApp.allow_root", ""))
    # Jupyter refuses an argument that comes twice.
    ours = [name + value for name, alias, value in defaults if not given & {name, alias}]
    return [*ours, *extra]
