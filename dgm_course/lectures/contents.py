"""Notebooks as `dgm lab` serves them."""

from __future__ import annotations

from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from dgm_course.lectures.views import drop_views


class LectureContents(AsyncLargeFileManager):
    """Opens a notebook without the views of widgets whose kernel is gone.

    A browser saves a panel's view with the notebook. Opened again without its kernel, the view
    would say "model not found"; without it the panel's text shows, "run the cell to use it". While
    the kernel runs (the page loaded again, slides) the view stays and works.
    """

    async def get(self, path: str, *args: Any, **options: Any) -> Any:
        model = await super().get(path, *args, **options)
        if model["type"] == "notebook" and model["content"] is not None:
            sessions = getattr(self.parent, "session_manager", None)
            running = await sessions.list_sessions() if sessions else []
            if path.strip("/") not in {session["path"].strip("/") for session in running}:
                drop_views(model["content"])
        return model
