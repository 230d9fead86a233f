"""The contract of every flow layer: g carries noise to data, f carries data back to noise."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dgm_course.checks import check_points


class Bijection(nn.Module, ABC):
    """An invertible map x = g(z) of ℝᴰ with inverse z = f(x), each with its own log|det|.

    A subclass defines both directions and calls `check` in each. It chooses which of the two has a
    formula; the other may need a search, or D steps.

    Points are vectors ``(N, D)`` outside for images, too, with D = C · H · W: a layer that works
    on an image takes its size when it is made, and unfolds the vector inside. So every flow goes
    into `FlowModel`, and every property test runs over it.

    Lecture 7 brings what is built from other bijections, under the same contract: a chain of
    layers, whose first is the one next to the noise; the inverse of a layer, which exchanges
    ``forward`` and ``inverse``; and a permutation of the features, whose log|det| is 0.
    """

    dim: int  # D, the number of features

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and log|det ∂g/∂z|: noise ``(N, D)`` to data ``(N, D)`` and nats ``(N,)``."""

    @abstractmethod
    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) and log|det ∂f/∂x|: data ``(N, D)`` to noise ``(N, D)`` and nats ``(N,)``."""

    def check(self, points: Tensor, name: str) -> None:
        """Raise a ValueError unless ``points`` is a finite ``(N, D)`` in the weights' dtype."""
        weight = next(self.parameters(), points)  # a permutation has no weights: any dtype will do
        check_points(points, self.dim, weight.dtype, name)


def log_det_of_tanh_layer(h: Tensor, slope: Tensor) -> Tensor:
    """log(1 + h′ · (slope − 1)) for h = tanh(a), h′ = 1 − h², where slope > 0.

    Written as log(h² + (1 − h²) · slope), a sum of two terms that are not negative: nothing is
    subtracted, so the result stays finite where slope − 1 rounds to −1.
    """
    h2 = h * h
    return torch.log(h2 + (1 - h2) * slope)
