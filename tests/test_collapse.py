import math

import pytest
import torch

from dgm_course.vae import active_units


def test_a_unit_is_active_when_its_mean_varies():
    torch.manual_seed(0)
    means = torch.randn(5000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    assert active_units(means).tolist() == [True, True, False, False]
    assert active_units(means, 0.5).tolist() == [True, False, False, False]
    assert active_units(means, 0.0).tolist() == [True, True, True, False]


def test_the_threshold_is_of_the_variance():
    means = torch.tensor([[-0.11], [0.11]]).expand(2, 1).repeat(500, 1)
    assert active_units(means).all()  # 0.0121
    assert not active_units(0.8 * means).any()  # 0.0077, though its spread is 0.09


@pytest.mark.parametrize(
    ("means", "threshold", "words"),
    [
        (torch.zeros(3), 0.01, "means must have shape"),
        (torch.zeros(0, 2), 0.01, "empty batch"),
        (torch.zeros(1, 2), 0.01, "at least two points, got 1"),
        (torch.tensor([[0.0], [math.nan]]), 0.01, "must be finite"),
        (torch.zeros(3, 2), -0.01, "threshold must be at least 0"),
        (torch.zeros(3, 2), math.nan, "threshold must be at least 0"),
    ],
)
def test_refuses(means, threshold, words):
    with pytest.raises(ValueError, match=words):
        active_units(means, threshold)
