"""Parts of the gap against closed forms, and against a search of another kind."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dgm_course.vae import (
    GaussianVAE,
    gaussian_elbo,
    log_prob_by_quadrature,
    split_gap,
)
from dgm_course.vae.linear import parameters_of
from tests.contracts import strong
from tests.test_latent_variable_model import Bent, model_of


def linear(z_dim):
    return strong(GaussianVAE(4, z_dim, 0, noise="diagonal"), seed=2, scale=0.7)


def exact_posterior(model, x):
    """N(Λ⁻¹ WᵀΨ⁻¹ (x − b), Λ⁻¹), and Λ = I + WᵀΨ⁻¹W."""
    p = parameters_of(model)
    scaled = p.weight.T / p.noise_variance
    precision = torch.eye(model.z_dim).double() + scaled @ p.weight
    mean = (x - p.mean) @ torch.linalg.solve(precision, scaled).T
    return MultivariateNormal(mean, precision_matrix=precision), precision


@pytest.mark.parametrize("z_dim", [1, 2])
def test_the_parts_are_those_of_a_linear_model(z_dim):
    """Every posterior is a Gaussian; the best diagonal one has its mean and 1/s² = Λ_jj."""
    model = linear(z_dim)
    x = torch.randn(40, 4, dtype=torch.float64)  # more than are searched at once
    with torch.no_grad():
        evidence = parameters_of(model).marginal().log_prob(x)
        posterior, precision = exact_posterior(model, x)
        q = model.encode(x).base_dist
        full = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(q.scale))
        total = kl_divergence(full, posterior)  # log p(x) − ELBO
        diagonal = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    gaps = split_gap(model, x, log_evidence=evidence)
    assert diagonal > 0.03 or z_dim == 1
    for found, expected in (
        (gaps.gaussian, torch.zeros(40)),
        (gaps.diagonal, diagonal.expand(40)),
        (gaps.amortisation, total - diagonal),
        (gaps.approximation, diagonal.expand(40)),
        (gaps.total, total),
    ):
        torch.testing.assert_close(found, expected.double(), atol=1e-6, rtol=0)
    assert not found.requires_grad


def by_grid(model, x, mean, scale):
    """log p(x, z) − log q averaged over q, for one latent, by the trapezoidal rule; ``(N,)``."""
    t = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    weight = torch.exp(-0.5 * t**2) * (t[1] - t[0]) / math.sqrt(2 * math.pi)
    z = mean + scale * t[:, None, None]  # (G, N, 1)
    log_q = Normal(mean, scale).log_prob(z)[..., 0]
    return weight @ (model.log_likelihood(x, z) + model.prior.log_prob(z) - log_q)


@torch.no_grad()
def test_the_best_gaussian_is_that_of_a_search_over_a_grid():
    """All (m, s) on a grid, then on a finer one around the best."""
    model = strong(GaussianVAE(3, 1, 0, likelihood="bernoulli"), seed=4, scale=1.5)
    x = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0]])
    best = torch.full((3,), -math.inf).double()
    for i, one in enumerate(x):
        m, log_s, half = 0.0, -0.5, 2.0
        for _ in range(8):
            steps = half * torch.linspace(-1, 1, 9, dtype=torch.float64)
            ms, logs = torch.meshgrid(m + steps, log_s + steps, indexing="ij")
            many = one.expand(81, 3)
            values = by_grid(model, many, ms.reshape(-1, 1), logs.reshape(-1, 1).exp())
            j = values.argmax()
            m, log_s, half = ms.flatten()[j], logs.flatten()[j], half / 3
            best[i] = torch.maximum(best[i], values[j])
    q = model.encode(x).base_dist
    gaps = split_gap(model, x)
    encoders = by_grid(model, x, q.loc, q.scale)
    torch.testing.assert_close(gaps.amortisation, best - encoders, atol=1e-5, rtol=0)
    exact = log_prob_by_quadrature(model, x)
    torch.testing.assert_close(gaps.approximation, exact - best, atol=1e-5, rtol=0)
    torch.testing.assert_close(gaps.total, exact - encoders, atol=1e-6, rtol=0)
    assert (gaps.approximation > 5e-4).all()


@pytest.mark.parametrize("prior", ["standard", "mixture", "flow"])
def test_parts_are_not_negative_and_add_up(prior):
    model, x = model_of("diagonal", prior)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    gaps = split_gap(model, x, log_evidence=log_prob_by_quadrature(model, x, limit=9.0), n_steps=60)
    assert gaps.amortisation.shape == (4,)
    assert (torch.stack([*gaps]) >= -1e-4).all()  # the sum over nodes is not exact at a ReLU
    assert (torch.stack([*gaps[:2]]) >= 0).all()
    torch.testing.assert_close(gaps.total, sum(gaps), atol=1e-12, rtol=0)
    assert all((p.grad == 1).all() for p in model.parameters())  # a search for q, not for p


def test_an_elbo_by_nodes_is_the_mean_of_the_elbos_by_draws():
    model, x = model_of("diagonal", "standard")
    with torch.no_grad():
        q = model.encode(x).base_dist
        ours = gaussian_elbo(model, x, q.loc, torch.diag_embed(q.scale), 64)
        torch.manual_seed(6)
        draws = torch.stack([model.elbo(x, 1000).elbo for _ in range(20)])
    assert ((draws.mean(0) - ours).abs() < 4 * draws.std(0) / 20**0.5).all()


def test_the_elbo_of_a_correlated_gaussian_is_its_distance_from_the_posterior():
    model = linear(2)
    x = torch.randn(5, 4, dtype=torch.float64)
    mean, scale = torch.randn(5, 2).double(), torch.eye(2).double().repeat(5, 1, 1)
    scale[:, 1, 0] = 0.7
    with torch.no_grad():
        evidence = parameters_of(model).marginal().log_prob(x)
        gap = kl_divergence(
            MultivariateNormal(mean, scale_tril=scale), exact_posterior(model, x)[0]
        )
    torch.testing.assert_close(gaussian_elbo(model, x, mean, scale).detach(), evidence - gap)


def test_refuses():
    model, x = model_of("diagonal", "standard")
    with pytest.raises(ValueError, match=r"log_evidence must have shape \(4,\), got shape"):
        split_gap(model, x, log_evidence=torch.zeros(4, 1))
    with pytest.raises(ValueError, match="n_steps must be an int of at least 1, got 0"):
        split_gap(model, x, n_steps=0)
    with pytest.raises(ValueError, match="diagonal Gaussian posteriors, got a BentPosterior"):
        split_gap(Bent(model), x)
    with pytest.raises(ValueError, match="q must be a batch of n diagonal Gaussians"):
        split_gap(model_of("full", "standard")[0], x)
    with pytest.raises(ValueError, match="at most 2"):
        split_gap(GaussianVAE(3, 3).double(), x)
    with pytest.raises(ValueError, match="at most 2"):
        split_gap(GaussianVAE(3, 3).double(), x, log_evidence=torch.zeros(4))
    for mean, scale in (((4, 1), (4, 2, 2)), ((3, 2), (3, 2, 2)), ((4, 2), (4, 2))):
        with pytest.raises(ValueError, match=r"shapes \(4, 2\) and \(4, 2, 2\), got"):
            gaussian_elbo(model, x, torch.zeros(mean), torch.ones(scale))
