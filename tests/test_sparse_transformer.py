"""The Sparse Transformer: what its outputs see, its places, its cache, and what it learns."""

import itertools

import pytest
import torch

from dgm_course.causality import check_causal, sees_by_gradient, sees_by_perturbation
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
from tests.test_gpt import mean_kl, source

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
        return model.logits_of_embedded(embedded + move[..., None] * direction).transpose(1, 2)

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
            block.mix.weight[4:] = 0
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
def test_a_shorter_sequence_is_the_beginning_of_a_longer_one(pattern):
    model = model_of(pattern)
    tokens = tokens_of(model)
    whole = model.log_prob_steps(tokens)
    for length in range(1, 18):
        some = model.log_prob_steps(tokens[:, :length])
        torch.testing.assert_close(some, whole[:, :length], atol=1e-12, rtol=0)


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


# --- what training reaches ----------------------------------------------------------------------


@both_patterns
def test_a_source_of_known_entropy_is_learned(pattern):
    seed_everything(0)
    x, model = source().sample(5000, 12, 0), SparseTransformer(3, 12, 2, 2, 16, pattern)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    fit(
        lambda step: -model.log_prob(x[torch.randint(5000, (64,))]) / 12,
        optimizer, 300, scheduler=scheduler, max_grad_norm=1.0, progress=False,
    )  # fmt: skip
    assert 0 < mean_kl(model) < 0.015  # ten seeds: strided 0.003 to 0.006, fixed 0.005 to 0.010


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


@pytest.mark.parametrize("call", ["forward", "log_prob", "log_prob_steps", "given"])
def test_a_sequence_beyond_the_context_is_refused_with_both_numbers(call):
    tokens = torch.zeros(2, 17, dtype=torch.long)
    with pytest.raises(ValueError, match="must be at most the context, 16, got 17"):
        MODEL.sample(2, 17, tokens) if call == "given" else getattr(MODEL, call)(tokens)
    with pytest.raises(ValueError, match="length must be at most the context, 16, got 17"):
        MODEL.sample(2, 17)


def test_a_model_says_what_it_is():
    assert "context=16, n_heads=2, pattern='strided', stride=4" in repr(MODEL)
