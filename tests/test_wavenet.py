"""WaveNet: what an output sees, the memory of the sampler, and what training reaches."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dgm_course.data import ArProcess, LaggedProcess, MarkovChain
from dgm_course.probability import gaussian_log_prob
from dgm_course.sequences import WaveNet
from dgm_course.training import fit, seed_everything
from tests.contracts import strong

MODELS = {
    "kernel 2": lambda: WaveNet(3, 5),
    "kernel 3": lambda: WaveNet(2, 5, kernel=3),
    "kernel 4": lambda: WaveNet(2, 4, kernel=4),
    "one layer": lambda: WaveNet(1, 4),
    "two cycles": lambda: WaveNet(2, 5, n_cycles=2),
    "three cycles of kernel 3": lambda: WaveNet(2, 4, kernel=3, n_cycles=3),
    "two levels": lambda: WaveNet(2, 5, levels=2),
    "five levels, kernel 3": lambda: WaveNet(2, 5, kernel=3, levels=5),
    "three levels, two cycles": lambda: WaveNet(2, 5, levels=3, n_cycles=2),
}
FIELDS = {
    "kernel 2": 8, "kernel 3": 9, "kernel 4": 16, "one layer": 2, "two cycles": 7,
    "three cycles of kernel 3": 25, "two levels": 4, "five levels, kernel 3": 9,
    "three levels, two cycles": 7,
}  # fmt: skip


@pytest.fixture(params=MODELS)
def model(request):
    model = strong(MODELS[request.param](), scale=0.5)
    assert model.receptive_field == FIELDS[request.param]
    return model


def series(model, n, length):
    if model.levels is None:
        return torch.randn(n, length, dtype=torch.float64)
    return torch.randint(model.levels, (n, length))


def outputs(model, x):
    """All that the model says of each step, ``(N, n_outputs, T)``."""
    out = model(x)
    return out if isinstance(out, torch.Tensor) else torch.stack(out, 1)


# --- what an output sees --------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if "levels" not in name])
def test_the_gradient_reaches_exactly_the_receptive_field(name):
    model = strong(MODELS[name](), scale=0.5)
    field, t = FIELDS[name], FIELDS[name] + 6
    x = torch.randn(8, t + 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(outputs(model, x)[..., t].sum(), x)
    assert gradient.ne(0).any(0).nonzero()[:, 0].tolist() == [*range(t - field, t)]


def test_a_change_reaches_the_receptive_field_after_it_and_nothing_else(model):
    """Nothing at or before t: an output that saw its own sample would copy it."""
    torch.manual_seed(0)
    t, field = 5, model.receptive_field
    x = series(model, 30, t + field + 8)
    moved = x.clone()
    moved[:, t] = moved[:, t] + 1 if model.levels is None else (moved[:, t] + 1) % model.levels
    change = (outputs(model, x) - outputs(model, moved)).abs().amax((0, 1))
    assert change.nonzero()[:, 0].tolist() == [*range(t + 1, t + field + 1)]


def test_a_layer_is_the_formula():
    """Two layers of kernel 3 by hand, from weights tap by tap."""
    model, x = strong(WaveNet(2, 4, kernel=3), scale=0.5), torch.randn(1, 9, dtype=torch.float64)
    h = torch.zeros(9, 4, dtype=torch.float64)
    h[1:] = x[0, :-1, None] * model.w_in
    gates = []
    for layer, distance in enumerate([1, 3]):
        gate = torch.zeros_like(h)
        for t in range(9):
            a = model.b[layer]
            for tap in range(3):  # tap i back, in the i-th block from the end
                if t - tap * distance >= 0:
                    rows = model.v[layer].split(4)[2 - tap]
                    a = a + h[t - tap * distance] @ rows
            gate[t] = a[:4].tanh() * a[4:].sigmoid()
        gates.append(gate)
        h = h + gate @ model.w[0]
    y = (torch.cat(gates, 1) @ model.w_skip + model.b_skip).relu()
    y = (y @ model.w_head + model.b_head).relu() @ model.w_out + model.b_out
    torch.testing.assert_close(torch.stack(model(x)), y.T[:, None])


# --- probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "length"), [(2, 1), (2, 8), (3, 5)])
def test_the_probabilities_of_all_short_sequences_sum_to_1(levels, length):
    model = strong(WaveNet(2, 5, levels=levels), scale=0.5)
    every = torch.tensor([*itertools.product(range(levels), repeat=length)])
    assert model.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-12)
    steps = model.log_prob_steps(every)
    assert steps.shape == (levels**length, length)
    assert steps.max() < 0


@pytest.mark.parametrize("length", [1, 2])
def test_a_density_integrates_to_1(length):
    model = strong(WaveNet(1, 5), scale=0.3)
    ticks = torch.linspace(-20, 20, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(*[ticks] * length).reshape(-1, length)
    mass = model.log_prob(grid).exp().sum().item() * 0.04**length
    assert mass == pytest.approx(1, abs=1e-4)


def test_a_fresh_model_is_standard_normal_or_uniform():
    x = torch.randn(3, 20)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(WaveNet(3).log_prob(x), expected)
    uniform = WaveNet(3, levels=5).log_prob(torch.randint(5, (3, 20)))
    torch.testing.assert_close(uniform, torch.full((3,), -20 * math.log(5)))


# --- samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_given", [0, 1, 4, "more than the field"])
def test_every_method_draws_the_same_samples(model, n_given):
    field = model.receptive_field
    n_given = field + 7 if isinstance(n_given, str) else n_given
    given = series(model, 3, n_given) if n_given else None
    lengths = [n_given + 3, n_given + 2 * field + 5]  # the first is shorter than the field
    for length in lengths:
        drawn = [
            model.sample(3, length, given, method=method, generator=7)
            for method in ("cached", "window", "full")
        ]
        assert drawn[0].shape == (3, length)
        for other in drawn[1:]:
            torch.testing.assert_close(drawn[0], other, atol=1e-10, rtol=0)
        if given is not None:
            assert torch.equal(drawn[0][:, :n_given], given)
    assert drawn[0][:, n_given:].double().std() > 0.1


def test_a_prefix_alone_is_given_back():
    given = torch.randn(2, 5)
    assert torch.equal(WaveNet(2, 3).sample(2, 5, given), given)


def test_samples_are_whitened_by_the_model_itself():
    """(x − mean) / scale of its own samples is N(0, 1), uncorrelated from step to step."""
    model = strong(WaveNet(2, 5), scale=0.3)
    x = model.sample(500, 40, generator=0)
    mean, log_scale = model(x)
    z = (x - mean) / log_scale.exp()
    assert abs(z.mean()) < 4 / z.numel() ** 0.5
    assert abs(z.square().mean() - 1) < 4 * (2 / z.numel()) ** 0.5
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 4 / z.numel() ** 0.5


def test_levels_are_drawn_with_their_probabilities():
    model = strong(WaveNet(1, 4, levels=3), scale=0.5)
    drawn = model.sample(20_000, 2, generator=0)
    every = torch.tensor([*itertools.product(range(3), repeat=2)])
    p = model.log_prob(every).exp()
    found = torch.stack([(drawn == pair).all(1).double().mean() for pair in every])
    assert ((found - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt() + 1e-4).all()


def test_a_seed_gives_the_same_samples():
    model = strong(WaveNet(2, 4), scale=0.5)
    one, again, other = (model.sample(2, 9, generator=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


# --- what training reaches ----------------------------------------------------------------------


def train(model, loss, n_steps, rate):
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    fit(loss, optimizer, n_steps, scheduler=scheduler, max_grad_norm=10.0, progress=False)


def nats_above_the_process(model, process, n_steps, shape, rate):
    """What a model costs more than the process itself on a test set, at late steps."""
    series = process.sample(512, shape[1], 0)

    def loss(step):
        return -model.log_prob(series[torch.randint(512, shape[:1])]) / shape[1]

    train(model, loss, n_steps, rate)
    x = process.sample(200, 528, 10_000)
    with torch.no_grad():
        exact = gaussian_log_prob(x, *process.conditionals(x))
        return (exact - model.log_prob_steps(x))[:, 128:].mean().item()


@pytest.mark.slow
def test_a_field_of_64_finds_what_lies_48_steps_back():
    seed_everything(0)
    process = LaggedProcess(48)
    excess = nats_above_the_process(WaveNet(6), process, 250, (8, 512), 5e-3)
    assert 0 < excess <= 0.62 - process.entropy_rate()  # ten seeds: at most 0.014


def test_a_field_of_32_is_left_with_the_marginal():
    seed_everything(0)
    process = LaggedProcess(48)
    excess = nats_above_the_process(WaveNet(5), process, 60, (8, 512), 5e-3)
    assert process.entropy_rate() + excess == pytest.approx(1.4189, abs=0.005)  # seeds: 0.0017


@pytest.mark.slow
def test_an_ar_process_is_learned():
    seed_everything(0)
    process = ArProcess([2 * 0.9 * math.cos(0.5), -0.81], 0.3)
    excess = nats_above_the_process(WaveNet(3), process, 400, (16, 128), 1e-2)
    assert 0 < excess <= 0.01  # ten seeds: 0.004 to 0.007


def markov_chain():
    return MarkovChain(np.random.default_rng(0).dirichlet([0.3] * 8, size=(8, 8)))


def test_the_markov_chain_of_the_next_test_has_these_rates():
    rates = [markov_chain().entropy_rate(n_past) for n_past in (0, 1, 2)]
    assert rates == pytest.approx([2.0440, 1.9494, 1.2812], abs=5e-5)


@pytest.mark.slow
def test_a_softmax_falls_to_the_chains_rate():
    seed_everything(0)
    chain, model = markov_chain(), WaveNet(1, 48, levels=8)
    series = chain.sample(1000, 64, 0)
    train(model, lambda s: -model.log_prob(series[torch.randint(1000, (32,))]) / 64, 300, 1e-2)
    x = chain.sample(200, 200, 9999)
    exact = chain.transitions[x[:, :-2], x[:, 1:-1], x[:, 2:]].log()
    with torch.no_grad():
        excess = (exact - model.log_prob_steps(x)[:, 2:]).mean().item()
    assert 0 < excess < 0.02  # ten seeds: 0.007 to 0.009


def test_a_leak_of_the_current_sample_falls_through_the_rate():
    """Outputs one step late have seen what they are asked for."""
    seed_everything(0)
    chain, model = markov_chain(), WaveNet(1, levels=8)
    series = chain.sample(1000, 64, 0)

    def leaking(x):
        return cross_entropy(model(x)[..., 1:], x[:, :-1], reduction="none").mean(1)

    train(model, lambda s: leaking(series[torch.randint(1000, (32,))]), 60, 1e-2)
    with torch.no_grad():
        assert leaking(chain.sample(200, 200, 9999)).mean() < 0.1 < chain.entropy_rate()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel": 1}, "kernel must be an int of at least 2, got 1"),
        ({"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        ({"n_channels": 0}, "n_channels must be an int of at least 1, got 0"),
        ({"n_cycles": 0}, "n_cycles must be an int of at least 1, got 0"),
        ({"levels": 1}, "levels must be an int of at least 2, got 1"),
        ({"levels": 2.0}, "levels must be an int of at least 2, got 2.0"),
        ({"n_layers": 10**9}, "n_layers must be at most 30, got 1000000000"),
        ({"n_layers": 20, "kernel": 3}, r"n_layers must be at most 2147483647, got 3 \*\* 20"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        WaveNet(**{"n_layers": 2} | arguments)


REAL, SYMBOLS = WaveNet(2, 3), WaveNet(2, 3, levels=4)
X, TOKENS = torch.zeros(2, 5), torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (REAL, X[..., None], r"must have shape \(N, T\), not empty, got \(2, 5, 1\)"),
        (REAL, X[0], r"must have shape \(N, T\), not empty, got \(5,\)"),
        (REAL, X[:, :0], r"must have shape \(N, T\), not empty, got \(2, 0\)"),
        (REAL, X[:0], r"must have shape \(N, T\), not empty, got \(0, 5\)"),
        (REAL, X.double(), "torch.float32, got torch.float64"),
        (REAL, TOKENS, "torch.float32, got torch.int64"),
        (REAL, X / 0, "must be finite, got NaN or inf in 2 of 2"),
        (REAL, None, "must be a torch.Tensor, got NoneType"),
        (SYMBOLS, X, "must hold integers 0 to 3, got dtype torch.float32"),
        (SYMBOLS, TOKENS + 4, "must hold integers 0 to 3, got values from 4 to 4"),
        (SYMBOLS, TOKENS - 1, "must hold integers 0 to 3, got values from -1 to -1"),
        (SYMBOLS, TOKENS[..., None], r"must have shape \(N, T\), not empty, got \(2, 5, 1\)"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "log_prob", "log_prob_steps", "given"])
def test_bad_series_are_refused(model, x, words, call):
    if call == "given" and x is None:
        return
    with pytest.raises(ValueError, match=words):
        model.sample(2, 9, x) if call == "given" else getattr(model, call)(x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n must be an int of at least 1, got 0"),
        ({"length": 0}, "length must be an int of at least 1, got 0"),
        ({"method": "naive"}, r"method must be one of \('cached', .* got 'naive'"),
        ({"given": torch.zeros(2, 10)}, r"P at most length = 9, got \(2, 10\)"),
        ({"given": torch.zeros(3, 4)}, r"n = 2 and P at most length = 9, got \(3, 4\)"),
        ({"generator": 1.5}, "seed must be an int or a torch.Generator, got float"),
    ],
)
def test_bad_requests_for_samples_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        REAL.sample(**{"n": 2, "length": 9} | arguments)
