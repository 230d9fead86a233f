"""Lecture 18's stored runs: that a short one is of the same make, and what was measured."""

import math
from functools import partial
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm_course.data import all_shapes, results
from dgm_course.disentanglement import Factors, majority_vote, pair_metric
from dgm_course.vae import kl_per_dimension, kl_terms

MAKERS = Path(__file__).parent.parent / "notebooks" / "results"
LINES = all_shapes((3, 2, 2, 2, 2))


@pytest.fixture
def maker(monkeypatch):
    """The command, by its path: the package has a module of its name."""
    monkeypatch.syspath_prepend(MAKERS)
    spec = util.spec_from_file_location("results_of_disentanglement", MAKERS / "disentanglement.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(maker, monkeypatch):
    """The same on 48 images, of which nothing is large."""
    few = {"DATA": LINES, "IMAGES": LINES.images.flatten(1), "GRID": LINES, "ROUNDS": maker.STEPS}
    few |= {"BATCH": 4, "GAME_BATCH": 4, "HIDDEN": 8, "N_DRAWS": 1}
    few |= {"N_SAMPLES": 60, "N_ORDERS": 2, "N_REAL": 60}
    few |= {"pair_metric": partial(pair_metric, n_points=30, n_pairs=2)}
    few |= {"majority_vote": partial(majority_vote, n_votes=30, n_rows=2)}
    for name, value in few.items():
        monkeypatch.setattr(maker, name, value)
    return maker


def command(maker, monkeypatch, out, **options):
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    monkeypatch.setattr("sys.argv", ["disentanglement.py", "--out", str(out), *words])
    maker.main()
    return dict(np.load(out))


# --- the command ------------------------------------------------------------------------------


def test_a_short_run_makes_what_is_stored(small, monkeypatch, tmp_path):
    found = command(small, monkeypatch, tmp_path / "try.npz", seeds=1, steps=20)
    stored = results("disentanglement")
    assert found.keys() == stored.keys(), "the stored run is of this command"
    for name, value in found.items():
        expected = list(stored[name].shape)
        if name.endswith("/codes"):
            expected[1] = len(LINES.images)
        elif name.split("/")[0] in small.RUNS and name.split("/")[1] not in ("traversal", "grid"):
            expected[0] = 1
        assert list(value.shape) == expected, name
        assert value.dtype == stored[name].dtype, name


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(small, monkeypatch, tmp_path):
    names = ("factor 5", "infogan")
    monkeypatch.setattr(small, "RUNS", {name: small.RUNS[name] for name in names})
    whole = command(small, monkeypatch, tmp_path / "whole.npz", seeds=2, steps=3)
    first = command(small, monkeypatch, tmp_path / "parts.npz", seeds=1, steps=3)
    parts = command(small, monkeypatch, tmp_path / "parts.npz", seeds=2, steps=3)
    for name, value in whole.items():
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(parts[name], value, err_msg=name)
    for name in names:
        key = f"{name}/information"
        np.testing.assert_array_equal(parts[key][:1], first[key])
        assert not np.array_equal(parts[key][0], parts[key][1])


# --- what is trained, and how it is heard -----------------------------------------------------


def test_each_objective_is_the_elbo_at_its_neutral_weight(small):
    """−(reconstruction − KL), with the KL in closed form or at the code that was drawn."""
    torch.manual_seed(0)
    model, x = small.new_model(), LINES.images.flatten(1)

    def drawn(loss):
        torch.manual_seed(1)
        return loss().mean()

    elbo = drawn(lambda: model.elbo(x).elbo)
    found = drawn(lambda: small.beta_loss(model, x, 0, beta=1))
    assert found.item() == pytest.approx(-elbo.item(), rel=1e-5)
    twice = drawn(lambda: small.beta_loss(model, x, 0, beta=2))
    assert (twice + elbo).item() == pytest.approx(model.elbo(x).kl.mean().item(), rel=1e-4)
    torch.manual_seed(1)
    q = model.encode(x)
    z = q.rsample()
    at_codes = model.log_likelihood(x, z) - q.log_prob(z) + model.prior.log_prob(z)
    found = drawn(lambda: small.tc_loss(model, x, 0, beta=1))
    assert found.item() == pytest.approx(-at_codes.mean().item(), rel=1e-5)
    more = drawn(lambda: small.tc_loss(model, x, 0, beta=1001))
    tc = kl_terms(q, z).total_correlation.mean().item()
    assert (more - found).item() == pytest.approx(1000 * tc, rel=1e-3)


@pytest.mark.parametrize(("kind", "n_critic"), [("factor", 1), ("critic", 5)])
def test_a_discriminator_takes_its_steps_before_each_of_the_models(small, kind, n_critic):
    x, losses = LINES.images.flatten(1)[:4], []
    for gamma in (0.0, 1.0, 2.0):
        torch.manual_seed(0)
        model = small.new_model()
        objective = small.objective_of(kind, gamma, 10)
        losses.append(torch.stack([objective(model, x, i) for i in range(2)]))
        critic = objective.keywords["critic"]
        assert {int(state["step"]) for state in critic.state.values()} == {2 * n_critic}
        assert all(p.grad is None for p in model.parameters())
    one, two = losses[1] - losses[0], losses[2] - losses[0]
    assert one.abs().min() > 0
    torch.testing.assert_close(two, 2 * one, atol=1e-4, rtol=1e-3)


def test_an_image_of_the_grid_is_nearest_to_itself(small):
    factors, distance = small.nearest(LINES.images[:20])
    assert torch.equal(factors, LINES.factors[:20])
    assert distance.abs().max() < 1e-4


def test_codes_that_name_a_factor_have_its_entropy_and_others_none(maker):
    """c₀ is the shape, c₁ orders x's two values; of eight classes none holds both."""
    v = torch.cartesian_prod(*[torch.arange(n) for n in (3, 2, 2, 2, 2)]).double().repeat(8, 1)
    u = torch.linspace(0, 0.1, len(v), dtype=torch.float64)
    codes = torch.stack([v[:, 0], v[:, 3] + u, -v[:, 4] - u], 1)
    found = maker.informed(codes, v)
    assert found[0] == pytest.approx([math.log(3), 0, 0, 0, 0], abs=1e-9)
    assert (found[1, 3], found[2, 4]) == pytest.approx((math.log(2),) * 2, abs=1e-9)
    assert max(found[1, 4], found[2, 3]) < 1e-9


# --- the numbers that are stored --------------------------------------------------------------


def test_what_was_measured_comes_out_again_of_the_stored_codes(maker):
    stored = results("disentanglement")
    entropies = Factors(maker.DATA.factors).entropies()
    for name in stored["with_codes"]:
        q = maker.stored_posterior(stored[f"{name}/codes"])
        row = {key: stored[f"{name}/{key}"][0] for key in ("terms", "metrics", "information")}
        kl = kl_per_dimension(q).mean(0)
        assert kl.sum().item() == pytest.approx(row["terms"][1], abs=1e-4)
        tc = kl_terms(q, q.sample()).total_correlation
        assert tc.mean().item() == pytest.approx(row["terms"][2], abs=6 * tc.std().item() / 50)
        for metric, value in zip((pair_metric, majority_vote), row["metrics"][1:], strict=True):
            assert metric(q.mean, maker.DATA.factors, generator=0).value == pytest.approx(
                value, abs=0.01
            )
        one = maker.mutual_information(q, maker.DATA.factors) / entropies
        np.testing.assert_allclose(row["information"], one, atol=1e-3)


def test_stored_rows_agree_with_each_other(maker):
    stored = results("disentanglement")
    for name, (_, n_seeds) in maker.RUNS.items():
        assert len(stored[f"{name}/information"]) == n_seeds
        if name == "infogan":
            continue
        information = np.sort(stored[f"{name}/information"].astype(float), 1)
        gap = (information[:, -1] - information[:, -2]).mean(1)
        np.testing.assert_allclose(gap, stored[f"{name}/metrics"][:, 0], atol=1e-3)
        rate = stored[f"{name}/latent_kl"].sum(1)
        np.testing.assert_allclose(rate, stored[f"{name}/terms"][:, 1], atol=1e-3)
    np.testing.assert_array_equal(stored["capacity_steps"], maker.checkpoints(maker.STEPS))
    assert stored["steps"] == maker.STEPS
    last = stored["capacity/curve"][:, -1, 1]
    np.testing.assert_allclose(last, stored["capacity/terms"][:, 1], atol=1e-3)


def test_the_games_counts_say_what_its_first_code_says_of_the_shape(maker):
    stored = results("disentanglement")
    for counts, information in zip(
        stored["infogan/agreement"], stored["infogan/information"], strict=True
    ):
        assert counts.sum() == maker.N_SAMPLES
        joint = torch.from_numpy(counts / counts.sum())
        assert maker.table_information(joint).item() == pytest.approx(information[0, 0], abs=1e-9)


def test_the_file_is_small():
    assert (MAKERS.parent.parent / "dgm_course/results/disentanglement.npz").stat().st_size < 3e5
