"""Lecture 17: what a slider asks of the style generator, up to the PNG."""

from __future__ import annotations

import torch

from dgm_course.gan import StyleGenerator, mix_styles
from dgm_course.plots import figure, to_png
from tests.benchmarks.harness import Row, in_turn


def pictures() -> list[Row]:
    """A table of mixed styles, and samples at another ψ, each as a control's callback makes it."""
    torch.manual_seed(0)
    g = StyleGenerator(16).eval().requires_grad_(False)
    sources, destinations, noise = g.draw_styles(6), g.draw_styles(6), g.noise(36)
    fig = figure()
    image = fig.add_subplot().imshow(torch.zeros(96, 96, 3))

    def mixed() -> torch.Tensor:
        a, b = sources.repeat_interleave(6, 0), destinations.repeat(6, 1, 1)
        return g.synthesise(mix_styles(a, b, 1), noise)

    def drawn() -> bytes:
        sheet = mixed().view(6, 6, 3, 16, 16).permute(0, 3, 1, 4, 2).reshape(96, 96, 3)
        image.set_data((sheet + 1) / 2)
        return to_png(fig)

    makes = {"6 × 6 mixed styles": mixed, "the same, drawn and encoded": drawn}
    makes["36 samples at ψ = 0.7"] = lambda: g.sample(36, 0.7, generator=0)
    times = in_turn(makes, of_all=min)  # type: ignore[arg-type]
    limits = dict(zip(makes, (0.3, 1.0, 0.3), strict=True))
    return [
        Row(f"StyleGenerator(16), {what}", times[what], 0.1, "100 ms", limit)
        for what, limit in limits.items()
    ]


SECTIONS = (pictures,)
