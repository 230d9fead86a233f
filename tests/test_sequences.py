"""What every model of tokens must do: look back only, be a law, and write what it reads."""

import itertools
import math

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import softmax

from dgm_course.causality import check_causal, sees_by_gradient, sees_by_perturbation
from dgm_course.sequences import WaveNet
from dgm_course.sequences.sampling import draw_tokens
from tests.contracts import strong
from tests.sequences import TOKEN_MODELS

every_model = pytest.mark.parametrize("name", TOKEN_MODELS)


def model_of(name, n_tokens=3):
    return strong(TOKEN_MODELS[name](n_tokens), scale=0.5)


def all_sequences(n_tokens, length):
    return torch.tensor([*itertools.product(range(n_tokens), repeat=length)])


def past_of(model, length):
    """Which tokens (columns) an output (row) should see."""
    past = torch.ones(length, length, dtype=torch.bool).tril(-1)
    return past.triu(-model.receptive_field) if isinstance(model, WaveNet) else past


# --- causality ----------------------------------------------------------------------------------


@every_model
def test_no_output_sees_its_own_token_or_a_later_one(name):
    model, tokens = model_of(name, 5), torch.randint(5, (30, 12))

    def logits_of(tokens):
        return model(tokens).transpose(1, 2)

    check_causal(logits_of, tokens, (tokens + 1) % 5)
    sees = sees_by_perturbation(logits_of, tokens, (tokens + 1) % 5)
    assert torch.equal(sees, past_of(model, 12))


@every_model
def test_no_output_has_a_gradient_in_its_own_token_or_a_later_one(name):
    """Of twelve tokens, no two alike, each has a row of the embedding of its own: move that."""
    model, rows = model_of(name, 12), [torch.randperm(12)[None] for _ in range(8)]
    table = "w_in" if isinstance(model, WaveNet) else "tokens.weight"
    weight = model.get_parameter(table).detach()
    direction = torch.randn(weight.shape[1], dtype=torch.float64)

    def logits_of(moves):  # (8, T)
        outputs = []
        for tokens, move in zip(rows, moves, strict=True):
            moved = weight.index_add(0, tokens[0], move[:, None] * direction)
            outputs.append(functional_call(model, {table: moved}, (tokens,)))
        return torch.cat(outputs).transpose(1, 2)

    moves = torch.zeros(8, 12, dtype=torch.float64)
    check_causal(logits_of, moves, moves + 1)
    assert torch.equal(sees_by_gradient(logits_of, moves), past_of(model, 12))


# --- probabilities ------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize(("n_tokens", "length"), [(2, 1), (2, 8), (3, 5)])
def test_the_probabilities_of_all_short_sequences_sum_to_1(name, n_tokens, length):
    model, every = model_of(name, n_tokens), all_sequences(n_tokens, length)
    log_prob = model.log_prob(every)
    assert log_prob.shape == (n_tokens**length,)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_prob.std() > 0.01  # it is no uniform law


@every_model
def test_steps_are_read_off_the_logits_and_know_nothing_of_what_follows(name):
    model, tokens = model_of(name), all_sequences(3, 5)
    logits, steps = model(tokens), model.log_prob_steps(tokens)
    assert logits.shape == (243, 3, 5)
    expected = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(steps, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(model.log_prob(tokens), steps.sum(1))
    for length in range(1, 5):
        torch.testing.assert_close(model.log_prob_steps(tokens[:, :length]), steps[:, :length])


@every_model
def test_a_fresh_model_is_uniform(name):
    tokens = torch.randint(3, (4, 12))
    log_prob = TOKEN_MODELS[name](3).log_prob(tokens)
    torch.testing.assert_close(log_prob, torch.full((4,), -12 * math.log(3)))


@every_model
def test_tokens_may_be_of_any_integer_type(name):
    model, tokens = model_of(name), torch.randint(3, (4, 9))
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(model.log_prob(tokens.to(dtype)), model.log_prob(tokens))
        drawn = model.sample(4, 12, tokens.to(dtype), generator=0)
        assert torch.equal(drawn, model.sample(4, 12, tokens, generator=0))
        assert drawn.dtype == torch.long


# --- samples ------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("sharper", [{}, {"temperature": 0.7, "top_k": 2}])
def test_both_methods_draw_the_same_tokens_after_every_prefix(name, sharper):
    model, tokens = model_of(name), torch.randint(3, (4, 12))
    for n_given in range(13):
        given = tokens[:, :n_given] if n_given else None
        cached, full = (
            model.sample(4, 12, given, method=method, generator=7, **sharper)
            for method in ("cached", "full")
        )
        assert torch.equal(cached, full)
        assert torch.equal(cached[:, :n_given], tokens[:, :n_given])
        assert cached.shape == (4, 12)


@every_model
def test_a_sample_is_the_beginning_of_a_longer_one(name):
    model = model_of(name)
    longest = model.sample(3, 12, generator=5)
    for length in range(1, 12):
        assert torch.equal(model.sample(3, length, generator=5), longest[:, :length])


@every_model
@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, None), (1.0, 1), (0.5, 2), (3.0, 2)]
)
def test_pairs_after_a_prefix_are_drawn_by_their_exact_law(name, temperature, top_k):
    """p_v ∝ exp(logits_v / temperature) of the k likeliest, step by step, not of the pair."""
    model, n = model_of(name), 5_000
    prefix, every = torch.tensor([[2, 0]]), all_sequences(3, 2)
    logits = model(torch.cat([prefix.expand(9, -1), every], 1))[..., 2:]  # (9, V, 2)
    p = torch.zeros_like(logits)
    for row, t in itertools.product(range(9), range(2)):
        kept = logits[row, :, t].argsort(descending=True)[:top_k]
        p[row, kept, t] = softmax(logits[row, kept, t] / temperature, 0)
    p = p.gather(1, every[:, None]).prod(2)[:, 0]
    assert p.sum().item() == pytest.approx(1)
    drawn = model.sample(
        n, 4, prefix.expand(n, -1), temperature=temperature, top_k=top_k, generator=0
    )
    found = torch.stack([(drawn[:, 2:] == pair).all(1).sum() for pair in every])
    assert (found[p == 0] == 0).all()
    chi2 = ((found - n * p).square() / (n * p))[p > 0].sum().item()
    assert chi2 < 26.2  # 8 degrees of freedom, at a level of 0.1 %


@every_model
def test_a_seed_gives_the_same_tokens(name):
    model = model_of(name)
    one, again, other = (model.sample(8, 12, generator=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_temperature_scales_the_noise_of_real_samples():
    model = strong(WaveNet(2, 5), scale=0.3)
    noise = []
    for temperature in (1.0, 0.25):
        x = model.sample(3, 20, temperature=temperature, generator=1)
        mean, log_scale = model(x)
        noise.append((x - mean) / log_scale.exp())
    torch.testing.assert_close(noise[1], 0.25 * noise[0], atol=1e-10, rtol=0)


# --- one token ----------------------------------------------------------------------------------


def counts(logits, n=10_000, **how):
    generator = torch.Generator().manual_seed(0)
    tokens = draw_tokens(logits.expand(n, -1), generator=generator, **how)
    assert tokens.shape == (n,)
    return torch.bincount(tokens, minlength=len(logits)).tolist()


def test_tokens_as_likely_as_the_kth_stay_in():
    logits = torch.tensor([1.0, 2.0, -1.0, 2.0, 1.0])
    assert counts(logits, top_k=1)[::2] == [0, 0, 0]
    assert counts(logits, top_k=1)[1] == pytest.approx(5000, abs=200)
    assert counts(logits, top_k=3)[2] == 0
    assert min(counts(logits, top_k=5)) > 0
    assert min(counts(torch.zeros(4), top_k=1)) > 2300  # of equals none is the likeliest
    near = torch.tensor([1.0, 0.0, 1e-30, -9.0])
    assert counts(near, top_k=2)[1::2] == [0, 0]  # no tie, though the first swamps the difference


@pytest.mark.parametrize("temperature", [1e12, 1e38, 1e300])
def test_at_any_high_temperature_the_k_likeliest_are_equals(temperature):
    """Of logits that are filled up before division nothing is left, or NaN."""
    for logits in ([0.0, -9.0, -8.0, -1.0], [0.0, -3e-30, -2e-30, -1e-30]):
        found = counts(torch.tensor(logits), temperature=temperature, top_k=2)
        assert found[1:3] == [0, 0]
        assert found[0] == pytest.approx(5000, abs=200)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
@pytest.mark.parametrize("top_k", [None, 2])
def test_at_any_low_temperature_the_likeliest_is_alone(temperature, top_k):
    logits = torch.tensor([50.0, 60.0, -math.inf, 59.0])
    assert counts(logits, temperature=temperature, top_k=top_k) == [0, 10_000, 0, 0]


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_a_token_without_a_chance_is_not_drawn_by_any_number(u, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, **_: torch.full(shape, u, dtype=dtype))
    for seed in range(50):
        logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed))
        logits[:, [0, 1, 4, 8]] = -math.inf
        assert (draw_tokens(logits) == (2 if u == 0 else 7)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_law_are_refused(value):
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    with pytest.raises(ValueError, match="logits must be finite, got NaN, .* alone in 1 of 3 rows"):
        draw_tokens(logits)
    with pytest.raises(ValueError, match="logits must be finite, .* in 1 of 3 rows"):
        draw_tokens(logits, top_k=2)
    with pytest.raises(ValueError, match="logits must be finite, .* in 2 of 2 rows"):
        draw_tokens(torch.full((2, 3), -math.inf))


@every_model
def test_a_model_with_weights_that_are_nan_draws_nothing(name):
    model = model_of(name)
    with torch.no_grad():
        [*model.parameters()][-1].fill_(math.nan)
    for method in ("cached", "full"):
        with pytest.raises(ValueError, match="logits must be finite, .* in 2 of 2 rows"):
            model.sample(2, 5, method=method)


# --- bad input ----------------------------------------------------------------------------------

TOKENS = torch.zeros(2, 5, dtype=torch.long)


@every_model
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (TOKENS.float(), "must hold integers 0 to 2, got dtype torch.float32"),
        (TOKENS.bool(), "must hold integers 0 to 2, got dtype torch.bool"),
        (TOKENS + 3, "must hold integers 0 to 2, got values from 3 to 3"),
        (TOKENS - 1, "must hold integers 0 to 2, got values from -1 to -1"),
        (TOKENS[:, :0], r"must have shape \(N, T\), not empty, got \(2, 0\)"),
        (TOKENS[:0], r"must have shape \(N, T\), not empty, got \(0, 5\)"),
        (TOKENS[0], r"must have shape \(N, T\), not empty, got \(5,\)"),
        ([[0, 1]], "must be a torch.Tensor, got list"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "log_prob", "log_prob_steps", "given"])
def test_bad_tokens_are_refused(name, tokens, words, call):
    model = TOKEN_MODELS[name](3)
    with pytest.raises(ValueError, match=words):
        model.sample(2, 9, tokens) if call == "given" else getattr(model, call)(tokens)


@every_model
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n must be an int of at least 1, got 0"),
        ({"length": 0}, "length must be an int of at least 1, got 0"),
        ({"method": "fast"}, r"method must be one of \('cached', .*'full'\), got 'fast'"),
        ({"method": ["full"]}, "method must be one of"),
        ({"given": TOKENS[:1]}, r"n = 2 and P at most length = 9, got \(1, 5\)"),
        ({"given": TOKENS, "length": 4}, r"P at most length = 4, got \(2, 5\)"),
        ({"temperature": 0}, "temperature must be positive and finite, got 0"),
        ({"temperature": -1.0}, "temperature must be positive and finite, got -1.0"),
        ({"temperature": math.nan}, "temperature must be positive and finite, got nan"),
        ({"temperature": math.inf}, "temperature must be positive and finite, got inf"),
        ({"temperature": "hot"}, "temperature must be positive and finite, got 'hot'"),
        ({"temperature": None}, "temperature must be positive and finite, got None"),
        ({"top_k": 0}, "top_k must be an int of at least 1, got 0"),
        ({"top_k": 4}, "top_k must be at most 3, got 4"),
        ({"top_k": 2.0}, "top_k must be an int of at least 1, got 2.0"),
        ({"top_k": True}, "top_k must be an int of at least 1, got True"),
        ({"generator": 1.5}, "seed must be an int or a torch.Generator, got float"),
    ],
)
def test_bad_requests_for_samples_are_refused(name, arguments, words):
    with pytest.raises(ValueError, match=words):
        TOKEN_MODELS[name](3).sample(**{"n": 2, "length": 9} | arguments)


def test_real_samples_have_no_likeliest():
    with pytest.raises(ValueError, match="top_k must be None: the model is of real samples, got 2"):
        WaveNet(2, 3).sample(2, 5, top_k=2)
