"""What other libraries switch for the whole process changes no result of ours, and no check."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Independent, Normal

from dgm_course.autoregressive import PixelCNN, visible_by_gradient, visible_pixels
from dgm_course.causality import CausalityError, check_causal
from dgm_course.checks import unchecked_values, values_are_checked
from dgm_course.data import binarise
from dgm_course.density_ratio import MLP, DensityRatio, total_correlation, two_sample_test
from dgm_course.flows import FlowModel, PlanarFlow
from dgm_course.training import fit, training_steps
from dgm_course.vae import AutoregressiveVAE, GaussianVAE, decompose_kl, free_bits
from tests import foreign

NAN = torch.full((4, 2), math.nan)


@pytest.fixture
def _compiled():
    """One compiled function, never called."""
    before = Distribution._validate_args
    torch.compile(nn.Identity(), backend="eager")
    # What its first import has done; here another test may have been the first.
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(before)


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: GaussianVAE(2, 1, likelihood="bernoulli").elbo(255 + torch.zeros(4, 2)), "255"),
        (lambda: GaussianVAE(2, 1).elbo(NAN), "x must be finite"),
        (lambda: PlanarFlow(2).inverse(NAN), "x must be finite"),
        (lambda: PixelCNN(4, n_features=4)(torch.full((1, 1, 3, 3), 4)), "integers 0 to 3"),
        (lambda: binarise(torch.tensor([17]), "threshold", levels=17), "integers 0 to 16"),
        (lambda: decompose_kl(Independent(Normal(NAN, 1 + 0 * NAN), 1)), "finite means"),
    ],
)
def test_checks_are_on_after_one_compile(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_test_of_bad_input_runs_a_second_time_under_foreign_switches():
    def switches():
        return Distribution._validate_args, torch.is_grad_enabled()

    def bad_input():
        with pytest.raises(ValueError, match="x must be finite"):
            PlanarFlow(2).inverse(NAN)
        seen.append(switches())

    before, seen = switches(), []

    item = SimpleNamespace(
        module=SimpleNamespace(torch=torch),
        obj=bad_input,
        funcargs={},
        _fixtureinfo=SimpleNamespace(argnames=()),
    )
    run = foreign.Plugin().pytest_pyfunc_call(item)
    next(run)
    bad_input()  # which pytest does here
    with pytest.raises(StopIteration):
        run.send(None)
    assert seen == [before, (False, False)]


def test_the_switch_is_off_inside_a_training_step_only():
    weight, inside = nn.Parameter(torch.ones(1)), []
    steps = training_steps(
        lambda step: inside.append(values_are_checked()) or weight, torch.optim.SGD([weight]), 2
    )
    next(steps)
    assert (inside, values_are_checked()) == ([False], True)
    with pytest.raises(RuntimeError), unchecked_values():
        raise RuntimeError
    assert values_are_checked()


# --- gradients that are off, or impossible --------------------------------------------------

no_gradients = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])


@no_gradients
def test_networks_are_trained_where_gradients_are_off(mode):
    with mode():
        x = torch.randn(60, 2)
        network = MLP(4, n_steps=3)
        assert math.isfinite(DensityRatio(network, n_folds=2).fit(x, x.flip(1)).kl().value)
        assert 0 < two_sample_test(x, x.flip(1), network, n_permutations=9).p_value <= 1
        assert math.isfinite(total_correlation(x, network).value)


@no_gradients
def test_fit_trains_where_gradients_are_off(mode):
    weight = nn.Parameter(torch.ones(1))
    with mode():
        fit(lambda step: weight.square(), torch.optim.SGD([weight], lr=0.1), 3, progress=False)
    assert weight.item() == pytest.approx(0.8**3)


@no_gradients
def test_a_leak_is_seen_by_gradient_where_gradients_are_off(mode):
    """It is too small for the perturbation."""
    x = torch.randn(4, 3, dtype=torch.float64)
    with mode():
        with pytest.raises(CausalityError, match="by gradient"):
            check_causal(lambda x: 1e-14 * x.cumsum(1), x, x + 1)
        model = PixelCNN(4, n_features=4, n_layers=2)
        assert torch.equal(visible_by_gradient(model), visible_pixels(model))


# --- autocast -------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "autoregressive"])
def test_a_vae_keeps_its_densities_in_the_weights_dtype_under_autocast(likelihood):
    torch.manual_seed(0)
    vae = GaussianVAE(3, 2, likelihood="bernoulli" if likelihood == "bernoulli" else "gaussian")
    model = AutoregressiveVAE(vae, 1) if likelihood == "autoregressive" else vae
    x = torch.rand(5, 3)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = model.elbo(x)
            assert free_bits(model, x, 0.1).isfinite()
            assert model.sample(2).dtype == torch.float32
        assert terms.elbo.dtype == torch.float32
        losses.append(terms.elbo)
    torch.testing.assert_close(*losses, atol=0.05, rtol=0)


def test_a_flow_keeps_its_densities_under_autocast():
    torch.manual_seed(0)
    flow = FlowModel(Independent(Normal(torch.zeros(2), torch.ones(2)), 1), PlanarFlow(2, 3))
    x = torch.randn(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = flow.log_prob(x)
    torch.testing.assert_close(found, flow.log_prob(x), atol=1e-5, rtol=0)
