"""Sparse attention: whom a mask lets see, what is reached, and that blocks are the masked table."""

import itertools
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dgm_course.sequences import (
    fixed_masks,
    reach,
    score_entries,
    sparse_attention,
    strided_masks,
)

MASKS = {"strided": strided_masks, "fixed": fixed_masks}
both_patterns = pytest.mark.parametrize("pattern", MASKS)


def triangle(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


# --- masks ------------------------------------------------------------------------------------


def seen_by(pattern, i, stride):
    """What position i sees with each head, counted on one's fingers."""
    if pattern == "strided":
        return [*range(max(0, i - stride + 1), i + 1)], [*range(i % stride, i + 1, stride)]
    start = i - i % stride  # of one's own block
    return [*range(start, i + 1)], [*range(stride - 1, start, stride), i]


@both_patterns
@pytest.mark.parametrize(("n", "stride"), [(1, 1), (7, 1), (16, 4), (17, 4), (19, 5), (6, 9)])
def test_masks_are_what_is_counted_by_hand(pattern, n, stride):
    masks = MASKS[pattern](n, stride)
    assert masks.shape == (2, n, n)
    assert masks.dtype == torch.bool
    for i in range(n):
        found = [row.nonzero()[:, 0].tolist() for row in masks[:, i]]
        assert found == [*seen_by(pattern, i, stride)], f"position {i}"


@both_patterns
def test_everyone_sees_himself_and_nobody_ahead(pattern):
    for n, stride in itertools.product(range(1, 14), range(1, 15)):
        masks = MASKS[pattern](n, stride)
        assert masks.diagonal(dim1=1, dim2=2).all()
        assert not (masks & ~triangle(n)).any()


@both_patterns
def test_a_stride_of_the_length_or_more_is_dense_attention_and_oneself(pattern):
    for stride in (9, 10, 50):
        near, far = MASKS[pattern](9, stride)
        assert torch.equal(near, triangle(9))
        assert torch.equal(far, torch.eye(9).bool())


# --- what is reached --------------------------------------------------------------------------

SIZES = [(16, 4), (36, 6), (64, 8), (30, 7), (64, 5), (40, 16)]


def walks(layers):
    """The pairs (i, j) joined by a walk of one step a layer, found by walking."""
    n = layers[0].shape[-1]
    found = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        here = {i}
        for layer in reversed(layers):  # from the output back to the input
            here = {j for place in here for j in range(n) if layer[place, j]}
        found[i, list(here)] = True
    return found


@pytest.mark.parametrize("seed", range(5))
def test_reach_finds_the_walks_of_random_masks(seed):
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(7, 7, generator=generator) < 0.25 for _ in range(3)]
    assert torch.equal(reach(*layers, residual=False), walks(layers))
    assert torch.equal(reach(*layers), walks([m | torch.eye(7).bool() for m in layers]))
    assert not torch.equal(reach(*layers), reach(*layers[::-1]))
    heads = torch.stack(layers)
    assert torch.equal(reach(heads, residual=False), heads.any(0))


@pytest.mark.parametrize(("n", "stride"), SIZES)
def test_strided_reaches_everything_in_two_layers_in_either_order(n, stride):
    near, far = masks = strided_masks(n, stride)
    for layers in [(near, far), (far, near), (masks, masks)]:
        assert torch.equal(reach(*layers), triangle(n))
        assert torch.equal(reach(*layers, residual=False), triangle(n))
    assert not torch.equal(reach(masks), triangle(n)), "one layer does not"


@pytest.mark.parametrize(("n", "stride"), SIZES)
def test_fixed_reaches_everything_in_one_order_only(n, stride):
    block, ends = masks = fixed_masks(n, stride)
    assert torch.equal(reach(block, ends), triangle(n))
    assert torch.equal(reach(masks, masks), triangle(n)), "both heads in each layer"
    assert torch.equal(reach(ends, block, ends), triangle(n)), "three that alternate"
    # Ends first: of an earlier block only its last position is ever seen.
    i, j = torch.arange(n)[:, None], torch.arange(n)
    lost = (j // stride < i // stride) & (j % stride != stride - 1)
    assert torch.equal(reach(ends, block), triangle(n) & ~lost)


@pytest.mark.parametrize(("n", "l", "share"), [(16, 4, 0.471), (36, 6, 0.324), (64, 8, 0.246)])
def test_the_wrong_order_leaves_a_quarter_to_a_half(n, l, share):  # noqa: E741
    block, ends = fixed_masks(n, l)
    wrong = reach(ends, block).sum() / triangle(n).sum()
    assert wrong.item() == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize(("n", "stride"), SIZES)
def test_without_a_look_at_oneself_the_path_past_the_attention_is_needed(n, stride):
    block, ends = fixed_masks(n, stride)
    ends = ends & ~torch.eye(n).bool()
    assert torch.equal(reach(block, ends), triangle(n))
    assert not torch.equal(reach(block, ends, residual=False), triangle(n))
    assert reach(block, ends, residual=False)[:stride].sum() == 0, "they see no block before"


# --- entries ----------------------------------------------------------------------------------


@both_patterns
def test_score_entries_are_the_masks_counted(pattern):
    for n, stride in itertools.product(range(1, 20), range(1, 22)):
        assert score_entries(n, stride, pattern) == MASKS[pattern](n, stride).sum()


@both_patterns
def test_entries_grow_with_the_power_of_one_and_a_half(pattern):
    for root in (16, 64, 256, 1024):
        n = root * root
        exact = {"strided": (3 * n * root + root) // 2, "fixed": n * root + n}[pattern]
        assert score_entries(n, root, pattern) == exact
    growth = score_entries(4 * n, 2 * root, pattern) / score_entries(n, root, pattern)
    assert math.log(growth, 4) == pytest.approx(1.5, abs=1e-3)


# --- blocks are the masked table ------------------------------------------------------------------


def heads(n=2, n_heads=4, length=10, dim=3, scale=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, n, n_heads, length, dim)
    x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return [one.requires_grad_() for one in x]


def masked(q, k, v, stride, pattern):
    """Dense attention under the masks, the first half of the heads under the first one."""
    mask = MASKS[pattern](q.shape[2], stride).repeat_interleave(q.shape[1] // 2, 0)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


LENGTHS = [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (16, 4), (18, 4), (13, 1), (30, 7), (20, 19)]


@both_patterns
@pytest.mark.parametrize(("length", "stride"), [*LENGTHS, (20, 20), (20, 21), (64, 8), (64, 16)])
def test_gathered_blocks_are_masked_dense_attention_and_so_are_its_gradients(
    pattern, length, stride
):
    qkv = heads(length=length)
    ours, theirs = sparse_attention(*qkv, stride, pattern), masked(*qkv, stride, pattern)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).double()
    for one, other in zip(
        torch.autograd.grad((ours * weights).sum(), qkv),
        torch.autograd.grad((theirs * weights).sum(), qkv),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@both_patterns
@pytest.mark.parametrize("stride", [12, 13, 100])
def test_where_the_mask_is_full_it_is_dense_causal_attention(pattern, stride):
    q, k, v = heads(length=12)
    dense = scaled_dot_product_attention(q, k, v, is_causal=True)
    ours = sparse_attention(q, k, v, stride, pattern)
    torch.testing.assert_close(ours[:, :2], dense[:, :2], atol=1e-12, rtol=0)
    torch.testing.assert_close(ours[:, 2:], v[:, 2:], atol=1e-12, rtol=0)  # oneself alone


def test_who_sees_no_block_before_sees_himself():
    q, k, v = heads(length=11)
    ours = sparse_attention(q, k, v, 4, "fixed")[:, 2:]
    torch.testing.assert_close(ours[:, :, :4], v[:, 2:, :4], atol=1e-12, rtol=0)


@both_patterns
def test_scores_beyond_what_exp_can_hold_give_no_nan(pattern):
    q, k, v = heads(length=11, scale=100.0)
    ours = sparse_attention(q, k, v, 4, pattern)
    torch.testing.assert_close(ours, masked(q, k, v, 4, pattern), atol=1e-10, rtol=0)
    for gradient in torch.autograd.grad(ours.sum(), (q, k, v)):
        assert torch.isfinite(gradient).all()


@both_patterns
def test_what_fills_the_last_block_is_seen_by_nobody(pattern):
    """A shorter sequence is the beginning of a longer one."""
    q, k, v = heads(length=13)
    ours = sparse_attention(q, k, v, 5, pattern)
    for length in range(5, 13):
        shorter = sparse_attention(*(x[:, :, :length] for x in (q, k, v)), 5, pattern)
        torch.testing.assert_close(shorter, ours[:, :, :length], atol=1e-12, rtol=0)


@both_patterns
@pytest.mark.parametrize("stride", [1, 3, 4, 10, 20])
def test_the_queries_of_the_last_positions_get_what_they_get_among_all(pattern, stride):
    q, k, v = heads(length=11)
    whole = sparse_attention(q, k, v, stride, pattern)
    for n_read, n_queries in [(11, 1), (11, 4), (11, 10), (2, 1), (7, 3)]:
        last = slice(n_read - n_queries, n_read)
        some = sparse_attention(q[:, :, last], k[:, :, :n_read], v[:, :, :n_read], stride, pattern)
        torch.testing.assert_close(some, whole[:, :, last], atol=1e-12, rtol=0)


@both_patterns
def test_one_more_query_reads_about_the_square_roots_of_the_positions_alone(pattern):
    """Rows that it does not see may hold anything."""
    n, stride = 64, 8
    q, k, v = (x.detach() for x in heads(length=n))
    for t in (0, 7, 8, 30, 63):
        seen = MASKS[pattern](n, stride)[:, t].repeat_interleave(2, 0)[None, :, : t + 1, None]
        unread = [x[:, :, : t + 1].masked_fill(~seen, math.nan) for x in (k, v)]
        one = sparse_attention(q[:, :, [t]], *unread, stride, pattern)
        torch.testing.assert_close(
            one, masked(q, k, v, stride, pattern)[:, :, [t]], atol=1e-12, rtol=0
        )


class Largest(TorchDispatchMode):
    """The numbers in the largest tensor that any operation makes."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            self.n = max(self.n, x.numel() if isinstance(x, torch.Tensor) else 0)
        return out


@both_patterns
def test_no_table_of_all_pairs_is_ever_made(pattern):
    n, stride, dim = 1024, 32, 4
    q, k, v = (x.float().detach().requires_grad_() for x in heads(1, 2, n, dim))
    with Largest() as largest:
        sparse_attention(q, k, v, stride, pattern).sum().backward()
    assert largest.n <= n * (stride + 1) < n * n / 30


@both_patterns
def test_the_products_cost_twice_the_entries_at_most(pattern):
    """A multiplication and an addition a number of a query, and of a value, in each table."""
    n, stride, dim = 1024, 32, 4
    q, k, v = (x.float().detach() for x in heads(1, 2, n, dim))
    # The fused kernel is not counted; torch's own products in its place are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sparse_attention(q, k, v, stride, pattern)
    tables = {"strided": 3 * n * stride - stride**2, "fixed": 2 * n * stride}
    assert counter.get_total_flops() == 4 * dim * tables[pattern]
    assert tables[pattern] < 2.01 * score_entries(n, stride, pattern)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [strided_masks, fixed_masks, score_entries])
def test_bad_sizes_are_refused(call):
    with pytest.raises(ValueError, match="n must be an int of at least 1, got 0"):
        call(0, 1)
    for stride in (0, -1, 2.0, None):
        with pytest.raises(ValueError, match=f"stride must be an int of at least 1, got {stride}"):
            call(4, stride)


def test_unknown_patterns_are_refused():
    words = r"pattern must be one of \('strided', 'fixed'\), got 'dense'"
    with pytest.raises(ValueError, match=words):
        score_entries(4, 2, "dense")
    with pytest.raises(ValueError, match=words):
        sparse_attention(*heads(), 2, "dense")


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        (0, lambda x: x[0], r"q must have shape \(N, H, T, D\), H even, .* got \(4, 10, 3\)"),
        (0, lambda x: x[:, :3], r"q must have shape .* got \(2, 3, 10, 3\)"),
        (0, lambda x: x[:0], r"q must have shape .* got \(0, 4, 10, 3\)"),
        (0, lambda x: x[:1], r"k and v must have shape \(1, 4, S, 3\), .* got \(2, 4, 10, 3\) and"),
        (0, lambda x: torch.cat([x, x], 2), r"S at least 20, as q has, got \(2, 4, 10, 3\) and"),
        (1, lambda x: x[:, :, :9], r"S at least 10, as q has, got \(2, 4, 9, 3\) and"),
        (2, lambda x: x[..., :2], r"\(2, 4, S, 3\), .* got \(2, 4, 10, 3\) and \(2, 4, 10, 2\)"),
        (2, lambda x: x[:, :2], r"\(2, 4, S, 3\), .* got \(2, 4, 10, 3\) and \(2, 2, 10, 3\)"),
        (2, lambda x: x.long(), "v must hold floating-point numbers, got torch.int64"),
        (1, lambda x: x.tolist(), "k must be a torch.Tensor, got list"),
    ],
)
def test_bad_heads_are_refused(which, change, words):
    qkv = heads()
    qkv[which] = change(qkv[which])
    with pytest.raises(ValueError, match=words):
        sparse_attention(*qkv, 4)


@pytest.mark.parametrize("stride", [0, -3, 2.5, None, True])
def test_bad_strides_are_refused(stride):
    with pytest.raises(ValueError, match=f"stride must be an int of at least 1, got {stride}"):
        sparse_attention(*heads(), stride)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "layers must hold the masks of at least one layer, got none"),
        ([triangle(4).int()], "must hold bool, got torch.int32"),
        ([triangle(4), triangle(3)], r"the same n in all layers, got \(3, 3\) after \(4, 4\)"),
        ([triangle(4)[:3]], r"must have shape \(n, n\) or .* got \(3, 4\)"),
        ([triangle(4)[0]], r"must have shape \(n, n\) or .* got \(4,\)"),
        ([triangle(4).tolist()], "must be a torch.Tensor, got list"),
    ],
)
def test_bad_layers_are_refused(layers, words):
    with pytest.raises(ValueError, match=words):
        reach(*layers)
