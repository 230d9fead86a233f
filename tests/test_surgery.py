import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from dgm_course.vae import (
    AggregatedPosterior,
    decompose_kl,
    energy_plus_entropy,
    evidence_minus_posterior_kl,
    reconstruction_minus_kl,
)

DOUBLE = torch.float64


def gaussians(mean, scale, dtype=DOUBLE):
    return Independent(
        Normal(torch.as_tensor(mean, dtype=dtype), torch.as_tensor(scale, dtype=dtype)), 1
    )


def scattered(n, dim, *, spread=1.5, low=0.1, high=0.8, seed=0):
    torch.manual_seed(seed)
    mean = spread * torch.randn(n, dim, dtype=DOUBLE)
    return gaussians(mean, low + (high - low) * torch.rand(n, dim, dtype=DOUBLE))


def ladder(n, dim=1, *, gap=1.0, scale=0.05):
    """n posteriors in a row, a gap apart."""
    mean = torch.zeros(n, dim, dtype=DOUBLE)
    mean[:, 0] = gap * (torch.arange(n) - (n - 1) / 2)
    return gaussians(mean, torch.full_like(mean, scale))


# name -> n posteriors: few and many, apart and on top of each other, wide and narrow.
POSTERIORS = {
    "one": lambda: gaussians([[0.7]], [[0.3]]),
    "two-1d": lambda: gaussians([[-1.0], [1.0]], [[0.5], [0.5]]),
    "unequal-1d": lambda: gaussians([[0.0], [0.1], [2.0]], [[1.5], [0.02], [0.3]]),
    "collapsed": lambda: gaussians(torch.zeros(9, 2), torch.ones(9, 2)),
    "apart": lambda: ladder(12),
    "scattered-1d": lambda: scattered(40, 1),
    "scattered-2d": lambda: scattered(60, 2),
}


@pytest.fixture(params=POSTERIORS)
def q(request):
    return POSTERIORS[request.param]()


def standard(dim, dtype=DOUBLE):
    return Independent(Normal(torch.zeros(dim, dtype=dtype), 1.0), 1)


def mixture(q):
    """q(z) as torch.distributions has it: every point against every posterior, (N, n, D)."""
    return MixtureSameFamily(Categorical(torch.ones(len(q.mean), dtype=q.mean.dtype)), q)


def simpson(values, step):
    weights = torch.full_like(values, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return (weights * values).sum() * step / 3


def information_of_two(a, s):
    """I[i, z] of N(±a, s²) by Simpson's rule: ln 2 − E ln(1 + exp(−2az/s²)), z ~ N(a, s²)."""
    t = torch.linspace(-12, 12, 40_001, dtype=DOUBLE)
    density = (-0.5 * t**2).exp() / math.sqrt(2 * math.pi)
    lost = nn.functional.softplus(-2 * a * (a + s * t) / s**2)
    return math.log(2) - simpson(density * lost, t[1] - t[0]).item()


# --- the aggregated posterior ---------------------------------------------------------------


def test_log_density_is_the_mixtures(q):
    z = 2 * torch.randn(200, q.event_shape[0], dtype=DOUBLE)
    torch.testing.assert_close(
        AggregatedPosterior(q).log_prob(z), mixture(q).log_prob(z), atol=1e-9, rtol=1e-11
    )


def test_log_density_keeps_leading_axes_and_the_dtype_of_z():
    q = scattered(5, 3)
    z = torch.randn(4, 6, 3, dtype=DOUBLE)
    log_prob = AggregatedPosterior(q).log_prob(z)
    torch.testing.assert_close(log_prob, mixture(q).log_prob(z), atol=1e-10, rtol=0)
    assert AggregatedPosterior(q).log_prob(z.float()).dtype == torch.float32
    assert AggregatedPosterior(q).log_prob(z[0, 0]).shape == ()


def test_log_density_over_several_chunks(monkeypatch):
    q, z = scattered(7, 2), torch.randn(50, 2, dtype=DOUBLE)
    whole = AggregatedPosterior(q).log_prob(z)
    for block in (1, 7, 20, 341):
        monkeypatch.setattr("dgm_course.vae.aggregated_posterior.BLOCK", block)
        torch.testing.assert_close(AggregatedPosterior(q).log_prob(z), whole, atol=1e-12, rtol=0)


def test_density_integrates_to_one():
    q = POSTERIORS["unequal-1d"]()
    z = torch.linspace(-14, 16, 60_001, dtype=DOUBLE)
    mass = simpson(AggregatedPosterior(q).log_prob(z[:, None]).exp(), z[1] - z[0])
    assert abs(mass - 1) < 1e-9


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_small_scales_lose_no_digits_that_matter(offset):
    """In float32 the quadratic form is off by hundredths of a nat at σ = 0.01; ours is not."""
    torch.manual_seed(0)
    mean = 2 * torch.randn(300, 8)
    q = gaussians(mean, torch.full_like(mean, 0.01), torch.float32)
    z = mean + 0.01 * torch.randn_like(mean)
    q64 = gaussians(mean.double() + offset, q.stddev.double())
    exact = mixture(q64).log_prob(z.double() + offset)
    ours = AggregatedPosterior(q64).log_prob(z.double() + offset)
    assert (ours - exact).abs().max() < 1e-7
    precision = 1e4
    naive = torch.cat([z * z, z], 1) @ torch.cat(
        [torch.full_like(mean, -0.5 * precision), mean * precision], 1
    ).T - (0.5 * precision * mean**2 + math.log(0.01) + 0.5 * math.log(2 * math.pi)).sum(1)
    naive = torch.logsumexp(naive, 1) - math.log(300)
    loss = (naive - mixture(q).log_prob(z)).abs().mean()
    assert 0.01 < loss < 0.1
    float32 = AggregatedPosterior(q).log_prob(z)
    assert (float32 - mixture(gaussians(mean, q.stddev)).log_prob(z.double())).abs().max() < 1e-4


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The size of the largest tensor that is made inside."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.numel())
        return result


def test_log_density_needs_no_array_of_points_by_posteriors_by_dimensions():
    """A gradient would keep all pairs; without one, memory is that of one chunk."""
    q, z = scattered(3000, 10), torch.randn(3000, 10, dtype=DOUBLE)
    with Largest() as largest:
        AggregatedPosterior(q).log_prob(z)
    assert largest.size <= 2**18


def test_samples_come_from_the_mixture():
    q = gaussians([[-2.0, 0.0], [2.0, 1.0]], [[0.5, 0.1], [0.2, 0.3]])
    torch.manual_seed(0)
    z = AggregatedPosterior(q).sample((40_000,))
    expected = mixture(q)
    torch.testing.assert_close(z.mean(0), expected.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0), expected.variance, atol=0.05, rtol=0)
    left = z[:, 0] < 0
    assert abs(left.double().mean() - 0.5) < 0.01
    assert abs(z[left, 1].std() - 0.1) < 0.01
    single = gaussians(q.mean, q.stddev, torch.float32)
    assert AggregatedPosterior(single).sample((3, 2)).dtype == torch.float32
    assert AggregatedPosterior(single).sample((3, 2)).shape == (3, 2, 2)


def test_log_density_has_a_gradient():
    z = torch.randn(4, 2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(AggregatedPosterior(scattered(5, 2)).log_prob, (z,))


# --- the theorem ----------------------------------------------------------------------------


def decompositions(q):
    n = len(q.mean)
    yield "quadrature", decompose_kl(q, method="quadrature")
    for s in (1, 7):
        yield f"monte_carlo-{s}", decompose_kl(q, n_samples=s, generator=s)
    for method in ("minibatch", "weighted"):
        yield method, decompose_kl(q, method=method, batch_size=max(1, n // 3), generator=0)


def test_average_is_marginal_plus_information(q):
    for name, d in decompositions(q):
        parts = d.marginal_kl + d.mutual_information
        torch.testing.assert_close(d.average_kl, parts, atol=1e-12, rtol=0, msg=name)
        assert d.standard_errors.shape == (3,)
        assert all(t.shape == () and t.dtype == DOUBLE for t in (*d[:3], d.analytic_average_kl))


def test_average_is_the_analytic_one(q):
    expected = kl_divergence(q, standard(q.event_shape[0])).mean()
    for name, d in decompositions(q):
        torch.testing.assert_close(d.analytic_average_kl, expected, atol=1e-12, rtol=0)
        error = abs(d.average_kl - expected)
        assert error <= (1e-9 if name == "quadrature" else 4 * d.standard_errors[0] + 1e-9), name


def test_quadrature_against_monte_carlo(q):
    exact = decompose_kl(q, method="quadrature")
    sampled = decompose_kl(q, n_samples=400, generator=1)
    for value, estimate, error in zip(exact[:3], sampled[:3], sampled.standard_errors, strict=True):
        assert abs(value - estimate) <= 3 * error + 1e-9


def test_information_lies_between_0_and_ln_n(q):
    ceiling = math.log(len(q.mean))
    for method, s in (("quadrature", 1), ("monte_carlo", 1), ("monte_carlo", 5)):
        d = decompose_kl(q, method=method, n_samples=s, generator=3)
        error = d.standard_errors[2]
        below = 0.0 if math.isinf(error) else 3 * error
        assert -below - 1e-9 <= d.mutual_information <= ceiling + 1e-9


@pytest.mark.parametrize(("a", "s"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.5), (1.0, 1.0), (3.0, 0.1)])
def test_two_posteriors_on_a_line(a, s):
    exact = information_of_two(a, s)
    d = decompose_kl(gaussians([[-a], [a]], [[s], [s]]), method="quadrature")
    assert abs(d.mutual_information - exact) < 1e-8
    average = 0.5 * (a**2 + s**2 - 1) - math.log(s)
    assert abs(d.average_kl - average) < 1e-9
    assert abs(d.marginal_kl - (average - exact)) < 1e-8


def test_information_is_ln_n_where_posteriors_are_apart_and_0_where_they_are_one():
    assert (
        abs(decompose_kl(ladder(12), method="quadrature").mutual_information - math.log(12)) < 1e-9
    )
    collapsed = decompose_kl(POSTERIORS["collapsed"](), method="quadrature")
    assert all(abs(term) < 1e-9 for term in collapsed[:3])


def test_a_quadrature_has_no_standard_error(q):
    assert (decompose_kl(q, method="quadrature").standard_errors == 0).all()


@pytest.mark.parametrize("name", ["unequal-1d", "scattered-1d", "scattered-2d"])
def test_quadrature_does_not_depend_on_its_grid(monkeypatch, name):
    coarse = decompose_kl(POSTERIORS[name](), method="quadrature")
    monkeypatch.setattr("dgm_course.vae.surgery.STEPS_PER_SCALE", 7)
    monkeypatch.setattr("dgm_course.vae.surgery.TAIL", 11.0)
    fine = decompose_kl(POSTERIORS[name](), method="quadrature")
    for a, b in zip(coarse[:3], fine[:3], strict=True):
        assert abs(a - b) < 1e-10


def test_quadrature_over_several_chunks_of_posteriors():
    """3000 narrow codes against a fine grid: in chunks of bounded memory, none of them lost."""
    q = gaussians(torch.linspace(-2, 2, 3000, dtype=DOUBLE)[:, None], torch.full((3000, 1), 0.01))
    with Largest() as largest:
        d = decompose_kl(q, method="quadrature")
    assert largest.size <= 2**21
    assert abs(d.average_kl - d.analytic_average_kl) < 1e-9


def test_at_the_linear_gaussian_optimum_the_whole_rate_is_information():
    """x ~ N(0, λ), decoder N(wz, σ²): at the optimum q(z) = p(z), and I = ½ ln(λ / σ²).

    The codes stand at the quantiles of x, so that q(z) is the integral over x by midpoints.
    """
    variance, noise = 4.0, 1.0
    w = math.sqrt(variance - noise)
    x = math.sqrt(variance) * Normal(0.0, 1.0).icdf((torch.arange(4000, dtype=DOUBLE) + 0.5) / 4000)
    q = gaussians((w * x / variance)[:, None], torch.full((4000, 1), math.sqrt(noise / variance)))
    d = decompose_kl(q, method="quadrature")
    assert d.marginal_kl < 1e-3
    assert abs(d.mutual_information - 0.5 * math.log(variance / noise)) < 1e-3


def test_at_the_linear_gaussian_optimum_in_many_dimensions():
    torch.manual_seed(0)
    q = gaussians(math.sqrt(0.75) * torch.randn(4000, 5, dtype=DOUBLE), torch.full((4000, 5), 0.5))
    d = decompose_kl(q, generator=0)
    assert abs(d.analytic_average_kl - 5 * math.log(2)) < 0.1
    assert 0 < d.marginal_kl < 0.25  # 4000 codes are not the whole Gaussian
    assert d.mutual_information > 3.2


def test_an_ideal_prior_leaves_the_information():
    q = scattered(60, 2)
    own = decompose_kl(q, prior=AggregatedPosterior(q), method="quadrature")
    plain = decompose_kl(q, method="quadrature")
    assert abs(own.marginal_kl) < 1e-12
    assert abs(own.average_kl - plain.mutual_information) < 1e-12
    assert own.analytic_average_kl is None
    sampled = decompose_kl(q, prior=AggregatedPosterior(q), generator=0)
    assert abs(sampled.marginal_kl) < 1e-12


def test_another_prior_moves_the_marginal_kl_only():
    q = scattered(40, 1)
    wide = Independent(Normal(torch.tensor([0.5], dtype=DOUBLE), 2.0), 1)
    d, plain = (decompose_kl(q, prior=p, method="quadrature") for p in (wide, None))
    assert abs(d.mutual_information - plain.mutual_information) < 1e-12
    torch.testing.assert_close(d.average_kl, kl_divergence(q, wide).mean(), atol=1e-9, rtol=0)
    assert d.analytic_average_kl is not None
    full = MultivariateNormal(torch.zeros(1), torch.eye(1))
    single = gaussians(q.mean, q.stddev, torch.float32)
    assert (
        abs(decompose_kl(single, prior=full, method="quadrature").average_kl - plain.average_kl)
        < 1e-5
    )


def test_float32_posteriors_give_the_same_terms():
    q = scattered(50, 2, low=0.01, high=0.02)
    single = gaussians(q.mean, q.stddev, torch.float32)
    for s in (decompose_kl(single, generator=0), decompose_kl(q, generator=0)):
        assert s.average_kl.dtype == DOUBLE
    difference = torch.stack(
        [
            a - b
            for a, b in zip(
                decompose_kl(single, generator=0)[:3], decompose_kl(q, generator=0)[:3], strict=True
            )
        ]
    )
    assert difference.abs().max() < 1e-4


# --- the estimators -------------------------------------------------------------------------


def test_the_batch_estimator_cannot_exceed_ln_of_the_batch():
    q = ladder(60)
    for size in (1, 2, 5, 20, 60):
        d = decompose_kl(q, method="minibatch", batch_size=size, generator=0)
        assert d.mutual_information <= math.log(size) + 1e-9
        assert d.mutual_information > 0.99 * math.log(size) - 1e-9  # and reaches it, far apart


def test_the_weighted_estimator_exceeds_ln_n():
    """1000 posteriors apart, batches of 100: ln 100,000 = 11.5, where ln n = 6.9 is the most."""
    d = decompose_kl(ladder(1000), method="weighted", batch_size=100, generator=0)
    assert abs(d.mutual_information - math.log(1000 * 100)) < 1e-6
    assert d.marginal_kl < decompose_kl(ladder(1000), generator=0).marginal_kl - 4


def test_the_weighted_estimator_is_the_batch_estimator_plus_ln_n():
    q = scattered(60, 3)
    batch, weighted = (
        decompose_kl(q, method=m, batch_size=20, n_samples=3, generator=0)
        for m in ("minibatch", "weighted")
    )
    assert abs(weighted.mutual_information - batch.mutual_information - math.log(60)) < 1e-12
    torch.testing.assert_close(weighted.standard_errors, batch.standard_errors)


def test_weighted_is_beta_tcvaes_formula():
    """log q(z) ≈ logsumexp over the batch − ln(n B), as its authors' code has it."""
    q = scattered(6, 2)
    d = decompose_kl(q, method="weighted", batch_size=6, generator=5)
    chance = torch.Generator().manual_seed(5)
    order = torch.randperm(6, generator=chance)
    noise = torch.randn(6, 2, generator=chance, dtype=DOUBLE)
    mean, scale = q.mean[order], q.stddev[order]
    z = mean + scale * noise
    pairs = Normal(mean[None], scale[None]).log_prob(z[:, None]).sum(2)  # (6, 6)
    log_q = torch.logsumexp(pairs, 1) - math.log(6 * 6)
    assert abs(d.mutual_information - (pairs.diagonal() - log_q).mean()) < 1e-10


def test_one_batch_of_all_is_the_full_estimate():
    q = scattered(30, 2)
    full = decompose_kl(q, n_samples=300, generator=0)
    batch = decompose_kl(q, method="minibatch", batch_size=30, n_samples=300, generator=1)
    error = (full.standard_errors[2] ** 2 + batch.standard_errors[2] ** 2).sqrt()
    assert abs(full.mutual_information - batch.mutual_information) < 4 * error


@pytest.mark.parametrize(
    ("method", "s"), [("monte_carlo", 1), ("monte_carlo", 4), ("minibatch", 1)]
)
def test_standard_errors_are_those_of_repeated_runs(method, s):
    q = scattered(60, 2)
    size = 10 if method == "minibatch" else None
    runs = [
        decompose_kl(q, method=method, n_samples=s, batch_size=size, generator=g)
        for g in range(200)
    ]
    values = torch.stack([torch.stack(run[:3]) for run in runs])  # (200, 3)
    claimed = torch.stack([run.standard_errors for run in runs]).mean(0)
    ratio = claimed / values.std(0)
    assert (ratio > 0.8).all()
    assert (ratio < (1.25 if s > 1 else 3.0)).all()  # one sample leaves the strata's spread in


def test_one_draw_or_one_batch_has_no_standard_error():
    assert decompose_kl(gaussians([[0.0]], [[1.0]]), generator=0).standard_errors.isinf().all()
    one = decompose_kl(scattered(5, 2), method="minibatch", batch_size=5, generator=0)
    assert one.standard_errors.isinf().all()


def test_examples_beyond_the_last_whole_batch_take_their_turn():
    d = decompose_kl(ladder(7), method="minibatch", batch_size=3, n_samples=50, generator=0)
    assert abs(d.mutual_information - math.log(3)) < 1e-6
    assert abs(d.average_kl - d.analytic_average_kl) < 4 * d.standard_errors[0]


def test_a_seed_and_a_generator_repeat_the_draws():
    q = scattered(20, 2)
    a, b = (decompose_kl(q, generator=g) for g in (7, torch.Generator().manual_seed(7)))
    assert a.average_kl == b.average_kl
    torch.manual_seed(1)
    c = decompose_kl(q)
    torch.manual_seed(1)
    assert decompose_kl(q).average_kl == c.average_kl != a.average_kl


def test_no_gradient_is_recorded():
    q = Independent(Normal(torch.zeros(3, 2, requires_grad=True), 1.0), 1)
    assert not decompose_kl(q, generator=0).mutual_information.requires_grad


# --- three readings of the ELBO ---------------------------------------------------------------


@pytest.fixture(params=[1, 2])
def linear(request):
    """x = Wz + ε in three dimensions: the evidence and the posterior are Gaussian."""
    torch.manual_seed(request.param)
    w = torch.randn(3, request.param, dtype=DOUBLE)
    x = torch.randn(6, 3, dtype=DOUBLE)
    noise = torch.tensor([0.5, 1.0, 0.8], dtype=DOUBLE)
    evidence = MultivariateNormal(torch.zeros(3, dtype=DOUBLE), w @ w.T + torch.diag(noise**2))
    precision = torch.eye(request.param, dtype=DOUBLE) + w.T @ (w / noise[:, None] ** 2)
    mean = torch.linalg.solve(precision, w.T @ (x / noise**2).T).T
    posterior = MultivariateNormal(mean, precision_matrix=precision)

    def log_likelihood(z):
        return Independent(Normal(z @ w.T, noise), 1).log_prob(x)

    q = gaussians(mean + 0.1 * torch.randn_like(mean), 0.2 + 0.5 * torch.rand_like(mean))
    return q, log_likelihood, evidence.log_prob(x), posterior


def test_the_three_readings_agree(linear):
    q, log_likelihood, log_evidence, _ = linear
    first = sum(evidence_minus_posterior_kl(q, log_likelihood, log_evidence))
    second = sum(energy_plus_entropy(q, log_likelihood))
    third = sum(reconstruction_minus_kl(q, log_likelihood))
    assert first.shape == (6,)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    torch.testing.assert_close(second, third, atol=1e-6, rtol=0)
    assert (third <= log_evidence).all()


def test_each_term_of_the_readings(linear):
    q, log_likelihood, log_evidence, posterior = linear
    evidence, minus_kl = evidence_minus_posterior_kl(q, log_likelihood, log_evidence)
    as_full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    torch.testing.assert_close(evidence, log_evidence)
    torch.testing.assert_close(minus_kl, -kl_divergence(as_full, posterior), atol=1e-8, rtol=0)
    energy, entropy = energy_plus_entropy(q, log_likelihood)
    torch.testing.assert_close(entropy, q.entropy())
    _, rate = reconstruction_minus_kl(q, log_likelihood)
    torch.testing.assert_close(rate, -kl_divergence(q, standard(q.event_shape[0])))
    torch.manual_seed(0)
    z = q.sample((200_000,))
    joint = log_likelihood(z) + standard(q.event_shape[0]).log_prob(z)
    torch.testing.assert_close(energy, joint.mean(0), atol=0.05, rtol=0)


def test_the_readings_agree_for_another_prior_and_a_crooked_likelihood():
    q = scattered(4, 1)
    prior = Independent(Normal(torch.tensor([0.5], dtype=DOUBLE), 1.5), 1)

    def log_likelihood(z):
        return (-(z**2) + torch.tanh(3 * z)).squeeze(2)

    z = torch.linspace(-14, 15, 20_001, dtype=DOUBLE)[:, None, None]
    joint = (log_likelihood(z) + prior.log_prob(z)).squeeze(1)
    log_evidence = simpson(joint.exp(), z[1, 0, 0] - z[0, 0, 0]).log().expand(4)
    pair = evidence_minus_posterior_kl(q, log_likelihood, log_evidence, prior)
    assert (pair[1] <= 1e-9).all()
    for other in (energy_plus_entropy, reconstruction_minus_kl):
        torch.testing.assert_close(
            sum(pair), sum(other(q, log_likelihood, prior)), atol=1e-6, rtol=0
        )


def test_expectations_are_exact():
    """The three readings share their nodes, and with too few of them would still agree."""
    q = scattered(4, 1)

    def log_likelihood(z):
        return torch.sin(3 * z).squeeze(2)  # E sin 3z = e^(−9s²/2) sin 3m

    reconstruction, _ = reconstruction_minus_kl(q, log_likelihood)
    closed = (-4.5 * q.variance).exp() * torch.sin(3 * q.mean)
    torch.testing.assert_close(reconstruction, closed.squeeze(1), atol=1e-9, rtol=0)


# --- bad input --------------------------------------------------------------------------------

GOOD = scattered(5, 2)


def scales(value):
    mean = torch.zeros(5, 2, dtype=DOUBLE)
    return Independent(Normal(mean, torch.full_like(mean, value), validate_args=False), 1, False)


@pytest.mark.parametrize(
    ("q", "words"),
    [
        (GOOD.mean, "got Tensor"),
        (Normal(torch.zeros(5, 2), 1.0), "Independent"),
        (Independent(Normal(torch.zeros(5, 2), 1.0), 2), "Independent"),
        (Independent(Normal(torch.zeros(2), 1.0), 1), "Independent"),
        (Independent(Normal(torch.zeros(3, 5, 2), 1.0), 1), "Independent"),
        (Independent(torch.distributions.Laplace(torch.zeros(5, 2), 1.0), 1), "Independent"),
        (MultivariateNormal(torch.zeros(5, 2), torch.eye(2)), "Independent"),
        (
            gaussians(torch.zeros(0, 2), torch.ones(0, 2)),
            r"at least one posterior, got shape \(0, 2\)",
        ),
        (scales(math.inf), "log-variance overflow.*in 5 of 5 posteriors, scales from inf to inf"),
        (scales(math.nan), "in 5 of 5"),
        (scales(0.0), "scales from 0 to 0"),
        (scales(1e-160), "scales from 1e-160"),
        (scales(-1.0), "scales from -1"),
        (Independent(Normal(torch.tensor([[0.0], [math.nan]]), 1.0, False), 1, False), "in 1 of 2"),
        (Independent(Normal(torch.tensor([[0.0], [math.inf]]), 1.0, False), 1, False), "in 1 of 2"),
    ],
)
def test_a_bad_q_is_refused(q, words):
    for use in (AggregatedPosterior, decompose_kl):
        with pytest.raises(ValueError, match=words):
            use(q)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "exact"}, "quadrature, monte_carlo, minibatch, weighted, got 'exact'"),
        ({"n_samples": 0}, "n_samples must be an int of at least 1, got 0"),
        ({"n_samples": 2.0}, "got 2.0"),
        ({"n_samples": True}, "got True"),
        ({"method": "minibatch"}, "batch_size must be an int of at least 1, got None"),
        ({"method": "weighted", "batch_size": 6}, "batch_size must be at most 5, got 6"),
        ({"method": "weighted", "batch_size": 0}, "got 0"),
        ({"batch_size": 3}, "'monte_carlo' takes none"),
        ({"prior": standard(3)}, r"event shape \(2,\), that of q, got \(\) and \(3,\)"),
        ({"prior": Normal(torch.zeros(2), 1.0)}, r"got \(2,\) and \(\)"),
        ({"generator": "seed"}, "torch.Generator, got str"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        decompose_kl(GOOD, **options)


def test_a_quadrature_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at most 2 dimensions, got 3"):
        decompose_kl(scattered(5, 3), method="quadrature")
    with pytest.raises(ValueError, match="smallest scale of 1e-05.*use method 'monte_carlo'"):
        decompose_kl(
            gaussians([[0.0, 0.0], [5.0, 5.0]], [[1e-5, 1.0], [1.0, 1.0]]), method="quadrature"
        )


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.zeros(4, 3), r"\(N, 2\), got shape \(4, 3\)"),
        (torch.zeros(0, 2), "empty batch"),
        (torch.full((4, 2), math.nan), "in 4 of 4 points"),
        (torch.tensor(1.0), r"shape \(\.\.\., 2\)"),
        ([[0.0, 0.0]], "z must be a torch.Tensor, got list"),
    ],
)
def test_bad_points_are_refused(z, words):
    with pytest.raises(ValueError, match=words):
        AggregatedPosterior(GOOD).log_prob(z)


def test_readings_refuse_shapes_that_would_broadcast():
    def log_likelihood(z):
        return z.sum(2)

    def keeps_an_axis(z):
        return z.sum(2, keepdim=True)

    with pytest.raises(ValueError, match=r"log_evidence must have shape \(5,\), got shape"):
        evidence_minus_posterior_kl(GOOD, log_likelihood, torch.zeros(5, 1))
    for reading in (energy_plus_entropy, reconstruction_minus_kl):
        with pytest.raises(ValueError, match=r"to \(4096, 5\), got \(4096, 5, 1\)"):
            reading(GOOD, keeps_an_axis)
        with pytest.raises(ValueError, match="at most 2 latent dimensions, got 3"):
            reading(scattered(5, 3), log_likelihood)


# --- digits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize(("gap", "scale"), [(1e3, 1e-8), (1.0, 1e-6), (1e8, 1e-3), (1e4, 1.0)])
@pytest.mark.parametrize("method", ["monte_carlo", "minibatch"])
def test_codes_that_lie_apart_are_told_apart_or_refused(offset, gap, scale, method):
    """I = ln 2 of two codes, however narrow they are and however far out."""
    q = gaussians([[offset], [offset + gap]], [[scale], [scale]])
    options = {"batch_size": 2} if method == "minibatch" else {}
    if offset + gap >= 1e12 * scale:
        with pytest.raises(ValueError, match="no digits of z − μ, got"):
            decompose_kl(q, method=method, **options)
    else:
        found = decompose_kl(q, method=method, generator=0, **options).mutual_information
        assert found.item() == pytest.approx(math.log(2), abs=1e-8)


@pytest.mark.parametrize(("gap", "scale"), [(1e3, 1e-8), (1e8, 1e-3), (1e4, 1.0), (3.0, 1.0)])
def test_far_codes_have_the_density_of_a_sum_of_normals(gap, scale):
    q = gaussians([[0.0, 1.0], [gap, -gap]], [[scale, 2 * scale]] * 2)
    z = q.mean + scale * torch.tensor([[0.3, -2.0], [1.0, 0.5]], dtype=DOUBLE)
    expected = torch.logsumexp(q.log_prob(z[:, None]), 1) - math.log(2)
    torch.testing.assert_close(AggregatedPosterior(q).log_prob(z), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_a_grid_far_out_is_that_at_the_origin(offset):
    def terms(at):
        prior = Independent(Normal(torch.full((1,), at, dtype=DOUBLE), 1.0), 1)
        q = gaussians([[at], [at + 1.5]], [[1e-2], [1e-2]])
        return torch.stack(decompose_kl(q, prior=prior, method="quadrature")[:3])

    torch.testing.assert_close(terms(offset), terms(0.0), atol=1e-5, rtol=0)
