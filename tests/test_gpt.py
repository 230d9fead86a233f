"""GPT: a peer's numbers, the cache in any chunks, what positions tell, what training reaches."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from dgm_course.data import MarkovChain
from dgm_course.probability import categorical_kl
from dgm_course.sequences import GPT, KeyValueCache, Transformer, causal_attention
from dgm_course.training import fit, seed_everything
from tests.contracts import strong


def gpt(n_layers=2, scale=0.5, **arguments):
    usual = {"n_tokens": 5, "context": 12, "n_heads": 2, "width": 8}
    return strong(GPT(n_layers=n_layers, **usual | arguments), scale=scale)


def tokens_of(n=6, length=12, n_tokens=5):
    return torch.randint(n_tokens, (n, length), generator=torch.Generator().manual_seed(0))


# --- the formulas -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (7, 7), (1, 7), (3, 7), (6, 7)])
def test_attention_is_a_weighted_mean_of_what_is_not_later(n_queries, n_keys):
    torch.manual_seed(0)
    q = torch.randn(2, 3, n_queries, 4, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, n_keys, 4, dtype=torch.float64)
    out = causal_attention(q, k, v)
    for row, head, i in itertools.product(range(2), range(3), range(n_queries)):
        here = n_keys - n_queries + i  # the queries stand at the last places
        scores = [q[row, head, i] @ k[row, head, s] / 2 for s in range(here + 1)]
        weights = torch.stack(scores).softmax(0)
        expected = (weights[:, None] * v[row, head, : here + 1]).sum(0)
        torch.testing.assert_close(out[row, head, i], expected, atol=1e-12, rtol=0)


def test_more_queries_than_keys_are_refused():
    q, k = torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 3, 2)
    with pytest.raises(ValueError, match="at most as many positions as k, 3, got 4"):
        causal_attention(q, k, k)


@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (3, 4)])
def test_logits_are_those_of_torchs_own_layers(n_layers, n_heads):
    model, tokens = gpt(n_layers, n_heads=n_heads), tokens_of()
    layer = nn.TransformerEncoderLayer(
        8, n_heads, 32, 0.0, lambda x: gelu(x, approximate="tanh"), batch_first=True,
        norm_first=True, dtype=torch.float64,
    )  # fmt: skip
    peer = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(8, dtype=torch.float64), False)
    pairs = {"linear1": "up", "linear2": "down", "self_attn.out_proj": "mix"}
    weights = {f"norm.{kind}": getattr(model.norm, kind) for kind in ("weight", "bias")}
    for i, block in enumerate(model.blocks):
        weights[f"layers.{i}.self_attn.in_proj_weight"] = block.qkv.weight.T
        weights[f"layers.{i}.self_attn.in_proj_bias"] = block.qkv.bias
        for theirs, ours in pairs.items():
            weights[f"layers.{i}.{theirs}.weight"] = getattr(block, ours).weight.T
            weights[f"layers.{i}.{theirs}.bias"] = getattr(block, ours).bias
        for norm, kind in itertools.product(("norm1", "norm2"), ("weight", "bias")):
            ours = getattr(block, norm.replace("m", "m_"))
            weights[f"layers.{i}.{norm}.{kind}"] = getattr(ours, kind)
    peer.load_state_dict(weights)
    read = torch.cat([torch.full((6, 1), 5), tokens[:, :-1]], 1)  # 5 is the start token
    mask = nn.Transformer.generate_square_subsequent_mask(12, dtype=torch.float64)
    h = peer(model.tokens.weight[read] + model.positions, mask=mask, is_causal=True)
    expected = (h @ model.out.weight + model.out.bias).transpose(1, 2)
    torch.testing.assert_close(model(tokens), expected, atol=1e-10, rtol=0)


# --- the cache ----------------------------------------------------------------------------------


def chunked(model, read, sizes):
    """The logits from a cache that reads so many tokens at a time."""
    past = KeyValueCache(model, *read.shape)
    return torch.cat([past(chunk) for chunk in read.split(sizes, 1)], 2)


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_cache_that_reads_any_chunks_gives_the_logits_of_a_full_pass(positions, dtype, atol):
    model, tokens = gpt(3, positions=positions).to(dtype), tokens_of()
    for length in range(1, 13):
        expected, read = model(tokens[:, :length]), model.read(tokens)[:, :length]
        for first in range(1, length + 1):
            sizes = [first, length - first] if first < length else [first]
            found = chunked(model, read, sizes)
            torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    for sizes in ([1] * 12, [2] * 6, [5, 1, 6], [1, 4, 1, 6], [3, 3, 3, 3]):
        found = chunked(model, model.read(tokens)[:, :-1], sizes)
        torch.testing.assert_close(found, model(tokens), atol=atol, rtol=0)


def test_a_cache_leaves_gradients_and_the_model_alone():
    model, tokens = gpt(), tokens_of()
    before = model(tokens).detach()
    logits = chunked(model, model.read(tokens)[:, :-1], [5, 7])
    assert not logits.requires_grad
    assert torch.equal(model(tokens), before)


READ = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (READ[:1], r"read must have shape \(2, T\), T from 1 to the 4 left of length = 6, got"),
        (READ[:, :0], r"from 1 to the 4 left of length = 6, got \(2, 0\)"),
        (torch.zeros(2, 5, dtype=torch.long), r"1 to the 4 left of length = 6, got \(2, 5\)"),
        (READ[0], r"read must have shape \(2, T\), .* got \(3,\)"),
        (READ + 6, "read must hold integers 0 to 5, got values from 6 to 6"),
        (READ.float(), "read must hold integers 0 to 5, got dtype torch.float32"),
    ],
)
def test_bad_chunks_are_refused(read, words):
    past = KeyValueCache(gpt(), 2, 6)
    past(READ[:, :2])
    with pytest.raises(ValueError, match=words):
        past(read)
    assert past.n_read == 2


def test_a_cache_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="length must be at most 12, got 13"):
        KeyValueCache(gpt(), 2, 13)


# --- positions ----------------------------------------------------------------------------------


def change_from_another_order(model, length=6):
    """The most that logits of the next token move when all tokens but the last change places."""
    tokens = torch.tensor([[0, 1, 2, 3, 4, 1]])[:, :length]
    orders = torch.tensor([*itertools.permutations(range(length - 1))])
    moved = torch.cat([tokens[0, :-1][orders], tokens[:, -1:].expand(len(orders), 1)], 1)
    read = model.read(moved)
    logits = model.logits_of(read)[..., -1]
    return (logits - logits[0]).abs().max().item()


def test_without_positions_one_layer_is_blind_to_order_and_two_are_not():
    assert change_from_another_order(gpt(1, positions=False)) < 1e-12
    assert change_from_another_order(gpt(1, positions=False).float()) < 1e-5
    assert change_from_another_order(gpt(2, positions=False)) > 0.01
    assert change_from_another_order(gpt(1)) > 0.01


def test_without_positions_one_layer_still_counts_tokens_and_knows_the_last():
    model = gpt(1, positions=False)
    logits = model.logits_of(model.read(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2], [0, 2, 1, 0]])))
    assert (logits[0] - logits[1])[:, -1].abs().max() > 0.01
    assert (logits[0] - logits[2])[:, -1].abs().max() > 0.01


# --- what training reaches ------------------------------------------------------------------------


def source():
    """A chain of order 2 on three symbols, far from a lower order and from certainty."""
    return MarkovChain.random(3, 2, generator=54)


def test_each_order_of_the_source_is_worth_a_quarter_of_a_nat():
    rates = [source().entropy_rate(n_past) for n_past in range(3)]
    assert rates == pytest.approx([1.0238, 0.7617, 0.4577], abs=1e-4)


def mean_kl(model):
    """KL(p(x_t | x_<t) ‖ model) in nats, the mean over series of the source, from t = 2 on."""
    x = source().sample(500, 12, 9999)
    with torch.no_grad():
        kl = categorical_kl(source().conditionals(x), model(x).double())  # (N, T)
    return kl[:, 2:].mean().item()


def trained(**arguments):
    seed_everything(0)
    x = source().sample(5000, 12, 0)
    model = GPT(3, 12, **{"n_layers": 2, "n_heads": 2, "width": 16} | arguments)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    fit(
        lambda step: -model.log_prob(x[torch.randint(5000, (64,))]) / 12,
        optimizer, 300, scheduler=scheduler, max_grad_norm=1.0, progress=False,
    )  # fmt: skip
    return model


def test_a_source_of_known_entropy_is_learned():
    assert 0 < mean_kl(trained()) < 0.015


@pytest.mark.slow
def test_one_layer_without_positions_is_left_above_the_source():
    assert mean_kl(trained(n_layers=1, positions=False)) > 0.1
    assert mean_kl(trained(n_layers=1)) < 0.05


# --- bad input ----------------------------------------------------------------------------------

USUAL = {"n_tokens": 5, "context": 12, "n_layers": 2, "n_heads": 2, "width": 8}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_tokens": 1}, "n_tokens must be an int of at least 2, got 1"),
        ({"context": 0}, "context must be an int of at least 1, got 0"),
        ({"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        ({"n_heads": 0}, "n_heads must be an int of at least 1, got 0"),
        ({"width": 8.0}, "width must be an int of at least 1, got 8.0"),
        ({"n_heads": 3}, "n_heads must divide width = 8, got 3"),
        ({"n_heads": 16}, "n_heads must divide width = 8, got 16"),
        ({"positions": 4}, "positions must be a bool, got int"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        GPT(**USUAL | arguments)


@pytest.mark.parametrize("call", ["forward", "log_prob", "log_prob_steps", "given"])
def test_a_sequence_beyond_the_context_is_refused_with_both_numbers(call):
    model, tokens = GPT(**USUAL), torch.zeros(2, 13, dtype=torch.long)
    assert model(tokens[:, :12]).shape == (2, 5, 12)
    with pytest.raises(ValueError, match="must be at most the context, 12, got 13"):
        model.sample(2, 13, tokens) if call == "given" else getattr(model, call)(tokens)
    with pytest.raises(ValueError, match="length must be at most the context, 12, got 13"):
        model.sample(2, 13)


def test_a_transformer_without_layers_or_without_places_is_none():
    class Nowhere(Transformer):
        def placed(self, h, start):
            return h

    with pytest.raises(ValueError, match="n_layers must be an int of at least 1, got 0"):
        Nowhere(5, 12, 2, 8, [])
    with pytest.raises(TypeError, match="abstract"):
        Transformer(5, 12, 2, 8, [causal_attention])


def test_a_model_says_what_it_is():
    assert "GPT(\n  n_tokens=5, context=12, n_heads=2, positions=True" in repr(GPT(**USUAL))


def test_a_fresh_model_changes_by_numbers_of_order_1_in_its_layers():
    """What 2L parts add to an input has variance about 1, however many layers there are."""
    for n_layers in (1, 8):
        torch.manual_seed(0)
        model = GPT(64, 32, n_layers, 4, 64)
        seen = []
        model.norm.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        tokens = torch.randint(64, (8, 32))
        model(tokens)
        read = model.placed(model.tokens(model.read(tokens)[:, :-1]), 0).flatten(0, 1)
        added = (seen[0] - read).square().mean().item()
        assert 0.2 < added < 1.2
        assert math.isclose(read.square().mean().item(), 2, rel_tol=0.2)
