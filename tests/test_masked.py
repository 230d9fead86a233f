import itertools

import pytest
import torch
from torch.nn.functional import conv2d

from dgm_course.autoregressive import MaskedConv2d, causal_mask, channel_groups


def open_offsets(mask):
    """(row, column) from the centre of every open weight."""
    rows, columns = mask.shape
    return {(a - rows // 2, b - columns // 2) for a, b in mask.nonzero().tolist()}


@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_masks_open_what_comes_before_and_nothing_else(k, mask_type):
    r, own = k // 2, {(0, 0)} if mask_type == "B" else set()
    square = set(itertools.product(range(-r, r + 1), repeat=2))
    above = {(a, b) for a, b in square if a < 0}
    left = {(0, b) for b in range(-r, 0)}
    assert open_offsets(causal_mask(k, mask_type)) == above | left | own
    assert open_offsets(causal_mask(k, mask_type, "horizontal")) == left | own
    row = {(0, b) for b in range(-r, r + 1)} if mask_type == "B" else set()
    assert open_offsets(causal_mask(k, mask_type, "vertical")) == above | row


def test_the_course_mask_of_the_slides():
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0] * 5, [0] * 5]
    assert causal_mask(5, "A").tolist() == expected


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_the_centre_tells_channels_apart(mask_type):
    layer = MaskedConv2d(3, 6, 3, mask_type, n_channels=3)
    centre = layer.mask[:, :, 1, 1]  # (out, in): outputs serve R R G G B B
    expected = [
        [c < o if mask_type == "A" else c <= o for c in range(3)] for o in (0, 0, 1, 1, 2, 2)
    ]
    assert centre.bool().tolist() == expected
    assert (layer.mask[:, :, 0] == 1).all(), "all channels of earlier pixels are open"
    assert (layer.mask[:, :, 1, 0] == 1).all()
    assert (layer.mask[:, :, 2] == 0).all()
    assert (layer.mask[:, :, 1, 2] == 0).all()


def test_blocks_repeat_the_groups():
    layer = MaskedConv2d(7, 14, 1, "B", n_channels=3, n_blocks=2)
    torch.testing.assert_close(layer.mask[:7], layer.mask[7:])
    assert layer.mask[:7, :, 0, 0].bool().tolist() == [
        [i <= o for i in (0, 0, 0, 1, 1, 2, 2)] for o in (0, 0, 0, 1, 1, 2, 2)
    ]


@pytest.mark.parametrize("n_features", range(3, 12))
def test_groups_are_contiguous_and_even(n_features):
    groups = channel_groups(n_features, 3)
    assert (groups.diff() >= 0).all()
    counts = torch.bincount(groups, minlength=3)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("stack", ["plain", "vertical", "horizontal"])
def test_the_layer_is_a_convolution_with_masked_weights(stack):
    torch.manual_seed(0)
    layer = MaskedConv2d(4, 6, 5, "B", n_channels=2, stack=stack).double()
    x = torch.randn(3, 4, 6, 7, dtype=torch.float64)
    padding = (layer.mask.shape[2] // 2, 2)
    expected = conv2d(x, layer.weight * layer.mask, layer.bias, padding=padding)
    assert layer(x).shape == (3, 6, 6, 7)
    torch.testing.assert_close(layer(x), expected, atol=0, rtol=0)


def test_no_optimiser_opens_a_masked_weight():
    torch.manual_seed(0)
    layer = MaskedConv2d(2, 4, 3, "B").double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.weight.add_(100 * (1 - layer.mask))  # what weight decay or momentum may do
        torch.testing.assert_close(layer(x), before, atol=0, rtol=0)
    layer(x).square().sum().backward()
    assert (layer.weight.grad[layer.mask == 0] == 0).all()


def test_the_mask_is_no_weight_and_follows_the_layer():
    layer = MaskedConv2d(1, 4, 3, "A")
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.double().mask.dtype == torch.float64
    assert layer(torch.zeros(1, 1, 4, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((1, 4, 4, "A"), {}, "odd, or there is no centre, got 4"),
        ((1, 4, 0, "A"), {}, "kernel_size must be an int of at least 1, got 0"),
        ((1, 4, 3.0, "A"), {}, "an int of at least 1, got 3.0"),
        ((1, 4, 3, "C"), {}, "'A' or 'B', got 'C'"),
        ((1, 4, 3, "A"), {"stack": "diagonal"}, "plain, vertical, horizontal, got 'diagonal'"),
        ((64, 64, 3, "A"), {}, "'B' after the first layer.* 'A' with 64 input features"),
        ((1, 6, 3, "A"), {"n_channels": 3}, "'A' with 1 input features for an image of 3"),
        ((2, 6, 3, "B"), {"n_channels": 3}, "got 2 features for 3 channels"),
        ((2, 6, 3, "B"), {"n_channels": 0}, "n_channels must be an int of at least 1, got 0"),
        ((2, 7, 3, "B"), {"n_blocks": 2}, "must divide out_features = 7, got 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        MaskedConv2d(*arguments, **options)
