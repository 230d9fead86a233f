"""Sphinx's settings. The sources are staged by build.py, with frames in place of dead panels."""

from __future__ import annotations

import os
import re
from pathlib import Path

import dgm_course

HERE = Path(__file__).parent

project = "dgm_course"
author = "the dgm_course authors"
version = release = dgm_course.__version__
html_title = "Deep generative models"
copyright = "the dgm_course authors; code MIT, text and figures CC BY 4.0"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["**/results"]
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_execution_mode = "off"  # what is committed is shown
nb_ipywidgets_js = {}  # panels are frames: no widget manager, and nothing from elsewhere
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
mathjax_path = "tex-svg-full.js"  # needs no fonts

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature names them
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_custom_sections = [("Shapes", "notes"), ("Omits", "notes")]
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_static_path = [str(HERE / "static"), os.environ["DGM_SITE_SCRIPTS"]]
html_css_files = ["panel.css"]
html_js_files = [("panel.js", {"defer": "defer"})]
html_theme_options = {
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    **({"repository_url": url, "use_repository_button": True}
       if (url := os.environ.get("DGM_SITE_REPOSITORY", "")) else {}),
}  # fmt: skip
html_show_sourcelink = False
html_show_sphinx = False


def _plain(
    _app: object, _what: str, _name: str, _o: object, _opt: object, lines: list[str]
) -> None:
    """Docstrings are plain text with `names` in backticks: mark up what is, and nothing else."""
    for i, line in enumerate(lines):
        pieces = re.split(r"(``[^`]+``|`[^`]+`)", line)
        for j, piece in enumerate(pieces):
            if j % 2:
                pieces[j] = f"``{piece.strip('`')}``"
            else:
                pieces[j] = re.sub(r"([*|\\])", r"\\\1", re.sub(r"(\w)_(?=\W|$)", r"\1\\_", piece))
        lines[i] = "".join(pieces)


def _named_as_it_reads(
    _app: object, _page: str, _template: str, context: dict[str, str], _doctree: object
) -> None:
    """A folded cell's label is what stands on it, for those who hear it, too."""
    if body := context.get("body"):
        context["body"] = body.replace(' aria-label="Toggle hidden content"', "")


def setup(app: object) -> None:
    app.connect("html-page-context", _named_as_it_reads)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
