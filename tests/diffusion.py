"""Schedules of each kind, and the means and weights of a mixture, for the tests of diffusion."""

from __future__ import annotations

import pytest
import torch

from dgm_course.diffusion import CosineSchedule, ExplodingSchedule, LinearSchedule

SCHEDULES = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "exploding": ExplodingSchedule(0.1, 20.0),  # milder than the default, where rounding is small
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
