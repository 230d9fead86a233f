"""Series: densities against dense normals, entropy rates by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from dgm_course.data import ArProcess, Chirps, LaggedProcess, MarkovChain
from dgm_course.probability import categorical_kl

POLE = 0.9 * math.cos(0.5)
AR = {
    "AR(1)": lambda: ArProcess([0.7], 0.5),
    "white": lambda: ArProcess([0.0], 2.0),
    "AR(2)": lambda: ArProcess([2 * POLE, -0.81], 0.3),
    "AR(3)": lambda: ArProcess([0.4, 0.0, -0.5], 1.5),
    "a lag of 7": lambda: LaggedProcess(7),
    "a lag of 48": lambda: LaggedProcess(48, -0.5, 0.3),
}


def covariance(process, length):
    """Of T samples in a row, from the moving average that the process is: Σ_j ψ_j ψ_(j+h)."""
    n, a = 4000, process.coefficients.tolist()
    psi = np.zeros(n)
    psi[0] = process.sigma
    for t in range(1, n):
        psi[t] = sum(c * psi[t - lag] for lag, c in enumerate(a, 1) if c and lag <= t)
    lags = torch.tensor([psi[h:] @ psi[: n - h] for h in range(length)])
    t = torch.arange(length)
    return lags[(t[:, None] - t).abs()]


# --- AR(p) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AR)
@pytest.mark.parametrize("length", [1, 2, 50])
def test_log_prob_is_that_of_the_dense_normal(name, length):
    process = AR[name]()
    x = process.sample(20, length, 0).double()
    dense = MultivariateNormal(torch.zeros(length).double(), covariance(process, length))
    torch.testing.assert_close(process.log_prob(x), dense.log_prob(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", AR)
def test_samples_have_the_stationary_covariance_from_the_first_on(name):
    process, n = AR[name](), 20_000
    x, exact = process.sample(n, 60, 1).double(), covariance(process, 60)
    variance = exact[0, 0]
    error = ((x.T @ x) / n - exact).abs()
    assert error.max() < 6 * variance * (2 / n) ** 0.5
    assert error.diagonal()[:3].max() < 4 * variance * (2 / n) ** 0.5


@pytest.mark.parametrize("name", AR)
def test_the_entropy_rate_is_what_one_more_sample_adds(name):
    """H(x_1 … x_T) − H(x_1 … x_T−1), from determinants."""
    process = AR[name]()
    longer, shorter = (
        MultivariateNormal(torch.zeros(n).double(), covariance(process, n)).entropy()
        for n in (60, 59)
    )
    assert process.entropy_rate() == pytest.approx((longer - shorter).item(), abs=1e-9)


def test_the_spectrums_mean_is_the_variance_and_its_log_mean_the_entropy_rate():
    """∫ S = γ_0, and Kolmogorov: exp ∫ ln S = σ²."""
    process = AR["AR(2)"]()
    spectrum = process.spectrum(torch.arange(4096) / 4096)
    assert spectrum.mean() == pytest.approx(covariance(process, 1).item())
    assert spectrum.log().mean().exp() == pytest.approx(0.09)


def test_conditionals_have_a_gradient_in_the_series():
    process = AR["AR(2)"]()
    x = process.sample(2, 9, 0).double().requires_grad_()
    assert torch.autograd.gradcheck(process.conditionals, (x,))


def test_a_lagged_process_has_variance_1_and_a_known_rate():
    process = LaggedProcess(48)
    assert process.entropy_rate() == pytest.approx(0.5886, abs=5e-5)
    assert process.sample(5000, 100, 0).var() == pytest.approx(1, abs=0.02)
    assert ArProcess([0.0], 1.0).entropy_rate() == pytest.approx(1.4189, abs=5e-5)


@pytest.mark.parametrize(
    ("coefficients", "modulus"),
    [
        ([1.0], "1"),
        ([-1.0], "1"),
        ([1.25], "0.8"),
        ([2.0, -1.0], "1"),
        ([2 * math.cos(0.5), -1.0], "1"),
        ([0.0, 0.0, 1.331], "0.909091"),
        ([3.0, -3.0, 1.0], "0.99999|1"),
    ],
)
def test_what_is_not_stationary_is_refused(coefficients, modulus):
    with pytest.raises(
        ValueError, match=f"outside the unit circle, got a root of modulus {modulus}"
    ):
        ArProcess(coefficients)


# --- Markov chains ----------------------------------------------------------------------------


def chain_of(levels, order, seed=0):
    generator = np.random.default_rng(seed)
    return MarkovChain(generator.dirichlet(np.ones(levels), size=(levels,) * order))


@pytest.mark.parametrize(("levels", "order"), [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_all_short_sequences_have_probability_1_and_the_rate_is_a_difference_of_blocks(
    levels, order
):
    chain = chain_of(levels, order)
    entropies = []
    for length in range(1, order + 3):
        every = torch.tensor([*itertools.product(range(levels), repeat=length)])
        log_p = chain.log_prob(every)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
        entropies.append(-(log_p.exp() * log_p).sum().item())
    added = [entropies[0], *np.diff(entropies)]
    assert chain.entropy_rate() == pytest.approx(added[-1], abs=1e-9)
    for n_past in range(order + 1):
        assert chain.entropy_rate(n_past) == pytest.approx(added[n_past], abs=1e-9)
    assert added[order] == pytest.approx(added[order + 1], abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_pairs_are_drawn_with_their_probabilities_everywhere(order):
    chain, n = chain_of(3, order), 40_000
    x = chain.sample(n, 9, 0)
    every = torch.tensor([*itertools.product(range(3), repeat=2)])
    p = chain.log_prob(every).exp()
    for t in (0, 3, 7):
        found = torch.stack([(x[:, t : t + 2] == pair).all(1).double().mean() for pair in every])
        assert ((found - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_transitions_in_float32_are_transitions():
    p = torch.softmax(torch.randn(5, 5, 5, generator=torch.Generator().manual_seed(0)), -1)
    assert MarkovChain(p).stationary.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_chain_that_cannot_has_probability_0():
    chain = MarkovChain([[0.0, 1.0], [1.0, 0.0]])
    assert chain.entropy_rate() == 0
    log_p = chain.log_prob(torch.tensor([[0, 1, 0], [0, 0, 1]]))
    assert log_p.tolist() == [pytest.approx(math.log(0.5)), -math.inf]


@pytest.mark.parametrize(
    ("levels", "seed", "stated"), [(3, 54, (1.024, 0.762, 0.458)), (4, 146, (1.368, 1.025, 0.686))]
)
def test_random_chains_are_those_of_the_lecture(levels, seed, stated):
    chain = MarkovChain.random(levels, order=2, generator=seed)
    u = torch.rand(
        (levels,) * 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    power = u ** (1 / 0.3)
    torch.testing.assert_close(chain.transitions, power / power.sum(-1, keepdim=True))
    found = [chain.entropy_rate(m) for m in range(3)]
    assert found == pytest.approx(stated, abs=5e-4)


def test_a_random_chain_is_flatter_when_warmer():
    chains = [MarkovChain.random(3, 2, temperature=t, generator=0) for t in (0.2, 1, 100.0)]
    rates = [chain.entropy_rate() for chain in chains]
    assert rates == sorted(rates)
    assert rates[2] == pytest.approx(math.log(3), abs=1e-3)
    again = MarkovChain.random(3, 2, temperature=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.transitions, chains[1].transitions)
    assert MarkovChain.random(5, generator=0).transitions.shape == (5, 5)


@pytest.mark.parametrize(("levels", "order"), [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_conditionals_are_ratios_of_the_probabilities_of_blocks(levels, order):
    chain = chain_of(levels, order)
    length = order + 2
    x = torch.tensor([*itertools.product(range(levels), repeat=length)])
    p = chain.log_prob(x).exp()

    def probability(first, symbols):
        """Of these symbols from the place ``first`` on, summed over all else."""
        block = x[:, first : first + symbols.shape[1]]
        return torch.stack([p[(block == row).all(1)].sum() for row in symbols])

    for n_past in range(order + 1):
        law = chain.law(n_past)
        assert law.shape == (levels,) * (n_past + 1)
        conditionals = chain.conditionals(x, n_past)
        assert conditionals.shape == (len(x), levels, length)
        for t in range(length):
            first = max(t - n_past, 0)
            past = probability(first, x[:, first:t]) if first < t else 1.0
            for v in range(levels):
                following = torch.cat([x[:, first:t], torch.full((len(x), 1), v)], 1)
                ratio = probability(first, following) / past
                torch.testing.assert_close(conditionals[:, v, t].exp(), ratio)
                if t >= n_past:
                    at = tuple(x[:, i] for i in range(first, t))
                    torch.testing.assert_close(law[(*at, v)].expand(len(x)), ratio)
    own = chain.conditionals(x).gather(1, x[:, None]).sum((1, 2))
    torch.testing.assert_close(own, chain.log_prob(x))


def test_what_less_past_costs_is_seen_in_samples_and_as_kl_to_the_full_law():
    """Mean loss at t is H(x_t | min(t, m) past), and the mean KL its distance from all past."""
    chain, n = MarkovChain.random(3, order=2, generator=54), 20_000
    x = chain.sample(n, 5, 0)
    full = chain.conditionals(x)
    for m in range(3):
        shorter = chain.conditionals(x, m)
        loss = -shorter.gather(1, x[:, None]).squeeze(1)
        kl = categorical_kl(full, shorter)
        assert kl.shape == (n, 5)
        for t in range(5):
            cost = chain.entropy_rate(min(t, m))
            for values, exact in (
                (loss[:, t], cost),
                (kl[:, t], cost - chain.entropy_rate(min(t, 2))),
            ):
                error = values.std() / n**0.5 + 1e-12
                assert abs(values.mean() - exact) < 4 * error


def test_after_a_past_that_never_occurs_the_law_is_uniform_and_the_chain_knows_better():
    """From 01 comes 1, from 11 comes 1: the pair 00 or 10 is left for ever."""
    p = torch.zeros(2, 2, 2)
    p[..., 1] = 1.0
    chain = MarkovChain(p)
    assert chain.law(1).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert chain.law().tolist() == p.tolist()
    x = torch.tensor([[0, 0, 0], [1, 1, 1]])
    assert chain.log_prob(x).tolist() == [-math.inf, 0]
    assert not chain.conditionals(x).isnan().any()


# --- chirps -----------------------------------------------------------------------------------


def test_a_chirps_density_is_the_mean_of_normals():
    """The covariance given each start, from the recursion's matrix, inverted."""
    chirps = Chirps(5, 0.1, 0.3, radius=0.8)
    x = chirps.sample(6, 7, 0).double()
    given_start = []
    for start in range(5):
        a = torch.eye(7, dtype=torch.float64)
        scales = torch.zeros(7, dtype=torch.float64)
        for t in range(7):
            theta = 2 * math.pi * (0.1 + 0.05 * ((start + t) % 5))
            if t > 0:
                a[t, t - 1] = -1.6 * math.cos(theta)
            if t > 1:
                a[t, t - 2] = 0.64
            numerator = 0.36 * (1.64**2 - 4 * 0.64 * math.cos(theta) ** 2)
            scales[t] = math.sqrt(numerator / 1.64)
        root = torch.linalg.inv(a) * scales
        law = MultivariateNormal(torch.zeros(7).double(), scale_tril=root)
        given_start.append(law.log_prob(x))
    expected = torch.stack(given_start).logsumexp(0) - math.log(5)
    torch.testing.assert_close(chirps.log_prob(x), expected)


def test_a_chirps_entropy_rate_is_what_long_series_cost():
    chirps = Chirps(20, radius=0.9)
    x = chirps.sample(200, 400, 0)
    cost = -chirps.log_prob(x) / 400
    # No start costs more than ln(20) / 400, and none less than 0.
    assert abs(cost.mean() - chirps.entropy_rate() - 0.004) < 0.004 + 4 * cost.std() / 200**0.5


@pytest.mark.parametrize("frequency", [0.05, 0.2, 0.45])
def test_a_chirp_is_as_loud_at_every_pitch(frequency):
    last = Chirps(4, frequency, frequency, radius=0.9).sample(20_000, 80, 0)[:, -1]
    assert abs(last.var() - 1) < 4 * (2 / 20_000) ** 0.5


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ArProcess([]), r"coefficients must be finite numbers \(p,\), got \[\]"),
        (lambda: ArProcess(0.5), r"coefficients must be finite numbers \(p,\), got 0.5"),
        (lambda: ArProcess([[0.5]]), "coefficients must be finite numbers"),
        (lambda: ArProcess([math.nan]), "coefficients must be finite numbers"),
        (lambda: ArProcess(["a"]), "coefficients must be a tensor or a list of numbers"),
        (lambda: ArProcess([0.5], 0.0), "sigma must be positive and finite, got 0.0"),
        (lambda: ArProcess([0.5], -1.0), "sigma must be positive and finite, got -1.0"),
        (lambda: LaggedProcess(0), "lag must be an int of at least 1, got 0"),
        (lambda: LaggedProcess(3, 1.0), "got a root of modulus 1"),
        (lambda: LaggedProcess(3, math.nan), "coefficient must be finite, got nan"),
        (lambda: MarkovChain([0.5, 0.5]), r"shape \(V, ..., V\), .* got \(2,\)"),
        (lambda: MarkovChain([[0.5, 0.3, 0.2]] * 2), r"got \(2, 3\)"),
        (lambda: MarkovChain([[1.0]]), r"got \(1, 1\)"),
        (lambda: MarkovChain([[0.5, 0.6], [0.5, 0.5]]), "probabilities that sum to 1"),
        (lambda: MarkovChain([[1.5, -0.5], [0.5, 0.5]]), "probabilities that sum to 1"),
        (lambda: MarkovChain([[math.nan, 1], [0.5, 0.5]]), "probabilities that sum to 1"),
        (lambda: MarkovChain(torch.eye(3)), "one stationary law, got 3"),
        (lambda: Chirps(1), "period must be an int of at least 2, got 1"),
        (lambda: Chirps(low=0.3, high=0.2), "low <= high < 0.5 and radius < 1, got 0.3, 0.2"),
        (lambda: Chirps(high=0.5), "got 0.05, 0.5 and 0.99"),
        (lambda: Chirps(radius=1.0), "got 0.05, 0.3 and 1.0"),
        (lambda: Chirps(low=0.0), "low must be positive and finite, got 0.0"),
        (lambda: chain_of(2, 1).entropy_rate(2), "n_past must be at most 1, got 2"),
        (lambda: chain_of(2, 1).law(-1), "n_past must be an int of at least 0, got -1"),
        (lambda: MarkovChain.random(1, generator=0), "levels must be an int of at least 2, got 1"),
        (lambda: MarkovChain.random(2, 11, generator=0), "order must be at most 10, got 11"),
        (lambda: MarkovChain.random(4, 6, generator=0), r"at most 1024, got 4 \*\* 6"),
        (lambda: MarkovChain.random(2, temperature=0, generator=0), "temperature must be positive"),
        (lambda: MarkovChain.random(2, generator=0.5), "seed must be an int or a torch.Generator"),
        (
            lambda: chain_of(2, 1).conditionals(torch.zeros(1, 2).long(), 2),
            "n_past must be at most 1, got 2",
        ),
        (lambda: chain_of(2, 1).conditionals(torch.zeros(2)), "x must hold integers 0 to 1"),
        (lambda: chain_of(2, 1).conditionals(torch.ones(2).long()), r"x must have shape \(N, T\)"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


PROCESSES = [ArProcess([0.5]), LaggedProcess(3), Chirps(4), chain_of(2, 1)]


@pytest.mark.parametrize("process", PROCESSES)
def test_bad_series_and_sizes_are_refused(process):
    x = process.sample(2, 5, 0)
    for wrong in (x[..., None], x[0], x[:, :0], x[:0]):
        with pytest.raises(ValueError, match=r"x must h"):
            process.log_prob(wrong)
    wrong = x.double() if isinstance(process, MarkovChain) else x.long()
    with pytest.raises(ValueError, match="x must hold (integers|floating)"):
        process.log_prob(wrong)
    wrong = x + 2 if isinstance(process, MarkovChain) else x / 0
    with pytest.raises(ValueError, match="got values from|NaN or inf in 2 of 2"):
        process.log_prob(wrong)
    with pytest.raises(ValueError, match="n must be an int of at least 1, got 0"):
        process.sample(0, 5)
    with pytest.raises(ValueError, match="length must be an int of at least 1, got 0"):
        process.sample(5, 0)
    with pytest.raises(ValueError, match="seed must be an int"):
        process.sample(5, 5, 0.5)
    assert torch.equal(process.sample(2, 5, 0), x)
