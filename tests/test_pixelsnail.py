import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dgm_course.autoregressive import (
    CausalityError,
    PixelSNAIL,
    all_images,
    check_causal,
    visible_in_by_gradient,
)
from dgm_course.autoregressive.pixelsnail import CausalAttention, places
from tests.autoregressive import images, make, strong

DOUBLE = torch.float64
NAMES = ["snail", "snail-two-heads", "snail-rgb", "snail-two-channels"]


@pytest.mark.parametrize(("n_levels", "n_channels", "size"), [(3, 1, (2, 4)), (3, 2, (2, 2))])
def test_all_6561_images_add_up_to_one(n_levels, n_channels, size):
    for seed in range(3):
        model = PixelSNAIL(n_levels, n_channels=n_channels, n_features=4, n_layers=1)
        p = strong(model, seed, scale=1.0).log_prob(all_images(n_levels, n_channels, size)).exp()
        assert abs(p.sum().item() - 1) < 1e-8


def by_hand(attention, h, values):
    """aᵢ and wᵢ of every pixel, one after the other: ``(N, D, F)`` and ``(N, heads, D, D)``."""
    n, n_features, height, width = h.shape
    d, n_pixels = n_features // attention.n_heads, height * width
    rows = [-1.0] if height == 1 else [2 * i / (height - 1) - 1 for i in range(height)]
    columns = [-1.0] if width == 1 else [2 * j / (width - 1) - 1 for j in range(width)]
    found = torch.zeros(n, n_pixels, n_features, dtype=DOUBLE)
    weights = torch.zeros(n, attention.n_heads, n_pixels, n_pixels, dtype=DOUBLE)
    for number in range(n):

        def told(place, number=number):
            i, j = divmod(place, width)
            where = torch.tensor([rows[i], columns[j]], dtype=DOUBLE)
            return h[number, :, i, j], values[number, :, i, j], where

        for i in range(n_pixels):
            of_i, _, at_i = told(i)
            query = attention.query(torch.cat([of_i, at_i])).view(-1, d)
            for head in range(attention.n_heads):
                looked = [torch.cat(told(j)) for j in range(i)]
                scores = [
                    attention.key(seen).view(-1, d)[head] @ query[head] / math.sqrt(d)
                    for seen in looked
                ]
                total = sum(score.exp() for score in scores)
                for j, (score, seen) in enumerate(zip(scores, looked, strict=True)):
                    w = weights[number, head, i, j] = score.exp() / total
                    part = w * attention.value(seen).view(-1, d)[head]
                    found[number, i, head * d : (head + 1) * d] += part
    return found, weights


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("size", [(2, 3), (1, 4), (1, 1)])
@torch.no_grad()
def test_attention_is_its_definition(n_heads, size):
    torch.manual_seed(0)
    attention = CausalAttention(6, 2, n_heads).double()
    h, values = torch.randn(2, 6, *size, dtype=DOUBLE), torch.randn(2, 2, *size, dtype=DOUBLE)
    expected, weights = by_hand(attention, h, values)
    torch.testing.assert_close(attention(h, values).flatten(2).mT, expected, atol=1e-12, rtol=0)
    for place in range(size[0] * size[1]):
        found = attention.weights(h, values, place).flatten(2)
        torch.testing.assert_close(found, weights[:, :, place], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_a_pixel_lie_on_earlier_ones_and_add_up_to_one(name):
    model = make(name)
    x = images(model, 2, (3, 4))
    for i in range(3):
        for j in range(4):
            weights = model.attention(x, (i, j))
            n_heads = model.blocks[0].attention.n_heads
            assert weights.shape == (2, len(model.blocks), n_heads, 3, 4)
            before = weights.flatten(3)[..., : 4 * i + j]
            assert (weights.flatten(3)[..., 4 * i + j :] == 0).all()
            total = before.sum(3)
            expected = torch.full_like(total, float((i, j) != (0, 0)))
            torch.testing.assert_close(total, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_weights_are_those_that_every_block_uses(name):
    model = make(name)
    x = images(model, 2, (3, 4))
    values, weights = model.values_of(x), model.attention(x, (1, 2))
    h = model.entrance(values)
    for number, block in enumerate(model.blocks):
        near = block.near(h)
        _, _, v = block.attention.in_order(near, values)  # (N, heads, D, d)
        expected = (weights[:, number].flatten(2)[:, :, None] @ v).flatten(1)
        found = block.attention(near, values)[:, :, 1, 2]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        h = block(h, values)


def test_a_later_pixel_moves_no_weight_of_an_earlier_one():
    model = make("snail")
    x = images(model, 1, (3, 4))
    other = x.clone()
    other[:, :, 1, 2] = (other[:, :, 1, 2] + 1) % 3
    for pixel, moves in (((1, 2), False), ((1, 1), False), ((1, 3), True), ((2, 0), True)):
        gap = (model.attention(x, pixel) - model.attention(other, pixel)).abs().max()
        assert (gap > 1e-9) == moves


def test_the_first_pixel_has_no_key_and_no_nan():
    for size in ((1, 1), (2, 3)):
        model = make("snail")
        x = images(model, 2, size)
        (-model.log_prob(x)).sum().backward()
        assert torch.isfinite(model(x)).all()
        for p in model.parameters():
            assert p.grad is None or torch.isfinite(p.grad).all()
    assert (model.attention(x, (0, 0)) == 0).all()


@pytest.mark.parametrize("name", ["snail-rgb", "snail-two-channels"])
def test_features_know_no_channel_of_their_own_pixel(name):
    """So the blocks run once a pixel; the head alone hears the channels before."""
    model = make(name)
    values = torch.randn(2, model.n_channels, 3, 4, dtype=DOUBLE).requires_grad_()
    h = model.entrance(values)
    for block in model.blocks:
        h = block(h, values)
    (gradient,) = torch.autograd.grad((h[:, :, 1, 2] * torch.randn(h.shape[1])).sum(), values)
    seen = gradient.ne(0).any(0)  # (C, 3, 4)
    assert seen.flatten(1)[:, :6].all()
    assert not seen.flatten(1)[:, 6:].any()


def test_without_attention_the_far_upper_right_is_blind():
    model = strong(PixelSNAIL(2, n_features=4, n_layers=1), scale=1.0)
    assert visible_in_by_gradient(model, (6, 9), (4, 2))[:4].all()
    with torch.no_grad():
        for p in model.blocks[0].join.extra.parameters():
            p.zero_()
    assert not visible_in_by_gradient(model, (6, 9), (4, 2))[:4, 4:].any()


def test_where_a_pixel_lies_goes_from_minus_one_to_one():
    where = places(torch.zeros(2, 5, 3, 4))
    assert where.shape == (2, 2, 3, 4)
    assert where[0, 0, :, 0].tolist() == [-1, 0, 1]
    assert where[1, 1, 2].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])


@pytest.mark.parametrize(
    ("n_levels", "options", "words"),
    [
        (1, {}, "n_levels must be an int of at least 2, got 1"),
        (2, {"n_features": 0}, "n_features must be an int of at least 1, got 0"),
        (2, {"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        (2, {"n_channels": 3, "n_features": 2}, "got 2 features for 3 channels"),
        (2, {"n_heads": 0}, "n_heads must be an int of at least 1, got 0"),
        (2, {"n_features": 8, "n_heads": 3}, "n_heads must divide n_features = 8, got 3"),
    ],
)
def test_bad_arguments_are_refused(n_levels, options, words):
    with pytest.raises(ValueError, match=words):
        PixelSNAIL(n_levels, **options)


def test_a_pixel_outside_the_image_is_refused():
    model = make("snail")
    x = images(model, 2, (3, 4))
    for pixel, words in [
        ((3, 0), "pixel's row must be at most 2, got 3"),
        ((0, 4), "pixel's column must be at most 3, got 4"),
        (5, r"pixel must be a row and a column, \(i, j\), got 5"),
        ((-1, 0), "pixel's row must be an int of at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.attention(x, pixel)
    with pytest.raises(ValueError, match="x must hold integers 0 to 2"):
        model.attention(x + 3, (0, 0))


# --- what leaks is found --------------------------------------------------------------------


def own_pixel_too(attention, h, values):
    q, k, v = attention.in_order(h, values)
    a = scaled_dot_product_attention(q, k, v, is_causal=True)
    return a.transpose(2, 3).flatten(1, 2).unflatten(2, h.shape[2:])


@pytest.mark.parametrize("name", NAMES)
def test_attention_to_the_pixel_itself_is_found(name, monkeypatch):
    model = make(name)
    monkeypatch.setattr(CausalAttention, "forward", own_pixel_too)
    with pytest.raises(CausalityError, match=r"row 0, column 0.* see"):
        check_causal(model, (4, 4))


def test_and_the_sum_shows_it(monkeypatch):
    model = strong(PixelSNAIL(3, n_features=4, n_layers=1), scale=1.0)
    monkeypatch.setattr(CausalAttention, "forward", own_pixel_too)
    assert abs(model.log_prob(all_images(3, 1, (2, 4))).exp().sum().item() - 1) > 1e-4
