"""The four gaps of linear models against closed forms, and the best prior against its condition."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from dgm_course.flows import PlanarFlow
from dgm_course.vae import (
    FlowPosterior,
    GaussianVAE,
    ToyModel,
    best_prior,
    elbo_by_quadrature,
    four_gaps,
)
from dgm_course.vae import gaps as gaps_module
from dgm_course.vae.four_gaps import log_mixture
from dgm_course.vae.linear import parameters_of


@pytest.fixture(autouse=True)
def all_points_at_once(monkeypatch):
    """Short searches; that parts of the points do not change what is found: see test_gaps."""
    monkeypatch.setattr(gaps_module, "POINTS_AT_ONCE", 512)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(mean, scale):
    return Independent(Normal(doubles(*mean), doubles(*scale)), 1)


def exact_divergence(data, model):
    """KL(π ‖ p) of a Gaussian from a linear model."""
    data = MultivariateNormal(data.mean, torch.diag_embed(data.variance))
    return kl_divergence(data, parameters_of(model).marginal())


def linear(weight, bias, noise_scale, encoder_off=0.0):
    """x = W z + b + σ ε, W with orthogonal columns; q is the exact posterior, its means shifted."""
    weight, bias = doubles(*weight), doubles(*bias)
    model = GaussianVAE(*weight.shape, 0, noise_scale=noise_scale).double()
    precision = torch.eye(weight.shape[1]).double() + weight.T @ weight / noise_scale**2
    back = torch.linalg.solve(precision, weight.T) / noise_scale**2
    with torch.no_grad():
        model.decoder[0].weight.copy_(weight)
        model.decoder[0].bias.copy_(bias)
        model.encoder[0].weight.copy_(back)
        model.encoder[0].bias.copy_(encoder_off - back @ bias)
        model.code_log_variance.copy_(-precision.diagonal().log())
    return model.requires_grad_(False), precision


def close(found, expected, atol=1e-6):
    torch.testing.assert_close(torch.stack([*found]), doubles(*expected), atol=atol, rtol=0)


def kl(mean, variance, other_mean, other_variance):
    """KL of N(mean, variance) from the other, one feature."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - math.log(ratio) + (mean - other_mean) ** 2 / other_variance)


# What a line w z + b with noise σ² can make along itself is any N(0, σ²) ∗ r, and across N(b, σ²).
@pytest.mark.parametrize(
    ("mean", "variance", "prior", "decoder"),
    [
        ((0.3, -0.2), (1.64, 0.64), 0.0, 0.0),
        ((1.1, -0.2), (1.2, 0.64), kl(1.1, 1.2, 0.3, 1.64), 0.0),  # some r makes it
        ((0.3, 0.5), (1.64, 0.4), 0.0, kl(0.5, 0.4, -0.2, 0.64)),  # it lies across
        (  # narrower than the noise: the best r is one point
            (1.1, 0.5),
            (0.3, 0.4),
            kl(1.1, 0.3, 0.3, 1.64) - kl(1.1, 0.3, 1.1, 0.64),
            kl(1.1, 0.3, 1.1, 0.64) + kl(0.5, 0.4, -0.2, 0.64),
        ),
    ],
    ids=["nothing wrong", "only the prior", "only the decoder", "both"],
)
def test_the_models_parts_are_those_of_a_linear_model(mean, variance, prior, decoder):
    model, _ = linear([[1.0], [0.0]], (0.3, -0.2), 0.8)
    data = gaussian(mean, [v**0.5 for v in variance])
    gaps = four_gaps(model, data, n_data=19, n_codes=121, tolerance=5e-5)
    close(gaps[:2], (0, 0))
    close(gaps[2:], (prior, decoder), atol=1e-4)
    close([gaps.divergence], [exact_divergence(data, model)])
    assert (torch.stack([*gaps]) > -1e-6).all()


def test_the_encoders_parts_are_those_of_a_linear_model():
    """q's means are off by 0.3, and it is diagonal: KL(q ‖ p(z|x)) is the same at every x."""
    model, precision = linear([[1.0, 0.9], [0.2, 0.8]], (0.3, -0.2), 0.8, encoder_off=0.3)
    marginal = parameters_of(model).marginal()
    data = MultivariateNormal(marginal.mean + 0.4, 0.3 * marginal.covariance_matrix)
    gaps = four_gaps(model, data, n_data=13, n_codes=41)
    off = doubles(0.3, 0.3)
    amortisation = 0.5 * off @ precision @ off
    approximation = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert approximation > 0.1
    close(gaps[:2], (amortisation, approximation), atol=1e-5)
    close([gaps.divergence], [kl_divergence(data, marginal)], atol=1e-6)


def two_bumps():
    return MixtureSameFamily(
        Categorical(doubles(0.3, 0.7)),
        Independent(Normal(doubles(0.5, 1.8)[:, None], doubles(0.3, 0.4)[:, None]), 1),
    )


def test_the_parts_add_up_to_what_the_elbo_misses():
    """By sums of another kind: over a finer grid of the data, and over the noise of q."""
    model = ToyModel("two modes", 0.5, start=(0.6,)).double()
    data = two_bumps()
    gaps = four_gaps(model, data)
    x = torch.linspace(-3, 6, 901, dtype=torch.float64)[:, None]
    weight = data.log_prob(x).exp() * 0.01
    elbo = elbo_by_quadrature(model, x, n=1001, limit=9.0)
    close([gaps.total], [weight @ (data.log_prob(x) - elbo)])
    assert (torch.stack([*gaps]) > 0.002).all()
    assert not gaps.prior.requires_grad
    close([gaps.total], [sum(gaps)], atol=1e-12)


def test_no_code_is_worth_more_than_the_best_prior():
    """D(z) ≤ 1 on codes far finer than those that were mixed, and D = 1 on those in use."""
    x = torch.linspace(-2, 5, 141, dtype=torch.float64)[:, None]
    share = two_bumps().log_prob(x).softmax(0)
    decoder = lambda z: Normal(z[:, None] ** 2, 0.5).log_prob(x[:, 0])  # noqa: E731
    codes = torch.linspace(-3, 3, 601, dtype=torch.float64)
    r = best_prior(decoder(codes), share, tolerance=1e-4)
    finer = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    gain = (decoder(finer) - log_mixture(decoder(codes), r)).exp() @ share
    assert gain.max() < 1 + 2e-4
    used = (decoder(codes) - log_mixture(decoder(codes), r)).exp() @ share
    assert r @ used == pytest.approx(1, abs=1e-12)
    assert (used[r > 0.02] > 0.999).all()
    assert r.sum() == pytest.approx(1, abs=1e-12)


def test_em_starts_where_it_is_told_and_only_improves():
    log_likelihood = Normal(torch.linspace(-2, 2, 9).double()[:, None], 0.7).log_prob(
        doubles(-1.0, 0.2, 1.5)
    )
    share, start = doubles(0.2, 0.5, 0.3), torch.full((9,), 5.0).double()
    start[8] = 0.0
    r = best_prior(log_likelihood, share, start, tolerance=0.5)
    assert r[8] == 0
    before = share @ log_mixture(log_likelihood, start / start.sum())
    assert share @ log_mixture(log_likelihood, r) >= before


def test_refuses():
    model, _ = linear([[1.0], [0.0]], (0.3, -0.2), 0.8)
    data = gaussian((0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"data must have event shape \(2,\), the model's, got"):
        four_gaps(model, gaussian((0.0,), (1.0,)))
    with pytest.raises(ValueError, match="data must be one distribution over 1 or 2 features"):
        four_gaps(model, gaussian((0.0,) * 3, (1.0,) * 3))
    with pytest.raises(ValueError, match="data must be one distribution over 1 or 2 features"):
        four_gaps(model, Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="data must be a Distribution, got Tensor"):
        four_gaps(model, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="n_data must be larger than 7"):
        four_gaps(model, data, n_data=7)
    with pytest.raises(ValueError, match="n_codes must be larger than 5: so many give"):
        four_gaps(model, data, n_data=13, n_codes=5)
    with pytest.raises(ValueError, match="at most 2, got 3"):
        four_gaps(GaussianVAE(2, 3).double(), data, n_data=13)
    fine, _ = linear([[1.0], [0.0]], (0.0, 0.0), 0.2)
    with pytest.raises(ValueError, match="n_data must be larger than 13: under the best prior"):
        four_gaps(fine, data, n_data=13)
    bent = FlowPosterior(model, PlanarFlow(1).double(), amortised=False)
    with pytest.raises(ValueError, match="diagonal Gaussian posteriors, got a BentPosterior"):
        four_gaps(bent, data, n_data=13)


def test_best_prior_refuses():
    likelihood, share = torch.zeros(3, 2), torch.tensor([0.5, 0.5])
    for points in (torch.zeros(3), share[:, None]):
        with pytest.raises(ValueError, match=r"shapes \(C, N\) and \(N,\), got"):
            best_prior(likelihood, points)
    for bad in (torch.tensor([0.5, 0.6]), torch.tensor([-0.5, 1.5])):
        with pytest.raises(ValueError, match="share must be at least 0 and of sum 1"):
            best_prior(likelihood, bad)
    for start in (torch.zeros(3), torch.ones(2), -torch.ones(3), torch.full((3,), math.nan)):
        with pytest.raises(ValueError, match=r"start must be shares \(3,\)"):
            best_prior(likelihood, share, start)
    with pytest.raises(ValueError, match="finite largest value for each point"):
        best_prior(torch.full((3, 2), -math.inf), share)
    hard = Normal(torch.linspace(-3, 3, 50)[:, None], 1.0).log_prob(torch.linspace(-1, 1, 2))
    with pytest.raises(ValueError, match="tolerance must be larger than 1e-12: after 20000 rounds"):
        best_prior(hard.double(), share.double(), tolerance=1e-12)
