import pytest
import torch
from torch import nn

from dgm_course.autoregressive import DiagonalBiLSTM, RowLSTM, all_images, lstm_step
from tests.autoregressive import images, strong


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 4, 5)])
def test_a_step_is_that_of_torchs_cell(shape):
    """Which has its gates in the order i, f, g, o, and is fed here by its biases alone."""
    n_features = 6
    torch.manual_seed(0)
    a = 3 * torch.randn(*shape, 4 * n_features, dtype=torch.float64)
    c = torch.randn(*shape, n_features, dtype=torch.float64)
    o, f, i, g = a.chunk(4, -1)
    step = lstm_step(a, c)
    for place in torch.ones(shape).nonzero().tolist():
        place = tuple(place)
        cell = nn.LSTMCell(1, n_features, dtype=torch.float64)
        for p in cell.parameters():
            nn.init.zeros_(p)
        cell.bias_ih.data.copy_(torch.cat([i, f, g, o], -1)[place])
        zeros = torch.zeros(1, n_features, dtype=torch.float64)
        new_h, new_c = cell(zeros[:, :1], (zeros, c[place][None]))
        torch.testing.assert_close(step.h[place], new_h[0], atol=1e-14, rtol=0)
        torch.testing.assert_close(step.c[place], new_c[0], atol=1e-14, rtol=0)


def test_gates_lie_between_0_and_1_and_the_content_between_minus_1_and_1():
    a = torch.linspace(-4, 4, 9, dtype=torch.float64)
    step = lstm_step(a.repeat(4), torch.zeros(9, dtype=torch.float64))
    for gate in (step.o, step.f, step.i):
        torch.testing.assert_close(gate, 1 / (1 + (-a).exp()))
    torch.testing.assert_close(step.g, torch.tanh(a))
    assert (step.g[:4] < 0).all(), "under a σ it could not count down"
    assert lstm_step(torch.zeros(4), torch.zeros(1)).h.item() == 0, "of nothing comes nothing"


@pytest.mark.parametrize("family", [RowLSTM, DiagonalBiLSTM])
def test_the_input_of_every_layer_is_added_to_its_output(family):
    """With layers that give nothing the network is its first layer and its head."""
    model = strong(family(3, n_features=4, n_layers=3))
    x = images(model, 2, (4, 5))
    before = model(x)
    with torch.no_grad():
        for layer in model.layers:
            layer.out.weight.zero_()
            layer.out.bias.zero_()
    m = model.first(model.values_of(x))
    expected = model.head[1](model.head[0](m.relu()).relu())
    torch.testing.assert_close(model(x), expected[:, :, None], atol=1e-12, rtol=0)
    assert (model(x) - before).abs().max() > 0.1


@pytest.mark.parametrize("family", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_leak_shows_in_the_sum_over_all_images(family, n_channels):
    """At weights of scale 1, at which a pixel is nearly certain: so what leaks is little, too."""
    torch.manual_seed(0)
    model = family(2, n_channels=n_channels, n_features=4, n_layers=2).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p))
    x = all_images(2, n_channels, (2, 8 // (2 * n_channels)))
    assert abs(model.log_prob(x).exp().sum().item() - 1) < 1e-8
    model.first.mask[:, :, 1, 1] = 1  # type B, of one channel, at the first layer
    assert abs(model.log_prob(x).exp().sum().item() - 1) > 1e-6  # 100 times that
