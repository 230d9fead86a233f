"""The Sparse Transformer: what its outputs see, its places, its cache, and what it learns."""

import itertools
import math

import pytest
import torch

from dgm_course.causality import check_causal, sees_by_gradient, sees_by_perturbation
from dgm_course.data import MarkovChain
from dgm_course.sequences import (
    GPT,
    KeyValueCache,
    SparseTransformer,
    fixed_masks,
    reach,
    strided_masks,
)
from dgm_course.training import fit, seed_everything
from tests.contracts import strong

MASKS = {"strided": strided_masks, "fixed": fixed_masks}
both_patterns = pytest.mark.parametrize("pattern", MASKS)


def model_of(pattern="strided", n_layers=2, context=18, n_tokens=4, n_heads=2, stride=None):
    model = SparseTransformer(n_tokens, context, n_layers, n_heads, 8, pattern, stride)
    return strong(model, scale=0.5)


def tokens_of(model, n=4, length=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.n_tokens, (n, length or model.context), generator=generator)


# --- what an output sees ----------------------------------------------------------------------


@both_patterns
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize(("context", "stride"), [(16, 4), (18, 5), (13, 3)])
def test_the_gradient_reaches_what_the_boolean_power_does(pattern, n_layers, context, stride):
    """Of the outputs by each input, moved along one direction; the start token is the first."""
    model = model_of(pattern, n_layers, context, stride=stride)
    read = model.read(tokens_of(model))[:, :-1]
    embedded, direction = model.tokens(read).detach(), torch.randn(8, dtype=torch.float64)

    def outputs_of(move):
        h = model.placed(embedded + move[..., None] * direction, 0)
        for block in model.blocks:
            h = block(h, None)
        return model.out(model.norm(h))

    reached = reach(*[MASKS[pattern](context, stride)] * n_layers)
    assert torch.equal(sees_by_gradient(outputs_of, torch.zeros(read.shape).double()), reached)
    assert torch.equal(reached, torch.ones_like(reached).tril()) == (n_layers > 1)


@both_patterns
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("length", [18, 11])
def test_a_change_of_a_token_reaches_the_same(pattern, n_layers, length):
    model = model_of(pattern, n_layers)
    tokens = tokens_of(model, 16, length)
    others = (tokens + 1) % model.n_tokens

    def logits_of(tokens):
        return model(tokens).transpose(1, 2)

    check_causal(logits_of, tokens, others, what="logits")
    reached = reach(*[MASKS[pattern](length, 5)] * n_layers)
    expected = torch.zeros_like(reached)
    expected[:, :-1] = reached[:, 1:]  # token j is read at position j + 1
    assert torch.equal(sees_by_perturbation(logits_of, tokens, others), expected)


@both_patterns
def test_with_a_stride_of_the_context_half_of_the_heads_are_a_gpts(pattern):
    """If the other half counts for nothing, it is a GPT of the heads that see everything."""
    model, peer = model_of(pattern, stride=18), strong(GPT(4, 18, 2, 2, 8), scale=0.5)
    with torch.no_grad():
        for block in model.blocks:
            block.mix.weight[:, 4:] = 0
        shared = {name: x for name, x in model.state_dict().items() if name in peer.state_dict()}
        peer.load_state_dict(shared, strict=False)
        peer.positions.copy_(model.rows + model.columns)
    tokens = tokens_of(model)
    torch.testing.assert_close(model(tokens), peer(tokens), atol=1e-12, rtol=0)


# --- places -----------------------------------------------------------------------------------


def test_a_place_is_the_sum_of_its_row_and_its_column():
    model = model_of(context=18, stride=4)
    assert (model.rows.shape, model.columns.shape) == ((5, 8), (4, 8))
    placed = model.placed(torch.zeros(2, 18, 8, dtype=torch.float64), 0)
    for row, column in itertools.product(range(5), range(4)):
        if (t := 4 * row + column) < 18:
            here = (model.rows[row] + model.columns[column]).expand(2, 8)
            torch.testing.assert_close(placed[:, t], here, atol=0, rtol=0)
    later = model.placed(torch.zeros(2, 5, 8, dtype=torch.float64), 9)
    assert torch.equal(later, placed[:, 9:14])


@pytest.mark.parametrize(
    ("context", "stride"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (1024, 32)]
)
def test_the_stride_is_the_root_of_the_context_rounded_up(context, stride):
    assert SparseTransformer(2, context, 1, 2, 2).stride == stride


# --- probabilities ----------------------------------------------------------------------------


@both_patterns
@pytest.mark.parametrize(("n_tokens", "length"), [(2, 1), (2, 8), (3, 5)])
def test_the_probabilities_of_all_short_sequences_sum_to_1(pattern, n_tokens, length):
    model = model_of(pattern, context=9, n_tokens=n_tokens)
    every = torch.tensor([*itertools.product(range(n_tokens), repeat=length)])
    assert model.log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-12)
    steps = model.log_prob_steps(every)
    assert steps.shape == every.shape
    assert steps.std(0).min() > 0.01 or length == 1, "not a uniform model"


@both_patterns
def test_a_shorter_sequence_is_the_beginning_of_a_longer_one(pattern):
    model = model_of(pattern)
    tokens = tokens_of(model)
    whole = model.log_prob_steps(tokens)
    for length in range(1, 18):
        some = model.log_prob_steps(tokens[:, :length])
        torch.testing.assert_close(some, whole[:, :length], atol=1e-12, rtol=0)


def test_a_fresh_model_is_uniform():
    model = SparseTransformer(5, 20, 2, 2, 8)
    expected = torch.full((3,), -20 * math.log(5))
    torch.testing.assert_close(model.log_prob(torch.randint(5, (3, 20))), expected)


# --- samples ----------------------------------------------------------------------------------


@both_patterns
@pytest.mark.parametrize(("stride", "n_heads"), [(None, 2), (1, 2), (4, 4), (18, 2)])
def test_the_cache_gives_the_logits_of_a_full_pass_whatever_the_chunks(pattern, stride, n_heads):
    model = model_of(pattern, stride=stride, n_heads=n_heads).float()
    read = model.read(tokens_of(model))[:, :-1]
    expected = model.logits_of(read)
    for chunks in ([1] * 18, [18], [7, 1, 1, 9], [4, 5, 9], [10, 8]):
        past = KeyValueCache(model, 4, 18)
        found = torch.cat([past(chunk) for chunk in read.split(chunks, 1)], -1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@both_patterns
@pytest.mark.parametrize("length", [1, 4, 5, 6, 13, 18])
@pytest.mark.parametrize("n_given", [0, 1, 4])
def test_both_methods_draw_the_same_tokens(pattern, length, n_given):
    model = model_of(pattern)
    n_given = min(n_given, length)
    given = tokens_of(model, 3, n_given) if n_given else None
    cached, full = (
        model.sample(3, length, given, method=method, temperature=0.8, top_k=3, generator=7)
        for method in ("cached", "full")
    )
    assert cached.shape == (3, length)
    assert torch.equal(cached, full)
    if given is not None:
        assert torch.equal(cached[:, :n_given], given)


def test_tokens_are_drawn_with_their_probabilities():
    model = model_of(context=4, n_tokens=3)
    drawn = model.sample(20_000, 3, generator=0)
    every = torch.tensor([*itertools.product(range(3), repeat=3)])
    p = model.log_prob(every).exp()
    found = torch.stack([(drawn == one).all(1).double().mean() for one in every])
    assert ((found - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt() + 1e-4).all()


# --- what training reaches ----------------------------------------------------------------------


@pytest.mark.slow
@both_patterns
def test_a_markov_source_is_learned(pattern):
    """Mean KL from the true law of the next token, over the source's own contexts."""
    seed_everything(0)
    table = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(54)) ** (1 / 0.3)
    source = MarkovChain(table / table.sum(-1, keepdim=True))
    model, series = SparseTransformer(3, 25, 2, 2, 32, pattern), source.sample(4000, 25, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    fit(
        lambda step: -model.log_prob(series[torch.randint(4000, (64,))]) / 25,
        optimizer, 300, scheduler=scheduler, max_grad_norm=1.0, progress=False,
    )  # fmt: skip
    x = source.sample(200, 25, 9999)
    truth = source.transitions[x[:, :-2], x[:, 1:-1]]  # (N, T - 2, V)
    with torch.no_grad():
        log_q = model(x).log_softmax(1).transpose(1, 2)[:, 2:]
    divergence = (truth * (truth.log() - log_q)).sum(-1).mean().item()
    assert 0 < divergence < 0.015


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_tokens": 1}, "n_tokens must be an int of at least 2, got 1"),
        ({"context": 0}, "context must be an int of at least 1, got 0"),
        ({"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        ({"n_heads": 0}, "n_heads must be an int of at least 1, got 0"),
        ({"n_heads": 1}, "n_heads must be even, half of them for each mask, got 1"),
        ({"n_heads": 3, "width": 12}, "n_heads must be even, half of them for each mask, got 3"),
        ({"width": 7}, "n_heads must divide width = 7, got 2"),
        ({"pattern": "dense"}, r"pattern must be one of \('strided', 'fixed'\), got 'dense'"),
        ({"pattern": None}, r"pattern must be one of \('strided', 'fixed'\), got None"),
        ({"stride": 0}, "stride must be an int of at least 1, got 0"),
        ({"stride": 2.0}, "stride must be an int of at least 1, got 2.0"),
        ({"stride": 17}, "stride must be at most the context, 16, got 17"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    usual = {"n_tokens": 4, "context": 16, "n_layers": 1, "n_heads": 2, "width": 8}
    with pytest.raises(ValueError, match=words):
        SparseTransformer(**usual | arguments)


MODEL = SparseTransformer(4, 16, 1, 2, 8)
TOKENS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (TOKENS[:, :0], r"must have shape \(N, T\), not empty, got \(2, 0\)"),
        (TOKENS[:0], r"must have shape \(N, T\), not empty, got \(0, 5\)"),
        (TOKENS[0], r"must have shape \(N, T\), not empty, got \(5,\)"),
        (TOKENS.float(), "must hold integers 0 to 3, got dtype torch.float32"),
        (TOKENS + 4, "must hold integers 0 to 3, got values from 4 to 4"),  # 4 is the start token
        (TOKENS - 1, "must hold integers 0 to 3, got values from -1 to -1"),
        (torch.zeros(2, 17, dtype=torch.long), "must be at most the context, 16, got 17"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "log_prob", "log_prob_steps", "given"])
def test_bad_tokens_are_refused(tokens, words, call):
    with pytest.raises(ValueError, match=words):
        MODEL.sample(2, 9, tokens) if call == "given" else getattr(MODEL, call)(tokens)


def test_a_sample_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="length must be at most the context, 16, got 17"):
        MODEL.sample(1, 17)


def test_a_model_says_what_it_is():
    assert "context=16, n_heads=2, pattern='strided', stride=4" in repr(MODEL)
