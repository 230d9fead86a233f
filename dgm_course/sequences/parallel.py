"""Several students on top of one another, as one that still writes in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm_course.checks import check_instance, check_points


class StackedStudent(nn.Module):
    """x⁰ = z, xᵏ_t = μ_k(xᵏ⁻¹_<t) + σ_k(xᵏ⁻¹_<t) xᵏ⁻¹_t: K inverse autoregressive flows in a row.

    Each layer reads what the one before has written. x_t is still Gaussian given z_<t, of mean
    μ = μ_K + σ_K μ_(K−1) + … and scale σ = Π σ_k; but what one layer would have to do in a long sum
    over the noise is done in K short ones, as a resonance is by filters one after the other.

    Source: van den Oord et al. 2018, section 3 (four layers), https://arxiv.org/abs/1711.10433.

    Args:
        *layers: modules from ``(N, T)`` to mean and log-scale, as a `WaveNet` of real samples.

    Shapes: z ``(N, T)`` to mean and log-scale ``(N, T)`` of x_t given z_<t.

    Raises:
        ValueError: for no layers, what is no module, or z that is not ``(N, T)`` and finite.

    Example:
        >>> from dgm_course.sequences import WaveNet
        >>> mean, log_scale = StackedStudent(WaveNet(5), WaveNet(5))(torch.randn(2, 100))
        >>> mean.shape
        torch.Size([2, 100])
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers must be at least one, got none")
        for i, layer in enumerate(layers):
            check_instance(layer, nn.Module, f"layers[{i}]")
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of x_t given z_<t; x = mean + exp(log_scale) · z."""
        check_points(z, None, None, "z")
        mean, log_scale, x = torch.zeros_like(z), torch.zeros_like(z), z
        for layer in self.layers:
            layer_mean, layer_log_scale = layer(x)
            mean = layer_mean + layer_log_scale.exp() * mean
            log_scale = log_scale + layer_log_scale
            x = mean + log_scale.exp() * z
        return mean, log_scale
