import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from dgm_course.data import correlated_gaussian
from dgm_course.training import fit, seed_everything
from dgm_course.vae import AutoregressiveVAE, GaussianVAE, LinearVAE, log_prob_by_quadrature
from dgm_course.vae.linear import (
    best_with_diagonal_noise,
    best_with_fixed_noise,
    collapse_costs,
    diagonal_noise_rate,
    expected_elbo_of,
    fixed_noise_activity,
    fixed_noise_rate,
    parameters_of,
    ridge,
)

BEST, COLLAPSED = -3.9365, -4.4473  # nats: the reference's numbers, to four decimals
AXES, ROTATED = correlated_gaussian(angle=0.0), correlated_gaussian(angle=math.pi / 4)


def a_gaussian(dim=3, seed=0):
    torch.manual_seed(seed)
    a = torch.randn(dim, dim, dtype=torch.float64)
    return MultivariateNormal(torch.randn(dim, dtype=torch.float64), a @ a.T + torch.eye(dim))


def a_linear_vae(dim=3, z_dim=2, seed=1):
    torch.manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    return LinearVAE(r(dim, z_dim), r(dim), r(dim).exp(), r(z_dim, dim), r(z_dim), r(z_dim).exp())


def correlation(data):
    c = data.covariance_matrix.double()
    return (c[0, 1] / (c[0, 0] * c[1, 1]).sqrt()).item()


def maximised(objective, start, n_steps=60):
    """The largest value that L-BFGS finds, and where."""
    parameters = [p.contiguous().clone().requires_grad_() for p in start]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=n_steps, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def loss():
        optimizer.zero_grad()
        value = -objective(*parameters)
        value.backward()
        return value

    for _ in range(10):
        optimizer.step(loss)
    return -loss().item(), [p.detach() for p in parameters]


# --- the exact averages ---------------------------------------------------------------------


def test_expected_elbo_is_the_average_over_data_and_codes():
    """Against the library's ELBO on a million draws, within five standard errors."""
    data = a_gaussian()
    torch.manual_seed(2)
    vae = GaussianVAE(3, 2, 0, noise="diagonal").double()
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        exact = parameters_of(vae).expected_elbo(data)
        sampled = vae.elbo(data.sample((1_000_000,)))
    for one, many in zip(exact, sampled, strict=True):
        assert abs(one - many.mean()) < 5 * many.std() / 1000


def test_expected_elbo_of_an_autoregressive_model():
    data = a_gaussian()
    torch.manual_seed(2)
    model = AutoregressiveVAE(GaussianVAE(3, 2, 0, noise="diagonal"), 2).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        exact = expected_elbo_of(model, data)
        sampled = model.elbo(data.sample((1_000_000,)))
        plain = expected_elbo_of(model.vae, data)
    for one, many in zip(exact, sampled, strict=True):
        assert abs(one - many.mean()) < 5 * many.std() / 1000
    assert abs(exact.reconstruction - plain.reconstruction) > 0.1
    torch.testing.assert_close(plain, parameters_of(model.vae).expected_elbo(data))


@pytest.mark.parametrize("noise", ["fixed", "shared", "diagonal"])
def test_parameters_are_those_of_the_model(noise):
    vae = GaussianVAE(3, 2, 0, noise=noise, noise_scale=0.7).double()
    linear = parameters_of(vae)
    x, z = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    p, q = vae.decode(z).base_dist, vae.encode(x).base_dist
    torch.testing.assert_close(p.loc, z @ linear.weight.T + linear.mean)
    torch.testing.assert_close(p.scale**2, linear.noise_variance.expand(5, 3))
    torch.testing.assert_close(q.loc, x @ linear.code_weight.T + linear.code_bias)
    torch.testing.assert_close(q.scale**2, linear.code_variance.expand(5, 2))
    linear.expected_elbo(a_gaussian()).elbo.backward()
    assert all(p.grad.abs().sum() > 0 for p in vae.parameters())


def test_parameters_of_what_is_not_linear():
    for vae in (
        GaussianVAE(2, 1),
        GaussianVAE(2, 1, 0, noise="network"),
        GaussianVAE(2, 1, 0, likelihood="bernoulli"),
    ):
        with pytest.raises(ValueError, match="vae must have hidden=0"):
            parameters_of(vae)


def test_elbo_is_the_evidence_minus_the_posterior_kl():
    """E log p(x) − ELBO = E KL(q ‖ p(z|x)) with the exact posterior N(G Wᵀ Ψ⁻¹ (x − b), G)."""
    data, model = a_gaussian(), a_linear_vae()
    w, psi = model.weight, model.noise_variance
    g = torch.linalg.inv(torch.eye(2).double() + w.T @ (w / psi[:, None]))
    v = g @ (w.T / psi)
    m, sigma = data.mean, data.covariance_matrix
    difference = (model.code_weight - v) @ m + model.code_bias + v @ model.mean
    spread = (model.code_weight - v) @ sigma @ (model.code_weight - v).T
    g_inverse, s2 = torch.linalg.inv(g), torch.diag(model.code_variance)
    second = spread + torch.outer(difference, difference)
    gap = 0.5 * (
        torch.trace(g_inverse @ (s2 + second)) - 2 - torch.logdet(s2) + torch.logdet(g)
    )  # E KL between Gaussians
    marginal = model.marginal()
    d = m - model.mean
    evidence = marginal.log_prob(m) - 0.5 * torch.trace(marginal.precision_matrix @ sigma)
    torch.testing.assert_close(marginal.mean + d, m)
    torch.testing.assert_close(evidence - model.expected_elbo(data).elbo, gap)


def test_the_best_encoder_is_a_maximum():
    data = a_gaussian()
    torch.manual_seed(3)
    for beta in (0.5, 1.0, 2.0):
        for z_dim in (1, 2):
            model = a_linear_vae(z_dim=z_dim).with_best_encoder(beta)

            def objective(v, c, log_s2, model=model, beta=beta):
                encoder = dict(code_weight=v, code_bias=c, code_variance=log_s2.exp())
                terms = model._replace(**encoder).expected_elbo(data)
                return terms.reconstruction - beta * terms.kl

            ours = objective(model.code_weight, model.code_bias, model.code_variance.log())
            start = torch.zeros_like(model.code_weight), torch.zeros(z_dim), torch.zeros(z_dim)
            best, _ = maximised(objective, [p.double() for p in start])
            assert ours.item() == pytest.approx(best, abs=1e-8)


def test_activity_is_the_variance_of_the_posterior_mean():
    data, model = a_gaussian(), a_linear_vae()
    torch.manual_seed(4)
    means = data.sample((400_000,)) @ model.code_weight.T
    torch.testing.assert_close(model.activity(data), means.var(0), rtol=0.02, atol=0)


def test_dimensions_must_agree():
    with pytest.raises(ValueError, match="a Gaussian of 3 features, got a mean of shape"):
        a_linear_vae().expected_elbo(AXES)


# --- fixed noise ----------------------------------------------------------------------------

FIVE = [(1.0, 0.5), (1.0, 2.0), (0.5, 2.0), (3.0, 1.0), (2.0, 3.0)]  # (β, σ²)


@pytest.mark.parametrize(("beta", "noise_variance"), FIVE)
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_fixed_noise_optimum_is_a_maximum(beta, noise_variance, angle):
    data = correlated_gaussian(angle=angle)
    best = best_with_fixed_noise(data, 2, noise_variance, beta)
    terms = best.expected_elbo(data)
    eigenvalues = torch.tensor([9.0, 1.0])
    rates = fixed_noise_rate(eigenvalues, noise_variance, beta)
    assert terms.kl.item() == pytest.approx(rates.sum().item(), abs=1e-5)
    activity = fixed_noise_activity(eigenvalues, noise_variance, beta)
    torch.testing.assert_close(best.activity(data), activity, atol=1e-5, rtol=0)
    torch.testing.assert_close(activity, 1 - torch.exp(-2 * rates))

    def objective(w, b, v, c, log_s2):
        model = LinearVAE(w, b, best.noise_variance, v, c, log_s2.exp())
        terms = model.expected_elbo(data)
        return terms.reconstruction - beta * terms.kl

    torch.manual_seed(0)
    start = [torch.randn(*s, dtype=torch.float64) for s in ((2, 2), (2,), (2, 2), (2,), (2,))]
    found, (w, *_) = maximised(objective, start, 300)
    assert (terms.reconstruction - beta * terms.kl).item() == pytest.approx(found, abs=1e-6)
    torch.testing.assert_close(w @ w.T, best.weight @ best.weight.T, atol=5e-3, rtol=0)


def test_the_transition_is_at_lambda_equal_beta_sigma_squared():
    assert fixed_noise_rate(2.0, 1.0, 2.0) == 0
    assert fixed_noise_rate(2.0, 1.0, 1.999) > 0
    assert fixed_noise_activity(9.0, 9.0, 1.01) == 0
    assert fixed_noise_rate(9.0, 1.0).item() == pytest.approx(math.log(3))


def test_at_beta_1_fixed_noise_is_probabilistic_pca():
    best = best_with_fixed_noise(ROTATED, 1, 1.0)
    torch.testing.assert_close(
        best.marginal().covariance_matrix, ROTATED.covariance_matrix.double(), atol=1e-5, rtol=0
    )
    assert best.expected_elbo(ROTATED).elbo.item() == pytest.approx(BEST, abs=1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_fixed_noise_refuses_what_is_not_positive(bad):
    with pytest.raises(ValueError, match="noise_variance must be positive"):
        fixed_noise_rate(1.0, bad)
    with pytest.raises(ValueError, match="beta must be positive"):
        fixed_noise_activity(1.0, 1.0, bad)
    with pytest.raises(ValueError, match="eigenvalue must be positive"):
        fixed_noise_rate(torch.tensor([1.0, bad]), 1.0)
    with pytest.raises(ValueError, match="noise_variance must be positive"):
        best_with_fixed_noise(AXES, 1, bad)
    with pytest.raises(ValueError, match="z_dim must be at most 2, got 3"):
        best_with_fixed_noise(AXES, 3, 1.0)


# --- learned diagonal noise -----------------------------------------------------------------


@pytest.mark.parametrize("data", [AXES, ROTATED])
def test_both_data_sets_have_the_same_best_elbo(data):
    entropy = -data.entropy().item()
    assert entropy == pytest.approx(BEST, abs=1e-4)
    start = torch.tensor([1.0, 0.5]) if data is AXES else torch.tensor([1.9, 2.1])
    for model in ridge(data, start if data is ROTATED else torch.tensor([0.0, 1.0, 2.9])):
        assert model.expected_elbo(data).elbo.item() == pytest.approx(BEST, abs=1e-4)


@pytest.mark.parametrize(("data", "cost"), [(AXES, 0.0), (ROTATED, BEST - COLLAPSED)])
def test_collapse_costs_what_the_closed_form_says(data, cost):
    sigma = data.covariance_matrix.double()
    assert collapse_costs(sigma).item() == pytest.approx(cost, abs=1e-4)
    assert collapse_costs(sigma).item() == pytest.approx(
        -0.5 * math.log(1 - correlation(data) ** 2), abs=1e-6
    )
    zero = torch.zeros(2, 1).double()
    collapsed = LinearVAE(
        zero,
        data.mean.double(),
        sigma.diagonal(),
        zero.T,
        torch.zeros(1).double(),
        torch.ones(1).double(),
    )
    terms = collapsed.expected_elbo(data)
    assert terms.kl == 0
    assert terms.elbo.item() == pytest.approx(BEST - cost, abs=1e-4)


def test_the_ridge_of_the_rotated_toy():
    t = torch.linspace(1.8, 2.2, 41)
    models = ridge(ROTATED, t)
    rates = torch.stack([m.expected_elbo(ROTATED).kl for m in models])
    assert rates.min().item() == pytest.approx(math.log(3), abs=1e-5)
    assert t[rates.argmin()].item() == pytest.approx(2.0)
    assert rates[0] > 1.5
    for model in models:
        assert model.weight.prod().item() == pytest.approx(4.0, abs=1e-5)
        torch.testing.assert_close(
            model.marginal().covariance_matrix, ROTATED.covariance_matrix.double(),
            atol=1e-5, rtol=0,
        )  # fmt: skip


def test_the_ridge_of_the_axis_aligned_toy():
    t = torch.tensor([0.0, 1.5, 2.99])
    rates = [m.expected_elbo(AXES).kl.item() for m in ridge(AXES, t)]
    assert rates[0] == 0
    for rate, w in zip(rates, t.tolist(), strict=True):
        assert rate == pytest.approx(-0.5 * math.log(1 - w**2 / 9), abs=1e-5)


def test_the_ridge_ends_where_a_noise_is_zero():
    with pytest.raises(ValueError, match="must leave a positive noise"):
        ridge(AXES, torch.tensor([3.0]))
    with pytest.raises(ValueError, match="must leave a positive noise"):
        ridge(ROTATED, torch.tensor([0.0]))
    with pytest.raises(ValueError, match="two features, got 3"):
        ridge(a_gaussian(), torch.ones(1))


def diagonal_objective(data, beta):
    def objective(w, log_psi):
        zero = torch.zeros(1, 2).double(), torch.zeros(1).double(), torch.ones(1).double()
        model = LinearVAE(w[:, None], data.mean.double(), log_psi.exp(), *zero)
        terms = model.with_best_encoder(beta).expected_elbo(data)
        return terms.reconstruction - beta * terms.kl

    return objective


@pytest.mark.parametrize("beta", [1.05, 1.2, 1.5, 1.75, 1.85, 2.5])
@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4, -0.5])
def test_diagonal_noise_rate_is_that_of_the_maximum(beta, angle):
    """From four starts, L-BFGS finds no better model than one with the rate of the formula."""
    data = correlated_gaussian(angle=angle)
    objective = diagonal_objective(data, beta)
    sigma = data.covariance_matrix.double().diagonal()
    torch.manual_seed(0)
    found = []
    for _ in range(4):
        w = torch.randn(2, dtype=torch.float64) * sigma.sqrt() / 2
        found.append(maximised(objective, [w, sigma.log() - 0.5], 200))
    value, (w, log_psi) = max(found, key=lambda pair: pair[0])
    zero = torch.zeros(1, 2).double(), torch.zeros(1).double(), torch.ones(1).double()
    model = LinearVAE(w[:, None], data.mean.double(), log_psi.exp(), *zero)
    rate = model.with_best_encoder(beta).expected_elbo(data).kl.item()
    expected = diagonal_noise_rate(correlation(data), beta).item()
    assert rate == pytest.approx(expected, abs=2e-4)
    best = best_with_diagonal_noise(data, beta)
    terms = best.expected_elbo(data)
    assert (terms.reconstruction - beta * terms.kl).item() == pytest.approx(value, abs=1e-6)
    assert terms.kl.item() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(best.weight @ best.weight.T, w.outer(w), atol=5e-3, rtol=0)
    if beta > 1 + abs(correlation(data)):
        assert expected == 0
        entropy_alone = -0.5 * (2 + (2 * math.pi * sigma).log().sum()).item()
        assert value == pytest.approx(entropy_alone, abs=1e-6)


def test_below_beta_1_learned_noise_has_no_maximum():
    objective = diagonal_objective(AXES, 0.8)
    values = []
    for psi in (1.0, 1e-3, 1e-6, 1e-9):
        w, log_psi = torch.tensor([(9 - psi) ** 0.5, 0.0]), torch.tensor([psi, 1.0]).log()
        values.append(objective(w.double(), log_psi.double()).item())
    assert values[-1] - values[-2] == pytest.approx(
        0.2 * 0.5 * math.log(1000), abs=1e-2
    )  # for ever
    with pytest.raises(ValueError, match="beta be at least 1, got .* β from 0.8"):
        diagonal_noise_rate(0.8, 0.8)
    with pytest.raises(ValueError, match="inside"):
        diagonal_noise_rate(1.0)


# --- a window that is partly open -----------------------------------------------------------


def seeing(data, share, beta=1.0):
    """A decoder held at ``share`` of x₂'s regression on x₁, best for the rest, in float64.

    What it leaves is Gaussian data for a plain decoder: x₁ and x₂ − share Σ₁₂/Σ₁₁ x₁.
    """
    slope = share * data.covariance_matrix[0, 1].double() / data.covariance_matrix[0, 0].double()
    see = torch.eye(2, dtype=torch.float64)
    see[1, 0] = -slope
    left = MultivariateNormal(
        see @ data.mean.double(), see @ data.covariance_matrix.double() @ see.T
    )
    found = best_with_diagonal_noise(left, beta)
    model = AutoregressiveVAE(GaussianVAE(2, 1, 0, noise="diagonal"), window=1).double()
    encoder, decoder = model.vae.encoder[0], model.vae.decoder[0]
    with torch.no_grad():
        model.context[1, 0] = slope
        decoder.weight.copy_(found.weight)
        decoder.bias.copy_(found.mean)
        encoder.weight.copy_(found.code_weight @ see)  # the encoder sees x, not what is left
        encoder.bias.copy_(found.code_bias)
        model.vae.noise_log_variance.copy_(found.noise_variance.log())
        model.vae.code_log_variance.copy_(found.code_variance.log())
    return model, left


SHARES = [0.0, 0.3, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("angle", [math.pi / 4, -0.5])
def test_a_partly_open_window_leaves_a_smaller_correlation(angle, share):
    data = correlated_gaussian(angle=angle)
    model, left = seeing(data, share)
    rho = correlation(data)
    rest = (1 - share) * rho / math.sqrt(1 - rho**2 + (1 - share) ** 2 * rho**2)
    assert correlation(left) == pytest.approx(rest, abs=1e-6)
    # What the best latent earns, −ln(1 − |ρ_s|), is what it pays and what it keeps.
    pays, keeps = diagonal_noise_rate(rest).item(), collapse_costs(left.covariance_matrix).item()
    assert pays + keeps == pytest.approx(-math.log(1 - abs(rest)), abs=1e-5)
    torch.manual_seed(0)
    x = data.sample((50,)).double()
    exact_density = MultivariateNormal(data.mean.double(), data.covariance_matrix.double())
    torch.testing.assert_close(
        log_prob_by_quadrature(model, x), exact_density.log_prob(x), atol=1e-5, rtol=0
    )
    terms = expected_elbo_of(model, data)
    assert terms.elbo.item() == pytest.approx(BEST, abs=1e-4)
    assert terms.kl.item() == pytest.approx(pays, abs=1e-5)


@pytest.mark.parametrize("share", SHARES)
def test_at_beta_1_a_partly_open_window_is_at_a_maximum(share):
    model, _ = seeing(ROTATED, share)
    expected_elbo_of(model, ROTATED).elbo.backward()
    for p in model.parameters():
        assert p.grad is None or p.grad.abs().max() < 1e-5


@pytest.mark.parametrize("share", SHARES[:4])
def test_where_codes_cost_a_little_more_the_decoder_wants_to_see_more(share):
    """So a decoder that may see at most this share sees all of it, and the rate is the least."""
    model, _ = seeing(ROTATED, share, beta=1.01)
    terms = expected_elbo_of(model, ROTATED)
    (terms.reconstruction - 1.01 * terms.kl).backward()
    assert model.context.grad[1, 0] > 1e-3
    for p in model.vae.parameters():
        assert p.grad.abs().max() < 1e-5


# --- trained --------------------------------------------------------------------------------


def trained(data, beta=1.0, seed=0, lr=0.01, n_steps=1000, **options):
    """The linear VAE after Adam on fresh batches, from the stated start; its exact terms."""
    seed_everything(seed)
    vae = GaussianVAE(2, 1, 0, **options)
    vae.start_at(data.mean, data.covariance_matrix.diagonal())
    optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def loss(step):
        terms = vae.elbo(data.sample((512,)))
        return beta * terms.kl - terms.reconstruction

    fit(loss, optimizer, n_steps, scheduler=decay, progress=False)
    with torch.no_grad():
        return parameters_of(vae), parameters_of(vae).expected_elbo(data)


@pytest.mark.parametrize("seed", range(2))
def test_trained_axis_aligned_toy_collapses(seed):
    _, terms = trained(AXES, seed=seed, noise="diagonal")
    assert abs(terms.elbo.item() - BEST) < 0.01
    assert terms.kl.item() < 0.05


@pytest.mark.parametrize("seed", range(2))
def test_trained_rotated_toy_has_rate_ln_3(seed):
    _, terms = trained(ROTATED, seed=seed, noise="diagonal")
    assert abs(terms.elbo.item() - BEST) < 0.01
    assert terms.kl.item() == pytest.approx(math.log(3), rel=0.03)


@pytest.mark.parametrize(("beta", "noise_variance"), FIVE)
def test_trained_with_fixed_noise_has_the_rate_and_activity_of_the_closed_form(
    beta, noise_variance
):
    model, terms = trained(ROTATED, beta, lr=0.05, noise_scale=noise_variance**0.5)
    assert terms.kl.item() == pytest.approx(
        fixed_noise_rate(9.0, noise_variance, beta).item(), rel=0.02
    )
    activity = model.activity(ROTATED).item()
    assert activity == pytest.approx(
        fixed_noise_activity(9.0, noise_variance, beta).item(), rel=0.02
    )
