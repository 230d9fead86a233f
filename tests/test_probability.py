import decimal
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from torch.distributions import (
    Categorical,
    Exponential,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Uniform,
)
from torch.nn.functional import softplus

from dgm_course.checks import check_points, unchecked_values
from dgm_course.data import gaussian_grid_density
from dgm_course.losses import log_loss
from dgm_course.probability import (
    Estimate,
    bits_per_dim,
    categorical_kl,
    divergences,
    gaussian_log_prob,
    likelihood_row,
    log_mean_exp,
    logistic_level_log_prob,
    read_likelihoods,
    write_likelihoods,
)


def test_estimate_is_mean_and_standard_error():
    estimate = Estimate.from_samples(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert estimate.value == 2.5
    assert estimate.standard_error == pytest.approx((5 / 3) ** 0.5 / 2)
    assert str(Estimate(1.23456, 0.01)) == "1.2346 ± 0.0100"


def test_estimate_averages_in_float64():
    samples = 1e4 + torch.tensor([0.0, 1.0, 2.0, 3.0] * 1000)
    estimate = Estimate.from_samples(samples.requires_grad_())
    assert estimate.value == pytest.approx(10001.5, abs=1e-9)


@pytest.mark.parametrize("shape", [(1,), (0,), (3, 1)])
def test_estimate_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \(S,\) with S >= 2, got shape"):
        Estimate.from_samples(torch.zeros(shape))


def test_a_point_with_one_bad_coordinate_counts_once():
    points = torch.tensor([[0.0, float("nan")], [0.0, 0.0]])
    with pytest.raises(ValueError, match="NaN or inf in 1 of 2 points"):
        check_points(points, 2, torch.float32, "x")


def test_value_checks_follow_our_own_switch():
    bad = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(ValueError, match="NaN or inf in 1 of 1 points"):
        check_points(bad, 2, torch.float32, "x")
    with unchecked_values():
        check_points(bad, 2, torch.float32, "x")
        with pytest.raises(ValueError, match=r"x must have shape \(N, 3\)"):
            check_points(bad, 3, torch.float32, "x")


def test_log_mean_exp_averages_the_numbers_not_their_logs():
    values = torch.tensor([[1.0, 3.0], [2.0, 5.0]], dtype=torch.float64).log()
    torch.testing.assert_close(log_mean_exp(values, 1).exp(), values.new_tensor([2.0, 3.5]))
    torch.testing.assert_close(log_mean_exp(values, 0).exp(), values.new_tensor([1.5, 4.0]))
    assert log_mean_exp(torch.tensor([1000.0, 1000.0]), 0) == 1000
    with pytest.raises(ValueError, match=r"empty along dim 1, got \(3, 0\)"):
        log_mean_exp(torch.zeros(3, 0), 1)


def test_gaussian_log_prob_is_that_of_torch():
    x, mean, log_scale = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_scale), expected)


def test_bits_per_dim_of_uniform_bytes_is_8():
    nats = torch.tensor([3072 * math.log(256)])  # a 32 x 32 colour image
    assert bits_per_dim(nats, 3072).item() == pytest.approx(8)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bits_per_dim(nats, 0)


# --- a logistic's mass between the edges of a level -----------------------------------------


def exact_log_mass(level, mean, log_scale, n_levels):
    """ln [F(upper edge) − F(lower edge)], with so many digits that nothing cancels."""
    with decimal.localcontext(prec=220, Emin=-(10**9), Emax=10**9):

        def cdf(edge):
            return 1 / (1 + (-(edge - Decimal(mean)) / Decimal(log_scale).exp()).exp())

        lower = Decimal(0) if level == 0 else cdf(Decimal(2 * level - n_levels) / (n_levels - 1))
        upper = Decimal(2 * level + 2 - n_levels) / (n_levels - 1)
        mass = (Decimal(1) if level == n_levels - 1 else cdf(upper)) - lower
        return float(mass.ln(decimal.Context(prec=30, Emin=-(10**9), Emax=10**9)))


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_a_level_has_the_mass_between_its_edges(dtype, eps, n_levels):
    for mean in (0.0, 0.3, -1.25, 4.0):  # the last two: all levels in one tail
        for log_scale in (-5.0, -2.0, 0.5, 9.0):  # the last: narrow levels of 10⁻⁶ each
            levels = torch.tensor(sorted({0, 1, n_levels // 2, n_levels - 1}))
            arguments = torch.tensor(mean, dtype=dtype), torch.tensor(log_scale, dtype=dtype)
            found = logistic_level_log_prob(levels, *arguments, n_levels=n_levels)
            for level, value in zip(levels.tolist(), found.tolist(), strict=True):
                # The mean as the dtype rounds it; edge − mean is rounded once, then scaled.
                exact = exact_log_mass(level, arguments[0].item(), log_scale, n_levels)
                within = eps * (4 * abs(exact) + 4 + 3 * math.exp(-log_scale))
                assert value == pytest.approx(exact, abs=within, rel=0), (level, mean, log_scale)


@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_the_masses_of_all_levels_add_up_to_one(n_levels):
    mean = torch.tensor([0.0, 1 / 255, 0.999, -1.0, 3.0, -1e3])[:, None, None]
    log_scale = torch.linspace(-80, 80, 33)[:, None]
    for dtype, within in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        log_p = logistic_level_log_prob(
            torch.arange(n_levels), mean.to(dtype), log_scale.to(dtype), n_levels=n_levels
        )
        assert log_p.shape == (6, 33, n_levels)
        ones = torch.ones(6, 33, dtype=dtype)
        torch.testing.assert_close(log_p.exp().sum(-1), ones, atol=within, rtol=0)


def test_value_and_gradient_are_finite_in_far_tails_and_narrow_levels():
    levels, mean, log_scale = torch.meshgrid(
        torch.tensor([0.0, 1.0, 128.0, 254.0, 255.0]),
        torch.tensor([0.0, 0.5, -1.0, 1.0, 30.0, -1e3]),
        torch.linspace(-80, 80, 41),
        indexing="ij",
    )
    mean, log_scale = (v.clone().requires_grad_() for v in (mean, log_scale))
    log_p = logistic_level_log_prob(levels.long(), mean, log_scale, n_levels=256)
    log_p.sum().backward()
    for values in (log_p, mean.grad, log_scale.grad):
        assert values.isfinite().all()


def test_the_gradient_of_a_mass_is_right():
    torch.manual_seed(0)
    levels = torch.arange(5)
    mean, log_scale = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def log_p(mean, log_scale):
        return logistic_level_log_prob(levels, mean, log_scale, n_levels=5)

    assert torch.autograd.gradcheck(log_p, (mean, log_scale))


def test_bad_levels_are_refused():
    zero = torch.zeros(())
    for levels, words in [
        (torch.tensor([0, 4]), "levels must hold integers 0 to 3, got values from 0 to 4"),
        (torch.tensor([-1]), "got values from -1 to -1"),
        (torch.tensor([0.5]), "levels must hold integers 0 to 3, got dtype torch.float32"),
    ]:
        with pytest.raises(ValueError, match=words):
            logistic_level_log_prob(levels, zero, zero, n_levels=4)


# --- the table of likelihoods ---------------------------------------------------------------


def test_a_row_is_mean_and_error_of_minus_log_p():
    images = torch.randint(4, (5, 2, 3, 1))
    log_p = -torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    row = likelihood_row(
        "ours", lambda x: log_p[: len(x)], images, levels=4, kind="bound", seconds=2.5
    )
    assert row[:5] == ("ours", "bound", 4, 5, 6)
    assert row.nats == pytest.approx((3, (2.5 / 5) ** 0.5))
    assert row.bits_per_dim == pytest.approx([v / (6 * math.log(2)) for v in row.nats])
    assert (row.n_parameters, row.seconds) == (None, 2.5)


def test_a_row_takes_no_gradient():
    weight = torch.ones((), requires_grad=True)
    images = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    calls = []
    likelihood_row("ours", lambda x: calls.append(weight * 1) or -torch.ones(2), images, levels=2)
    assert [call.requires_grad for call in calls] == [False]


def test_bad_rows_are_refused():
    images = torch.randint(4, (5, 1, 2, 2), generator=torch.Generator().manual_seed(0))

    def of(x):
        return -torch.ones(len(x))

    for arguments, words in [
        ({"kind": "elbo"}, "kind must be 'exact' or 'bound', got 'elbo'"),
        ({"images": images[:1]}, r"N >= 2, got shape \(1, 1, 2, 2\)"),
        ({"images": images[:, 0]}, r"got shape \(5, 2, 2\)"),
        ({"images": images.float()}, "images must hold integers 0 to 3, got dtype torch.float32"),
        ({"levels": 3}, "images must hold integers 0 to 2, got values from 0 to 3"),
        ({"log_prob": lambda x: of(x)[:, None]}, r"return shape \(5,\), got shape \(5, 1\)"),
        ({"log_prob": lambda x: of(x).mean()}, r"return shape \(5,\), got shape \(\)"),
        ({"log_prob": lambda x: of(x) / 0}, "must be finite, got NaN or inf for 5 of 5"),
    ]:
        with pytest.raises(ValueError, match=words):
            likelihood_row(
                **{"name": "ours", "log_prob": of, "images": images, "levels": 4} | arguments
            )


def test_rows_are_read_as_they_were_written(tmp_path):
    images = torch.zeros(2, 1, 2, 2, dtype=torch.long)
    rows = [
        likelihood_row(
            "a, with classes", lambda x: torch.tensor([-1.5, -0.5]), images, levels=17, seconds=7
        ),
        likelihood_row(
            "b", lambda x: torch.tensor([-2.0, -2.5]), images, levels=17, kind="bound"
        )._replace(n_parameters=12),
    ]
    write_likelihoods(rows, tmp_path / "table.csv")
    found = read_likelihoods(tmp_path / "table.csv")
    assert [row.name for row in found] == ["b", "a, with classes"], "the most nats first"
    for row, other in zip(found, rows[::-1], strict=True):
        assert row[:5] == other[:5]
        assert row[7:] == other[7:]
        for estimate, exact in zip(row[5:7], other[5:7], strict=True):
            assert estimate == pytest.approx(exact, abs=1e-4)
            assert isinstance(estimate, Estimate)


# --- KL of categoricals -----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_categorical_kl_is_that_of_torch(dim):
    generator = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    laws = (torch.distributions.Categorical(logits=x.movedim(dim, -1)) for x in (p, q))
    expected = torch.distributions.kl_divergence(*laws)
    torch.testing.assert_close(categorical_kl(p, q, dim), expected)
    torch.testing.assert_close(categorical_kl(p + 5, q.log_softmax(dim) - 3, dim), expected)
    if dim == 1:
        assert torch.equal(categorical_kl(p, q), categorical_kl(p, q, 1))


def test_categorical_kl_has_a_gradient_also_where_p_is_0():
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    q_logits = torch.tensor([[0.3, -1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    kl = categorical_kl(p.log(), q_logits)
    (grad,) = torch.autograd.grad(kl.sum(), q_logits)
    torch.testing.assert_close(grad, q_logits.softmax(1) - p)


def test_categorical_kl_of_laws_with_zeros():
    none = -math.inf
    p = torch.tensor([[0.0, none], [0.0, none], [0.0, 0.0], [none, 0.0]])
    q = torch.tensor([[0.0, none], [0.0, 0.0], [0.0, none], [0.0, 0.0]])
    expected = [0.0, math.log(2), math.inf, math.log(2)]
    assert categorical_kl(p, q).tolist() == [pytest.approx(v) for v in expected]


@pytest.mark.parametrize(
    ("p", "q", "dim", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 1), 1, r"same shape, got \(2, 3\) and \(2, 1\)"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3), 1, "p_logits must hold floating-point"),
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), 1, "q_logits must hold floating-point"),
        (torch.zeros(2, 3), torch.full((2, 3), math.nan), 1, "q_logits must .* got 2 laws"),
        (torch.tensor([[0, math.inf], [0, 1]]), torch.zeros(2, 2), 1, "p_logits must .* got 1 law"),
        (torch.full((2, 3), -math.inf), torch.zeros(2, 3), 1, "p_logits must have a finite one"),
        (torch.zeros(3), torch.zeros(3), 1, r"dim must be an axis of p_logits, \(3,\), got 1"),
        (torch.zeros(3), torch.zeros(3), 0.0, "dim must be an int, got 0.0"),
    ],
)
def test_categorical_kl_refuses(p, q, dim, words):
    with pytest.raises(ValueError, match=words):
        categorical_kl(p, q, dim)


# --- divergences by quadrature ----------------------------------------------------------------


def gaussian_kl(mean, cov, other_mean, other_cov):
    """½ (tr Σ₂⁻¹Σ₁ + δᵀΣ₂⁻¹δ − D + ln |Σ₂|/|Σ₁|)."""
    away = other_mean - mean
    inverse = other_cov.inverse()
    quadratic = (inverse @ cov).trace() + away @ inverse @ away - len(away)
    return 0.5 * (quadratic + other_cov.logdet() - cov.logdet()).item()


def gaussians(dim):
    torch.manual_seed(0)
    for _ in range(2):
        root = 0.5 * torch.randn(dim, dim).double() + torch.eye(dim)
        yield MultivariateNormal(torch.randn(dim).double(), root @ root.T + 0.1 * torch.eye(dim))


@pytest.mark.parametrize("dim", [1, 2])
def test_divergences_of_gaussians_are_the_closed_form(dim):
    p, q = gaussians(dim)
    line = (lambda x: x[:, None]) if dim == 1 else (lambda x: x)
    box = (-20, 20) if dim == 1 else ((-15, 15), (-15, 15))
    found = divergences(lambda x: p.log_prob(line(x)), lambda x: q.log_prob(line(x)), box)
    p, q = ((d.mean, d.covariance_matrix) for d in (p, q))
    assert found.kl == pytest.approx(gaussian_kl(*p, *q), abs=1e-9)
    assert found.reverse_kl == pytest.approx(gaussian_kl(*q, *p), abs=1e-9)


def test_a_density_that_begins_at_the_boxs_edge_is_measured_between_the_edges():
    p, q = Exponential(1.0), Exponential(2.0)
    found = divergences(p.log_prob, q.log_prob, (0, 40))
    assert found.kl == pytest.approx(2 - 1 - math.log(2), abs=1e-4)
    assert found.reverse_kl == pytest.approx(1 / 2 - 1 + math.log(2), abs=1e-4)


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0, 6.0])
def test_jsd_equals_another_quadrature(mu):
    """ln 2 − E log(1 + e^−r) with r = μ x − μ²/2 under N(μ, 1), in panels of Gauss and Legendre."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(20))
    x = torch.arange(-12, 18, dtype=torch.float64)[:, None] + (nodes + 1) / 2
    lost = Normal(mu, 1.0).log_prob(x).exp() * softplus(mu**2 / 2 - mu * x)
    expected = math.log(2) - (lost @ weights / 2).sum().item()
    p, q = Normal(mu, 1.0), Normal(0.0, 1.0)
    found = divergences(p.log_prob, q.log_prob, (-12, 18))
    assert found.jsd == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_best_discriminators_value_is_two_jsd_minus_log_four(dim):
    """V of the logit log p/q, by a sum of its own."""
    p, q = gaussians(dim)
    ticks = torch.linspace(-12, 12, 6001 if dim == 1 else 401, dtype=torch.float64)
    x = torch.cartesian_prod(*[ticks] * dim).view(-1, dim)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    of_p, of_q = (log_loss(log_p - log_q, torch.full_like(log_p, y)) for y in (1, 0))
    loss = (log_p.exp() * of_p + log_q.exp() * of_q).sum().item()
    value = -loss * (ticks[1] - ticks[0]).item() ** dim
    line = (lambda x: x[:, None]) if dim == 1 else (lambda x: x)
    box = (-12, 12) if dim == 1 else ((-12, 12), (-12, 12))
    found = divergences(lambda x: p.log_prob(line(x)), lambda x: q.log_prob(line(x)), box)
    assert value == pytest.approx(2 * found.jsd - math.log(4), abs=1e-6)


@pytest.mark.parametrize(
    ("s", "mean", "variance", "name", "expected"),
    [
        (3.0, -0.6, 0.49 + 0.96 * 9, "jsd", None),  # KL's own optimum: covers
        (3.0, -3.0, 0.49, "reverse_kl", math.log(1 / 0.6)),
        (3.0, -3.0, 0.49, "jsd", 0.1639),
        (2.0, -2.0, 0.49, "jsd", 0.162),
        (2.0, -0.39, 2.05**2, "jsd", 0.117),
    ],
)
def test_one_gaussian_for_two_modes(s, mean, variance, name, expected):
    """.6 N(−s, .7²) + .4 N(s, .7²): which divergence takes one mode, and at what price."""
    modes = Normal(torch.tensor([-s, s]), 0.7)
    p = MixtureSameFamily(Categorical(torch.tensor([0.6, 0.4])), modes)
    q = Normal(mean, variance**0.5)
    found = divergences(p.log_prob, q.log_prob, (-25, 25))._asdict()[name]
    assert 0 < found < math.log(2)
    assert expected is None or found == pytest.approx(expected, abs=6e-4)


def test_disjoint_densities_are_as_far_as_can_be():
    p, q = (Uniform(low, low + 1.0, validate_args=False) for low in (0.0, 2.0))
    found = divergences(p.log_prob, q.log_prob, (-1, 4))
    assert (found.kl, found.reverse_kl) == (math.inf, math.inf)
    assert found.jsd == pytest.approx(math.log(2), abs=1e-12)


def test_a_density_is_no_way_from_itself():
    p = gaussian_grid_density()
    found = divergences(p.log_prob, p.log_prob, ((-3, 3), (-3, 3)))
    assert found == pytest.approx((0, 0, 0), abs=1e-12)


ONE = Normal(0.0, 1.0).log_prob


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"box": (-1, 1)}, "p must have its mass within the box, got 0.6826.* of 1 by 4000 cells"),
        ({"n": 3}, "p must have its mass within the box, got .* by 3 cells"),
        ({"log_q": lambda x: ONE(x) + 1}, "q must have its mass within the box, got 2.718"),
        ({"log_q": lambda x: ONE(x) * math.nan}, "q must have its mass within the box, got nan"),
        ({"log_p": lambda x: ONE(x)[:, None]}, r"log_p must return shape \(N,\)"),
        ({"log_p": lambda x: 0.0}, r"log_p must return shape \(N,\), got 0.0"),
        ({"box": (1, -1)}, r"box must be \(low, high\), .* got \(1, -1\)"),
        ({"box": [(-9, 9)] * 3}, r"box must be \(low, high\)"),
        ({"box": (-math.inf, 9)}, "box must be finite"),
        ({"box": "wide"}, "box must be a tensor or a list of numbers, got 'wide'"),
        ({"n": 0}, "n must be an int of at least 1, got 0"),
    ],
)
def test_what_is_no_density_or_leaves_its_box_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        divergences(**{"log_p": ONE, "log_q": ONE, "box": (-9, 9)} | arguments)
