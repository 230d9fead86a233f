import math

import pytest
import torch
from torch.distributions import Distribution

from dgm_course.probability import Estimate, bits_per_dim, check_points, log_mean_exp


def test_estimate_is_mean_and_standard_error():
    estimate = Estimate.from_samples(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert estimate.value == 2.5
    assert estimate.standard_error == pytest.approx((5 / 3) ** 0.5 / 2)
    assert str(Estimate(1.23456, 0.01)) == "1.2346 ± 0.0100"


def test_estimate_averages_in_float64():
    samples = 1e4 + torch.tensor([0.0, 1.0, 2.0, 3.0] * 1000)
    estimate = Estimate.from_samples(samples.requires_grad_())
    assert estimate.value == pytest.approx(10001.5, abs=1e-9)


@pytest.mark.parametrize("shape", [(1,), (0,), (3, 1)])
def test_estimate_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \(S,\) with S >= 2, got shape"):
        Estimate.from_samples(torch.zeros(shape))


def test_a_point_with_one_bad_coordinate_counts_once():
    points = torch.tensor([[0.0, float("nan")], [0.0, 0.0]])
    with pytest.raises(ValueError, match="NaN or inf in 1 of 2 points"):
        check_points(points, 2, torch.float32, "x")


def test_value_checks_follow_the_switch_of_torch_distributions():
    bad = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(ValueError, match="NaN or inf in 1 of 1 points"):
        check_points(bad, 2, torch.float32, "x")
    Distribution.set_default_validate_args(False)
    try:
        check_points(bad, 2, torch.float32, "x")
        with pytest.raises(ValueError, match=r"x must have shape \(N, 3\)"):
            check_points(bad, 3, torch.float32, "x")
    finally:
        Distribution.set_default_validate_args(True)


def test_log_mean_exp_averages_the_numbers_not_their_logs():
    values = torch.tensor([[1.0, 3.0], [2.0, 5.0]], dtype=torch.float64).log()
    torch.testing.assert_close(log_mean_exp(values, 1).exp(), values.new_tensor([2.0, 3.5]))
    torch.testing.assert_close(log_mean_exp(values, 0).exp(), values.new_tensor([1.5, 4.0]))
    assert log_mean_exp(torch.tensor([1000.0, 1000.0]), 0) == 1000
    with pytest.raises(ValueError, match=r"empty along dim 1, got \(3, 0\)"):
        log_mean_exp(torch.zeros(3, 0), 1)


def test_bits_per_dim_of_uniform_bytes_is_8():
    nats = torch.tensor([3072 * math.log(256)])  # a 32 x 32 colour image
    assert bits_per_dim(nats, 3072).item() == pytest.approx(8)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bits_per_dim(nats, 0)
