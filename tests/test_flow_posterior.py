"""Posteriors bent by flows, against autograd's change of variables and against quadrature."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from dgm_course.flows import AutoregressiveFlow, CouplingFlow, PlanarFlow, SylvesterFlow
from dgm_course.vae import (
    FlowPosterior,
    GaussianVAE,
    LatentVariableModel,
    beta_elbo,
    elbo_by_quadrature,
    free_bits,
    importance_weighted_bound,
    log_prob_by_importance,
    log_prob_by_quadrature,
)
from dgm_course.vae.flow_posterior import BentPosterior
from tests.contracts import strong

# name -> layers for codes of M dimensions, from the Gaussian to the code
LAYERS = {
    "planar": lambda m: [PlanarFlow(m, 4)],
    "sylvester": lambda m: [SylvesterFlow(m, 2, n_layers=3)],
    "autoregressive": lambda m: [AutoregressiveFlow(m, 2, 8, "noise", n_context=5)],
    "autoregressive, written": lambda m: [AutoregressiveFlow(m, 2, 8, "data", n_context=5)],
    "autoregressive, shared": lambda m: [AutoregressiveFlow(m, 2, 8, "noise")],
    "mixed": lambda m: [
        PlanarFlow(m, 2),
        AutoregressiveFlow(m, 1, 8, "noise", n_context=2),
        SylvesterFlow(m, 1),
    ],
}
PRIORS = {"standard": lambda: None, "shifted": lambda: Independent(Normal(doubles(0.5), 0.8), 1)}


def doubles(value, m=2):
    return torch.full((m,), value, dtype=torch.float64)


def bent(name, z_dim=3, *, seed=0, scale=0.7, prior=None, amortised=True):
    """A model with strong weights, also of the head, which starts at 0."""
    vae, layers = GaussianVAE(4, z_dim, 6, prior=prior), LAYERS[name](z_dim)
    amortised = amortised and "shared" not in name
    return strong(FlowPosterior(vae, *layers, amortised=amortised), seed, scale)


def data(n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, dtype=torch.float64, generator=generator)


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


# --- the density -------------------------------------------------------------------------------


@pytest.mark.parametrize("amortised", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_log_q_is_autograds_change_of_variables(name, amortised, seed):
    """log q(z|x) = log N(ε; 0, I) − log|det ∂z/∂ε|, the encoder's scale and all layers in one."""
    model = bent(name, seed=seed, scale=1.0, amortised=amortised)
    posterior = model.posterior(data())
    noise = torch.randn(3, 5, 3, dtype=torch.float64)
    _, log_q = posterior.carry(noise)
    # A code moves with its own noise only: the sum over codes has every code's Jacobian in it.
    jacobian = torch.autograd.functional.jacobian(
        lambda e: posterior.carry(e)[0].sum((0, 1)), noise
    )  # (M, S, N, M)
    log_det = torch.linalg.slogdet(jacobian.permute(1, 2, 0, 3)).logabsdet
    expected = -0.5 * (noise**2 + math.log(2 * math.pi)).sum(-1) - log_det
    torch.testing.assert_close(log_q, expected, atol=1e-9, rtol=0)


def test_codes_are_drawn_with_standard_noise(name):
    model = bent(name)
    posterior = model.posterior(data())
    torch.manual_seed(3)
    drawn = posterior.rsample_and_log_prob(4)
    torch.manual_seed(3)
    carried = posterior.carry(torch.randn(4, 5, 3, dtype=torch.float64))
    for one, other in zip(drawn, carried, strict=True):
        assert torch.equal(one, other)


def test_without_layers_it_is_the_gaussian():
    q = GaussianVAE(4, 3, 6).double().encode(data())
    z, log_q = BentPosterior(q, (), torch.empty(5, 0)).rsample_and_log_prob(7)
    torch.testing.assert_close(log_q, q.log_prob(z))


def test_amortised_layers_start_as_shared_ones():
    torch.manual_seed(0)
    model = FlowPosterior(GaussianVAE(4, 3, 6), PlanarFlow(3, 2)).double()
    shared = FlowPosterior(model.vae, *model.layers, amortised=False)
    noise = torch.randn(2, 5, 3, dtype=torch.float64)
    assert torch.equal(
        model.posterior(data()).carry(noise)[0], shared.posterior(data()).carry(noise)[0]
    )
    assert not [key for key in shared.state_dict() if key.startswith("head")]


# --- the bounds --------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS)
def test_bounds_lie_where_quadrature_says(name, prior):
    """The ELBO's integral needs no draw; log p(x) knows nothing of q. A log-det of the other sign
    would lift the one and move the other."""
    model, x = bent(name, 2, scale=0.25, prior=PRIORS[prior]()), data(3)
    exact, elbo = log_prob_by_quadrature(model, x), elbo_by_quadrature(model, x, n=201)
    assert (elbo < exact).all()
    torch.manual_seed(2)
    with torch.no_grad():
        terms = model.elbo(x.repeat(2000, 1)).elbo.reshape(2000, 3)
    assert ((terms.mean(0) - elbo).abs() < 4.5 * terms.std(0) / 2000**0.5).all()
    value, error = log_prob_by_importance(model, x, 20_000)
    assert ((value - exact).abs() < 4.5 * error).all()
    assert not model.elbo(x).exact_kl


OBJECTIVES = {
    "elbo": lambda model, x: model.elbo(x, 3).elbo,
    "beta": lambda model, x: beta_elbo(model.elbo(x), 2.0),
    "importance": lambda model, x: importance_weighted_bound(model, x, 3),
    "by importance": lambda model, x: log_prob_by_importance(model, x, 3).value,
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_inverse_is_ever_called(name, objective, monkeypatch):
    def refuse(*_):
        raise AssertionError("an inverse was called")

    for kind in (PlanarFlow, SylvesterFlow, AutoregressiveFlow):
        monkeypatch.setattr(kind, "inverse", refuse)
    model = bent(name, 2)
    value = OBJECTIVES[objective](model, data())
    assert value.shape == (5,)
    if value.requires_grad:
        value.sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_encoders_gradient_is_the_bounds(name):
    """Against a finite difference on the same draws, which no detached path escapes."""
    model, x = bent(name, 2), data()
    first = model.vae.encoder[0].weight
    direction = torch.randn_like(first)

    def value(step):
        torch.manual_seed(4)
        with torch.no_grad():
            first.add_(direction, alpha=step)
        total = model.elbo(x, 2).elbo.sum()
        with torch.no_grad():
            first.sub_(direction, alpha=step)
        return total

    (gradient,) = torch.autograd.grad(value(0.0), first)
    with torch.no_grad():
        difference = (value(1e-5) - value(-1e-5)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-4, atol=1e-6)


def test_samples_and_log_p_are_the_vaes(name):
    model = bent(name, 2, scale=0.5)
    torch.testing.assert_close(
        log_prob_by_quadrature(model, data()), log_prob_by_quadrature(model.vae, data())
    )
    assert model.sample(3).shape == (3, 4)


# --- what is refused ---------------------------------------------------------------------------


def test_what_asks_for_a_density_everywhere_is_refused():
    model, x = bent("planar"), data()
    with pytest.raises(ValueError, match="needs a posterior with a density at every z"):
        importance_weighted_bound(model, x, 2, estimator="dreg")
    with pytest.raises(ValueError, match="model must have a Gaussian posterior"):
        free_bits(model, x, 0.1)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers must be one or more of dim 3, .* got dims \\[\\]"),
        ([PlanarFlow(2)], "layers must be one or more of dim 3, .* got dims \\[2\\]"),
        ([PlanarFlow(3), SylvesterFlow(2, 1)], "of dim 3, .* got dims \\[3, 2\\]"),
        ([CouplingFlow(3)], "layers\\[0\\] must be a module with n_parameters and transform"),
        ([AutoregressiveFlow(3)], "layers must take numbers of each x .* got n_parameters = 0"),
        ([PlanarFlow(3), "planar"], "layers\\[1\\] must be a module .* got str"),
    ],
)
def test_layers_that_do_not_chain_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        FlowPosterior(GaussianVAE(4, 3), *layers)


def test_only_a_network_of_x_gives_each_x_its_layers():
    class Other(LatentVariableModel):
        encode = decode = as_numbers = mean = None

    with pytest.raises(ValueError, match="vae must be a GaussianVAE, got Other"):
        FlowPosterior(Other(), PlanarFlow(3))


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, True])
def test_draws_are_counted(n_samples):
    model = bent("planar")
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1"):
        model.elbo(data(), n_samples)
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1"):
        model.posterior(data()).rsample_and_log_prob(n_samples)


def test_a_layer_without_numbers_for_the_batch_is_refused(name):
    model = bent(name)
    q, n = model.encode(data()), model.n_parameters
    for rows, columns in ((4, n), (1, n), (5, n + 1)):
        with pytest.raises(ValueError, match=rf"parameters must have shape \(5, {n}\), .*got"):
            BentPosterior(q, [*model.layers], torch.zeros(rows, columns, dtype=torch.float64))


def test_a_start_that_is_no_gaussian_is_refused():
    full = MultivariateNormal(torch.zeros(5, 3), torch.eye(3))
    with pytest.raises(ValueError, match="start must be a Gaussian for each point"):
        BentPosterior(full, (), torch.empty(5, 0))
