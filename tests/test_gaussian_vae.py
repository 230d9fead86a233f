import math
from functools import partial

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal
from torch.distributions import kl_divergence as torch_kl

from dgm_course.checks import unchecked_values
from dgm_course.vae import GaussianVAE, kl_per_dimension
from tests import contracts

strong = partial(contracts.strong, scale=0.4)

# name -> a constructor with 3 features and 2 latents
VAES = {
    "linear-fixed": lambda: GaussianVAE(3, 2, 0, noise_scale=0.7),
    "linear-shared": lambda: GaussianVAE(3, 2, 0, noise="shared"),
    "linear-diagonal": lambda: GaussianVAE(3, 2, 0, noise="diagonal", noise_scale=2.0),
    "linear-network": lambda: GaussianVAE(3, 2, 0, noise="network"),
    "fixed": lambda: GaussianVAE(3, 2, 8),
    "shared": lambda: GaussianVAE(3, 2, 8, noise="shared", noise_scale=0.3),
    "diagonal": lambda: GaussianVAE(3, 2, 8, noise="diagonal"),
    "network": lambda: GaussianVAE(3, 2, 8, noise="network", noise_scale=0.5),
    "bernoulli": lambda: GaussianVAE(3, 2, 8, likelihood="bernoulli"),
    "bernoulli-linear": lambda: GaussianVAE(3, 2, 0, likelihood="bernoulli"),
    "categorical": lambda: GaussianVAE(3, 2, 8, likelihood="categorical", n_levels=5),
}
GAUSSIAN = [name for name in VAES if "bernoulli" not in name and name != "categorical"]
LEARNED = {"shared", "diagonal", "network", "linear-shared", "linear-diagonal", "linear-network"}


@pytest.fixture(params=VAES)
def vae(request):
    return strong(VAES[request.param]())


def data(model, n=16):
    if model.likelihood == "bernoulli":
        return torch.randint(2, (n, model.x_dim))
    if model.likelihood == "categorical":
        return torch.randint(model.n_levels, (n, model.x_dim))
    return torch.randn(n, model.x_dim, dtype=next(model.parameters()).dtype)


def grid(limit=9.0, n=241):
    """Points of a square grid on the codes' plane ``(n², 2)``, and the area of a cell."""
    ticks = torch.linspace(-limit, limit, n, dtype=torch.float64)
    return torch.cartesian_prod(ticks, ticks), (ticks[1] - ticks[0]).item() ** 2


def expectation(q, f):
    """E_q f(z) for each of the N codes, f from ``(G, N, 2)`` to ``(G, N)``, by quadrature."""
    t, area = grid()
    weight = torch.exp(-0.5 * t.square().sum(1)) * area / (2 * math.pi)  # (G,)
    return weight @ f(q.base_dist.loc + q.base_dist.scale * t[:, None])


# --- the ELBO -------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions(vae):
    x = data(vae)
    q = vae.encode(x)
    kl = kl_per_dimension(q)
    assert kl.shape == (16, 2)
    torch.testing.assert_close(kl.sum(1), torch_kl(q, vae.prior))
    torch.testing.assert_close(vae.elbo(x).kl, torch_kl(q, vae.prior))
    assert (kl >= 0).all()


def test_kl_of_the_prior_itself_is_zero():
    q = Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1)
    assert (kl_per_dimension(q) == 0).all()


def test_kl_needs_a_normal():
    with pytest.raises(ValueError, match=r"Independent\(Normal, 1\)"):
        kl_per_dimension(Independent(Bernoulli(torch.ones(3, 2) / 2), 1))


def test_elbo_is_the_expectation_over_codes(vae):
    """Against quadrature over the plane of codes, within five standard errors."""
    x = data(vae, 4)
    with torch.no_grad():
        exact = expectation(vae.encode(x), lambda z: vae.log_likelihood(x, z))
        draws = torch.stack([vae.elbo(x, 500).reconstruction for _ in range(8)])
    error = draws.std(0) / 8**0.5
    assert ((draws.mean(0) - exact).abs() < 5 * error + 1e-9).all()


def test_elbo_is_below_log_p_by_the_posterior_kl(vae):
    """log p(x) − ELBO = KL(q(z|x) ‖ p(z|x)), all by quadrature but the ELBO's own KL term."""
    x = data(vae, 4)
    codes, area = grid()
    with torch.no_grad():
        q = vae.encode(x)
        log_px = torch.logsumexp(
            vae.log_likelihood(x, codes[:, None].expand(-1, 4, -1))
            + vae.prior.log_prob(codes)[:, None],
            dim=0,
        ) + math.log(area)
        exact = expectation(q, lambda z: vae.log_likelihood(x, z)) - vae.elbo(x).kl
        gap = expectation(
            q,
            lambda z: q.log_prob(z) - vae.log_likelihood(x, z) - vae.prior.log_prob(z) + log_px,
        )
    torch.testing.assert_close(log_px - exact, gap, atol=1e-6, rtol=0)
    assert (gap > 0).all()


def test_elbo_is_reconstruction_minus_kl(vae):
    terms = vae.elbo(data(vae))
    torch.testing.assert_close(terms.elbo, terms.reconstruction - terms.kl)
    assert terms.elbo.shape == terms.reconstruction.shape == terms.kl.shape == (16,)


def test_likelihood_sums_over_features(vae):
    """Each feature by hand: a mean over them in the place of the sum would change β."""
    x = data(vae, 5)
    z = torch.randn(5, 2, dtype=torch.float64)
    p = vae.decode(z).base_dist
    if vae.likelihood == "gaussian":
        terms = -0.5 * ((x - p.loc) / p.scale) ** 2 - p.scale.log() - 0.5 * math.log(2 * math.pi)
    elif vae.likelihood == "bernoulli":
        terms = torch.where(x == 1, p.probs, 1 - p.probs).log()
    else:
        terms = p.logits.log_softmax(-1).gather(-1, x[..., None])[..., 0]
    torch.testing.assert_close(vae.log_likelihood(x, z), terms.sum(1))


def test_likelihood_takes_many_codes_a_point(vae):
    x, z = data(vae, 5), torch.randn(7, 5, 2, dtype=torch.float64)
    each = torch.stack([vae.log_likelihood(x, one) for one in z])
    torch.testing.assert_close(vae.log_likelihood(x, z), each)


def test_data_model_is_a_density():
    """A one-feature decoder's p(x|z) integrates to 1 over x."""
    x = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None]
    for noise in ("fixed", "shared", "diagonal", "network"):
        vae = strong(GaussianVAE(1, 2, 4, noise=noise))
        z = torch.randn(1, 2, dtype=torch.float64).expand(len(x), 2)
        with torch.no_grad():
            mass = torch.trapezoid(vae.log_likelihood(x, z).exp(), x[:, 0])
        assert abs(mass.item() - 1) < 1e-6


def test_grey_bernoulli_targets_are_averages_over_pixels():
    vae = strong(VAES["bernoulli"]())
    z = torch.randn(1, 2, dtype=torch.float64)
    grey = torch.tensor([[0.3, 1.0, 0.0]], dtype=torch.float64)
    on, off = (torch.tensor([[v, 1, 0]]) for v in (1, 0))
    expected = 0.3 * vae.log_likelihood(on, z) + 0.7 * vae.log_likelihood(off, z)
    torch.testing.assert_close(vae.log_likelihood(grey, z), expected)


def test_gradients_reach_every_weight(vae):
    (-vae.elbo(data(vae)).elbo.mean()).backward()
    for name, p in vae.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_reconstruction_moves_the_encoder(vae):
    """Through the codes: a detached sample would leave the encoder to the KL term alone."""
    vae.elbo(data(vae)).reconstruction.mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in vae.encoder.parameters())


# --- what the arguments mean ----------------------------------------------------------------


def test_types(vae):
    x = data(vae)
    q = vae.encode(x)
    assert isinstance(q, Independent)
    assert isinstance(q.base_dist, Normal)
    assert (q.batch_shape, q.event_shape) == ((16,), (2,))
    p = vae.decode(q.sample((3,)))
    assert isinstance(p, Distribution)
    assert (p.batch_shape, p.event_shape) == ((3, 16), (3,))


@pytest.mark.parametrize("name", GAUSSIAN)
def test_noise_is_what_its_name_says(name):
    vae = strong(VAES[name]())
    scale = vae.decode(torch.randn(6, 2, dtype=torch.float64)).base_dist.scale  # (N, D)
    kind = name.removeprefix("linear-")
    over_codes, over_features = scale.std(0).max() > 1e-3, scale.std(1).max() > 1e-3
    assert over_codes == (kind == "network")
    assert over_features == (kind in ("diagonal", "network"))
    assert any("noise" in n for n, _ in vae.named_parameters()) == (kind in ("shared", "diagonal"))


@pytest.mark.parametrize("name", GAUSSIAN)
def test_noise_starts_at_noise_scale(name):
    torch.manual_seed(0)
    vae = VAES[name]()
    expected = {"linear-fixed": 0.7, "linear-diagonal": 2.0, "shared": 0.3, "network": 0.5}
    scale = vae.decode(1e-3 * torch.randn(6, 2)).base_dist.scale
    if "network" in name:  # up to the network's first output
        scale = scale.log().mean().exp()
    torch.testing.assert_close(
        scale, torch.full_like(scale, expected.get(name, 1.0)), rtol=0.3, atol=0
    )


@pytest.mark.parametrize("name", GAUSSIAN)
def test_start_is_at_the_datas_moments_and_makes_no_use_of_z(name):
    torch.manual_seed(0)
    mean, variance = torch.tensor([2.0, 3.0, -1.0]), torch.tensor([9.0, 1.0, 0.25])
    vae = VAES[name]().start_at(mean, variance)
    p = vae.decode(vae.prior.sample((500,))).base_dist
    torch.testing.assert_close(p.loc, mean.expand(500, 3), atol=0.1, rtol=0)
    if "diagonal" in name or "network" in name:
        torch.testing.assert_close(p.scale**2, variance.expand(500, 3), rtol=0.1, atol=0)
    elif "shared" in name:
        torch.testing.assert_close(p.scale**2, torch.full((500, 3), variance.mean().item()))
    else:
        torch.testing.assert_close(p.scale, torch.full((500, 3), 0.7 if "linear" in name else 1.0))
    x = mean + variance.sqrt() * torch.randn(100, 3)
    assert vae.elbo(x).kl.max() < 0.02
    assert vae.elbo(x).kl.max() > 0, "no signal at all: the weights would never move"


def test_start_checks_what_it_is_given():
    vae = GaussianVAE(2, 1)
    with pytest.raises(ValueError, match=r"variance must be positive"):
        vae.start_at(torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"mean must be finite, of shape \(2,\)"):
        vae.start_at(torch.zeros(2, 1), torch.ones(2))
    with pytest.raises(ValueError, match=r"variance must be finite"):
        vae.start_at(torch.zeros(2), torch.tensor([1.0, math.inf]))
    with pytest.raises(ValueError, match="not bernoulli"):
        GaussianVAE(2, 1, likelihood="bernoulli").start_at(torch.zeros(2), torch.ones(2))


def test_linear_vae_is_linear():
    vae = strong(VAES["linear-diagonal"]())
    x = data(vae)
    q = vae.encode(x).base_dist
    weight, bias = vae.encoder[0].weight, vae.encoder[0].bias
    torch.testing.assert_close(q.loc, x @ weight.T + bias)
    assert (q.scale == q.scale[0]).all()


def test_samples_follow_the_model(vae):
    torch.manual_seed(1)
    n = 40_000
    z, area = grid(7.0, 141)
    with torch.no_grad():
        exact = (vae.prior.log_prob(z).exp()[:, None] * vae.mean(z)).sum(0) * area
    for noise in (True, False):
        x = vae.sample(n, noise=noise).to(torch.float64)
        assert x.shape == (n, 3)
        error = x.std(0) / n**0.5
        assert ((x.mean(0) - exact).abs() < 5 * error).all(), noise


def test_samples_without_noise_vary_less(vae):
    torch.manual_seed(2)
    with_noise, without = (vae.sample(20_000, noise).double().var(0) for noise in (True, False))
    assert (without < with_noise).all()


def test_mean_of_levels_is_an_expectation():
    vae = strong(VAES["categorical"]())
    z = torch.randn(6, 2, dtype=torch.float64)
    one = Categorical(logits=vae.decoder(z).reshape(6, 3, 5)).probs
    torch.testing.assert_close(vae.mean(z), (one * torch.arange(5)).sum(-1))


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VAES)
def test_bad_data_is_refused(name):
    vae = VAES[name]()
    good = data(vae, 4)
    for bad, words in [
        (good[:, :2], r"\(N, 3\), got shape \(4, 2\)"),
        (good[:, 0], r"\(N, 3\), got shape \(4,\)"),
        (good[:0], "empty batch"),
        (good.numpy(), "torch.Tensor, got ndarray"),
    ]:
        for call in (vae.encode, vae.elbo, lambda x: vae.log_likelihood(x, torch.zeros(4, 2))):
            with pytest.raises(ValueError, match=words):
                call(bad)


@pytest.mark.parametrize("name", [n for n in VAES if n != "categorical"])
def test_nan_and_other_dtypes_are_refused(name):
    vae = VAES[name]()
    good = data(vae, 4).float()
    with pytest.raises(ValueError, match="NaN or inf in 1 of 4"):
        vae.elbo(good.index_fill(0, torch.tensor([2]), math.nan))
    with pytest.raises(ValueError, match="torch.float32, got torch.float64"):
        vae.elbo(good.double())


@pytest.mark.parametrize("name", GAUSSIAN)
def test_integers_are_no_data_of_a_gaussian(name):
    with pytest.raises(ValueError, match="got torch.int64"):
        VAES[name]().elbo(torch.zeros(4, 3, dtype=torch.int64))


def test_one_column_is_not_a_vector():
    """(N,) against (N, 1) would broadcast to (N, N)."""
    vae = GaussianVAE(1, 1)
    with pytest.raises(ValueError, match=r"\(N, 1\), got shape \(4,\)"):
        vae.elbo(torch.zeros(4))
    with pytest.raises(ValueError, match=r"z must have shape"):
        vae.log_likelihood(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"z must have shape \(\.\.\., 4, 1\)"):
        vae.log_likelihood(torch.zeros(4, 1), torch.zeros(3, 1))


@pytest.mark.parametrize("worst", [255.0, 1.01, -0.01])
def test_bernoulli_targets_outside_0_1_are_refused(worst):
    vae = VAES["bernoulli"]()
    x = torch.rand(4, 3)
    x[1, 2] = worst
    with pytest.raises(ValueError, match=r"lie in \[0, 1\] for a bernoulli decoder, got values"):
        vae.elbo(x)
    with pytest.raises(ValueError, match="to 255"):
        vae.elbo(torch.tensor([[0, 128, 255]], dtype=torch.uint8))


def test_levels_out_of_range_are_refused():
    vae = VAES["categorical"]()
    with pytest.raises(ValueError, match="levels 0 … 4 for a categorical decoder.* from 0 to 5"):
        vae.elbo(torch.tensor([[0, 1, 5]]))
    with pytest.raises(ValueError, match="from -1 to 1"):
        vae.elbo(torch.tensor([[0, 1, -1]]))
    with pytest.raises(ValueError, match="integer levels, got dtype torch.float32"):
        vae.elbo(torch.zeros(2, 3))


@pytest.mark.parametrize("value", [200.0, -200.0, math.nan])
def test_log_variances_that_overflow_are_refused(value):
    vae = GaussianVAE(3, 2, 0, noise="diagonal")
    with torch.no_grad():
        vae.code_log_variance[1] = value
    with pytest.raises(ValueError, match="encoder's log-variances must lie between ±87"):
        vae.elbo(torch.zeros(4, 3))
    vae = GaussianVAE(3, 2, 0, noise="diagonal")
    with torch.no_grad():
        vae.noise_log_variance[1] = value
    with pytest.raises(ValueError, match="decoder's log-variances"):
        vae.elbo(torch.zeros(4, 3))


def test_checks_of_values_follow_the_one_switch():
    vae = VAES["bernoulli"]()
    with unchecked_values():
        assert vae.elbo(torch.full((2, 3), 255.0)).elbo.shape == (2,)


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((0, 1), {}, "x_dim must be an int of at least 1, got 0"),
        ((2, 0), {}, "at least 1"),
        ((2, 1, -1), {}, "hidden must be an int of at least 0"),
        ((2, 1), {"likelihood": "poisson"}, "got 'poisson'"),
        ((2, 1), {"likelihood": "categorical"}, "n_levels must be an int for a categorical"),
        (
            (2, 1),
            {"likelihood": "categorical", "n_levels": 1},
            "n_levels must be an int of at least 2",
        ),
        ((2, 1), {"n_levels": 3}, "None for others"),
        ((2, 1), {"noise": "none"}, "got 'none'"),
        ((2, 1), {"noise_scale": 0.0}, "noise_scale must be positive"),
        ((2, 1), {"noise_scale": math.nan}, "noise_scale must be positive"),
        ((2, 1), {"likelihood": "bernoulli", "noise": "diagonal"}, "for a Gaussian decoder"),
    ],
)
def test_bad_arguments_are_refused(args, options, words):
    with pytest.raises(ValueError, match=words):
        GaussianVAE(*args, **options)


def test_n_samples_must_be_positive(vae):
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1, got 0"):
        vae.elbo(data(vae), 0)
