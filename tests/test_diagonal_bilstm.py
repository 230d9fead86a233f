import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from dgm_course.autoregressive import CausalityError, DiagonalBiLSTM, check_causal, skew, unskew
from dgm_course.autoregressive.diagonal_bilstm import DiagonalBiLSTMLayer
from tests.autoregressive import make, strong
from tests.test_row_lstm import DOUBLE, torchs_cell

SIZES = [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3), (6, 6)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_skew_moves_row_i_by_i(size, leading):
    height, width = size
    x = torch.randn(*leading, height, width)
    y = skew(x)
    assert y.shape == (*leading, height, height + width - 1)
    expected = torch.zeros_like(y)
    for i in range(height):
        expected[..., i, i : i + width] = x[..., i, :]
    assert torch.equal(y, expected)
    assert torch.equal(unskew(y, width), x)


@pytest.mark.parametrize("size", SIZES)
def test_unskew_drops_what_is_outside_the_image(size):
    height, width = size
    y = torch.randn(2, height, height + width - 1)
    inside = skew(torch.ones(size)).bool()
    assert torch.equal(skew(unskew(y, width)), y * inside)
    assert torch.equal(skew(unskew(y, width)) == y, inside.expand_as(y))


def test_skewed_gradients_come_back():
    x = torch.randn(2, 3, 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unskew(skew(x).sin(), 4), x)


def test_maps_that_do_not_fit_are_refused():
    y = skew(torch.zeros(2, 3, 4))
    for width, words in [
        (3, "width must be 4 for a skewed map of 3 rows and 6 columns, got 3"),
        (6, "got 6"),
        (0, "width must be an int of at least 1, got 0"),
        (4.0, "got 4.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            unskew(y, width)
    with pytest.raises(ValueError, match="width must be 0 for a skewed map of 3 rows and 2 col"):
        unskew(torch.zeros(3, 2), 1)
    for call, name in ((skew, "x"), (lambda y: unskew(y, 1), "y")):
        with pytest.raises(ValueError, match=rf"{name} must have rows and .* got shape \(3,\)"):
            call(torch.zeros(3))
        with pytest.raises(ValueError, match=r"got shape \(2, 0, 3\)"):
            call(torch.zeros(2, 0, 3))
        with pytest.raises(ValueError, match=f"{name} must be a torch.Tensor, got list"):
            call([[1, 2]])


@torch.no_grad()
def test_the_layer_is_torchs_cell_at_every_pixel():
    """Both directions pixel by pixel; the cell's input: the input, and the state above."""
    torch.manual_seed(0)
    n, n_features, height, width = 2, 3, 4, 5
    layer = strong(DiagonalBiLSTMLayer(n_features, 1))
    x = torch.randn(n, 2 * n_features, height, width, dtype=DOUBLE)
    zeros = torch.zeros(n, n_features, dtype=DOUBLE)
    both = []
    for number, columns in enumerate([range(width), reversed(range(width))]):
        own = layer.from_input.weight[:, :, 0, 0].chunk(2)[number]
        above, beside = layer.from_state[number].T.chunk(2, 1)
        cell = torchs_cell(
            torch.cat([own, above], 1), beside, layer.from_input.bias.chunk(2)[number]
        )
        h, columns = {}, list(columns)
        step = 1 - 2 * number
        for i in range(height):
            c = zeros
            for j in columns:
                seen = torch.cat([x[:, :, i, j], h.get((i - 1, j), zeros)], 1)
                h[i, j], c = cell(seen, (h.get((i, j - step), zeros), c))
        both.append(h)
    expected = torch.zeros(n, n_features, height, width, dtype=DOUBLE)
    for i in range(height):
        for j in range(width):
            expected[:, :, i, j] = both[0][i, j] + both[1].get((i - 1, j), zeros)
    torch.testing.assert_close(layer(x), layer.out(expected), atol=1e-12, rtol=0)


@torch.no_grad()
def test_a_single_row_is_torchs_lstm_along_it():
    """And the second direction says nothing there: no row lies above."""
    layer = strong(DiagonalBiLSTMLayer(4, 1))
    x = torch.randn(2, 8, 1, 6, dtype=DOUBLE)
    cell = torchs_cell(
        layer.from_input.weight[:16, :, 0, 0],
        layer.from_state[0, 4:].T,
        layer.from_input.bias[:16],
    )
    peer = nn.LSTM(8, 4, batch_first=True, dtype=DOUBLE)
    for mine, theirs in zip(peer.parameters(), cell.parameters(), strict=True):
        mine.copy_(theirs)
    states, _ = peer(x[:, :, 0].mT)  # (2, 6, 4)
    torch.testing.assert_close(layer(x), layer.out(states.mT[:, :, None]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["bilstm", "bilstm-rgb"])
def test_leaks_of_the_first_layer_are_found(name):
    model = make(name)
    model.first.mask[:, :, 1, 1] = 1
    with pytest.raises(CausalityError, match="the logits of row 0, column 0"):
        check_causal(model, (3, 4))


class OfItsOwnRow(nn.Module):
    """A layer, and its second direction once more, this time not moved down."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.second = layer, copy.deepcopy(layer)
        first = len(layer.from_input.bias) // 2
        with torch.no_grad():  # a first direction of zeros
            self.second.from_input.weight[:first] = 0
            self.second.from_input.bias[:first] = 0

    def forward(self, x):
        return self.layer(x) + self.second(pad(x, (0, 0, 0, 1)))[:, :, 1:]


@pytest.mark.parametrize("number", [0, 1])
def test_a_second_direction_that_is_not_moved_down_leaks(number):
    """As some public code has it, whose row of zeros is at the bottom and moves nothing."""
    model = make("bilstm")
    leaks = OfItsOwnRow(model.layers[number])
    model.layers[number] = leaks.second
    check_causal(model, (3, 4))
    model.layers[number] = leaks
    with pytest.raises(CausalityError, match="the logits of row 0, column 0"):
        check_causal(model, (3, 4))


def test_both_directions_act():
    model = strong(DiagonalBiLSTM(2, n_features=4, n_layers=1))
    x = torch.zeros(1, 1, 3, 5, dtype=torch.long)
    before = model(x)
    with torch.no_grad():
        model.layers[0].from_state[1].zero_()
    after = (model(x) - before).abs().sum((0, 1, 2))  # (3, 5)
    assert (after[0] == 0).all(), "no row lies above"
    assert (after[1:, :4] > 1e-9).all()
