"""Metrics on codes of which everything is known, objectives against their formulas."""

import math
import warnings

import pytest
import torch
from torch.distributions import Independent, Normal

from dgm_course.data import all_shapes
from dgm_course.disentanglement import (
    ConstantLatentWarning,
    Factors,
    heat_maps,
    latents_by_kl,
    majority_vote,
    mutual_information,
    mutual_information_gap,
    pair_metric,
    traversals,
)

SIZES = (3, 4, 6, 6, 6)  # 2592 rows
FACTORS = torch.cartesian_prod(*[torch.arange(n) for n in SIZES])
X, Y = 3, 4
UNBALANCED = FACTORS[:, :X].sum(1) < 3  # 360 rows, in which low values are frequent
SCALE = 0.03  # neighbouring values are 14 apart


def scores():
    """The factors as a code: the normal scores of their ranks, each of variance about 1."""
    columns = []
    for column, n in zip(FACTORS.T, SIZES, strict=True):
        u = torch.special.ndtri((column.double() + 0.5) / n)
        columns.append(u / u.std())
    return torch.stack(columns, 1)


def turned(degrees):
    angle = math.radians(degrees)
    z, c, s = scores(), math.cos(angle), math.sin(angle)
    z[:, X], z[:, Y] = c * z[:, X] - s * z[:, Y], s * z[:, X] + c * z[:, Y]
    return z


def noise(n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(FACTORS), n, generator=generator, dtype=torch.float64)


def q_of(z, scale=SCALE):
    return Independent(Normal(z, scale), 1)


def measured(z, factors=FACTORS):
    gap = mutual_information_gap(q_of(z), factors).value
    return gap, *(m(z, factors, generator=0).value for m in (pair_metric, majority_vote))


TRUTHS = {
    "true": scores,
    "permuted and flipped": lambda: scores()[:, [3, 0, 4, 2, 1]] * torch.tensor([1, -1, -1, 1, -1]),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_every_metric_is_one_on_the_true_factors(name):
    gap, pair, vote = measured(TRUTHS[name]())
    assert gap == pytest.approx(1, abs=1e-6)
    assert (pair, vote) == (1, 1)


def test_two_factors_turned_by_thirty_degrees_cost_the_gap_alone():
    gap, pair, vote = measured(turned(30))
    assert (pair, vote) == (1, 1)
    assert gap == pytest.approx(0.60, abs=0.02)


def test_at_forty_five_degrees_two_factors_are_told_apart_by_a_coin():
    gap, pair, vote = measured(turned(45))
    assert gap == pytest.approx(0.6, abs=1e-6)  # three of five, and two that are ties
    assert pair == pytest.approx(0.8, abs=0.06)
    assert vote < 0.95  # the two latents' variances are equal: rounding says which is the least


def test_the_factors_of_the_shapes_are_found_in_themselves():
    factors = all_shapes().factors
    gap, pair, vote = measured((factors - factors.mean(0)) / factors.std(0), factors)
    assert gap == pytest.approx(1, abs=1e-6)
    assert (pair, vote) == (1, 1)


def test_every_latent_twice_costs_the_whole_gap_and_nothing_else():
    gap, pair, vote = measured(scores().repeat(1, 2))
    assert gap == pytest.approx(0, abs=1e-9)
    assert (pair, vote) == (1, 1)


def test_noise_beside_the_true_factors_costs_little():
    gap, pair, vote = measured(torch.cat([scores(), noise()], 1))
    assert gap == pytest.approx(0.98, abs=0.01)  # of 2592 rows noise seems to say something
    assert min(pair, vote) > 0.98


def test_noise_is_at_chance():
    gap, pair, vote = measured(noise())
    assert 0 <= gap < 0.01
    assert pair == pytest.approx(0.2, abs=0.06)
    assert vote == pytest.approx(0.2, abs=0.06)


def test_metrics_do_not_see_the_order_nor_the_signs_of_latents():
    z = turned(20)
    other = z.flip(1) * torch.tensor([1, -1, 1, -1, 1])
    gap, pair, vote = measured(z)
    other_gap, other_pair, other_vote = measured(other)
    assert other_gap == pytest.approx(gap, abs=1e-9)
    assert (other_pair, other_vote) == (pair, vote)


# --- mutual information ------------------------------------------------------------------------


def test_information_is_that_of_two_gaussians_by_a_finer_sum():
    """Two values with N(±1, σ²): I = ln 2 − E log(1 + exp(∓2z/σ²)), by Gauss–Hermite nodes."""
    from numpy.polynomial.hermite_e import hermegauss

    scale = 0.7
    q = q_of(torch.tensor([[-1.0], [1.0]]).double().repeat(3, 1), scale)
    nodes, weights = (torch.from_numpy(v) for v in hermegauss(120))
    z = 1 + scale * nodes
    expected = (
        math.log(2) - weights @ torch.nn.functional.softplus(-2 * z / scale**2) / weights.sum()
    )
    found = mutual_information(q, torch.tensor([[0], [1]]).repeat(3, 1))
    torch.testing.assert_close(found, expected.reshape(1, 1), atol=1e-8, rtol=0)


def test_information_is_the_entropy_where_a_latent_names_the_factor():
    information = mutual_information(q_of(scores()), FACTORS)
    expected = torch.diag(torch.tensor(SIZES).double().log())
    torch.testing.assert_close(information, expected, atol=1e-6, rtol=0)
    entropies = Factors(FACTORS).entropies()
    torch.testing.assert_close(entropies, expected.diagonal(), atol=1e-12, rtol=0)


def test_information_does_not_depend_on_the_grid(monkeypatch):
    from dgm_course.disentanglement import metrics

    z, factors = (turned(25) + 0.3 * noise())[UNBALANCED], FACTORS[UNBALANCED]
    q = Independent(Normal(z, 0.1 + noise(seed=1)[UNBALANCED].abs()), 1)
    coarse = mutual_information(q, factors)
    monkeypatch.setattr(metrics, "STEPS_PER_SCALE", 8)
    monkeypatch.setattr(metrics, "TAIL", 11.0)
    fine = mutual_information(q, factors)
    torch.testing.assert_close(coarse, fine, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("degrees", "rows"), [(0, slice(None)), (25, UNBALANCED)])
def test_draws_find_the_exact_gap(degrees, rows):
    q, factors = q_of((turned(degrees) + 0.2 * noise())[rows], 0.3), FACTORS[rows]
    exact = mutual_information_gap(q, factors)
    drawn = mutual_information_gap(q, factors, n_samples=4000, generator=0)
    assert exact.standard_error == 0
    assert 0.001 < drawn.standard_error < 0.02
    assert abs(drawn.value - exact.value) < 4 * drawn.standard_error


def test_the_gap_of_a_single_latent_is_its_information():
    rows = torch.tensor([[0], [1]]).repeat(4, 1)
    assert mutual_information_gap(q_of(rows.double()), rows).value == pytest.approx(1, abs=1e-6)


# --- errors, and what is refused ---------------------------------------------------------------


def test_the_error_is_that_of_other_seeds():
    z = turned(42)
    for metric in (pair_metric, majority_vote):
        found = [metric(z, FACTORS, n_pairs=8, generator=s) if metric is pair_metric
                 else metric(z, FACTORS, n_rows=8, generator=s) for s in range(12)]  # fmt: skip
        spread = torch.tensor([e.value for e in found]).std().item()
        error = found[0].standard_error
        assert 0.4 * error < spread < 2.5 * error
    assert pair_metric(scores(), FACTORS, generator=0).standard_error > 0


def test_a_linear_classifier_is_tested_on_pairs_that_it_has_not_seen():
    """Of noise a classifier of 60 features learns its 60 training points by heart."""
    z = noise(60)
    found = pair_metric(z, FACTORS, n_points=90, generator=0)
    assert found.value < 0.5


def test_constant_latents_are_named_and_left_out():
    z = torch.cat([scores(), torch.ones(len(FACTORS), 2)], 1)[:, [5, 0, 1, 2, 6, 3, 4]]
    for metric in (pair_metric, majority_vote):
        with pytest.warns(ConstantLatentWarning, match=r"latents \[0, 4\] of 7 are constant"):
            assert metric(z, FACTORS, generator=0).value == 1
        with pytest.raises(ValueError, match="codes must vary, got 2 latents that are all const"):
            metric(torch.ones(len(FACTORS), 2), FACTORS)
    with pytest.warns(ConstantLatentWarning, match=r"latents \[0, 4\] of 7 are constant"):
        assert mutual_information(q_of(z), FACTORS)[[0, 4]].abs().max() < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(scores())


METRICS = {
    "pair": pair_metric,
    "vote": majority_vote,
    "gap": lambda z, v: mutual_information_gap(q_of(z), v),
}


@pytest.mark.parametrize("name", METRICS)
def test_bad_factors_are_named(name):
    metric, z = METRICS[name], scores()
    still = FACTORS.clone()
    still[:, [1, 3]] = 2
    with pytest.raises(ValueError, match=r"got a single one in factors \[1, 3\] of 5, over 2592"):
        metric(z, still)
    with pytest.raises(ValueError, match=r"single one in factors \[0, 1, 2, 3, 4\] of 5, over 1 r"):
        metric(z[:1], FACTORS[:1])
    with pytest.raises(ValueError, match=r"row has alone in factors \[0\] of 1, over 2592 rows"):
        metric(z, torch.arange(len(z))[:, None])
    with pytest.raises(ValueError, match="a row for each of the 2591 of .*, got 2592"):
        metric(z[1:], FACTORS)
    with pytest.raises(ValueError, match=r"factors must have shape \(N, K\), got shape \(2592,\)"):
        metric(z, FACTORS[:, 0])
    with pytest.raises(ValueError, match="factors must be finite"):
        metric(z, FACTORS.double().fill_(math.nan))


def test_fewer_points_than_classes_are_refused():
    with pytest.raises(ValueError, match="n_points must be at least three .* 5 factors, got 14"):
        pair_metric(scores(), FACTORS, n_points=14)
    with pytest.raises(ValueError, match="n_votes must be at least three .* 5 factors, got 3"):
        majority_vote(scores(), FACTORS, n_votes=3)
    pair_metric(scores(), FACTORS, n_points=15, generator=0)


def test_posteriors_must_be_gaussians_of_a_scale_that_a_grid_can_hold():
    with pytest.raises(ValueError, match="q must have scales large enough for a grid of 200000"):
        mutual_information(q_of(scores(), 1e-5), FACTORS)
    for q in (Normal(scores(), 1.0), scores(), q_of(scores()[:, 0])):
        with pytest.raises(ValueError, match="q must be a batch of N diagonal Gaussians"):
            mutual_information(q, FACTORS)
    with pytest.raises(ValueError, match="finite means and finite positive scales"):
        mutual_information(Independent(Normal(scores(), 0.0, validate_args=False), 1), FACTORS)


def test_a_seed_gives_the_same_and_the_global_stream_moves():
    z = turned(44)
    for metric in (pair_metric, majority_vote):
        assert metric(z, FACTORS, generator=3) == metric(z, FACTORS, generator=3)
        torch.manual_seed(0)
        first = metric(z, FACTORS)
        torch.manual_seed(0)
        assert metric(z, FACTORS) == first


# --- pictures ----------------------------------------------------------------------------------


def test_latents_are_ordered_by_their_closed_form_kl():
    mean = torch.tensor([[0.0, 3.0, 1.0], [0.0, -3.0, 1.0]])
    scale = torch.tensor([1.0, 0.5, 1.0]).expand(2, 3)
    order = latents_by_kl(Independent(Normal(mean, scale), 1))
    assert order.latents.tolist() == [1, 2, 0]
    expected = [0.5 * (9 + 0.25 - 1) - math.log(0.5), 0.5, 0.0]
    torch.testing.assert_close(order.kl, torch.tensor(expected))
    with pytest.raises(ValueError, match="q must be a batch"):
        latents_by_kl(Normal(mean, scale))


def test_a_traversal_moves_one_latent_and_no_other():
    z = torch.tensor([5.0, 6.0, 7.0])
    found = traversals(lambda z: z, z, [-1.0, 0.0], torch.tensor([2, 0]))
    assert found.tolist() == [
        [[5, 6, -1], [5, 6, 0]],
        [[-1, 6, 7], [0, 6, 7]],
    ]
    assert traversals(lambda z: z[:, None, :2], z, [0.0]).shape == (3, 1, 1, 2)
    for latents in ([3], [-1]):
        with pytest.raises(ValueError, match="latents must hold integers 0 to 2"):
            traversals(lambda z: z, z, [0.0], latents)
    with pytest.raises(ValueError, match="z must have shape"):
        traversals(lambda z: z, z[None], [0.0])
    with pytest.raises(ValueError, match=r"values must have shape \(V,\)"):
        traversals(lambda z: z, z, 0.0)


def test_a_heat_map_is_the_mean_at_each_position():
    z = scores()
    maps = heat_maps(z, FACTORS[:, X], FACTORS[:, Y])
    assert maps.shape == (5, 6, 6)
    at = (FACTORS[:, X] == 2) & (FACTORS[:, Y] == 5)
    torch.testing.assert_close(maps[:, 5, 2], z[at].mean(0))
    assert (maps[X].diff(dim=1) > 0).all()
    assert maps[X].diff(dim=0).abs().max() < 1e-12
    few = heat_maps(z[:2], torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert few.isnan()[0].tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match=r"y must have shape \(2592,\), got shape \(2592, 1\)"):
        heat_maps(z, FACTORS[:, X], FACTORS[:, Y, None])
