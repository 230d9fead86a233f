"""Lecture 8: a WaveNet's sampler beside full passes, and a student beside its teacher."""

from __future__ import annotations

import torch

from dgm_course.data import LaggedProcess
from dgm_course.sequences import WaveNet
from tests.benchmarks.harness import Row, in_turn


@torch.no_grad()
def sampling() -> list[Row]:
    """One series from 6 layers of 24 channels, of kernel 2: a field of 64 samples."""
    torch.manual_seed(0)
    model = WaveNet(6)
    times = in_turn(
        {
            method: lambda method=method: model.sample(1, 1024, method=method)
            for method in ("cached", "window", "full")
        },
        rounds=3,
    )
    what = "WaveNet: 1,024 samples, what was read is kept"
    return [
        Row(what, times["cached"], times["window"], "a pass over the field", 1 / 3.5),
        Row(what, times["cached"], times["full"], "a pass over all so far", 1 / 8),
    ]


@torch.no_grad()
def student() -> list[Row]:
    """A student of 16 channels, one pass over noise, beside a teacher of 24, sample by sample."""
    torch.manual_seed(0)
    teacher, pupil = WaveNet(6), WaveNet(6, 16)

    def write(n: int, length: int) -> None:
        z = torch.randn(n, length)
        mean, log_scale = pupil(z)
        mean + log_scale.exp() * z

    rows = []
    for n, length, method, limit in (
        (1, 1024, "cached", 1 / 30),
        (16, 1024, "cached", None),
        (1, 2048, "full", 1 / 1000),
    ):
        times = {
            "ours": lambda n=n, length=length: write(n, length),
            "teacher": lambda n=n, length=length, m=method: teacher.sample(n, length, method=m),
        }
        seconds = in_turn(times, rounds=5 if method == "cached" else 2)
        what = f"student: {n} x {length:,} samples in one pass"
        rows.append(Row(what, seconds["ours"], seconds["teacher"], f"its {method} teacher", limit))
    return rows


def training_step() -> list[Row]:
    """A step on 16 series of 256 samples; a notebook takes 300 of them."""
    torch.manual_seed(0)
    model, x = WaveNet(6), LaggedProcess(48).sample(16, 256, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(x)).mean().backward()
        optimizer.step()

    times = in_turn({"ours": step})
    return [Row("WaveNet: a training step on 16 x 256 samples", times["ours"], 0.05, "50 ms", 1.0)]


SECTIONS = (sampling, student, training_step)
