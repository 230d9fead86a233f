"""Lecture 20: a step through reversible blocks, its time and its memory, beside three others."""

from __future__ import annotations

import copy

import revtorch
import torch
from torch import Tensor, nn

from dgm_course.reversible import (
    ResidualSequence,
    ReversibleBlock,
    ReversibleSequence,
    saved_bytes,
)
from tests.benchmarks.harness import Row, alone, in_turn

N, CHANNELS, SIDE, BLOCKS = 32, 32, 8, 32
SETUP = """
import torch
from tests.benchmarks.reversible import images, models, step
torch.set_num_threads(1)
model, x = models({n})["{name}"], images()
step(models(1)["{name}"], x)  # what a library's first call allocates
"""


def images() -> Tensor:
    return torch.randn(N, CHANNELS, SIDE, SIDE, requires_grad=True)


def network() -> nn.Sequential:
    c = CHANNELS // 2
    first, second = (nn.Conv2d(c, c, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


def models(n: int = BLOCKS) -> dict[str, nn.Module]:
    """All of the same numbers."""
    torch.manual_seed(0)
    blocks = [ReversibleBlock(network(), network()) for _ in range(n)]
    theirs = [revtorch.ReversibleBlock(copy.deepcopy(b.f), copy.deepcopy(b.g)) for b in blocks]
    return {
        "ours": ReversibleSequence(blocks),
        "plain": ResidualSequence(blocks),
        "checkpointed": ResidualSequence(blocks, checkpoint_every=1),
        "revtorch": revtorch.ReversibleSequence(nn.ModuleList(theirs)),
    }


def step(model: nn.Module, x: Tensor) -> None:
    """Forward and backward; the gradients are put away."""
    x.grad = None
    model.zero_grad()
    model(x).square().mean().backward()


def times() -> list[Row]:
    """Forward and backward of 32 blocks of 3 × 3 convolutions, 32 images of 32 channels."""
    x, found = images(), models()
    grads = {}
    for name, model in found.items():
        step(model, x)
        grads[name] = x.grad
    for name, grad in grads.items():  # in the mean: rounding may open or close a ReLU
        assert (grad - grads["plain"]).norm() < 1e-3 * grads["plain"].norm(), name
    seconds = in_turn({k: lambda m=m: step(m, x) for k, m in found.items()}, 12, min)
    what = f"ReversibleSequence: a step of {BLOCKS} blocks, {N} × {CHANNELS} × {SIDE} × {SIDE}"
    peers = {"plain": ("plain backpropagation", 1.6), "checkpointed": ("every block checkpointed",
        1.1), "revtorch": ("revtorch", 1.2)}  # fmt: skip
    return [
        Row(what, seconds["ours"], seconds[name], peer, limit)
        for name, (peer, limit) in peers.items()
    ]


def memory() -> list[Row]:
    """What autograd keeps of 32 blocks, and by how much the peak of a step grows from 4 to 32."""
    found, x = models(), images()
    ours, plain = (saved_bytes(found[name], x) / 1e9 for name in ("ours", "plain"))
    rows = [Row("the same: saved tensors, MB", ours, plain, "plain backpropagation", 0.02)]
    grown = {}
    for name in ("ours", "plain"):
        peaks = [alone(SETUP.format(n=n, name=name), "step(model, x)")[1] for n in (4, BLOCKS)]
        grown[name] = (peaks[1] - peaks[0]) / 1e3
    what = f"growth of the peak from 4 to {BLOCKS} blocks, MB"
    rows.append(Row(what, grown["ours"], grown["plain"], "plain backpropagation", 0.1))
    return rows


SECTIONS = (times, memory)
