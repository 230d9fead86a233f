"""What the site's build makes of links, panels and badges (its pages: see tests/browser)."""

import html
import json
import re
import shutil

import nbformat
import pytest

from dgm_course.lectures.notebooks import LECTURES
from docs.site import build, frames


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(build, "repository", lambda: "https://github.com/someone/course")


def mended(text, page="docs/teaching/01_planar_flows.md"):
    return build.mend_links(text, build.ROOT / page, {*LECTURES})


def test_links_between_pages_stay():
    for link in (
        "[1](../../notebooks/01_planar_flows.ipynb)",
        "[p](https://example.org)",
        "[a](#b)",
    ):
        assert mended(link) == link


def test_links_to_the_library_lead_to_its_reference():
    assert mended("[m](../../dgm_course/flows)") == "[m](../../reference/index.md)"
    target = "../../reference/dgm_course.flows.planar.md"
    assert mended("[m](../../dgm_course/flows/planar.py)") == f"[m]({target})"


def test_links_to_other_files_wait_for_the_repository():
    assert mended("see [the tests](../../tests/test_flows.py)") == "see the tests"


def test_links_to_other_files_lead_to_the_repository(address):
    link = mended("[t](../../tests/test_flows.py)")
    assert link == "[t](https://github.com/someone/course/blob/main/tests/test_flows.py)"


def test_badges_appear_with_the_address(address):
    found = build.badges(LECTURES[0])
    path = "notebooks/01_planar_flows.ipynb"
    assert f"https://mybinder.org/v2/gh/someone/course/main?urlpath=lab/tree/{path}" in found
    assert f"https://colab.research.google.com/github/someone/course/blob/main/{path}" in found
    for picture in re.findall(r"\]\(\.\./(docs/images/\w+\.svg)\)", found):
        assert (build.ROOT / picture).is_file()


def test_without_an_address_there_is_no_badge(monkeypatch):
    for url in ("", "https://git.example.org/someone/course"):
        monkeypatch.setattr(build, "repository", lambda url=url: url)
        assert build.badges(LECTURES[0]) == ""


def test_the_settings_name_a_repository_or_none():
    assert build.repository() == "" or build.repository().startswith("https://")


def panel(labels=("a", '<"b">')):
    controls = [
        {"name": "n", "kind": "count", "labels": ["1", "2"], "start": 1},
        {"name": "kind", "kind": "choice", "labels": [*labels], "start": 0},
        {"name": "mark", "kind": "tick", "labels": ["False", "True"], "start": 0},
    ]
    states = ["1,0,0", "0,0,0", "1,1,0"]
    shown = {state: [f"{i}.webp", f'picture "{i}" </script>'] for i, state in enumerate(states)}
    return {"controls": controls, "frames": shown, "film": False, "size": [640, 400]}


def test_a_panel_shows_its_first_frame_without_a_script():
    markup = build.panel_html("explore-it", panel(), "../frames/01/")
    assert 'src="../frames/01/0.webp" alt="picture &quot;0&quot; &lt;/script&gt;"' in markup
    assert "puts the others back" in markup  # three of eight states
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', markup)
    assert json.loads(data)["frames"]["0,0,0"] == ["1.webp", 'picture "1" </script>']
    assert json.loads(data)["sliders"] == [0]
    assert [json.loads(html.unescape(t)) for t in re.findall("data-labels='(.*?)'", markup)] == [
        ["1", "2"], ["a", '<"b">'], ["False", "True"],
    ]  # fmt: skip


def test_every_control_has_a_name_for_those_who_hear_it():
    markup = build.panel_html("explore-it", panel(), "")
    assert '<label for="explore-it-0">n</label><input type="range" id="explore-it-0"' in markup
    assert "<fieldset" in markup
    assert "<legend>kind</legend>" in markup
    assert re.search(r'<label><input type="checkbox"> mark</label>', markup)


def lecture_importing(path, line):
    cells = [nbformat.v4.new_code_cell(f'{line}\ntable = results("planar_flows")')]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_lecture_depends_on_what_it_imports_and_on_its_results(tmp_path):
    path = lecture_importing(tmp_path / "01_a.ipynb", "from dgm_course.flows import PlanarFlow")
    found = {p.relative_to(frames.ROOT).as_posix() for p in frames.depends_on(path)}
    assert {"dgm_course/flows/planar.py", "dgm_course/probability.py"} <= found
    assert {name for name in found if name.endswith(".npz")} == {
        "dgm_course/results/planar_flows.npz"
    }
    assert {"dgm_course/plots/charts.py", "dgm_course/lectures/recording.py"} <= found
    assert not [name for name in found if "vae/" in name or "grading" in name]


def test_frames_are_kept_until_what_they_come_from_changes(tmp_path, monkeypatch):
    path = lecture_importing(tmp_path / "01_a.ipynb", "from dgm_course.claims import claim")
    first = frames.key(path, False)
    assert frames.key(path, False) == first
    assert frames.key(path, True) != first
    package = tmp_path / "tree"
    shutil.copytree(frames.ROOT / "dgm_course", package / "dgm_course")
    monkeypatch.setattr(frames, "ROOT", package)
    assert frames.key(path, False) == first
    (package / "dgm_course" / "vae" / "linear.py").write_text("")  # not imported
    assert frames.key(path, False) == first
    (package / "dgm_course" / "training.py").write_text("")  # imported by claims
    assert frames.key(path, False) != first
    lecture_importing(path, "from dgm_course.claims import check")
    assert frames.key(path, False) != first


def test_a_lecture_that_is_too_heavy_is_named_with_both_numbers(tmp_path):
    for name, size in [("01_a", 3), ("02_b", 7), ("03_c", 6)]:
        folder = tmp_path / "frames" / name
        folder.mkdir(parents=True)
        (folder / "0.webp").write_bytes(bytes(size * 10**6))
        page = tmp_path / "notebooks" / f"{name}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_bytes(bytes(10**5))
    sizes = build.megabytes(tmp_path)
    assert sizes == pytest.approx({"the site": 16.3, "01_a": 3.1, "02_b": 7.1, "03_c": 6.1})
    assert build.too_heavy(sizes) == ["02_b has 7.1 MB; at most 6.5 MB are allowed"]
    told = build.too_heavy({"the site": 160.04})
    assert told == ["the site has 160.0 MB; at most 150 MB are allowed"]
