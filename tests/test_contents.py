"""What `dgm lab` serves of a notebook whose kernel is gone, and of one whose kernel runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from traitlets import Any
from traitlets.config import LoggingConfigurable

from dgm_course.lectures.contents import LectureContents
from dgm_course.lectures.views import VIEW

STATE = "application/vnd.jupyter.widget-state+json"


class Sessions:
    def __init__(self, *paths):
        self.paths = paths

    async def list_sessions(self):
        return [{"path": path} for path in self.paths]


class Server(LoggingConfigurable):
    session_manager = Any()


@pytest.fixture
def saved(tmp_path):
    view = {"version_major": 2, "version_minor": 0, "model_id": "1"}
    panel = new_output("execute_result", {VIEW: view, "text/plain": "run the cell"})
    bar = new_output("display_data", {VIEW: view})
    notebook = new_notebook(
        cells=[new_code_cell("explore()", outputs=[panel]), new_code_cell("fit()", outputs=[bar])],
        metadata={"widgets": {STATE: {"state": {}}}, "title": "kept"},
    )
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    return tmp_path


def finished(coroutine):
    """Its result, from a thread of its own: a browser test leaves its loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def served(folder, *running):
    contents = LectureContents(
        root_dir=str(folder), parent=Server(session_manager=Sessions(*running))
    )
    return finished(contents.get("01_a.ipynb"))["content"]


def test_without_a_kernel_the_text_shows(saved):
    notebook = served(saved, "02_b.ipynb")
    (output,) = notebook["cells"][0]["outputs"]
    assert set(output["data"]) == {"text/plain"}
    assert notebook["cells"][1]["outputs"] == []
    assert set(notebook["metadata"]) == {"title"}


def test_with_its_kernel_the_view_stays(saved):
    notebook = served(saved, "01_a.ipynb")
    (output,) = notebook["cells"][0]["outputs"]
    assert VIEW in output["data"]


def test_folders_and_files_without_content_pass(saved):
    contents = LectureContents(root_dir=str(saved), parent=Server(session_manager=Sessions()))
    assert finished(contents.get("", content=True))["type"] == "directory"
    assert finished(contents.get("01_a.ipynb", content=False))["content"] is None
