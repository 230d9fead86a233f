"""Layers of codes: densities on a grid, the linear model in closed form, and what collapses."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from dgm_course.data import binarise, digits
from dgm_course.training import fit
from dgm_course.vae import (
    ExplicitPosterior,
    GaussianVAE,
    HierarchicalVAE,
    activity,
    beta_elbo,
    free_bits,
    importance_weighted_bound,
    kl_per_dimension,
    log_prob_by_importance,
    log_prob_by_quadrature,
)
from dgm_course.vae.linear_hierarchy import hierarchy_of, mean_field_gap, with_best_posterior
from tests.contracts import strong

KINDS = ("chain", "independent")
LAYERS = {"one": (2,), "two": (1, 1), "three": (1, 1, 1), "unlike": (2, 1, 3)}


def deep(kind, z_dims=(1, 1), seed=0):
    return strong(HierarchicalVAE(4, z_dims, 5, posterior=kind), seed, 0.4)


def linear(kind, z_dims=(1, 1), seed=0):
    """A linear model whose posterior is still anything."""
    vae = HierarchicalVAE(4, z_dims, 0, posterior=kind, noise_scale=0.7)
    return strong(vae, seed, 0.8)


def pairs(kind):
    """A linear model of two latents a layer that form two separate chains."""
    vae = linear(kind, (2, 2))
    with torch.no_grad():
        vae.vae.decoder[0].weight.copy_(torch.tensor([[0.9, 0], [0.4, 0], [0, -0.8], [0, 1.3]]))
        vae.down[0].network[0].weight.copy_(torch.tensor([[1.1, 0], [0, -0.6]]))
    return vae


LINEAR = {
    "two": linear,
    "three": lambda kind: linear(kind, (1, 1, 1)),
    "pairs": pairs,
    "other weights": lambda kind: linear(kind, seed=3),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=LAYERS)
def z_dims(request):
    return LAYERS[request.param]


def points(n=5):
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def plane(extent=8.0, n=700):
    """Points of the plane ``(n², 1, 2)``, and the area of each."""
    ticks = torch.linspace(-extent, extent, n, dtype=torch.float64)
    return torch.cartesian_prod(ticks, ticks)[:, None], (ticks[1] - ticks[0]) ** 2


# --- densities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["prior", "posterior"])
def test_codes_are_drawn_from_the_density_that_is_stated(kind, what):
    """Mass and moments of the density on a grid, beside those of draws."""
    model = deep(kind)
    q = model.prior if what == "prior" else model.encode(points(1))
    grid, area = plane()
    with torch.no_grad():
        p = q.log_prob(grid).exp().flatten() * area
        z = q.sample((200_000,)).reshape(-1, 2)
    assert p.sum().item() == pytest.approx(1, abs=1e-3)
    grid = grid[:, 0]
    for f in (lambda z: z, lambda z: z**2, lambda z: z[:, :1] * z[:, 1:]):
        draws = f(z)
        error = draws.std(0) / len(z) ** 0.5
        assert ((draws.mean(0) - p @ f(grid)).abs() < 4.5 * error + 2e-3).all()


def test_densities_of_a_linear_model_are_the_joint_gaussians(kind, z_dims):
    model = linear(kind, z_dims)
    exact, z = hierarchy_of(model), torch.randn(3, 5, model.z_dim, dtype=torch.float64)
    joint, d = exact.joint(), 4
    prior = MultivariateNormal(joint.mean[d:], joint.covariance_matrix[d:, d:])
    torch.testing.assert_close(model.prior.log_prob(z), prior.log_prob(z))
    x = points()
    both = torch.cat([x.expand(3, 5, 4), z], -1)
    log_joint = model.log_likelihood(x, z) + model.prior.log_prob(z)
    torch.testing.assert_close(log_joint, joint.log_prob(both))


def test_one_layer_is_the_vae(kind):
    model = deep(kind, (2,))
    assert isinstance(model.vae, GaussianVAE)
    z = torch.randn(3, 5, 2, dtype=torch.float64)
    ours, vae = model.encode(points()), model.vae.encode(points())
    torch.testing.assert_close(ours.log_prob(z), vae.log_prob(z))
    torch.testing.assert_close(model.prior.log_prob(z), model.vae.prior.log_prob(z))
    torch.manual_seed(0)
    value = importance_weighted_bound(model, points(), 3)
    torch.manual_seed(0)
    torch.testing.assert_close(value, importance_weighted_bound(model.vae, points(), 3))


# --- the linear model --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
def test_the_chain_reaches_log_p(name):
    """Every single weight is p(x), and so is the ELBO of one draw."""
    model = with_best_posterior(LINEAR[name]("chain"))
    exact = hierarchy_of(model).marginal().log_prob(points())
    for value in (importance_weighted_bound(model, points(), 1), model.elbo(points()).elbo):
        torch.testing.assert_close(value, exact, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", LINEAR)
def test_independent_layers_miss_by_their_gap(name):
    """½ (Σ ln Λ_jj − ln|Λ|), the same at every x, and any other posterior misses by more."""
    model = with_best_posterior(LINEAR[name]("independent"))
    hierarchy = hierarchy_of(model)
    exact = hierarchy.marginal().log_prob(points())
    expected = mean_field_gap(hierarchy.posterior_precision(), [1] * model.z_dim)
    assert expected > 1e-3

    def gap():
        torch.manual_seed(0)
        with torch.no_grad():
            elbo = model.elbo(points().repeat(20_000, 1)).elbo.reshape(-1, 5)
        draws = exact - elbo
        return draws.mean(0), draws.std(0) / len(draws) ** 0.5

    best, error = gap()
    assert ((best - expected).abs() < 4.5 * error).all()
    for q in (model.vae.code_log_variance, model.up[0].log_variance, model.up[0].network[0].bias):
        for step in (-0.3, 0.3):
            with torch.no_grad():
                q.add_(step)
            assert gap()[0].mean() > best.mean() + 0.01
            with torch.no_grad():
                q.sub_(step)


def test_the_gap_is_the_deck_formula():
    """½ (ln Λ₁₁ + ln Λ₂₂ − ln|Λ|) = −½ ln(1 − ρ²) of two latents; 0 where nothing is shared."""
    precision = torch.tensor([[2.0, -0.9], [-0.9, 1.5]], dtype=torch.float64)
    rho2 = 0.81 / 3
    assert mean_field_gap(precision, [1, 1]).item() == pytest.approx(-0.5 * math.log(1 - rho2))
    assert mean_field_gap(precision, [2]).item() == 0
    p = MultivariateNormal(torch.zeros(2, dtype=torch.float64), precision_matrix=precision)
    q = MultivariateNormal(p.mean, precision_matrix=precision.diagonal().diag())
    assert mean_field_gap(precision, [1, 1]).item() == pytest.approx(kl_divergence(q, p).item())
    with pytest.raises(ValueError, match=r"sizes must add up to 2, got \[1, 2\]"):
        mean_field_gap(precision, [1, 2])


def test_each_layer_has_its_own_kl():
    """Of the exact chain and of the best independent layers, each name's expectation."""
    x = points(1)
    for kind in KINDS:
        model = with_best_posterior(linear(kind))
        hierarchy = hierarchy_of(model)
        joint, precision = hierarchy.joint(), hierarchy.posterior_precision()
        mean = joint.mean[4:] + (
            joint.covariance_matrix[4:, :4]
            @ torch.linalg.solve(joint.covariance_matrix[:4, :4], (x[0] - joint.mean[:4]))
        )
        covariance = precision.inverse() if kind == "chain" else (1 / precision.diagonal()).diag()
        # E log q − E log p of each layer, from means and covariances alone.
        weight, bias = hierarchy.weights[1].item(), hierarchy.biases[1].item()
        variance = hierarchy.variances[1].item()
        residual = torch.tensor([1.0, -weight], dtype=torch.float64)
        r2 = (residual @ mean - bias) ** 2 + residual @ covariance @ residual
        minus_p1 = 0.5 * (math.log(2 * math.pi * variance) + r2 / variance)
        minus_p2 = 0.5 * (math.log(2 * math.pi) + mean[1] ** 2 + covariance[1, 1])
        last = 1 / precision[1, 1]  # Var(z₂|z₁), and of the independent layer
        expected = {
            "z1": minus_p1 - 0.5 * (1 + (2 * math.pi * covariance[0, 0]).log()),
            "z2": minus_p2 - 0.5 * (1 + (2 * math.pi * last).log()),
        }
        torch.manual_seed(0)
        with torch.no_grad():
            _, kl = model.terms(x.repeat(100_000, 1))
        assert [*kl] == ["z1", "z2"]
        for name, draws in kl.items():
            error = draws.std() / len(draws) ** 0.5
            assert (draws.mean() - expected[name]).abs() < 4.5 * error + 1e-9, (kind, name)


def test_quadrature_knows_a_prior_of_layers(kind):
    model = linear(kind)
    exact = hierarchy_of(model).marginal().log_prob(points())
    by_quadrature = log_prob_by_quadrature(model, points(), limit=9.0, n=801)
    torch.testing.assert_close(by_quadrature, exact, atol=1e-6, rtol=0)


def test_a_chain_with_correlations_in_a_layer_has_no_exact_form():
    with pytest.raises(ValueError, match="vae must have uncorrelated codes in each layer"):
        with_best_posterior(linear("chain", (2, 1)))
    with pytest.raises(ValueError, match="vae must have hidden=0 and a Gaussian decoder, got"):
        hierarchy_of(deep("chain"))


def test_activity_of_both_layers_is_the_linear_models(kind):
    """Var_x E[z_l|x] = the prior's variance less E Var(z_l|x), for x of the model's own."""
    model = with_best_posterior(linear(kind))
    hierarchy = hierarchy_of(model)
    torch.manual_seed(0)
    x = hierarchy.marginal().sample((20_000,))
    with torch.no_grad():
        means = model.code_means(x, 10)
    assert means.shape == (10, 20_000, 2)
    assert torch.equal(means[0, :, 0], means[9, :, 0])  # of z_1: means, and no draws
    sigma = hierarchy.joint().covariance_matrix
    posterior = hierarchy.posterior_precision().inverse()
    expected = sigma.diagonal()[4:] - posterior.diagonal()
    torch.testing.assert_close(activity(means), expected, rtol=0.05, atol=0)


# --- every objective ---------------------------------------------------------------------------


def test_the_layers_kl_add_up(kind, z_dims):
    model = deep(kind, z_dims)
    torch.manual_seed(0)
    reconstruction, kl = model.terms(points(), 3)
    torch.manual_seed(0)
    terms = model.elbo(points(), 3)
    assert [*kl] == [f"z{i + 1}" for i in range(len(z_dims))]
    torch.testing.assert_close(sum(kl.values()), terms.kl, atol=1e-12, rtol=0)
    assert torch.equal(reconstruction, terms.reconstruction)
    assert not terms.exact_kl
    assert all(nats.shape == (5,) for nats in kl.values())


def test_the_layers_kl_is_that_of_the_whole_code(kind, z_dims):
    """E[log q(z|x) − log p(z)] by draws of their own; the top layer's exact where it has a form."""
    model, x = deep(kind, z_dims), points(1)
    with torch.no_grad():
        _, kl = model.terms(x.repeat(50_000, 1))
        q = model.encode(x)
        z = q.sample((50_000,))
        whole = (q.log_prob(z) - model.prior.log_prob(z))[:, 0]
        total = sum(kl.values())
        error = (whole.var() + total.var()).sqrt() / 50_000**0.5
        assert (whole.mean() - total.mean()).abs() < 4.5 * error
        if kind == "independent":
            top = kl_per_dimension(q)[0, -z_dims[-1] :].sum()
            torch.testing.assert_close(kl[f"z{len(z_dims)}"], top.expand(50_000))


@pytest.mark.parametrize("estimator", ["plain", "dreg", "stl"])
def test_all_weights_move(kind, z_dims, estimator):
    model = deep(kind, z_dims)
    k = 1 if estimator == "stl" else 3
    importance_weighted_bound(model, points(), k, estimator=estimator).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    model.zero_grad()
    beta_elbo(model.elbo(points(), 2), 0.5).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_weights_average_to_p(kind):
    model = linear(kind, (1, 1))
    with torch.no_grad():  # wider than the posterior, where weights have a variance
        with_best_posterior(model)
        for log_variance in (model.vae.code_log_variance, model.up[0].log_variance):
            log_variance.add_(0.3)
    torch.manual_seed(0)
    value, error = log_prob_by_importance(model, points(), 20_000)
    exact = hierarchy_of(model).marginal().log_prob(points())
    assert ((value - exact).abs() < 4.5 * error).all()


def test_both_posteriors_are_known_everywhere(kind):
    model = deep(kind)
    assert isinstance(model.posterior(points()), ExplicitPosterior)
    with pytest.raises(ValueError, match="prior N\\(0, I\\) for free bits"):
        free_bits(model, points(), 0.1)
    assert model.sample(3).shape == (3, 4)


@pytest.mark.slow
def test_the_upper_layer_collapses_where_it_cannot_follow_the_lower():
    """On binary digits, in nats: over ten seeds at most 0.004 for independent layers and at least
    0.15 for a chain.
    """
    x, test = (
        binarise(digits(split).images, "threshold", levels=17).flatten(1).float()
        for split in ("train", "test")
    )

    def upper_kl(kind, n_steps=1000):
        torch.manual_seed(0)
        model = HierarchicalVAE(64, (8, 4), posterior=kind, likelihood="bernoulli")
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

        def loss(_):
            return -model.elbo(x[torch.randint(len(x), (64,))]).elbo

        fit(loss, optimizer, n_steps, scheduler=cosine, progress=False)
        with torch.no_grad():
            _, kl = model.terms(test, 20)
        assert kl["z1"].mean() > 2
        return kl["z2"].mean()

    assert upper_kl("independent") < 0.02
    assert upper_kl("chain") > 0.08


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z_dims", "message"),
    [
        ([], "z_dims must be one dimension or more, got \\[\\]"),
        (3, "z_dims must be one dimension or more, got 3"),
        ([2, 0], "z_dims\\[1\\] must be an int of at least 1, got 0"),
        ([2, 1.5], "z_dims\\[1\\] must be an int of at least 1, got 1.5"),
    ],
)
def test_sizes_that_are_none_are_refused(z_dims, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalVAE(4, z_dims)


def test_bad_arguments_are_refused(kind):
    with pytest.raises(ValueError, match="posterior must be 'chain' or 'independent', got 'x'"):
        HierarchicalVAE(4, [1], posterior="x")
    with pytest.raises(ValueError, match="likelihood must be 'gaussian' or 'bernoulli'"):
        HierarchicalVAE(4, [1], likelihood="categorical")
    model = deep(kind)
    for call in (model.elbo, model.terms):
        with pytest.raises(ValueError, match="n_samples must be an int of at least 1, got 0"):
            call(points(), 0)
    with pytest.raises(ValueError, match=r"z must have shape \(\.\.\., 2\), the codes of all"):
        model.decode(torch.zeros(3, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4\)"):
        model.elbo(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="x must be finite"):
        model.encode(torch.full((2, 4), math.nan, dtype=torch.float64))
