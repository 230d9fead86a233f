"""Lecture 21: a denoiser's training step beside a bare loop's, and digits drawn by DDIM."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from dgm_course.data import digits
from dgm_course.diffusion import (
    ConvNetwork,
    CosineSchedule,
    Denoiser,
    DenseNetwork,
    ddim,
    time_grid,
)
from dgm_course.training import training_steps
from tests.benchmarks.harness import Row, in_turn

SIZE = (1, 8, 8)


def bare_step(model: Denoiser, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    """What anyone would write for ε and this schedule, around the same network."""
    optimizer.zero_grad()
    t = torch.rand(len(x))
    first = 0.5 * torch.pi * 0.008
    alpha = (first + 0.5 * torch.pi * 0.987 * t).cos() / torch.tensor(first).cos()
    sigma = (1 - alpha.square()).sqrt()
    noise = torch.randn_like(x)
    x_t = alpha[:, None, None, None] * x + sigma[:, None, None, None] * noise
    angles = t[:, None] * model.waves
    c = model.of_time(torch.cat([angles.sin(), angles.cos()], 1))
    loss = (model.network(x_t, torch.nn.functional.silu(c)) - noise).square().flatten(1).sum(1)
    loss = loss.mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    loss.item()


def steps() -> list[Row]:
    """128 digits through the convolutional denoiser: a step of Adam, gradients clipped in both."""
    x = digits("train").images[:128].float() / 8 - 1
    runs = {}
    for name in ("ours", "bare"):
        torch.manual_seed(0)
        model = Denoiser(ConvNetwork(SIZE), CosineSchedule())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        if name == "bare":
            runs[name] = lambda m=model, o=optimizer: bare_step(m, o, x)
        else:
            loop = training_steps(lambda _, m=model: m.loss(x), optimizer, 10**6, None, 1.0)
            runs[name] = lambda loop=loop: next(loop)
    times = in_turn(runs, rounds=60, of_all=min)
    what = "Denoiser, ConvNetwork: 128 digits, a training step"
    return [Row(what, times["ours"], times["bare"], "a bare loop", 1.05)]


def samples() -> list[Row]:
    """1,000 digits by 50 steps of DDIM, in seconds of this process's core."""
    rows = []
    for network, what in (
        (DenseNetwork(SIZE, 256), "DenseNetwork"),
        (ConvNetwork(SIZE), "ConvNet"),
    ):
        model = Denoiser(network, CosineSchedule()).requires_grad_(False)
        z, times = model.start(1000, SIZE, 0), time_grid(50)
        ddim(model, z[:10], times)
        start = time.process_time()
        ddim(model, z, times)
        seconds = time.process_time() - start
        limit = 1.0 if what == "DenseNetwork" else None
        rows.append(Row(f"ddim, {what}: 1,000 digits, 50 steps", seconds, 2.0, "2 s", limit))
    return rows


SECTIONS = (steps, samples)
