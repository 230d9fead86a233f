"""What `dgm lab` sets in JupyterLab, by files in a folder that lasts as long as it runs.

And, for any notebook that is run, folders that can be written where home cannot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

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
    """Write settings (for JUPYTER_CONFIG_PATH), this interpreter's kernel, the slides' extension.

    The last two are for JUPYTER_PATH, where the first kernel of a name is the one that is started.
    """
    from ipykernel.kernelspec import KERNEL_NAME, write_kernel_spec

    write_kernel_spec(folder / "kernels" / KERNEL_NAME)
    settings = folder / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(OVERRIDES | (RISE if has_rise else {})), encoding="utf-8")
    if has_rise:
        extension = folder / "labextensions" / "dgm-slides"
        (extension / "static").mkdir(parents=True)
        (extension / "static" / "remoteEntry.js").write_text(CONSOLE, encoding="utf-8")
        (extension / "package.json").write_text(json.dumps(EXTENSION), encoding="utf-8")


def without_home(folder: Path) -> dict[str, str]:
    """Variables that move folders of programs below ``folder``, where home cannot be written.

    They are Jupyter's, IPython's and matplotlib's, whose first lines would else say so.
    """
    from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

    if os.path.expanduser("~") == "~":  # a container's user, whom nobody has entered
        return {"HOME": str(folder)}
    places = {
        "JUPYTER_CONFIG_DIR": [jupyter_config_dir()],
        "JUPYTER_DATA_DIR": [jupyter_data_dir()],
        "JUPYTER_RUNTIME_DIR": [jupyter_runtime_dir()],
        "IPYTHONDIR": [os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")],
        "MPLCONFIGDIR": _matplotlib_folders(),
    }
    return {
        name: str(folder / name.lower().removeprefix("jupyter_").removesuffix("_dir"))
        for name, wanted in places.items()
        if not all(map(_can_be_written, wanted))
    }


def _matplotlib_folders() -> list[str]:
    """Where matplotlib keeps its settings and, last, its list of fonts."""
    if given := os.environ.get("MPLCONFIGDIR"):
        return [given]
    if not sys.platform.startswith(("linux", "freebsd")):
        return [os.path.expanduser("~/.matplotlib")]
    kinds = {"XDG_CONFIG_HOME": "~/.config", "XDG_CACHE_HOME": "~/.cache"}
    bases = [os.environ.get(name) or os.path.expanduser(else_) for name, else_ in kinds.items()]
    return [os.path.join(base, "matplotlib") for base in bases]


def _can_be_written(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def writable_folders() -> Iterator[None]:
    """Let kernels that are started here say nothing of their own, on any machine.

    What cannot be written is moved, the reader's IPython settings and start-up files are left out,
    and matplotlib's list of fonts, of whose making it speaks, is made beforehand.
    """
    with tempfile.TemporaryDirectory(prefix="dgm_") as folder, mock.patch.dict(os.environ):
        os.environ.update(without_home(Path(folder)), IPYTHONDIR=os.path.join(folder, "ipython"))
        os.environ.pop("PYTHONSTARTUP", None)
        if not any(Path(_matplotlib_folders()[-1]).glob("fontlist-*.json")):
            make = [sys.executable, "-c", "import matplotlib.font_manager"]
            subprocess.run(make, capture_output=True)
        yield


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
