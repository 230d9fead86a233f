"""The dgm command, on notebooks written here: a few kernels, and one real JupyterLab."""

from __future__ import annotations

import importlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import nbformat
import pytest
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import dgm_course
from dgm_course.cli import main
from dgm_course.lectures.lab_config import lab_arguments
from dgm_course.lectures.running import clean
from tests.lab import environment, running_lab, wait_for

ROOT = Path(__file__).parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # noqa: E501
SHOW_PIXEL = f"""\
from IPython.display import display
display({{"image/png": "{PIXEL}", "text/plain": "a pixel"}},
        metadata={{"image/png": {{"alt": "One red pixel."}}}}, raw=True)"""
# What training.fit shows, less the tqdm: a view without text, emptied at the end.
SHOW_BAR = f"""\
import uuid
handle = display({{"{VIEW}": {{"model_id": uuid.uuid4().hex}}}}, raw=True, display_id=True)
handle.update({{}}, raw=True)"""
SHOW_PANEL = f"""\
display({{"{VIEW}": {{"model_id": uuid.uuid4().hex}}, "text/plain": "a panel"}}, raw=True)"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty notebooks folder; what commands write relative to here lands beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lectures").mkdir()
    return tmp_path / "lectures"


def write(folder: Path, name: str, head: str, *sources: str) -> Path:
    notebook = new_notebook(
        cells=[new_markdown_cell(head), *[new_code_cell(source) for source in sources]]
    )
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def dgm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- finding and listing --------------------------------------------------------------------


def test_list_reads_number_title_and_minutes_from_the_first_text(folder: Path) -> None:
    write(folder, "02_second", "# 02 · A second · one\nAbout 1 minute on two cores.")
    write(folder, "01_first", "# 01 · First\n\nWhy? *Lecture 3*, 12 minutes on two cores.\n")
    write(folder, "10_draft", "No title yet")
    write(folder, "scratch", "# 03 · Not a lecture")
    result = dgm("list", "--notebooks", folder)
    assert result.exit_code == 0
    assert [re.split(r"\s{2,}", line) for line in result.output.splitlines()] == [
        ["no", "title", "minutes"],
        ["01", "First", "12"],
        ["02", "A second · one", "1"],
        ["10", "No title yet", "?"],
    ]


def test_notebooks_are_found_here_before_the_source_checkout(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, checkout = folder.parent / "notebooks", folder / "checkout"
    monkeypatch.setattr(dgm_course, "__file__", str(checkout / "dgm_course" / "__init__.py"))
    (checkout / "notebooks").mkdir(parents=True)
    here.mkdir()  # without a lecture in it, it does not count
    write(checkout / "notebooks", "01_there", "# 01 · There")
    assert "There" in dgm("list").output
    write(here, "01_here", "# 01 · Here")
    assert "Here" in dgm("list").output


@pytest.mark.parametrize("arguments", [["list"], ["run", "--all"], ["lab"]])
def test_without_notebooks_the_message_says_what_to_give(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(dgm_course, "__file__", str(folder / "dgm_course" / "__init__.py"))
    result = dgm(*arguments)
    assert result.exit_code == 2
    assert "library only" in result.output
    assert "--notebooks DIR" in result.output


def test_bad_notebooks_are_named(folder: Path) -> None:
    assert "expected files named NN_*.ipynb" in dgm("list", "--notebooks", folder).output
    assert "no lectures in nowhere" in dgm("list", "--notebooks", "nowhere").output
    (folder / "01_broken.ipynb").write_text('{"cells": [')
    result = dgm("list", "--notebooks", folder)
    assert result.exit_code == 1
    assert "01_broken.ipynb" in result.output
    assert "JSONDecodeError" in result.output


def test_help_imports_neither_jupyter_nor_torch() -> None:
    code = "import sys, dgm_course.cli; print(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert not {"torch", "jupyterlab", "nbclient", "nbformat", "traitlets"} & {*output.split()}


# --- running --------------------------------------------------------------------------------


def test_run_all_goes_on_after_a_failure_and_keeps_every_copy(folder: Path) -> None:
    (folder / "beside.txt").write_text("read from the notebook's folder")
    write(folder, "01_good", "# 01 · Good", "print(open('beside.txt').read())", SHOW_PIXEL)
    bad = write(folder, "02_bad", "# 02 · Bad", "x = 1", "y = x / 0  # here", "print(x)")
    stored = nbformat.read(bad, as_version=4)
    stored.cells[3].outputs = [new_output("stream", name="stdout", text="from an older run\n")]
    nbformat.write(stored, bad)
    write(folder, "03_last", "# 03 · Last", "6 * 7")

    result = dgm("run", "--all", "--notebooks", folder, "--html", "html")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "2 passed, 1 failed"
    assert "02_bad: failed" in result.output
    assert "in code cell 2:\n\n    y = x / 0  # here\n" in result.output
    assert "Traceback (most recent call last)" in result.output
    assert "ZeroDivisionError: division by zero" in result.output
    good, failed, last = (
        nbformat.read(Path("out", f"{name}.ipynb"), as_version=4)
        for name in ("01_good", "02_bad", "03_last")
    )
    assert good.cells[1].outputs[0].text == "read from the notebook's folder\n"
    assert [output.output_type for output in failed.cells[2].outputs] == ["error"]
    assert failed.cells[3].outputs == []
    assert last.cells[1].outputs[0].data["text/plain"] == "42"
    assert all("execution" not in cell.metadata for cell in good.cells)
    assert {path.name for path in Path("html").iterdir()} == {"01_good.html", "03_last.html"}
    assert 'alt="One red pixel."' in Path("html/01_good.html").read_text(encoding="utf-8")
    assert nbformat.read(bad, as_version=4) == stored


def test_in_place_gives_the_same_bytes_twice(folder: Path) -> None:
    path = write(
        folder, "07_lecture", "# 07 · σ", SHOW_PIXEL, "", SHOW_BAR, SHOW_PANEL, "print('a')\n'é'"
    )
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]

    assert dgm("run", "7", "--notebooks", folder, "--in-place").exit_code == 0
    first = path.read_bytes()
    assert dgm("run", "07_lecture", "--notebooks", folder, "--in-place").exit_code == 0
    assert path.read_bytes() == first

    text = first.decode()
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    _, pixel, blank, bar, panel, printed = notebook["cells"]
    assert [cell["id"] for cell in notebook["cells"]] == ids
    assert pixel["metadata"] == {"mystnb": {"image": {"alt": "One red pixel."}}}
    assert pixel["outputs"][0]["data"]["image/png"].strip() == PIXEL
    assert bar["outputs"] == []
    assert panel["outputs"][0]["data"] == {"text/plain": ["a panel"]}
    assert [output["output_type"] for output in printed["outputs"]] == ["stream", "execute_result"]
    counts = [cell["execution_count"] for cell in notebook["cells"][1:]]
    assert counts == [1, None, 2, 3, 4]
    assert blank["outputs"] == []
    assert notebook["metadata"] == {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }


def test_a_failing_notebook_is_not_stored(folder: Path) -> None:
    path = write(folder, "01_bad", "# 01 · Bad", "1 / 0")
    before = path.read_bytes()
    assert dgm("run", "01", "--notebooks", folder, "--in-place").exit_code == 1
    assert path.read_bytes() == before


def test_an_interrupt_lets_the_cell_end_and_keeps_the_copy(folder: Path) -> None:
    write(
        folder,
        "01_long",
        "# 01 · Long",
        "import time\nopen('started', 'w').close()\ntry:\n    time.sleep(120)\n"
        "except KeyboardInterrupt:\n    print('kept')",
        "print('never')",
    )
    command = [sys.executable, "-m", "dgm_course.cli", "run", "01", "--notebooks", str(folder)]
    with subprocess.Popen(
        command,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_for((folder / "started").exists)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "01_long: interrupted" in output
    assert "in code cell 1:" in output
    copy = nbformat.read("out/01_long.ipynb", as_version=4)
    assert copy.cells[1].outputs[0].text == "kept\n"
    assert copy.cells[2].outputs == []


def test_refusals_come_before_any_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "01_first", "# 01 · First", "1")
    write(folder, "02_second", "# 02 · Second", "2")
    before = path.read_bytes()

    def refusal(*arguments: str) -> str:
        result = dgm("run", "--notebooks", folder, *arguments)
        assert result.exit_code == 2
        return result.output

    assert "no lecture 3; there are 01 First, 02 Second" in refusal("1", "3")
    assert "or --all" in refusal()
    assert "or --all" in refusal("1", "--all")
    assert "--out must not be the notebooks folder" in refusal("1", "--out", str(folder))
    monkeypatch.setenv("DGM_COURSE_QUICK", "1")
    assert "unset DGM_COURSE_QUICK" in refusal("1", "--in-place")
    assert path.read_bytes() == before
    assert not Path("out").exists()


# --- storing --------------------------------------------------------------------------------


def test_clean_removes_what_changes_from_run_to_run() -> None:
    timing = {"execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"}, "tags": ["core"]}
    cell = new_code_cell("x", metadata=timing, execution_count=9)
    notebook = new_notebook(cells=[cell], metadata={"widgets": {STATE: {}}, "title": "kept"})
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    clean(notebook)
    assert cell.metadata == {"tags": ["core"]}
    assert cell.execution_count == 1
    assert set(notebook.metadata) == {"title", "kernelspec", "language_info"}
    assert "3.11" not in json.dumps(notebook)


def test_clean_keeps_the_alternative_text_up_to_date() -> None:
    def picture(alt: str | None) -> Any:
        metadata = {"image/png": {"width": 640} | ({"alt": alt} if alt else {})}
        return new_output("display_data", {"image/png": PIXEL}, metadata=metadata)

    def cleaned(before: dict[str, Any], *alts: str | None) -> dict[str, Any]:
        cell = new_code_cell("x", metadata=before, outputs=[picture(alt) for alt in alts])
        clean(new_notebook(cells=[cell]))
        return dict(cell.metadata)

    old = {"mystnb": {"image": {"alt": "Old."}}}
    assert cleaned({}, "New.") == {"mystnb": {"image": {"alt": "New."}}}
    assert cleaned(old, "New.") == {"mystnb": {"image": {"alt": "New."}}}
    assert cleaned({}, "One.", None, "Two.") == {"mystnb": {"image": {"alt": "One. Two."}}}
    assert cleaned(old, None) == {}
    assert cleaned(old) == {}
    wide = {"mystnb": {"image": {"alt": "Old.", "width": "50%"}, "figure": {"name": "fig"}}}
    kept = {"mystnb": {"image": {"width": "50%"}, "figure": {"name": "fig"}}}
    assert cleaned(wide, None) == kept


# --- JupyterLab -----------------------------------------------------------------------------


def test_only_root_needs_allow_root() -> None:
    folder = Path("notebooks")
    assert "--allow-root" in lab_arguments(folder, None, [], 0)
    assert "--allow-root" not in lab_arguments(folder, None, [], 1000)
    assert "--allow-root" not in lab_arguments(folder, None, [], None)
    assert lab_arguments(folder, None, ["--allow-root"], 0).count("--allow-root") == 1


def test_lab_arguments_of_the_user_replace_ours() -> None:
    ours = lab_arguments(Path("notebooks"), 8890, ["--no-browser"], 1000)
    assert ours == [
        "--ServerApp.root_dir=notebooks",
        "--ServerApp.ip=127.0.0.1",
        "--LabApp.news_url=None",
        "--LabApp.default_url=/lab/tree/00_start_here.ipynb",
        "--ServerApp.contents_manager_class=dgm_course.lectures.contents.LectureContents",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--ServerApp.port=8890",
        "--no-browser",
    ]
    assert not any("token" in argument or "password" in argument for argument in ours)
    assert "/lab/tree/" not in "".join(lab_arguments(Path("elsewhere"), None, [], None))
    # Jupyter stops at an argument that comes twice, in either spelling.
    for extra in (["--ip", "0.0.0.0"], ["--ServerApp.ip=0.0.0.0"]):
        arguments = lab_arguments(Path("notebooks"), None, extra, None)
        assert [a for a in arguments if "ip" in a.partition("=")[0]] == extra[:1]


def accepts(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


def test_lab_opens_behind_its_token_and_stops_on_ctrl_c(folder: Path, tmp_path: Path) -> None:
    write(folder, "01_first", "# 01 · First")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_lab(folder, tmp_path, port) as (process, address):
            base, _, token = address.partition("/lab?token=")
            opener = build_opener(ProxyHandler({}))

            def get(path: str, **headers: str) -> Any:
                with opener.open(Request(f"{base}/{path}", headers=headers), timeout=30) as reply:
                    return json.loads(reply.read())

            host, _, free_port = base.removeprefix("http://").partition(":")
            assert int(free_port) != port
            wait_for(lambda: accepts(host, int(free_port)))  # it prints before it listens
            with pytest.raises(HTTPError, match="403") as refused:
                get("api/status")
            refused.value.close()
            key = {"Authorization": f"token {token}"}
            assert get("api/status", **key)["kernels"] == 0
            assert [entry["name"] for entry in get("api/contents", **key)["content"]] == [
                "01_first.ipynb"
            ]
            # No question about news on the first start, and nothing is fetched.
            settings = get("lab/api/settings/@jupyterlab/apputils-extension:notification", **key)
            defaults = settings["schema"]["properties"]
            assert defaults["fetchNews"]["default"] == "false"
            assert defaults["checkForUpdates"]["default"] is False
            kernels = get("lab/api/settings/@jupyterlab/apputils-extension:kernels-settings", **key)
            how = kernels["schema"]["properties"]["commsOverSubshells"]["default"]
            assert how == "disabled"  # sliders in the cells' thread
            assert get("lab/api/news", **key) == {"news": []}
            assert get("lab/api/update", **key) == {"notification": None}

            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
    assert "Traceback" not in (tmp_path / "lab.log").read_text()


def test_lab_hears_ctrl_c_also_inside_a_finaliser(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops a KeyboardInterrupt there, and the server would run on."""
    heard = list[int]()

    class Freed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def serve(arguments: list[str]) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        Freed()

    for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH"):
        monkeypatch.setenv(name, "")  # the command adds to them
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", serve)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert dgm("lab", "--notebooks", str(folder)).exit_code == 0
        assert heard == [signal.SIGINT]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as before the server is up
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- data -----------------------------------------------------------------------------------


def test_data_says_what_is_there_and_fetches_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist = importlib.import_module("dgm_course.data.mnist")
    monkeypatch.setenv("DGM_COURSE_DATA_DIR", str(tmp_path))
    fetched: list[bool] = []
    monkeypatch.setattr(mnist, "fetch", lambda: fetched.append(True))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").touch()

    result = dgm("data", "--no-fetch")
    assert result.exit_code == 0
    assert str(tmp_path) in result.output
    assert result.output.count(": missing") == 3
    assert "t10k-labels-idx1-ubyte.gz: there" in result.output
    assert not fetched
    assert dgm("data").exit_code == 0
    assert fetched

    def no_network() -> None:
        raise ConnectionError("no download; digits() needs none")

    monkeypatch.setattr(mnist, "fetch", no_network)
    result = dgm("data")
    assert result.exit_code == 1
    assert "Error: no download; digits() needs none" in result.output
