"""AdaIN, the style generator beside a forward pass written out, and what a resolution decides."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, linear
from torch.nn.utils import vector_to_parameters

from dgm_course import data
from dgm_course.gan import (
    DCGANGenerator,
    StyleGenerator,
    adain,
    factor_control,
    mix_styles,
)
from dgm_course.gan.style import N_MEAN
from tests.contracts import strong

SMALL = {"z_dim": 5, "w_dim": 6, "n_features": 4}


def small(size=16, **changes):
    """In float64 with weights and noise strengths far from the gentle initial ones."""
    return strong(StyleGenerator(size, **SMALL | changes), scale=0.6)


def drawn(g, n, seed=0):
    """Different styles at every resolution, and noise."""
    source = torch.Generator().manual_seed(seed)
    styles = torch.randn(n, len(g.sizes), g.w_dim, generator=source, dtype=torch.float64)
    return styles, g.noise(n, source)


# --- AdaIN ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_channel_has_the_asked_mean_and_standard_deviation(dtype):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 4, 6, generator=source).to(dtype)
    x = x * torch.tensor([0.1, 1, 10])[:, None, None] + torch.tensor([1, 0, -5])[:, None, None]
    scale, shift = torch.randn(2, 5, 3, generator=source).to(dtype)
    y = adain(x, scale, shift)
    torch.testing.assert_close(y.mean((2, 3)), shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((2, 3), correction=0), scale.abs(), atol=1e-5, rtol=0)


def test_a_channels_own_two_numbers_are_gone_and_its_shape_is_left():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    scale, shift = torch.randn(2, 2, 3, dtype=torch.float64)
    y = adain(x, scale, shift)
    torch.testing.assert_close(adain(7 * x + 100, scale, shift), y, rtol=1e-6, atol=1e-6)
    for i in range(2):
        for c in range(3):
            pair = torch.stack([x[i, c].flatten(), y[i, c].flatten()])
            assert torch.corrcoef(pair)[0, 1] == pytest.approx(scale[i, c].sign().item())


def test_the_statistics_are_of_one_image_and_one_channel():
    """By hand, and unlike those of a batch."""
    x = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    scale, shift = torch.randn(2, 3, 2, dtype=torch.float64)
    y = adain(x, scale, shift)
    for i in range(3):
        for c in range(2):
            values = x[i, c].flatten().tolist()
            mean = math.fsum(values) / 20
            sd = (math.fsum((v - mean) ** 2 for v in values) / 20 + 1e-8) ** 0.5
            expected = [scale[i, c].item() * (v - mean) / sd + shift[i, c].item() for v in values]
            assert y[i, c].flatten().tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(adain(x[1:2], scale[1:2], shift[1:2]), y[1:2])


def test_a_constant_channel_becomes_the_shift():
    y = adain(torch.full((1, 2, 4, 4), 3.0), torch.full((1, 2), 5.0), torch.tensor([[1.0, -2.0]]))
    assert torch.equal(y, torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4))


# --- the generator ----------------------------------------------------------------------------


def by_hand(g, styles, noise):
    """The images, from the weights by their names, in torch's functions alone."""
    w = g.state_dict()
    h = w["constant"][None].repeat(len(styles), 1, 1, 1)
    for level in range(len(g.sizes)):
        for which in (0, 1):
            i = 2 * level + which
            if i > 0:
                if which == 0:
                    h = interpolate(h, scale_factor=2, mode="nearest")
                name = f"layers.{i}.convolution"
                h = conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)
            h = h + w[f"layers.{i}.strength"] * noise[level][:, which][:, None]
            h = leaky_relu(h, 0.2)
            name = f"layers.{i}.style"
            style = linear(styles[:, level], w[f"{name}.weight"], w[f"{name}.bias"])
            scale, shift = 1 + style[:, : len(w["constant"])], style[:, len(w["constant"]) :]
            normal = nn.functional.instance_norm(h, eps=1e-8)
            h = scale[..., None, None] * normal + shift[..., None, None]
    return torch.tanh(conv2d(h, w["to_image.weight"], w["to_image.bias"]))


@pytest.mark.parametrize(("size", "changes"), [(16, {}), (12, {"start": 3, "n_channels": 1})])
def test_images_are_those_of_the_formula(size, changes):
    g = small(size, **changes)
    styles, noise = drawn(g, 3)
    images = g.synthesise(styles, noise)
    assert images.shape == (3, changes.get("n_channels", 3), size, size)
    torch.testing.assert_close(images, by_hand(g, styles, noise), atol=1e-12, rtol=1e-9)
    z = torch.randn(3, 5, dtype=torch.float64)
    w = z / z.square().mean(1, keepdim=True).sqrt()
    for i in (0, 2, 4):
        w = leaky_relu(linear(w, g.mapping[i].weight, g.mapping[i].bias), 0.2)
    same = w[:, None].repeat(1, len(g.sizes), 1)
    torch.testing.assert_close(g.styles(z), same, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(g(z, noise), by_hand(g, g.styles(z), noise), atol=1e-12, rtol=1e-9)


def test_every_map_has_its_styles_mean_and_deviation():
    """Behind each of the layers: what one AdaIN gave is not given again."""
    g, found = small(), []
    for layer in g.layers:
        layer.register_forward_hook(lambda layer, given, h: found.append((layer, given[1], h)))
    g.synthesise(*drawn(g, 3))
    assert [h.shape[2] for *_, h in found] == [4, 4, 8, 8, 16, 16]
    for layer, w, h in found:
        scale, shift = layer.style(w).chunk(2, 1)
        torch.testing.assert_close(h.mean((2, 3)), shift, atol=1e-5, rtol=0)
        spread = h.std((2, 3), correction=0)
        torch.testing.assert_close(spread, (1 + scale).abs(), atol=1e-5, rtol=0)


def test_a_resolution_hears_its_own_style_and_no_finer_one():
    g = small()
    styles, noise = drawn(g, 2)
    sizes = list(g.sizes)

    def maps(styles):
        found = []
        hooks = [a.register_forward_hook(lambda *args: found.append(args[2])) for a in g.layers]
        g.synthesise(styles, noise)
        for hook in hooks:
            hook.remove()
        return found

    before = maps(styles)
    for level in range(len(sizes)):
        other = styles.clone()
        other[:, level] += 1
        is_same = [torch.equal(a, b) for a, b in zip(before, maps(other), strict=True)]
        assert is_same == [i < 2 * level for i in range(6)]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_image_sees_another_in_either_mode(mode):
    g = getattr(small(), mode)()
    styles, noise = drawn(g, 4)
    order = torch.tensor([2, 0, 3, 1])
    images = g.synthesise(styles, noise)
    permuted = g.synthesise(styles[order], [e[order] for e in noise])
    torch.testing.assert_close(permuted, images[order], atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(g.synthesise(styles[1:2], [e[1:2] for e in noise]), images[1:2])


def test_every_example_and_layer_has_noise_of_its_own():
    g = small()
    styles, noise = drawn(g, 1)
    images = g.synthesise(styles.expand(3, -1, -1))
    assert min((images[i] - images[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    maps = [e.flatten(2) for e in g.noise(50, 0)]
    for e, size in zip(maps, g.sizes, strict=True):
        assert e.shape == (50, 2, size**2)
        assert abs(e.mean()) < 4 / e.numel() ** 0.5
        assert abs(e.var() - 1) < 4 * (2 / e.numel()) ** 0.5
        assert len(e.unique()) > 0.999 * e.numel()
    for level in range(3):  # each map moves the image
        for which in (0, 1):
            moved = [e.clone() for e in noise]
            moved[level][:, which] += torch.randn(*noise[level].shape[2:])
            assert not torch.equal(g.synthesise(styles, moved), g.synthesise(styles, noise))
    still = g.synthesise(styles.expand(3, -1, -1), [0 * e for e in g.noise(3)])
    torch.testing.assert_close(still[0], still[1], atol=1e-12, rtol=0)


def test_noise_is_silent_at_the_start():
    g = StyleGenerator()
    z = torch.randn(2, 16)
    assert torch.equal(g(z), g(z))


def test_a_plain_generator_is_as_large():
    both = StyleGenerator(16), DCGANGenerator(16, 16, 27, 3)
    style, plain = (sum(p.numel() for p in g.parameters()) for g in both)
    assert abs(style / plain - 1) < 0.02


@pytest.mark.parametrize(
    ("size", "start", "sizes"), [(4, 4, (4,)), (32, 4, (4, 8, 16, 32)), (10, 5, (5, 10))]
)
def test_sizes_double(size, start, sizes):
    g = StyleGenerator(size, **SMALL, start=start)
    assert g.sizes == sizes
    assert g.sample(2).shape == (2, 3, size, size)
    assert g.draw_styles(2, mixing=1.0).shape == (2, len(sizes), 6)


# --- styles -----------------------------------------------------------------------------------


def test_mixing_takes_the_coarse_styles_of_the_first():
    a, b = torch.randn(2, 4, 3, 2)
    for cut in range(4):
        mixed = mix_styles(a, b, cut)
        assert torch.equal(mixed[:, :cut], a[:, :cut])
        assert torch.equal(mixed[:, cut:], b[:, cut:])
    each = mix_styles(a, b, torch.tensor([0, 1, 2, 3]))
    for i in range(4):
        assert torch.equal(each[i], mix_styles(a, b, i)[i])


def test_training_mixes_so_many_and_everywhere():
    g, n = small(), 4000
    torch.testing.assert_close(g.draw_styles(9, generator=0), g.draw_styles(9, 0.0, 0))
    for mixing in (0.0, 0.3, 1.0):
        styles = g.draw_styles(n, mixing, generator=1)
        is_new = (styles[:, 1:] != styles[:, :-1]).any(2)  # (n, 2): where the second z begins
        assert is_new.sum(1).max() <= 1
        for place in range(2):
            share, due = is_new[:, place].double().mean().item(), mixing / 2
            assert abs(share - due) <= 4 * (due * (1 - due) / n) ** 0.5
    assert g.draw_styles(3, 1.0).requires_grad


def test_truncation_goes_to_the_mean_style():
    g = small()
    styles, _ = drawn(g, 3)
    z = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(5)).double()
    many = g.styles(z)[:, 0]
    mean = g.mean_style()
    assert ((mean - many.mean(0)).abs() < 5 * many.std(0) / N_MEAN**0.5).all()
    assert torch.equal(mean, g.mean_style())
    assert torch.equal(g.truncate(styles, 1), styles)
    assert torch.equal(g.truncate(styles, 0.0), mean.expand(3, 3, 6))
    for psi in (0.3, 0.7):
        found = g.truncate(styles, psi) - mean
        torch.testing.assert_close(found, psi * (styles - mean))
    each = g.truncate(styles, torch.tensor([0.0, 0.5, 1.0]))
    for level, psi in enumerate((0.0, 0.5, 1.0)):
        torch.testing.assert_close(each[:, level], g.truncate(styles, psi)[:, level])


def test_the_mean_is_of_the_weights_as_they_are():
    g = small()
    before = g.mean_style()
    with torch.no_grad():
        g.mapping[-2].bias += 1000
    assert (g.mean_style() - before).min() > 100


def test_samples_repeat_and_fall_together_as_psi_falls():
    g = small()
    assert torch.equal(g.sample(4, generator=3), g.sample(4, generator=3))
    assert not torch.equal(g.sample(4, generator=3), g.sample(4, generator=4))
    source = torch.Generator().manual_seed(3)
    styles = g.draw_styles(4, generator=source)
    images = g.synthesise(g.truncate(styles, 0.5), g.noise(4, source))
    torch.testing.assert_close(g.sample(4, 0.5, generator=3), images)
    with torch.no_grad():
        for layer in g.layers:
            layer.strength.zero_()
    spread = [g.sample(64, psi, generator=0).std(0).mean().item() for psi in (1, 0.7, 0.3, 0)]
    assert spread[0] > spread[1] > spread[2] > spread[3]
    assert spread[3] < 1e-6


# --- what a resolution decides ----------------------------------------------------------------


class Styles(StyleGenerator):
    """Whose image is its styles, so that what a swap does is known."""

    def synthesise(self, styles, noise=None):
        return styles


def measured(styles):
    """3 w_00 + w_11 − w_22 / 2, of which each resolution has a term, and w_25."""
    terms = styles.diagonal(0, 1, 2)[:, :3] * torch.tensor([3.0, 1.0, -0.5])
    return torch.stack([terms.sum(1), styles[:, 2, 5]], 1)


def test_shares_are_ratios_of_mean_changes():
    g, n = Styles(16, **SMALL).double(), 400
    found = factor_control(g, measured, n, seed=0)
    source = torch.Generator().manual_seed(0)
    w = [g.draw_styles(n, generator=source)[:, 0] for _ in "ab"]
    apart = (w[1] - w[0])[:, :3] * torch.tensor([3.0, 1.0, -0.5])  # (n, 3)
    torch.testing.assert_close(found.share[:, 0], apart.abs().mean(0) / apart.sum(1).abs().mean())
    assert found.share[:, 1].tolist() == [0, 0, 1]
    assert found.standard_error[:, 1].tolist() == [0, 0, 0]
    assert found.n_pairs.tolist() == [n, n]
    torch.testing.assert_close(found.change[0], apart.sum(1).abs().mean())


def test_the_error_is_that_of_the_ratio():
    """Beside the spread of many repetitions."""
    g = Styles(16, **SMALL).double()
    runs = [factor_control(g, measured, 100, seed=seed) for seed in range(300)]
    spread = torch.stack([run.share[:, 0] for run in runs]).std(0)
    said = torch.stack([run.standard_error[:, 0] for run in runs]).mean(0)
    assert (said / spread - 1).abs().max() < 0.2


def test_a_hue_comes_round_and_what_cannot_be_seen_is_left_out():
    """Of four equal pairs; the image itself, a swap at each resolution, and all swapped."""
    answers = iter([[0.95, 1.0], [0.05, 3.0], [0.95, 1.0], [0.45, 2.0], [1.15, 2.0]])

    def measure(styles):
        factors = torch.tensor(next(answers)).repeat(4, 1)
        factors[0, 1] = math.nan
        return factors

    found = factor_control(Styles(16, **SMALL), measure, 4, periods=(1.0, None))
    torch.testing.assert_close(found.share[:, 0], torch.tensor([0.5, 0, 2.5]).double())
    assert found.share[:, 1].tolist() == [2, 0, 1]
    assert found.n_pairs.tolist() == [4, 3]
    assert found.change.tolist() == [pytest.approx(0.2), 1]


def test_only_one_style_is_swapped_at_a_time_and_the_noise_is_held():
    g, seen = small(), []

    def measure(images):
        seen.append(images)
        return images.mean((2, 3))

    factor_control(g, measure, 5, seed=7)
    source = torch.Generator().manual_seed(7)
    a, b = (g.draw_styles(5, generator=source) for _ in "ab")
    noise = g.noise(5, source)
    expected = [a]
    for level in range(3):
        expected.append(torch.cat([a[:, :level], b[:, level : level + 1], a[:, level + 1 :]], 1))
    for images, styles in zip(seen, [*expected, b], strict=True):
        torch.testing.assert_close(images, by_hand(g, styles, noise), atol=1e-12, rtol=1e-9)


# --- bad input --------------------------------------------------------------------------------

G = StyleGenerator(16, **SMALL)
STYLES = torch.zeros(2, 3, 6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: StyleGenerator(24), "size must be start = 4 times a power of two, got 24"),
        (lambda: StyleGenerator(2), "size must be start = 4 times a power of two, got 2"),
        (lambda: StyleGenerator(16, start=1), "start must be an int of at least 2, got 1"),
        (lambda: StyleGenerator(16, start=3), "start = 3 times a power of two, got 16"),
        (lambda: G(torch.zeros(2, 4)), r"z must have shape \(N, 5\), got shape \(2, 4\)"),
        (lambda: G(torch.zeros(2, 5) / 0), "z must be finite"),
        (lambda: G(torch.zeros(2, 5).double()), "float32, got torch.float64"),
        (lambda: G.synthesise(STYLES[:, 1:]), r"styles must have shape \(2, 3, 6\), got .*2, 2, 6"),
        (lambda: G.synthesise(STYLES, G.noise(2)[:2]), "noise must hold 3 tensors, got 2"),
        (lambda: G.synthesise(STYLES, G.noise(1)), r"noise\[0\] must have shape \(2, 2, 4, 4\)"),
        (lambda: G.sample(0), "n must be an int of at least 1, got 0"),
        (lambda: G.sample(2, psi=1.1), "psi must be at most 1, got 1.1"),
        (lambda: G.sample(2, psi=-0.1), "psi must be at least 0 and finite, got -0.1"),
        (lambda: G.truncate(STYLES, math.nan), "psi must be at least 0 and finite, got nan"),
        (lambda: G.truncate(STYLES, torch.zeros(2)), r"psi must have shape \(3,\)"),
        (lambda: G.truncate(STYLES, torch.tensor([0, 2, 1])), "psi must be at most 1, got 2"),
        (lambda: G.draw_styles(2, mixing=2), "mixing must be at most 1, got 2"),
        (lambda: mix_styles(STYLES, STYLES, 4), "crossover must be at most 3, got 4"),
        (lambda: mix_styles(STYLES, STYLES[:1], 1), r"b must have shape \(2, 3, 6\)"),
        (lambda: mix_styles(STYLES[0], STYLES[0], 1), r"a must have shape \(N, L, W\)"),
        (
            lambda: mix_styles(STYLES, STYLES, torch.tensor([0, 4])),
            "crossover must hold integers 0 to 3, got values from 0 to 4",
        ),
        (lambda: adain(torch.zeros(2, 3, 1, 1), *torch.zeros(2, 2, 3)), "at least 2 pixels"),
        (lambda: adain(torch.zeros(2, 3, 4), *torch.zeros(2, 2, 3)), "got shape"),
        (lambda: adain(torch.zeros(2, 3, 4, 4), *torch.zeros(2, 3)), r"scale must have .*\(2, 3\)"),
        (lambda: adain(torch.zeros(2, 3, 4, 4), *torch.zeros(2, 2, 3), eps=0), "eps must be"),
        (lambda: factor_control(G, lambda x: x[:, 0, 0, 0], 4), r"return shape \(4, F\)"),
        (lambda: factor_control(G, lambda x: x[:2, 0, 0], 4), r"return shape \(4, F\), got"),
        (lambda: factor_control(G, lambda x: 0 * x[:, 0, 0], 4), "measure must change when all"),
        (
            lambda: factor_control(G, lambda x: x[:, 0, 0, :2], 4, periods=[None]),
            "periods must hold one of each factor, 2, got 1",
        ),
        (lambda: factor_control(nn.Identity(), lambda x: x, 4), "must be a StyleGenerator"),
        (lambda: factor_control(G, lambda x: x[:, 0, 0], 1), "n must be an int of at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- what is stored ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long style", "long plain"])
def test_a_stored_generator_draws_what_was_measured(name):
    stored = data.results("style")
    g = StyleGenerator(16) if name == "long style" else DCGANGenerator(16, 16, 27, 3)
    vector = torch.from_numpy(stored[f"{name}/weights"])
    assert vector.element_size() * len(vector) <= 200_000
    kept = [*g.parameters(), *(b for b in g.buffers() if b.is_floating_point())]
    vector_to_parameters(vector.float(), kept)
    found = data.measured_factors((g.sample(2000, generator=0) + 1) / 2)
    found = torch.stack([found[key][:200] for key in ("size", "x", "y", "hue")], 1)
    expected = torch.from_numpy(stored[f"{name}/factors"][0]).double()
    assert (found - expected).abs().quantile(0.99, 0).max() < 0.02
