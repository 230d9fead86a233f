"""The two networks of DCGAN: what stands where, and what a sample may depend on."""

import pytest
import torch
from torch import nn

from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Player,
    ReferenceBatch,
    VirtualBatchNorm,
    discriminator_loss,
    generator_loss,
    play,
)

SIZES = [(8, 1, 2), (16, 1, 2), (16, 3, 3), (28, 1, 2), (32, 1, 3), (10, 1, 1)]


def kinds(layers):
    return [type(layer) for layer in layers]


def moved(module):
    """With running statistics and scales away from their start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
    return module.double()


@pytest.mark.parametrize(("size", "n_channels", "h"), SIZES)
def test_shapes(size, n_channels, h):
    g = DCGANGenerator(size, 5, 4, n_channels, n_halvings=h)
    d = DCGANDiscriminator(size, 4, n_channels, n_halvings=h)
    x = g(torch.randn(3, 5))
    assert x.shape == (3, n_channels, size, size)
    assert x.abs().max() < 1
    assert d(x).shape == (3,)
    assert d.features(x).shape == (3, 4 * 2 ** (h - 1) * (size // 2**h) ** 2)


def test_normalisation_stands_in_the_middle_and_nowhere_else():
    """Not at the generator's output, not at the discriminator's input."""
    up, conv, norm = nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d
    g = DCGANGenerator(16, n_halvings=3)
    assert kinds(g.layers) == [*(up, norm, nn.ReLU) * 3, up, nn.Tanh]
    d = DCGANDiscriminator(16, n_halvings=3)
    leaky = nn.LeakyReLU
    assert kinds(d.features) == [conv, leaky, *(conv, norm, leaky) * 2, nn.Flatten]
    assert kinds([d.head]) == [nn.Linear]
    assert {layer.negative_slope for layer in d.features if isinstance(layer, leaky)} == {0.2}
    sizes = [layer.out_channels for layer in d.features if isinstance(layer, conv)]
    assert sizes == [32, 64, 128]
    assert [layer.out_channels for layer in g.layers if isinstance(layer, up)] == [128, 64, 32, 1]


def test_convolutions_alone_change_the_size():
    g, d = DCGANGenerator(16, n_halvings=3), DCGANDiscriminator(16, n_halvings=3)
    x, seen = torch.randn(2, 16)[..., None, None], []
    for layer in g.layers:
        seen.append((x := layer(x)).shape[2])
    for layer in d.features[:-1]:
        seen.append((x := layer(x)).shape[2])
    assert seen == [*[2] * 3, *[4] * 3, *[8] * 3, *[16] * 2, *[8] * 2, *[4] * 3, *[2] * 3]


@pytest.mark.parametrize("model", [DCGANGenerator, DCGANDiscriminator])
def test_weights_start_small(model):
    torch.manual_seed(0)
    network = model(16)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
        elif hasattr(layer, "weight"):
            n = layer.weight.numel()
            assert abs(layer.weight.std() - 0.02) < 4 * 0.02 / (2 * n) ** 0.5
            assert abs(layer.weight.mean()) < 4 * 0.02 / n**0.5
        if hasattr(layer, "bias"):
            assert (layer.bias == 0).all()


def slope_of_first(network, x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[0].square().sum(), x)
    return slope.flatten(1).abs().amax(1)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_examples_meet_in_training_and_in_evaluation_they_do_not(name):
    network, x = {
        "generator": (moved(DCGANGenerator(8)), torch.randn(4, 16).double()),
        "discriminator": (moved(DCGANDiscriminator(8)), torch.randn(4, 1, 8, 8).double()),
    }[name]
    assert (slope_of_first(network.train(), x) > 1e-6).all()
    network.eval()
    slope = slope_of_first(network, x)
    assert slope[0] > 1e-6
    assert (slope[1:] == 0).all()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network(x[order]), network(x)[order])
    torch.testing.assert_close(network(x[:1]), network(x)[:1])


@pytest.mark.parametrize("training", [True, False])
def test_samples_are_drawn_by_the_running_statistics(training):
    """In either mode, which is as it was afterwards, layer by layer."""
    g = moved(DCGANGenerator(8)).train(training)
    g.layers[1].train(not training)
    before = {name: value.clone() for name, value in g.state_dict().items()}
    modes = [layer.training for layer in g.modules()]
    found = g.sample(5, generator=3)
    assert [layer.training for layer in g.modules()] == modes
    for name, value in g.state_dict().items():
        assert torch.equal(value, before[name]), name
    z = torch.randn(5, 16, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(found, g.eval()(z).detach())
    assert not found.requires_grad
    torch.testing.assert_close(found[:1], g(z[:1]).detach())


def test_other_normalisations_take_the_place():
    names = {type(layer) for layer in DCGANDiscriminator(16, norm=nn.Identity).modules()}
    assert nn.BatchNorm2d not in names
    g = DCGANGenerator(8, norm=lambda c: VirtualBatchNorm(c, 6))
    g = ReferenceBatch(moved(g), torch.randn(6, 16).double())
    assert (slope_of_first(g, torch.randn(4, 16).double())[1:] == 0).all()


def test_a_game_of_both_learns_that_pixels_agree():
    """Data are all light or all dark; samples start grey. Which shades it finds is not promised."""
    torch.manual_seed(0)
    g, d = DCGANGenerator(4, 2, 4, n_halvings=1), DCGANDiscriminator(4, 4, n_halvings=1)

    def data(n):
        return (2.0 * torch.randint(2, (n, 1, 1, 1)) - 1).expand(n, 1, 4, 4) * 0.8

    of_d = lambda step: discriminator_loss(d(data(32)), d(g(torch.randn(32, 2))))  # noqa: E731
    of_g = lambda step: generator_loss(d(g(torch.randn(32, 2))))  # noqa: E731
    one, two = (torch.optim.Adam(m.parameters(), 0.01, (0.5, 0.999)) for m in (d, g))
    play(Player(of_d, one), Player(of_g, two), 100, progress=False)
    assert g.sample(500, 0).mean((1, 2, 3)).abs().mean() > 0.4  # ten seeds: 0.63 to 0.85


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DCGANGenerator(6), r"multiple of 2 \*\* n_halvings = 4, got 6"),
        (lambda: DCGANDiscriminator(12, n_halvings=3), r"n_halvings = 8, got 12"),
        (lambda: DCGANGenerator(8, n_halvings=0), "n_halvings must be an int of at least 1, got 0"),
        (lambda: DCGANGenerator(8.0), "size must be an int of at least 1, got 8.0"),
        (lambda: DCGANGenerator(8, 0), "z_dim must be an int of at least 1, got 0"),
        (lambda: DCGANGenerator(8, 2, 0), "n_features must be an int of at least 1, got 0"),
        (lambda: DCGANDiscriminator(8, 2, 0), "n_channels must be an int of at least 1, got 0"),
        (lambda: DCGANGenerator(8)(torch.zeros(2, 3)), r"z must have shape \(N, 16\), got"),
        (lambda: DCGANGenerator(8)(torch.zeros(2, 16) / 0), "z must be finite, got NaN"),
        (lambda: DCGANGenerator(8)(torch.zeros(2, 16).double()), "float32, got torch.float64"),
        (lambda: DCGANGenerator(8).sample(0), "n must be an int of at least 1, got 0"),
        (lambda: DCGANGenerator(8).sample(2, 1.5), "seed must be an int or a torch.Generator"),
        (
            lambda: DCGANDiscriminator(8)(torch.zeros(2, 1, 8, 7)),
            r"x must have shape \(N, 1, 8, 8\) and dtype torch.float32, got shape \(2, 1, 8, 7\)",
        ),
        (lambda: DCGANDiscriminator(8)(torch.zeros(0, 1, 8, 8)), r"got shape \(0, 1, 8, 8\)"),
        (lambda: DCGANDiscriminator(8)(torch.zeros(2, 1, 8, 8).long()), "and torch.int64"),
    ],
)
def test_bad_networks_and_images_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
