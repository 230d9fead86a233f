"""What a run looks like so far: its curve, and images that its model draws."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dgm_course.files import write_whole
from dgm_course.runs.history import read_history


def draw_run(out: Path, name: str, samples: Tensor) -> None:
    """Write ``curve.png`` and ``samples.png`` beside the history.

    Args:
        out: the run's folder, with its ``history.jsonl``.
        name: of the recipe.
        samples: images ``(n, H, W)``, 1 is ink.
    """
    from dgm_course.plots import axes, figure, images, lines, to_png

    trained = [line for line in read_history(out / "history.jsonl") if "seconds" in line]
    keys = [key for key in (trained or [{}])[0] if key not in ("step", "seconds")]
    curve, sheet = figure(), figure(6.4, 6.4)
    lines(
        axes(curve)[0],
        [line["step"] for line in trained],
        {key: [line[key] for line in trained] for key in keys},
        xlabel="step",
        ylabel="mean loss of the steps since the point before",
        title=name,
    )
    images(axes(sheet)[0], samples.clamp(0, 1).cpu().numpy(), n_columns=8)
    write_whole(out / "curve.png", to_png(curve))
    write_whole(out / "samples.png", to_png(sheet))
