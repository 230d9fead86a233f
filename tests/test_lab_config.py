"""The files that `dgm lab` writes; what they do is tested in tests/browser."""

import json

from dgm_course.lectures.lab_config import write_lab_config


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
