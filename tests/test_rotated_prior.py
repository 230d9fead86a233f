"""A prior turned into itself: theorem 1 of Locatello et al. 2019, number by number."""

import math
import warnings

import pytest
import torch
from scipy import stats
from torch.distributions import (
    Exponential,
    Gamma,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
)

from dgm_course.flows import Chain, NormalScores, Rotation, rotate_prior
from tests.contracts import assert_inverse_undoes_forward, assert_log_det_is_autograds

ZERO, ONE = torch.zeros(3).double(), torch.ones(3).double()
PRIORS = {
    "normal": Normal(
        torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([1.0, 0.1, 3.0]).double()
    ),
    "uniform": Uniform(ZERO, torch.tensor([1.0, 2.0, 5.0]).double()),
    "laplace": Laplace(ZERO, ONE),
    "exponential": Exponential(ONE),
}


def haar(dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def turn(degrees):
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


@pytest.fixture(params=PRIORS)
def prior(request):
    return Independent(PRIORS[request.param], 1)


def draws(prior, n, seed=0):
    torch.manual_seed(seed)
    return prior.sample((n,)).double()


def jacobians(f, z):
    rows = torch.autograd.functional.jacobian(lambda z: f(z)[0].sum(0), z)
    return rows.transpose(0, 1)  # (N, D, D): each point moves its own image only


def test_the_contract_of_a_bijection(prior):
    f, z = rotate_prior(prior, haar(3)), draws(prior, 200)
    sign = int(torch.linalg.det(haar(3)).sign())
    assert_log_det_is_autograds(f, z, sign=sign)
    assert_inverse_undoes_forward(f, z)


def test_the_density_of_a_point_and_of_its_image_differ_by_the_jacobian(prior):
    """log p(z) = log p(f(z)) + log|det J| to 1e-12, the Jacobian by autograd."""
    f, z = rotate_prior(prior, haar(3)), draws(prior, 1000)
    _, log_det = torch.linalg.slogdet(jacobians(f, z))
    gap = prior.log_prob(z) - prior.log_prob(f(z)[0]) - log_det
    assert gap.abs().max() < 1e-12


def test_no_entry_of_the_jacobian_is_zero(prior):
    """Its least entry over points tends to 0 for a bounded prior: the median says more."""
    slopes = jacobians(rotate_prior(prior, haar(3)), draws(prior, 1000)).abs()
    assert (slopes > 0).all()
    assert slopes.flatten(1).amin(1).median() > 0.01


def test_marginals_and_squares_are_those_of_the_prior(prior):
    z, _ = rotate_prior(prior, haar(3))(draws(prior, 50_000))
    for mine, theirs in zip(z.T, draws(prior, 50_000, seed=1).T, strict=True):
        assert stats.ks_2samp(mine.numpy(), theirs.numpy()).pvalue > 1e-3
    scores, _ = NormalScores(prior)(z)
    both = torch.cat([scores, scores.square()], 1)
    away = torch.corrcoef(both.T) - torch.eye(6)
    assert away.abs().max() < 0.025  # 4.5 standard errors of 1/√n, for squares 6 of them


# On the square's border f has infinite slopes, and the rule's error falls as n^-1.3 only.
@pytest.mark.parametrize(
    ("marginals", "low", "high", "rtol"),
    [
        (Uniform(torch.zeros(2).double(), 1.0), 0, 1, 3e-4),
        (Normal(torch.tensor([0.3, -0.2]).double(), torch.tensor([1, 0.7]).double()), -8, 8, 1e-6),
    ],
    ids=["uniform", "normal"],
)
def test_a_decoder_after_the_inverse_has_the_same_likelihood(marginals, low, high, rtol):
    """p(x) by quadrature, with d(z) and with d(f⁻¹(z)): the integrals agree, not the codes."""
    prior = Independent(marginals, 1)
    f = rotate_prior(prior, turn(40))
    ticks = low + (torch.arange(400).double() + 0.5) / 400 * (high - low)
    z = torch.cartesian_prod(ticks, ticks)
    share = prior.log_prob(z).exp()[:, None]
    x = torch.tensor([[0.2, 0.9], [1.5, -0.4], [0.6, 0.6]]).double()

    def decode(z):
        mean = torch.stack([z[:, 0] + z[:, 1] ** 2, z[:, 1] - z[:, 0]], 1)
        return Independent(Normal(mean[:, None], 0.4), 1)

    codes = f.inverse(z)[0]
    plain, turned = ((decode(c).log_prob(x).exp() * share).mean(0) for c in (z, codes))
    torch.testing.assert_close(turned, plain, rtol=rtol, atol=0)
    assert (decode(z).mean - decode(codes).mean).abs().mean() > 0.1


def test_the_scores_of_a_normal_prior_are_exact_far_out():
    prior = Independent(Normal(ZERO, ONE), 1)
    f, z = rotate_prior(prior, haar(3)), torch.tensor([[30.0, -40.0, 0.0]]).double()
    torch.testing.assert_close(f(z)[0], z @ haar(3).T, rtol=1e-14, atol=1e-13)


def test_a_matrix_in_single_precision_is_taken_for_what_it_means():
    matrix = Rotation(haar(3).float()).matrix
    assert (matrix.T @ matrix - torch.eye(3)).abs().max() < 1e-14
    torch.testing.assert_close(matrix, haar(3), rtol=0, atol=1e-6)


def test_what_is_not_orthogonal_is_refused_with_how_far():
    prior = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    with pytest.raises(ValueError, match=r"orthogonal, AᵀA = I to within 1e-06, got .* 0.02"):
        rotate_prior(prior, 1.01 * turn(30))
    for bad in (torch.full((2, 2), math.nan), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="matrix must be orthogonal"):
            rotate_prior(prior, bad)
    for bad in (torch.ones(2), torch.eye(2)[:1], torch.ones(0, 0)):
        with pytest.raises(ValueError, match=r"matrix must have shape \(D, D\)"):
            rotate_prior(prior, bad)
    with pytest.raises(ValueError, match=r"matrix must have shape \(2, 2\).* got \(3, 3\)"):
        rotate_prior(prior, haar(3))


def test_an_entry_of_zero_warns_and_none_does_not():
    prior = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    with pytest.warns(UserWarning, match="2 of 4 entries of matrix are 0"):
        rotate_prior(prior, torch.eye(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(rotate_prior(prior, turn(1)), Chain)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (Normal(ZERO, 1.0), "prior must be factorised, .* got Normal"),
        (MultivariateNormal(ZERO, torch.eye(3).double()), "got MultivariateNormal"),
        (Independent(Normal(torch.zeros(2, 3), 1.0), 1), "prior must be factorised"),
        (Independent(Normal(ZERO, ONE.float()), 1), "in torch.float64, got scale in torch.float32"),
        (3, "got int"),
        (Independent(Gamma(ONE, ONE), 1), "prior must have cdf and icdf"),
    ],
)
def test_a_prior_must_factorise_and_have_both_cdfs(prior, words):
    with pytest.raises(ValueError, match=words):
        rotate_prior(prior, haar(3))


def test_points_without_a_score_are_refused():
    prior = Independent(Uniform(torch.zeros(2).double(), 1.0), 1)
    f = rotate_prior(prior, turn(20))
    for z in ([[0.5, 1.5]], [[0.0, 0.5]], [[0.5, 1.0]]):
        with pytest.raises(ValueError, match=r"z must lie where the CDF .* got 1 of 1 points"):
            f(torch.tensor(z).double())
    with pytest.raises(ValueError, match="weights, torch.float64, got torch.float32"):
        f(torch.full((3, 2), 0.5))
