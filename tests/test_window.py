"""The decoder with a window; the properties of every image model are in test_autoregressive."""

import pytest
import torch

from dgm_course.autoregressive import (
    WindowPixelCNN,
    count_blind,
    sees_by_gradient,
    visible_by_formula,
    visible_by_gradient,
    visible_pixels,
)
from tests.autoregressive import conditions, images, make, strong


@pytest.mark.parametrize("window", range(6))
@pytest.mark.parametrize("n_layers", [1, 3])
def test_sees_the_whole_window_and_nothing_else(window, n_layers):
    torch.manual_seed(0)
    model = strong(WindowPixelCNN(2, window=window, n_features=8, n_layers=n_layers))
    centre = torch.arange(-window, window + 1)
    above, left = centre[:, None] < 0, (centre[:, None] == 0) & (centre < 0)
    expected = above | left
    for field in (visible_pixels(model), visible_by_gradient(model)):
        assert torch.equal(field, expected)
        assert count_blind(field) == 0
    assert torch.equal(visible_by_formula(2 * window + 1, 1), expected)


def test_within_an_image():
    """Row and column of each seen pixel are within the window, by gradient on 5 × 6."""
    model = strong(WindowPixelCNN(3, window=2, n_features=8))
    sees = sees_by_gradient(model, (5, 6), n_images=20)
    i, j = torch.arange(30) // 6, torch.arange(30) % 6
    up, across = i[:, None] - i, (j[:, None] - j).abs()
    earlier = torch.arange(30)[:, None] > torch.arange(30)
    assert torch.equal(sees, earlier & (up <= 2) & (across <= 2))


def test_the_longer_side_less_1_is_the_whole_past():
    model = strong(WindowPixelCNN(3, window=4, n_features=8))
    assert torch.equal(
        sees_by_gradient(model, (3, 5), n_images=20), torch.ones(15, 15).tril(-1) > 0
    )


@pytest.mark.parametrize("name", ["window-0", "window-0-context"])
def test_at_0_pixels_are_independent(name):
    model = make(name)
    x, told = images(model, 2, (3, 4)), conditions(model, 2, (3, 4))
    other = {k: v if v is None else v.clone() for k, v in told.items()}
    torch.testing.assert_close(model(x, **told), model(2 - x, **other), atol=0, rtol=0)
    assert not sees_by_gradient(model, (3, 4)).any()


def test_at_0_a_channel_sees_those_before_it_at_its_pixel():
    model = make("window-0-rgb-context")
    expected = torch.block_diag(*[torch.ones(3, 3).tril(-1)] * 4) > 0
    assert torch.equal(sees_by_gradient(model, (2, 2), n_images=20), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": -1}, "window must be an int of at least 0, got -1"),
        ({"window": 1.0}, "window must be an int of at least 0, got 1.0"),
        ({"window": True}, "window must be an int of at least 0, got True"),
        ({"window": 1, "n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        ({"window": 1, "n_features": 0}, "n_features must be an int of at least 1, got 0"),
        ({"window": 1, "n_channels": 3, "n_features": 2}, "got 2 features for 3 channels"),
        ({"window": 1, "n_context": 0}, "n_context must be an int of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        WindowPixelCNN(3, **options)
