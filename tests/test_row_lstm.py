import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from dgm_course.autoregressive import CausalityError, RowLSTM, check_causal
from dgm_course.autoregressive.row_lstm import RowLSTMLayer
from tests.autoregressive import images, make, strong

DOUBLE = torch.float64


def torchs_cell(from_input, from_state, bias):
    """`nn.LSTMCell` with our weights: (o, f, i, g) becomes its (i, f, g, o)."""
    n_gates = len(bias)
    cell = nn.LSTMCell(from_input.shape[1], from_state.shape[1], dtype=DOUBLE)
    o, f, i, g = torch.arange(n_gates).chunk(4)
    order = torch.cat([i, f, g, o])
    with torch.no_grad():
        cell.weight_ih.copy_(from_input[order])
        cell.weight_hh.copy_(from_state[order])
        cell.bias_ih.copy_(bias[order])
        cell.bias_hh.zero_()
    return cell


@pytest.mark.parametrize("k", [3, 5])
@torch.no_grad()
def test_the_layer_is_torchs_cell_at_every_pixel(k):
    """The cell's input: r + 1 pixels of the input's row, and the neighbours' states above."""
    torch.manual_seed(0)
    n, n_features, height, width, r = 2, 3, 4, 6, k // 2
    layer = strong(RowLSTMLayer(n_features, k, 1))
    x = torch.randn(n, 2 * n_features, height, width, dtype=DOUBLE)
    own, state = layer.from_input.weight[:, :, 0], layer.from_state.T.unflatten(1, (k, -1))
    others = [b for b in range(k) if b != r]
    weights = [own[:, :, b] for b in range(r + 1)] + [state[:, b] for b in others]
    cell = torchs_cell(torch.cat(weights, 1), state[:, r], layer.from_input.bias)
    row = padded = pad(x, (r, r))
    h = c = torch.zeros(n, n_features, width + 2 * r, dtype=DOUBLE)
    for i, step in enumerate(layer.steps(x)):
        new_h, new_c = torch.zeros_like(h), torch.zeros_like(c)
        for j in range(width):
            row = [padded[:, :, i, j + b] for b in range(r + 1)]
            above = [h[:, :, j + b] for b in others]
            new_h[:, :, j + r], new_c[:, :, j + r] = cell(
                torch.cat(row + above, 1), (h[:, :, j + r], c[:, :, j + r])
            )
        h, c = new_h, new_c
        torch.testing.assert_close(step.h.mT, h[:, :, r : r + width], atol=1e-12, rtol=0)
        torch.testing.assert_close(step.c.mT, c[:, :, r : r + width], atol=1e-12, rtol=0)
    assert i == height - 1


@torch.no_grad()
def test_in_an_image_of_one_column_it_is_torchs_lstm_down_the_column():
    layer = strong(RowLSTMLayer(4, 3, 1))
    x = torch.randn(2, 8, 5, 1, dtype=DOUBLE)
    cell = torchs_cell(
        layer.from_input.weight[:, :, 0, 1], layer.from_state[4:8].T, layer.from_input.bias
    )
    peer = nn.LSTM(8, 4, batch_first=True, dtype=DOUBLE)
    for mine, theirs in zip(peer.parameters(), cell.parameters(), strict=True):
        mine.copy_(theirs)
    states, _ = peer(x[..., 0].mT)  # (2, 5, 4)
    expected = layer.out(states.mT[..., None])
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["row-lstm", "row-lstm-rgb"])
def test_the_steps_are_those_of_the_forward_pass(name):
    model = make(name)
    x, n_features = images(model, 2, (4, 5)), model.layers[0].out.mask.shape[1]
    m = model.first(model.values_of(x))
    for number, layer in enumerate(model.layers):
        steps = model.steps(x, number)
        assert len(steps) == 4
        h = torch.stack([step.h for step in steps], 1)  # (N, H, W, F)
        m = m + layer.out(h.permute(0, 3, 1, 2))
        c = torch.zeros(2, 5, n_features, dtype=DOUBLE)
        for step in steps:
            assert {part.shape for part in step} == {(2, 5, n_features)}
            assert not step.h.requires_grad
            c = step.f * c + step.i * step.g
            torch.testing.assert_close(step.c, c, atol=1e-12, rtol=0)
            torch.testing.assert_close(step.h, step.o * c.tanh(), atol=1e-12, rtol=0)
    for conv in model.head:
        m = conv(m.relu())
    logits = m.unflatten(1, (model.n_channels, model.n_levels)).transpose(1, 2)
    torch.testing.assert_close(model(x), logits, atol=1e-12, rtol=0)


def test_a_row_of_states_does_not_see_the_rows_below():
    model = make("row-lstm")
    x = images(model, 1, (5, 6))
    other = x.clone()
    other[:, :, 3] = (other[:, :, 3] + 1) % 3
    for layer in (0, 1):
        moved = [
            (one.h - two.h).abs().max().item() > 1e-9
            for one, two in zip(model.steps(x, layer), model.steps(other, layer), strict=True)
        ]
        assert moved == [False, False, False, True, True]


def test_bad_steps_are_refused():
    model = make("row-lstm")
    x = images(model, 2, (4, 5))
    with pytest.raises(ValueError, match="layer must be at most 1, got 2"):
        model.steps(x, 2)
    with pytest.raises(ValueError, match="layer must be an int of at least 0, got -1"):
        model.steps(x, -1)
    with pytest.raises(ValueError, match="x must hold integers 0 to 2"):
        model.steps(x + 1)


@pytest.mark.parametrize("name", ["row-lstm", "row-lstm-rgb"])
@pytest.mark.parametrize("what", ["first", "from_input", "own"])
def test_leaks_are_found(name, what):
    model = make(name)
    if what == "first":
        model.first.mask[:, :, 1, 1] = 1
    elif what == "from_input":
        model.layers[1].from_input.mask.fill_(1)  # the right neighbour
    else:
        model.layers[0].out = nn.Conv2d(
            *model.layers[0].out.mask.shape[1::-1], (1, 3), padding=(0, 1), dtype=DOUBLE
        )
    with pytest.raises(CausalityError, match="the logits of row 0, column 0"):
        check_causal(model, (3, 4))


def test_a_layer_is_told_apart_from_a_plain_convolution():
    """Its state carries on: what lies any number of rows above acts at one layer."""
    model = strong(RowLSTM(2, n_features=4, n_layers=1))
    x = images(model, 1, (9, 3))
    other = x.clone()
    other[:, :, 0] = 1 - other[:, :, 0]
    assert (model(x) - model(other)).abs()[..., 8, :].max() > 1e-9
