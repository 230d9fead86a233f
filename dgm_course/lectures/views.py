"""The views of widgets that a browser saves with a notebook."""

from __future__ import annotations

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"


def drop_views(notebook: Any) -> None:
    """Take the views of widgets out of a notebook, and leave what stands in for them."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for output in outputs:
            output.get("data", {}).pop(VIEW, None)
        if outputs:
            cell["outputs"] = [output for output in outputs if output.get("data") != {}]
