import math

import pytest
import torch

from dgm_course.autoregressive import (
    CausalityError,
    LogisticMixture,
    PixelCNNPlusPlus,
    all_images,
    check_causal,
    sees_by_gradient,
    shifted,
)
from tests.autoregressive import images, make, strong

NAMES = ["plus-plus", "plus-plus-deep", "plus-plus-rgb", "plus-plus-two-channels"]


@pytest.mark.parametrize(("n_levels", "n_channels", "size"), [(3, 1, (2, 4)), (3, 2, (2, 2))])
def test_all_6561_images_add_up_to_one(n_levels, n_channels, size):
    for seed in range(3):
        model = PixelCNNPlusPlus(n_levels, n_channels=n_channels, n_features=4, n_layers=1)
        p = strong(model, seed, scale=1.0).log_prob(all_images(n_levels, n_channels, size)).exp()
        assert abs(p.sum().item() - 1) < 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_log_probabilities(name):
    model = make(name)
    logits = model(images(model, 3, (6, 4)))
    assert logits.logsumexp(1).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_training_forms_the_observed_level_alone(name, monkeypatch):
    model = make(name)
    x = images(model, 3, (4, 4))
    expected = model.log_prob(x)
    monkeypatch.setattr(LogisticMixture, "log_probs", None)
    torch.testing.assert_close(model.log_prob(x), expected, atol=0, rtol=0)
    with pytest.raises(TypeError):
        model(x)


@pytest.mark.parametrize("size", [(2, 2), (6, 4), (2, 10)])
def test_any_even_sides_will_do(size):
    model = make("plus-plus")
    assert model.sample(2, size, generator=0).shape == (2, 1, *size)
    check_causal(model, size)


@pytest.mark.parametrize("size", [(5, 6), (6, 5), (3, 3), (1, 1)])
def test_odd_sides_are_refused_with_both_numbers(size):
    model = make("plus-plus")
    x = images(model, 2, size)
    words = f"images must have even sides, for the network halves both, got {size[0]} x {size[1]}"
    ways = [
        lambda: model(x),
        lambda: model.log_prob(x),
        lambda: model.sample(2, size),
        lambda: model.sample(2, size, given=x),
        lambda: check_causal(model, size),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=words):
            way()


@pytest.mark.parametrize(
    ("n_levels", "options", "words"),
    [
        (1, {}, "n_levels must be an int of at least 2, got 1"),
        (2, {"n_channels": 0}, "n_channels must be an int of at least 1, got 0"),
        (2, {"n_features": 0}, "n_features must be an int of at least 1, got 0"),
        (2, {"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        (2, {"n_components": 0}, "n_components must be an int of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(n_levels, options, words):
    with pytest.raises(ValueError, match=words):
        PixelCNNPlusPlus(n_levels, **options)


def seen_by_features(features_of, model, size):
    """Which pixels ``(H, W)`` a number computed from the image's values has a gradient in."""
    shape = (4, model.n_channels, *size)
    values = torch.randn(shape, dtype=torch.float64).requires_grad_()
    torch.autograd.grad((chosen := features_of(values)).sum(), values, retain_graph=True)
    (gradient,) = torch.autograd.grad((chosen * torch.randn_like(chosen)).sum(), values)
    return gradient.ne(0).any(0).any(0)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_feature_of_half_size_knows_pixels_before_its_block(n_layers):
    torch.manual_seed(0)
    model = strong(PixelCNNPlusPlus(2, n_features=3, n_layers=n_layers), scale=1.0)
    for layer in range(n_layers, 2 * n_layers):
        for i, j in ((0, 0), (1, 2), (2, 1), (3, 3)):

            def middle(values, layer=layer, i=i, j=j):
                outputs = model.pixels(values, model.rows(values))
                assert outputs[layer].shape == (4, 3, 4, 4)
                return outputs[layer][:, :, i, j]

            before = (torch.arange(64) < 8 * 2 * i + 2 * j).view(8, 8)
            assert not (seen_by_features(middle, model, (8, 8)) & ~before).any()


def test_every_feature_of_the_first_stream_knows_the_rows_above_alone():
    torch.manual_seed(0)
    model = strong(PixelCNNPlusPlus(2, n_features=3, n_layers=2), scale=1.0)
    for layer, feature in enumerate(model.rows(torch.zeros(1, 1, 8, 8, dtype=torch.float64))):
        scale = 8 // feature.shape[2]
        for i in range(feature.shape[2]):
            seen = seen_by_features(
                lambda values, layer=layer, i=i: model.rows(values)[layer][:, :, i], model, (8, 8)
            )
            assert not seen[scale * i :].any()
            assert seen[scale * i - 1].all() == (i > 0)


@pytest.mark.parametrize("n_levels", [2, 17, 256])
@pytest.mark.parametrize("n_components", [1, 5, 10])
def test_starts_near_uniform_at_any_number_of_levels(n_levels, n_components):
    torch.manual_seed(0)
    model = PixelCNNPlusPlus(n_levels, n_features=16, n_components=n_components)
    nats = -model.log_prob(images(model, 16, (8, 8))).mean().item() / 64
    assert abs(nats - math.log(n_levels)) < 0.5


def test_a_mixture_takes_three_numbers_for_each_component():
    """15 for a pixel of one channel, where a softmax takes as many as there are levels."""
    assert PixelCNNPlusPlus(17).head.out_channels == 15
    assert PixelCNNPlusPlus(256, n_channels=3, n_components=10).head.out_channels == 100


# --- what leaks is found --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plus-plus", "plus-plus-rgb"])
@pytest.mark.parametrize("what", ["shift_down", "shift_right"])
def test_a_shift_left_out_leaks(name, what, monkeypatch):
    model = make(name)
    monkeypatch.setattr(shifted, what, lambda x: x)
    with pytest.raises(CausalityError, match="row 0, column 0"):
        check_causal(model, (4, 4))


def test_a_shift_along_the_wrong_axis_leaks_or_makes_blind(monkeypatch):
    model = make("plus-plus")
    down = shifted.shift_down
    monkeypatch.setattr(shifted, "shift_right", down)
    sees = sees_by_gradient(model, (4, 4), n_images=8)
    assert not sees.triu().any()
    assert not sees[5, 4], "the left neighbour"
    monkeypatch.undo()
    monkeypatch.setattr(shifted, "shift_down", shifted.shift_right)
    with pytest.raises(CausalityError, match="row 0, column"):
        check_causal(model, (4, 4))


def test_a_halving_that_ends_below_its_row_leaks():
    model = make("plus-plus")
    model.rows.to_half.padding = (1, 1, 0, 1)  # rows 2 i and 2 i + 1
    with pytest.raises(CausalityError):
        check_causal(model, (4, 4))
