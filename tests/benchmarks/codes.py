"""Lecture 13: a quantiser's pass in training mode beside a peer's, its time and its memory."""

from __future__ import annotations

import torch
from vector_quantize_pytorch import VectorQuantize

from dgm_course.codes import VectorQuantizer
from tests.benchmarks.harness import Row, alone, in_turn

N, DIM, CODES = 65_536, 64, 1024
SETUP = f"""
import torch
from tests.benchmarks.codes import quantizers
torch.set_num_threads(1)
quantizer, x = quantizers()["{{name}}"], torch.randn(1, {N}, {DIM})
quantizer(x[:, :2048])  # what a library's first call allocates
"""


def quantizers() -> dict[str, torch.nn.Module]:
    """Both with averages, no restarts and no k-means start."""
    torch.manual_seed(0)
    ours = VectorQuantizer(CODES, DIM, decay=0.99)
    theirs = VectorQuantize(DIM, CODES, decay=0.99, commitment_weight=0.25)
    with torch.no_grad():
        theirs._codebook.embed.copy_(ours.codebook)
    return {"ours": ours.train(), "theirs": theirs.train()}


def passes() -> list[Row]:
    """65,536 vectors of 64 numbers, 1,024 codes: forward in training mode, averages moved."""
    both = quantizers()
    x = torch.randn(1, N, DIM)
    assert torch.equal(both["ours"].nearest(x), both["theirs"].eval()(x)[1])
    both["theirs"].train()
    times = in_turn({name: lambda q=q: q(x) for name, q in both.items()}, rounds=5)
    what = f"VectorQuantizer: {N:,} vectors, K = {CODES:,}, D = {DIM}, in training"
    peer = "vector-quantize-pytorch"
    rows = [Row(what, times["ours"], times["theirs"], peer, 0.2)]
    ours, theirs = (alone(SETUP.format(name=name), "quantizer(x)")[1] / 1e3 for name in both)
    rows.append(Row("the same: memory above what was there, MB", ours, theirs, peer, 1 / 8))
    return rows


SECTIONS = (passes,)
