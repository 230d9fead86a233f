"""The picture of the README: python docs/readme_picture.py writes docs/images/planar_flows.png.

Noise carried by the best flow of 32 planar layers onto the fork U4, from the results of lecture 1.
"""

from pathlib import Path

import numpy as np
import torch

from dgm_course import plots
from dgm_course.data import energy, results
from dgm_course.flows import DiagonalGaussian, FlowModel, PlanarFlow

ROOT = Path(__file__).parent.parent


def main() -> None:
    table = results("planar_flows")
    model = FlowModel(DiagonalGaussian(2), PlanarFlow(2, 32)).requires_grad_(False)
    weights = torch.tensor(table["U4/32/weights"][table["U4/32/kl"].argmin()])
    torch.nn.utils.vector_to_parameters(weights, model.parameters())

    torch.manual_seed(0)
    path = model.bijection.path(model.base.sample((1500,)))
    start = path[0] - model.base.mean
    colors = np.array([plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE])
    quadrant = 2 * (start[:, 0] > 0) + (start[:, 1] > 0)

    fig = plots.figure(12, 2.6)
    panels = plots.axes(fig, 1, 5)
    for ax, layer in zip(panels, (0, 8, 16, 32), strict=False):
        plots.points(ax, path[layer], color=colors[quadrant], size=3)
        title = f"after {layer} layers" if layer else "noise"
        ax.set(
            title=title, xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), xticks=[], yticks=[], aspect="equal"
        )
    grid = torch.tensor(plots.grid_points(4.6, 150), dtype=torch.float32)
    plots.density(panels[4], (-energy("U4", grid)).exp(), 4.6)
    panels[4].set(title="the target", xticks=[], yticks=[])
    (ROOT / "docs" / "images" / "planar_flows.png").write_bytes(plots.to_png(fig))


if __name__ == "__main__":
    main()
