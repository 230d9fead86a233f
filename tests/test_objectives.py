import math
from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal

from dgm_course.vae import (
    AutoregressiveVAE,
    ElboTerms,
    GaussianVAE,
    annealed_beta,
    beta_elbo,
    free_bits,
    importance_weighted_bound,
    kl_per_dimension,
    log_prob_by_importance,
    log_prob_by_quadrature,
)
from dgm_course.vae.linear import parameters_of
from tests import contracts

strong = partial(contracts.strong, scale=0.4)

# name -> a constructor with 3 features and 1 or 2 latents
MODELS = {
    "linear-1": lambda: GaussianVAE(3, 1, 0, noise="diagonal"),
    "linear-2": lambda: GaussianVAE(3, 2, 0, noise="diagonal"),
    "network": lambda: GaussianVAE(3, 2, 8, noise="network"),
    "bernoulli": lambda: GaussianVAE(3, 1, 8, likelihood="bernoulli"),
    "categorical": lambda: GaussianVAE(3, 2, 8, likelihood="categorical", n_levels=4),
    "autoregressive": lambda: AutoregressiveVAE(GaussianVAE(3, 2, 8), window=1),
}


@pytest.fixture(params=MODELS)
def model(request):
    return strong(MODELS[request.param]())


def data(model, n=6):
    if getattr(model, "likelihood", "gaussian") == "gaussian":
        return torch.randn(n, 3, dtype=torch.float64)
    return torch.randint(2, (n, 3))


# --- β, annealing ---------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_weighs_the_kl_term(model, beta):
    terms = model.elbo(data(model))
    value = beta_elbo(terms, beta)
    assert value.shape == (6,)
    torch.testing.assert_close(value, terms.elbo - (beta - 1) * terms.kl)
    if beta != 1:
        assert not torch.allclose(value, terms.elbo)  # the weight is applied


def test_beta_must_not_be_negative():
    terms = ElboTerms(torch.zeros(3), torch.ones(3))
    for beta in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta must be at least 0 and finite"):
            beta_elbo(terms, beta)


def test_a_column_is_not_subtracted_from_a_vector():
    with pytest.raises(ValueError, match=r"same shape, got \(4, 1\) and \(4,\)"):
        beta_elbo(ElboTerms(torch.zeros(4, 1), torch.ones(4)), 1.0)


def test_annealing_rises_to_exactly_1():
    betas = [annealed_beta(step, 7, start=0.3) for step in range(20)]
    assert betas[0] == 0.3
    assert betas[7:] == [1.0] * 13
    assert (torch.tensor(betas[:8]).diff() > 0).all()
    assert annealed_beta(3, 6) == 0.5
    assert annealed_beta(0, 1) == 0.0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((-1, 5), "step must be an int of at least 0, got -1"),
        ((0, 0), "n_steps must be an int of at least 1, got 0"),
        ((0, 5, -0.1), "start must be at least 0 and finite, got -0.1"),
        ((0, 5, 1.1), "start must be at most 1, got 1.1"),
    ],
)
def test_annealing_refuses(args, words):
    with pytest.raises(ValueError, match=words):
        annealed_beta(*args)


# --- free bits ------------------------------------------------------------------------------


def test_free_bits_of_zero_is_the_elbo(model):
    x = data(model)
    torch.manual_seed(1)
    value = free_bits(model, x, 0.0)
    torch.manual_seed(1)
    torch.testing.assert_close(value, model.elbo(x).elbo.mean())


def test_free_bits_takes_the_maximum_on_the_batch_mean_of_each_latent():
    model = strong(MODELS["linear-2"]())
    x = data(model, 50)
    kl = kl_per_dimension(model.encode(x)).detach()  # (N, 2)
    low, high = kl.mean(0).sort().values.tolist()
    threshold = (low + high) / 2
    assert (kl.max(0).values > threshold).all()  # the maximum of each example is another number
    torch.manual_seed(1)
    value = free_bits(model, x, threshold)
    torch.manual_seed(1)
    reconstruction = model.elbo(x).reconstruction.mean()
    torch.testing.assert_close(value, reconstruction - threshold - high)


def test_below_the_threshold_the_kl_has_no_gradient():
    model = strong(MODELS["linear-1"]())
    x = data(model)
    gradients = []
    for threshold in (50.0, 60.0):
        model.zero_grad()
        torch.manual_seed(1)
        free_bits(model, x, threshold).backward()
        gradients.append(model.encoder[0].weight.grad.clone())
    model.zero_grad()
    torch.manual_seed(1)
    model.elbo(x).reconstruction.mean().backward()
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)
    torch.testing.assert_close(gradients[0], model.encoder[0].weight.grad)


def test_free_bits_refuses():
    model = MODELS["linear-1"]()
    with pytest.raises(ValueError, match="threshold must be at least 0 and finite"):
        free_bits(model, torch.zeros(2, 3), -0.1)
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1"):
        free_bits(model, torch.zeros(2, 3), 0.1, 0)


# --- log p(x), three ways -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear-1", "linear-2"])
def test_quadrature_is_the_closed_form_of_a_linear_model(name):
    model = strong(MODELS[name]())
    x = data(model)
    with torch.no_grad():
        exact = parameters_of(model).marginal().log_prob(x)
    torch.testing.assert_close(log_prob_by_quadrature(model, x), exact, atol=1e-6, rtol=0)


def test_quadrature_in_float32_loses_nothing_in_its_sum():
    model = strong(MODELS["linear-2"]())
    x = data(model)
    with torch.no_grad():
        exact = parameters_of(model).marginal().log_prob(x)
    ours = log_prob_by_quadrature(model.float(), x.float())
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=0)


def test_quadrature_of_a_linear_autoregressive_model():
    """x = (I − A)⁻¹ (W z + b + ε): a Gaussian."""
    model = strong(AutoregressiveVAE(GaussianVAE(3, 2, 0, noise="diagonal"), window=2))
    x = data(model)
    with torch.no_grad():
        p = parameters_of(model.vae)
        g = torch.linalg.inv(torch.eye(3).double() - model.context * model.mask)
        cov = g @ p.marginal().covariance_matrix @ g.T
        exact = MultivariateNormal(g @ p.mean, cov).log_prob(x)
    torch.testing.assert_close(log_prob_by_quadrature(model, x), exact, atol=1e-6, rtol=0)


def test_quadrature_says_when_the_nodes_are_too_far_apart():
    model = GaussianVAE(3, 1, 0, noise_scale=0.001).double()
    with torch.no_grad():
        model.decoder[0].weight.fill_(3.0)
    with pytest.raises(ValueError, match="n must be larger than 101"):
        log_prob_by_quadrature(model, torch.randn(4, 3).double(), n=101)


def by_every_pair(model, x, n, limit=6.0):
    """The same rule with p(x|z) from `log_likelihood`, pair by pair."""
    ticks = torch.linspace(-limit, limit, n, dtype=torch.float64)
    z = torch.cartesian_prod(*[ticks] * model.z_dim).reshape(-1, model.z_dim)
    with torch.no_grad():
        log_joint = torch.stack([model.log_likelihood(one[None], z[:, None]) for one in x], 1)
        return (log_joint[..., 0].T + model.prior.log_prob(z)).logsumexp(1) + (
            model.z_dim * math.log(2 * limit / (n - 1))
        )


@pytest.mark.parametrize("z_dim", [1, 2])
@pytest.mark.parametrize(
    ("options", "x"),
    [
        ({"likelihood": "bernoulli"}, torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]])),
        ({"likelihood": "bernoulli"}, torch.tensor([[0.3, 0.9, 1.0], [0, 0.5, 1]]).double()),
        ({"likelihood": "categorical", "n_levels": 5}, torch.tensor([[0, 4, 2], [3, 3, 1]])),
        ({"likelihood": "categorical", "n_levels": 2}, torch.tensor([[0, 1, 1]])),
        ({"noise": "network"}, torch.tensor([[0.3, -1.0, 2.0], [0, 1, 2]]).double()),
    ],
)
def test_quadrature_is_the_sum_over_all_pairs(options, x, z_dim):
    """Levels and pixels go through one matrix product: in float64 the numbers are the same."""
    model = strong(GaussianVAE(3, z_dim, 8, **options))
    ours = log_prob_by_quadrature(model, x, n=161)
    torch.testing.assert_close(ours, by_every_pair(model, x, 161), atol=1e-9, rtol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
def test_a_sure_decoder_loses_nothing_to_the_matrix_product(likelihood):
    """Logits of hundreds, in float32: l x − log(1 + eˡ) would cancel."""
    levels = {"n_levels": 3} if likelihood == "categorical" else {}
    model = strong(GaussianVAE(40, 1, 0, likelihood=likelihood, **levels), scale=0.3)
    with torch.no_grad():
        model.decoder[0].bias.mul_(1000)
    x = model.decode(torch.zeros(1, 1).double()).mode.long().repeat(3, 1)
    x[1, :3] = 0
    exact = log_prob_by_quadrature(model, x)
    torch.testing.assert_close(
        log_prob_by_quadrature(model.float(), x).double(), exact, atol=1e-5, rtol=1e-6
    )


def test_the_probabilities_of_all_binary_images_add_up_to_1():
    model = strong(MODELS["bernoulli"]())
    x = torch.cartesian_prod(*[torch.arange(2)] * 3)
    assert log_prob_by_quadrature(model, x).exp().sum().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("limit", [1.0, 2.0, 3.0])
def test_quadrature_says_when_the_box_is_narrower_than_the_posterior(model, limit):
    with pytest.raises(ValueError, match=f"limit must be larger than {limit:g}"):
        log_prob_by_quadrature(model, data(model), limit=limit)


def test_quadrature_says_when_a_posterior_lies_beyond_the_box():
    model = GaussianVAE(3, 1, 0, noise_scale=0.1).double()
    with torch.no_grad():
        model.decoder[0].weight.fill_(1.0)
    x = torch.tensor([[0.0] * 3, [9.0] * 3]).double()  # z of the second is near 9
    with pytest.raises(ValueError, match="limit must be larger than 6"):
        log_prob_by_quadrature(model, x)
    exact = parameters_of(model).marginal().log_prob(x)
    ours = log_prob_by_quadrature(model, x, 801, 12.0)
    torch.testing.assert_close(ours, exact, atol=1e-6, rtol=0)


def test_quadrature_refuses():
    with pytest.raises(ValueError, match="z_dim of at most 2, got 3"):
        log_prob_by_quadrature(GaussianVAE(2, 3), torch.zeros(1, 2))
    for options, words in (
        ({"n": 100}, "n must be odd, got 100"),
        ({"n": 3}, "n must be an int of at least 5, got 3"),
        ({"limit": 0.0}, "limit must be positive and finite, got 0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            log_prob_by_quadrature(GaussianVAE(2, 1), torch.zeros(1, 2), **options)


def test_importance_sampling_agrees_with_quadrature(model):
    x = data(model)
    exact = log_prob_by_quadrature(model, x)
    torch.manual_seed(2)
    value, error = log_prob_by_importance(model, x, 20_000)
    assert value.shape == error.shape == (6,)
    assert (error < 0.5).all()
    assert ((value - exact).abs() < 5 * error + 1e-6).all()


def test_the_standard_error_is_the_spread_of_repeated_estimates():
    model = strong(MODELS["linear-1"]())
    x = data(model, 3)
    torch.manual_seed(3)
    run = log_prob_by_importance(model, x.repeat(400, 1), 500)
    spread = run.value.reshape(400, 3).std(0)
    stated = run.standard_error.reshape(400, 3).mean(0)
    torch.testing.assert_close(spread, stated, rtol=0.2, atol=0)


def test_the_exact_posterior_leaves_no_error():
    """With q(z|x) = p(z|x) every weight is p(x)."""
    model = strong(MODELS["linear-1"]())
    with torch.no_grad():
        best = parameters_of(model).with_best_encoder()
        model.encoder[0].weight.copy_(best.code_weight)
        model.encoder[0].bias.copy_(best.code_bias)
        model.code_log_variance.copy_(best.code_variance.log())
        x = data(model)
        exact = best.marginal().log_prob(x)
        value, error = log_prob_by_importance(model, x, 10)
        one = importance_weighted_bound(model, x, 1)
    torch.testing.assert_close(value, exact)
    torch.testing.assert_close(one, exact)
    assert error.max() < 1e-12


def test_l_k_rises_from_the_elbo_to_log_p(model):
    """A mean of logarithms instead of weights would stay at the ELBO for every k."""
    x = data(model)
    torch.manual_seed(4)
    with torch.no_grad():
        runs = {
            k: importance_weighted_bound(model, x.repeat(20_000 // k, 1), k).reshape(-1, len(x))
            for k in (1, 4, 64)
        }  # (R, N)
        elbo = model.elbo(x, 20_000).elbo
    exact = log_prob_by_quadrature(model, x)
    mean = {k: r.mean(0) for k, r in runs.items()}
    error = {k: r.std(0) / len(r) ** 0.5 for k, r in runs.items()}
    assert ((mean[1] - elbo).abs() < 6 * error[1] + 1e-6).all()
    assert (mean[4] > mean[1] + 3 * error[1]).any()
    assert (mean[4] > mean[1] - 3 * (error[1] + error[4])).all()
    assert (mean[64] > mean[4] - 3 * (error[4] + error[64])).all()
    assert (mean[64] < exact + 5 * error[64]).all()
    gap_1, gap_64 = (exact - mean[1]).mean(), (exact - mean[64]).mean()
    assert gap_64 < 0.25 * gap_1


def test_l_2_is_its_integral():
    """E L_2 over two standard normals, by quadrature, for one latent."""
    model = strong(MODELS["linear-1"]())
    x = data(model, 2)
    with torch.no_grad():
        q = model.encode(x)
        t = torch.linspace(-7, 7, 301, dtype=torch.float64)
        weight = torch.exp(-0.5 * t**2) * (t[1] - t[0]) / math.sqrt(2 * math.pi)
        z = q.mean + q.stddev * t[:, None, None]  # (G, N, 1)
        log_w = model.log_likelihood(x, z) + model.prior.log_prob(z) - q.log_prob(z)
        pair = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)  # (G, G, N)
        exact = torch.einsum("i,j,ijn->n", weight, weight, pair)
        torch.manual_seed(5)
        draws = importance_weighted_bound(model, x.repeat(5000, 1), 2).reshape(5000, 2)
    assert ((draws.mean(0) - exact).abs() < 4 * draws.std(0) / 5000**0.5).all()


def test_l_k_refuses():
    with pytest.raises(ValueError, match="k must be an int of at least 1, got 0"):
        importance_weighted_bound(MODELS["linear-1"](), torch.zeros(2, 3), 0)
    with pytest.raises(ValueError, match="n_samples must be an int of at least 2"):
        log_prob_by_importance(MODELS["linear-1"](), torch.zeros(2, 3), 1)


def test_gradients_flow_through_every_objective(model):
    x = data(model)
    for objective in (
        lambda: importance_weighted_bound(model, x, 3).mean(),
        lambda: free_bits(model, x, 0.01),
        lambda: beta_elbo(model.elbo(x), 2.0).mean(),
    ):
        model.zero_grad()
        objective().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
