"""The committed table of likelihoods on the digits: its lines, and that they can be made again."""

import csv
import math
from pathlib import Path

import pytest
import torch
from torch.nn.utils import vector_to_parameters

from dgm_course.data import digits, results
from dgm_course.probability import LIKELIHOODS, read_likelihoods

MAKERS = Path(__file__).parent.parent / "notebooks" / "results"


@pytest.fixture
def maker(monkeypatch):
    """The command that makes the table; it imports lecture 5's, which stands beside it."""
    monkeypatch.syspath_prepend(MAKERS)
    import likelihoods

    return likelihoods


def table():
    return {row.name: row for row in read_likelihoods()}


def test_every_line_is_of_the_same_test_images(maker):
    with LIKELIHOODS.open(encoding="utf-8", newline="") as file:
        titles, *lines = csv.reader(file)
    assert all(len(line) == len(titles) for line in lines)
    assert {*table()} == {*maker.ROWS}, "run python notebooks/results/likelihoods.py"
    assert len(lines) == len(table()), "two lines of one name"
    images, rows = digits("test").images, [*table().values()]
    for row in rows:
        assert row.kind in ("exact", "bound")
        assert (row.levels, row.n_images, row.n_dims) == (17, len(images), 64)
        assert 0 < row.nats.value <= 64 * math.log(17) + 1e-4
        for nats, bits in zip(row.nats, row.bits_per_dim, strict=True):
            assert bits == pytest.approx(nats / (64 * math.log(2)), abs=1e-4)
        assert row.n_parameters is None or row.n_parameters >= 0
        assert row.seconds is None or row.seconds >= 0
    assert [row.nats.value for row in rows] == sorted([r.nats.value for r in rows], reverse=True)


@pytest.mark.parametrize("name", ["uniform", "independent pixels"])
def test_the_cheap_rows_come_out_again_to_the_last_digit(maker, name):
    row, stored = maker.ROWS[name](name), table()[name]
    assert row.nats == pytest.approx(stored.nats, abs=1e-4)
    assert row.bits_per_dim == pytest.approx(stored.bits_per_dim, abs=1e-4)
    assert row[:5] == stored[:5]
    assert row[7:] == stored[7:]


def test_trained_rows_agree_with_what_lecture_5_stores(maker):
    stored = results("pixelcnn")
    for name, of_lecture in (("PixelCNN", "plain"), ("Gated PixelCNN", "gated")):
        nats = table()[name].nats
        assert abs(nats.value - stored[f"{of_lecture}/nats"][0]) < nats.standard_error
    conditional = maker.pixelcnn.conditional()
    vector_to_parameters(
        torch.from_numpy(stored["conditional/weights"]).float(), conditional.parameters()
    )
    row = maker.row("", maker.sum_over_classes(conditional), n_parameters=0)
    nats = table()["Gated PixelCNN, sum over classes"].nats
    assert abs(row.nats.value - nats.value) < nats.standard_error


def test_rows_of_lecture_12_are_those_of_its_stored_table():
    stored = results("pixel_models")
    for name in ("Row LSTM", "Diagonal BiLSTM", "PixelCNN++", "PixelSNAIL"):
        row, nats = table()[name], stored[f"{name}/nats"][0]
        assert row.n_parameters == stored[f"{name}/parameters"]
        assert abs(row.nats.value - nats.mean()) < row.nats.standard_error


def test_rows_of_lecture_13_are_those_of_its_stored_table():
    stored = results("discrete_codes")
    names = {"VQ-VAE, 4 × 4 words of 16": "4 × 4 of 16", "VQ-VAE, 2 × 2 words of 8": "2 × 2 of 8"}
    for name, of_lecture in names.items():
        row, bound = table()[name], stored[f"{of_lecture}/nats"][0, :2].sum()
        assert row.kind == "bound"
        assert abs(row.nats.value - bound) < row.nats.standard_error
    row = table()["VQ-VAE, 2 × 2 words of 8, all sentences"]
    assert row.kind == "exact"
    assert abs(row.nats.value - stored["2 × 2 of 8/exact"][0, 0]) < row.nats.standard_error
    assert row.nats.value < table()["VQ-VAE, 2 × 2 words of 8"].nats.value


def test_rows_of_lecture_14_are_those_of_its_stored_table():
    stored = results("transformers")
    kept = {"GPT": "GPT", "GPT, rows and columns": "rows and columns"}
    for name, key in (kept | {"Sparse Transformer": "strided"}).items():
        row, nats = table()[name], stored[f"{key}/nats"][0]
        assert row.n_parameters == stored[f"{key}/parameters"]
        assert abs(row.nats.value - nats.mean()) < row.nats.standard_error


def test_one_row_is_made_and_the_others_kept(maker, monkeypatch, tmp_path, capsys):
    out = tmp_path / "table.csv"
    out.write_bytes(LIKELIHOODS.read_bytes())
    monkeypatch.setattr("sys.argv", ["likelihoods.py", "--only", "uniform", "--out", str(out)])
    maker.main()
    assert out.read_bytes() == LIKELIHOODS.read_bytes()
    assert "uniform: 181.3257 ± 0.0000 nats" in capsys.readouterr().out
