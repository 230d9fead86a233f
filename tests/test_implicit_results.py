"""The stored runs of implicit models: what they claim holds, and their maker makes such rows."""

from __future__ import annotations

import importlib
import math
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dgm_course.data import results
from dgm_course.density_ratio import AVB, gaussian_log_ratio, total_variation

MAKERS = Path(__file__).parent.parent / "notebooks" / "results"
STORED = results("implicit_models")


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(MAKERS)
    maker = importlib.import_module("implicit_models")
    monkeypatch.setattr(maker, "N_DRAWS", 1000)
    return maker


def of_run(name: str) -> dict[str, np.ndarray]:
    return {key.split("/")[1]: v for key, v in STORED.items() if key.split("/")[0] == name}


# --- the maker ----------------------------------------------------------------------------------


def make(maker: ModuleType, out: Path, names: list[str], n_seeds: int = 1) -> dict[str, np.ndarray]:
    asked = Namespace(out=out, only=None, seeds=n_seeds, steps=4)
    maker.make(asked, {name: maker.RUNS[name] for name in names}, whole=("exact",))
    with np.load(out) as file:
        return dict(file)


def test_every_run_is_stored_for_every_seed(maker: ModuleType) -> None:
    assert {key.split("/")[0] for key in STORED} == set(maker.RUNS)
    for key, rows in STORED.items():
        name, what = key.split("/")
        n_seeds = {"samples": 2, "exact": 21}.get(what, maker.RUNS[name][1])
        assert len(rows) == n_seeds, key


def test_a_tiny_run_has_the_names_and_shapes_of_the_stored_one(
    maker: ModuleType, tmp_path: Path
) -> None:
    names = ["less far modes, tempered", "noise 0.5, contrast", "epidemic", "2 dimensions"]
    found = make(maker, tmp_path / "tiny.npz", names)
    expected = {key: v for key, v in STORED.items() if key.split("/")[0] in names}
    assert set(found) == set(expected)
    for key, rows in found.items():
        assert rows.dtype == expected[key].dtype, key
        assert (
            rows.shape[key != "epidemic/exact" :] == expected[key].shape[key != "epidemic/exact" :]
        )
    np.testing.assert_allclose(  # steps are nothing to the logistic regression
        found["2 dimensions/error"][0, 2], STORED["2 dimensions/error"][0, 2], rtol=0.01
    )
    distances_are_those_of_the_cells(found)
    np.testing.assert_allclose(found["epidemic/exact"], STORED["epidemic/exact"], atol=1e-6)
    modes = names[0]  # 500 samples of the 1000 draws
    right = (found[f"{modes}/samples"][0, :, 0] > 0).mean()
    np.testing.assert_allclose(right, found[f"{modes}/right"][0], atol=0.07)


def distances_are_those_of_the_cells(found: dict[str, np.ndarray]) -> None:
    cells, exact = found["epidemic/cells"], found["epidemic/exact"]
    distance = (np.abs(cells - exact).sum(-1) + 1 - cells.sum(-1)) / 2
    np.testing.assert_allclose(distance, found["epidemic/distance"], atol=1e-3)  # draws on a border


def test_worth_is_nothing_at_the_exact_posterior_and_the_best_critic(maker: ModuleType) -> None:
    aim = maker.TARGETS["noise 0.5"]()
    mean, scale = 4 / 1.25, 0.5 / math.sqrt(1.25)
    torch.manual_seed(0)
    avb = AVB(
        aim.log_likelihood,
        lambda x, n: mean + scale * torch.randn(n, 1, 2),
        lambda x, z: gaussian_log_ratio(z, mean, scale),
        maker.PRIOR[2],
    )
    estimate, elbo = maker.worth(avb, aim)
    assert estimate == pytest.approx(0, abs=1e-4)  # at every draw
    assert elbo == pytest.approx(0, abs=0.05)


def test_a_run_that_was_stopped_has_the_rows_of_one_that_was_not(
    maker: ModuleType, tmp_path: Path
) -> None:
    names = ["near modes", "1 dimensions"]
    make(maker, tmp_path / "stopped.npz", names)
    resumed = make(maker, tmp_path / "stopped.npz", names, 2)
    at_once = make(maker, tmp_path / "at once.npz", names, 2)
    assert set(resumed) == set(at_once)
    for key, rows in resumed.items():
        np.testing.assert_array_equal(rows, at_once[key], key)
        assert len(rows) == 2
        assert not np.array_equal(rows[0], rows[1]) or key.endswith("kl")


def test_settings_are_those_that_are_named(maker: ModuleType) -> None:
    """Critics differ in what their names say, and contrast in nothing else."""
    banana = maker.SETTINGS["banana"]
    for name, setting in maker.SETTINGS.items():
        if name.startswith("critic"):
            k, rate = (part.split("=")[1] for part in name.split()[1:])
            assert setting == banana._replace(n_critic=int(k), critic_rate=float(rate))
        for way, changed in (("contrast", {"contrast": True}), ("tempered", {"is_tempered": True})):
            if name.endswith(f", {way}"):
                plain = maker.SETTINGS[name.removesuffix(f", {way}")]
                assert setting == plain._replace(**changed)
                assert setting != plain


def test_a_setting_changes_the_run_from_its_first_round_on(maker: ModuleType) -> None:
    """Of six rounds the first falls between points 4 and 5 of 30: until then nothing differs."""
    plain = maker.Setting("far modes")
    curves = [
        maker.infer(plain._replace(**changed), seed=0, n_steps=20)["curve"]
        for changed in (
            {},
            {"is_tempered": True},
            {"n_critic": 2},
            {"critic_rate": 1e-3},
            {"rate": 1e-3},
            {"n_samples": 64},
        )
    ]
    for curve in curves[1:]:
        np.testing.assert_array_equal(curve[:5], curves[0][:5])
        assert not np.array_equal(curve[5], curves[0][5])
    contrast = maker.infer(plain._replace(contrast=True), seed=0, n_steps=20)["curve"]
    np.testing.assert_array_equal(contrast[:5, 1], curves[0][:5, 1])  # the same draws
    assert not np.array_equal(contrast[:5, 0], curves[0][:5, 0])


# --- the rows agree with one another, and with closed forms --------------------------------------


def test_distances_of_the_epidemic_are_those_of_its_cells(maker: ModuleType) -> None:
    distances_are_those_of_the_cells(STORED)
    for i in (0, 7, 20):
        exact = maker.exact_epidemic(torch.tensor(i / 20)).probability.view(36, -1).sum(1)
        np.testing.assert_allclose(STORED["epidemic/exact"][i], exact, atol=1e-6)


def test_samples_are_of_the_posterior_that_was_measured(maker: ModuleType) -> None:
    """Of 500 draws: one mode's share within 4 standard errors, the distance to a rough one."""
    for name, setting in maker.SETTINGS.items():
        run = of_run(name)
        aim = maker.TARGETS[setting.target]()
        for seed, z in enumerate(run["samples"].astype(np.float32)):
            right = run["right"][seed]
            error = math.sqrt(right * (1 - right) / len(z)) + 1e-3
            assert abs((z[:, 0] > 0).mean() - right) < 4 * error, (name, seed)
            rough = total_variation(torch.from_numpy(z), aim.exact)
            assert rough.value > run["distance"][seed] - 0.1, (name, seed)
            assert rough.value < run["distance"][seed] + rough.floor + 0.1, (name, seed)


def test_a_curve_ends_at_what_is_above(maker: ModuleType) -> None:
    """With 2000 draws and with 20,000; of a narrow q its few draws far out weigh hundreds."""
    for name in maker.SETTINGS:
        run = of_run(name)
        assert run["curve"].shape[1:] == (31, 2)
        if not name.startswith("noise"):
            np.testing.assert_allclose(run["curve"][:, -1], run["above"], atol=0.4, err_msg=name)


def test_divergences_of_gaussians_grow_with_what_differs(maker: ModuleType) -> None:
    kl_of_one = (0.5**2 + 0.7**2 - 1) / 2 - math.log(0.7)
    for d in maker.DIMENSIONS:
        np.testing.assert_allclose(of_run(f"{d} dimensions")["kl"][:, 0], d * kl_of_one, rtol=1e-9)
        one = of_run(f"{d} dimensions, one differs")["kl"][:, 0]
        np.testing.assert_allclose(one, kl_of_one, rtol=1e-9)


def test_a_critics_error_is_no_less_than_its_estimates() -> None:
    """The mean of what is off, of 2000 draws, is at most the root of its mean square."""
    for key, kl in STORED.items():
        if key.endswith("/kl"):
            off = np.abs(kl[:, 1:] - kl[:, :1])
            assert (off < STORED[key.replace("kl", "error")] + 0.3).all(), key


# --- what they say, at every seed ---------------------------------------------------------------


def rest(name: str) -> np.ndarray:
    """Estimate and ELBO above log p(x) over the last two thirds of the rounds, (seeds, 21, 2)."""
    return of_run(name)["curve"][:, 10:]


def test_implicit_posteriors_are_found() -> None:
    for name in ("ring", "banana", "near modes"):
        assert of_run(name)["distance"].max() < 0.15, name
        assert np.abs(of_run(name)["above"][:, 1]).max() < 0.12, name  # the ELBO is nearly log p


def test_a_lost_mode_costs_ln_two_at_every_seed() -> None:
    far = of_run("far modes")
    np.testing.assert_allclose(far["above"][:, 1], -math.log(2), atol=0.1)
    np.testing.assert_allclose(far["distance"], 0.5, atol=0.02)
    assert set(far["right"].round(2)) == {0, 1}  # some seeds find one, some the other


def test_the_excess_falls_with_what_the_critic_learns() -> None:
    rates = [f"critic k=1 rate={rate}" for rate in ("0.0001", "0.0003", "0.001", "0.002", "0.005")]
    excess = np.array([rest(name)[..., 0].mean(1) for name in (*rates, "banana")])
    assert (np.diff(np.median(excess, 1)) < 0).all()
    assert (excess[-2] > excess[-1]).all()  # k = 1 and k = 3, of every seed
    assert (excess[:-1] > 0).all()
    ahead = np.array([(v[..., 0] - v[..., 1]).mean(1) for v in map(rest, (*rates, "banana"))])
    assert (np.diff(ahead, axis=0) < 0).all()  # of the ELBO, at every seed and every step
    assert rest(rates[0])[..., 0].max(1).min() > 1
    assert rest("critic k=10 rate=0.005")[..., 0].max() < rest(rates[-1])[..., 0].max(1).min()


def test_tempering_finds_both_of_the_less_far_modes() -> None:
    plain, tempered = of_run("less far modes"), of_run("less far modes, tempered")
    assert (tempered["distance"] < plain["distance"] - 0.1).all()
    assert tempered["distance"].max() < 0.25
    assert np.abs(tempered["right"] - 0.5).max() < 0.1


def test_contrast_helps_where_the_posterior_is_far_from_the_prior() -> None:
    for noise in (1.0, 0.5, 0.2, 0.1):
        plain, contrast = (of_run(f"noise {noise}{way}")["distance"] for way in ("", ", contrast"))
        assert contrast.max() < 0.1 < 0.12 < plain.min(), noise
    near = (of_run(f"noise 3.0{way}")["distance"] for way in ("", ", contrast"))
    assert max(map(np.max, near)) < 0.08
    assert (of_run("banana, contrast")["distance"] > of_run("banana")["distance"] - 0.02).all()


def test_a_simulators_posteriors_are_found_at_all_sizes() -> None:
    assert of_run("epidemic")["distance"].max() < 0.25
    assert np.median(of_run("epidemic")["distance"]) < 0.15


def test_the_error_of_a_log_ratio_grows_with_dimensions() -> None:
    ways = np.array([of_run(f"{d} dimensions")["error"] for d in (1, 2, 4, 8, 16, 32)])
    assert (np.diff(np.median(ways, 1), axis=0) > 0).all()  # of each critic
    assert ways[-1, :, :3].min() > 10  # 2000 draws are separable
    assert ways[-1, :, 3:].max() < 3  # and new ones are not
    one = np.array([of_run(f"{d} dimensions, one differs")["error"] for d in (1, 32)])
    assert one[1, :, 3:].max() < 0.15
    assert one[1, :, 0].min() > 2
