"""The files that `dgm lab` writes; what they do is tested in tests/browser."""

import json

import pytest

from dgm_course.lectures.lab_config import without_home, write_lab_config


def test_slides_have_their_theme_and_the_module_that_they_lack(tmp_path):
    write_lab_config(tmp_path, has_rise=True)
    settings = json.loads((tmp_path / "labconfig" / "default_setting_overrides.json").read_text())
    assert settings["jupyterlab-rise:plugin"]["theme"] == "white"  # its letters are not fetched
    extension = tmp_path / "labextensions" / "dgm-slides"
    build = json.loads((extension / "package.json").read_text())["jupyterlab"]["_build"]
    assert '"@jupyterlab/console"' in (extension / build["load"]).read_text()


def test_without_slides_there_is_nothing_of_them(tmp_path):
    write_lab_config(tmp_path, has_rise=False)
    settings = json.loads((tmp_path / "labconfig" / "default_setting_overrides.json").read_text())
    assert not any("rise" in name for name in settings)
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert not (tmp_path / "labextensions").exists()


@pytest.mark.parametrize("is_writable", [True, False])
def test_jupyter_moves_out_of_a_home_that_cannot_be_written(is_writable, tmp_path, monkeypatch):
    """A file in the folder's place refuses root, too."""
    home = tmp_path / "home"
    home.mkdir() if is_writable else home.touch()
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(home / name))
    moved = without_home(tmp_path / "elsewhere")
    names = [] if is_writable else ["CONFIG", "DATA", "RUNTIME"]
    places = {f"JUPYTER_{name}_DIR": str(tmp_path / "elsewhere" / name.lower()) for name in names}
    assert moved == places
