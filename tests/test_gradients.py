import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

from dgm_course.probability import log_mean_exp
from dgm_course.vae import (
    GaussianVAE,
    binary_codes,
    gradient_by_enumeration,
    importance_weighted_bound,
    reparameterised,
    score_function,
    signal_to_noise,
)
from dgm_course.vae.objectives import log_weights


def normal(phi):
    """N(μ, σ²) from (μ, σ) in the last axis."""
    return Normal(phi[..., 0], phi[..., 1])


def bernoulli(phi):
    return Independent(Bernoulli(logits=phi), 1)


def square(z):
    return z**2


def assert_mean_and_variance(each, mean, variance):
    """Of draws ``(S,)``, within 3 standard errors; that of a variance is by the fourth moment."""
    n, offset = len(each), each - each.mean()
    assert abs(each.mean() - mean) < 3 * (variance / n) ** 0.5
    error = ((offset**4).mean() - variance**2).clamp_min(0).sqrt() / n**0.5
    assert abs(each.var() - variance) < 3 * error + 1e-9


# --- q = N(μ, σ²), f = z²: derived means and variances ----------------------------------------

POINTS = [(1.0, 0.1), (1.0, 1.0), (0.0, 1.0), (2.0, 0.5)]


def draws(estimator, mu, sigma, n=400_000, **options):
    torch.manual_seed(0)
    phi = torch.tensor([mu, sigma], dtype=torch.float64)
    each = estimator(square, normal, phi, n, **options)
    assert each.shape == (n, 2)
    return each[:, 0], each[:, 1]  # by μ, by σ


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_reparameterised_has_the_derived_mean_and_variance(mu, sigma):
    by_mu, by_sigma = draws(reparameterised, mu, sigma)
    assert_mean_and_variance(by_mu, 2 * mu, 4 * sigma**2)
    assert_mean_and_variance(by_sigma, 2 * sigma, 4 * mu**2 + 8 * sigma**2)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_the_score_function_has_the_derived_mean_and_variance(mu, sigma):
    by_mu, by_sigma = draws(score_function, mu, sigma)
    assert_mean_and_variance(by_mu, 2 * mu, mu**4 / sigma**2 + 14 * mu**2 + 15 * sigma**2)
    variance = (2 * mu**4 + 60 * mu**2 * sigma**2 + 74 * sigma**4) / sigma**2
    assert_mean_and_variance(by_sigma, 2 * sigma, variance)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_a_constant_baseline_has_the_derived_variance(mu, sigma):
    best, mean = mu**2 + 3 * sigma**2, mu**2 + sigma**2
    by_mu, _ = draws(score_function, mu, sigma, baseline=best)
    assert_mean_and_variance(by_mu, 2 * mu, 8 * mu**2 + 6 * sigma**2)
    by_mu, _ = draws(score_function, mu, sigma, baseline=torch.tensor([mean, 0.0]))
    assert_mean_and_variance(by_mu, 2 * mu, 8 * mu**2 + 10 * sigma**2)


@pytest.mark.parametrize(("mu", "sigma"), POINTS)
def test_leave_one_out_has_the_derived_variance(mu, sigma):
    """Of the mean of S = 4 draws, over 200 000 groups at once."""
    torch.manual_seed(1)
    phi = torch.tensor([mu, sigma], dtype=torch.float64).expand(200_000, 2)
    each = score_function(square, normal, phi, 4, baseline="leave_one_out")
    assert each.shape == (4, 200_000, 2)
    variance = 8 * mu**2 + 10 * sigma**2 + (8 * mu**2 + 2 * sigma**2) / 3
    assert_mean_and_variance(each.mean(0)[:, 0], 2 * mu, variance / 4)


# --- Bernoulli codes, by enumeration ----------------------------------------------------------

M = 6


def latents():
    generator = torch.Generator().manual_seed(3)
    logits, a = (torch.randn(M, generator=generator, dtype=torch.float64) for _ in range(2))
    b = torch.randn(M, M, generator=generator, dtype=torch.float64)
    return logits, a, b, lambda z: z @ a + ((z @ b) * z).sum(-1) + 1


def test_enumeration_is_the_derivative_of_the_multilinear_form():
    """E f for independent bits: p·a + pᵀBp with p_j in the place of p_j² on B's diagonal."""
    logits, a, b, f = latents()
    p = logits.sigmoid()
    off = b - torch.diag(b.diagonal())
    expected = (a + b.diagonal() + (off + off.T) @ p) * p * (1 - p)
    torch.testing.assert_close(gradient_by_enumeration(f, bernoulli, logits), expected)


def test_codes_are_all_codes():
    assert binary_codes(1).tolist() == [[0], [1]]
    assert len({tuple(code) for code in binary_codes(8).tolist()}) == 256


@pytest.mark.parametrize("baseline", [None, 1.7, "per latent"])
def test_the_score_function_of_bernoulli_codes_is_unbiased(baseline):
    """Mean and variance against sums over all 64 codes."""
    logits, _, _, f = latents()
    b = torch.linspace(-1, 2, M, dtype=torch.float64) if baseline == "per latent" else baseline
    exact = gradient_by_enumeration(f, bernoulli, logits)
    codes = binary_codes(M).double()
    p = bernoulli(logits).log_prob(codes).exp()
    every = (f(codes)[:, None] - (0.0 if b is None else b)) * (codes - logits.sigmoid())
    torch.testing.assert_close(p @ every, exact)
    variance = p @ (every - exact) ** 2
    torch.manual_seed(4)
    each = score_function(f, bernoulli, logits, 200_000, baseline=b)
    for j in range(M):
        assert_mean_and_variance(each[:, j], exact[j], variance[j])


def test_leave_one_out_is_unbiased_and_a_mean_of_all_is_short_by_one_in_s():
    logits, _, _, f = latents()
    exact = gradient_by_enumeration(f, bernoulli, logits)
    many, n = logits.expand(100_000, M), 4
    torch.manual_seed(5)
    ours = score_function(f, bernoulli, many, n, baseline="leave_one_out").mean(0)  # (R, M)
    error = ours.std(0) / len(ours) ** 0.5
    assert ((ours.mean(0) - exact).abs() < 3 * error).all()
    # What it must not be: each draw's own value in its baseline.
    torch.manual_seed(5)
    with torch.no_grad():
        z = bernoulli(many).sample((n,))
    own = ((f(z) - f(z).mean(0))[..., None] * (z - logits.sigmoid())).mean(0)
    torch.testing.assert_close(own, (1 - 1 / n) * ours)
    assert ((own.mean(0) - exact).abs() > 3 * error).any()


def test_draws_may_be_discrete_and_f_without_a_gradient():
    phi = torch.zeros(3)
    each = score_function(lambda z: (z.sum(-1) > 1).float(), bernoulli, phi, 50)
    assert each.shape == (50, 3)
    with pytest.raises(ValueError, match="must have rsample"):
        reparameterised(lambda z: z.sum(-1), bernoulli, phi, 50)


# --- the encoder's signal and noise -----------------------------------------------------------


def near_its_optimum(dim, code_variance=2 / 3):
    """x = z + ε, z ~ N(0, I), whose posterior is N(x/2, ½ I), and an encoder a little off it."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(dim, dim + 1, generator=generator, dtype=torch.float64)
    model = GaussianVAE(dim, dim, 0).double()
    with torch.no_grad():
        model.decoder[0].weight.copy_(torch.eye(dim))
        model.decoder[0].bias.zero_()
        model.encoder[0].weight.copy_(torch.eye(dim) / 2 + noise[:, 1:])
        model.encoder[0].bias.copy_(noise[:, 0])
        model.code_log_variance.fill_(math.log(code_variance))
    torch.manual_seed(1)
    return model, math.sqrt(2) * torch.randn(1, dim, dtype=torch.float64)


def slope(ks, values):
    k, v = (torch.tensor(a).log() for a in (ks, values))
    return (((k - k.mean()) * (v - v.mean())).sum() / (k - k.mean()).square().sum()).item()


@pytest.mark.parametrize(
    ("network", "estimator", "expected"),
    [("encoder", "plain", -0.5), ("encoder", "dreg", 0.5), ("decoder", "plain", 0.5)],
)
def test_signal_to_noise_has_the_published_slopes(network, estimator, expected):
    model, x = near_its_optimum(2)
    ks = [8.0, 64.0, 512.0]
    values = [
        signal_to_noise(model, getattr(model, network).parameters(), x, int(k), estimator=estimator)
        for k in ks
    ]
    assert slope(ks, values) == pytest.approx(expected, abs=0.05)


def test_signal_to_noise_of_one_parameter_at_k_1():
    """∂/∂c of L_1 = ELBO by single draws: with ε ~ N(0, 1) its mean is x − 2μ and its noise 2σ."""
    model, _ = near_its_optimum(1)
    x = torch.tensor([[1.0]], dtype=torch.float64)
    with torch.no_grad():
        mu = model.encode(x).mean.item()
    bias = model.encoder[0].bias
    expected = {"plain": abs(1 - 2 * mu) / (2 * math.sqrt(2 / 3))}
    # Without the score, −ε/σ comes back: the noise is |2σ − 1/σ|, a quarter of it at σ² = 2/3.
    expected["dreg"] = 4 * expected["plain"]
    for estimator, value in expected.items():
        torch.manual_seed(2)
        found = signal_to_noise(model, [bias], x, 1, n_repeats=100_000, estimator=estimator)
        assert found == pytest.approx(value, rel=0.25)  # 100 groups: 7 % each way, and the mean's


# --- bad input --------------------------------------------------------------------------------

PHI = torch.tensor([1.0, 1.0])


@pytest.mark.parametrize("estimator", [reparameterised, score_function])
@pytest.mark.parametrize(
    ("f", "family", "phi", "n", "words"),
    [
        (square, normal, PHI, 0, "n_samples must be an int of at least 1, got 0"),
        (square, normal, [1.0, 1.0], 4, "parameters must be a torch.Tensor"),
        (square, normal, torch.tensor(1.0), 4, r"parameters must have shape \(\.\.\., P\)"),
        (square, normal, torch.tensor([1, 1]), 4, "parameters must hold floating-point"),
        (square, lambda p: Normal(p[0], p[1]), PHI, 4, r"\(4, 2\) to batch shape \(4,\), got \(2,"),
        (square, lambda p: p, PHI, 4, "what family returns must be a Distribution, got Tensor"),
        (lambda z: z[:, None], normal, PHI, 4, r"f must map \(4,\) to \(4,\), got \(4, 1\)"),
        (lambda z: z.mean(), normal, PHI, 4, r"to \(4,\), got \(\)"),
        (lambda z: 1.0, normal, PHI, 4, "what f returns must be a torch.Tensor, got float"),
    ],
)
def test_bad_arguments_are_refused(estimator, f, family, phi, n, words):
    with pytest.raises(ValueError, match=words):
        estimator(f, family, phi, n)


@pytest.mark.parametrize(
    ("baseline", "n", "words"),
    [
        (torch.zeros(4), 4, r"baseline must be finite, of shape \(2,\)"),  # one for each draw
        (torch.zeros(4, 1), 4, r"of shape \(2,\), one for each parameter, .* \(4, 1\)"),
        (torch.zeros(3), 4, r"of shape \(3,\)"),
        (torch.tensor([0.0, math.nan]), 4, "baseline must be finite"),
        (math.inf, 4, "baseline must be finite"),
        ("mean", 4, "baseline must be a number or 'leave_one_out', got 'mean'"),
        ("leave_one_out", 1, "n_samples must be an int of at least 2, got 1"),
        ([0.0, 1.0], 4, "baseline must be finite"),
    ],
)
def test_bad_baselines_are_refused(baseline, n, words):
    with pytest.raises(ValueError, match=words):
        score_function(square, normal, PHI, n, baseline=baseline)


def test_enumeration_refuses():
    total = lambda z: z.sum(-1)  # noqa: E731
    with pytest.raises(ValueError, match="n_latents must be at most 8, got 9"):
        gradient_by_enumeration(total, bernoulli, torch.zeros(9))
    with pytest.raises(ValueError, match=r"event shape \(M,\), got \(\)"):
        gradient_by_enumeration(total, normal, PHI)
    gaussian = lambda p: Independent(Normal(p, 1.0), 1)  # noqa: E731
    with pytest.raises(ValueError, match="the probabilities of all 4 must add up to 1, got 0"):
        gradient_by_enumeration(total, gaussian, PHI)
    with pytest.raises(ValueError, match=r"f must map \(4, 2\) to \(4,\), got \(4, 1\)"):
        gradient_by_enumeration(lambda z: z[:, :1], bernoulli, PHI)


def test_signal_to_noise_refuses():
    model, x = near_its_optimum(2)
    with pytest.raises(ValueError, match="parameters must be at least one"):
        signal_to_noise(model, [], x, 2)
    with pytest.raises(ValueError, match="n_repeats must be an int of at least 200, got 100"):
        signal_to_noise(model, model.parameters(), x, 2, n_repeats=100)
    with pytest.raises(ValueError, match="k must be an int of at least 1, got 0"):
        signal_to_noise(model, model.parameters(), x, 0)
    with pytest.raises(ValueError, match="estimator must be 'plain', 'dreg' or 'stl', got 'iwae'"):
        signal_to_noise(model, model.parameters(), x, 1, estimator="iwae")


# --- what the estimators of L_k do to its gradient --------------------------------------------


def gradients(model, x, k, estimator, n=2000, bound_of=importance_weighted_bound):
    """Of the encoder's offset, a draw each ``(n, M)``: an offset for each row of the batch."""
    offset = torch.zeros(n, model.z_dim, dtype=torch.float64, requires_grad=True)
    encode = model.encode

    def moved(x):
        q = encode(x).base_dist
        return Independent(Normal(q.loc + offset, q.scale), 1)

    model.encode = moved
    bound = bound_of(model, x.expand(n, -1), k, estimator=estimator)
    model.encode = encode
    return torch.autograd.grad(bound.sum(), offset)[0], bound.detach()


@pytest.mark.parametrize("k", [1, 2, 16])
def test_dreg_is_unbiased_and_returns_l_k(k):
    model, x = near_its_optimum(2)
    found = {}
    for estimator in ("plain", "dreg"):
        torch.manual_seed(6)
        found[estimator], bound = gradients(model, x, k, estimator, 100_000)
        found[estimator, "value"] = bound
    assert torch.equal(found["plain", "value"], found["dreg", "value"])
    difference = found["plain"] - found["dreg"]  # on the same draws
    error = difference.std(0) / len(difference) ** 0.5
    assert (difference.mean(0).abs() < 4 * error).all()
    assert (found["dreg"].std(0) < found["plain"].std(0)).all()


def test_stl_is_refused_for_k_above_1():
    model, x = near_its_optimum(2)
    with pytest.raises(ValueError, match="estimator 'stl' is biased for k > 1, got k = 2"):
        importance_weighted_bound(model, x, 2, estimator="stl")


def test_stl_would_be_biased_for_k_above_1():
    model, x = near_its_optimum(2)

    def bound(*args, **options):
        return log_mean_exp(log_weights(*args, **options), 0)

    found = {}
    for estimator in ("stl", "dreg"):
        torch.manual_seed(6)
        found[estimator], _ = gradients(model, x, 16, estimator, 20_000, bound)
    difference = found["stl"] - found["dreg"]
    error = difference.std(0) / len(difference) ** 0.5
    assert (difference.mean(0).abs() > 10 * error).all()


@pytest.mark.parametrize("k", [1, 5])
def test_dreg_is_the_published_sum(k):
    """Σ w̃² ∂ log w/∂z ∂z/∂φ with the densities by hand, on the same noise."""
    model, x = near_its_optimum(2)
    torch.manual_seed(7)
    ours, _ = gradients(model, x, k, "dreg", 50)
    torch.manual_seed(7)
    q = model.encode(x.expand(50, -1)).base_dist
    loc, scale = q.loc.detach(), q.scale.detach()
    z = Normal(loc, scale).sample((k,)).requires_grad_()
    log_w = (
        Normal(z, 1.0).log_prob(x) + Normal(0.0, 1.0).log_prob(z) - Normal(loc, scale).log_prob(z)
    ).sum(-1)
    (slope_in_z,) = torch.autograd.grad(log_w.sum(), z)
    share = log_w.detach().softmax(0)
    torch.testing.assert_close(ours, (share**2)[..., None].mul(slope_in_z).sum(0))


@pytest.mark.parametrize("variance", [0.5, 2 / 3, 1.0])
def test_without_the_score_the_noise_at_k_1_is_smaller_by_the_derived_factor(variance):
    """|1/(2σ²) − 1|: a quarter at 2/3, none at the exact posterior's ½."""
    model, x = near_its_optimum(3, variance)
    spread = {e: gradients(model, x, 1, e)[0].std(0) for e in ("plain", "stl", "dreg")}
    factor = abs(1 / (2 * variance) - 1)
    torch.testing.assert_close(
        spread["stl"] / spread["plain"], torch.full((3,), factor).double(), rtol=0.1, atol=1e-9
    )
    torch.testing.assert_close(spread["dreg"], spread["stl"], rtol=0.1, atol=1e-9)


def test_stl_is_dreg_at_k_1_and_the_decoder_keeps_its_gradient():
    model, x = near_its_optimum(2)
    by = {}
    for estimator in ("plain", "stl", "dreg"):
        model.zero_grad()
        torch.manual_seed(8)
        importance_weighted_bound(model, x, 1, estimator=estimator).sum().backward()
        by[estimator] = [p.grad.clone() for p in model.parameters()]
    for stl, dreg in zip(by["stl"], by["dreg"], strict=True):
        torch.testing.assert_close(stl, dreg)
    for k in (1, 5):
        decoders = []
        for estimator in ("plain", "dreg"):
            model.zero_grad()
            torch.manual_seed(8)
            importance_weighted_bound(model, x, k, estimator=estimator).sum().backward()
            decoders.append(model.decoder[0].weight.grad.clone())
        torch.testing.assert_close(*decoders)
