"""What every model family shares: estimates with their errors, units, checks on a batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution


class Estimate(NamedTuple):
    """A Monte-Carlo average with its standard error, both in the units of what was averaged."""

    value: float
    standard_error: float

    @classmethod
    def from_samples(cls, samples: Tensor) -> Estimate:
        """mean ± std / √S of S independent samples, shape ``(S,)``."""
        if samples.ndim != 1 or len(samples) < 2:
            raise ValueError(
                f"samples must have shape (S,) with S >= 2, got shape {tuple(samples.shape)}"
            )
        samples = samples.detach().double()
        return cls(samples.mean().item(), samples.std().item() / len(samples) ** 0.5)

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.standard_error:.4f}"


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    """log (1/S Σ exp vₛ) along ``dim``, of size S ≥ 1, without overflow; that axis is gone."""
    if values.shape[dim] == 0:
        raise ValueError(f"values must not be empty along dim {dim}, got {tuple(values.shape)}")
    return torch.logsumexp(values, dim) - math.log(values.shape[dim])


def bits_per_dim(nats: Tensor, n_dims: int) -> Tensor:
    """nats / (D ln 2): the one conversion from nats per example to bits per dimension.

    Args:
        nats: a negative log-likelihood per example, of any shape.
        n_dims: the number of dimensions D of an example: C · H · W for an image.
    """
    if n_dims < 1:
        raise ValueError(f"n_dims must be at least 1, got {n_dims}")
    return nats / (n_dims * math.log(2))


def check_points(x: Tensor, n_features: int, dtype: torch.dtype, name: str) -> None:
    """Raise a ValueError unless x is a non-empty batch ``(N, n_features)`` of finite numbers.

    Reading the values makes a GPU wait, so that part follows the one switch of
    ``torch.distributions``, ``Distribution.set_default_validate_args``; `training.fit` turns it
    off inside its loop.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ValueError(f"{name} must have shape (N, {n_features}), got shape {tuple(x.shape)}")
    if len(x) == 0:
        raise ValueError(f"{name} must hold at least one point, got an empty batch")
    if x.dtype != dtype:
        raise ValueError(
            f"{name} must have the dtype of the model's weights, {dtype}, got {x.dtype}; "
            f"convert it with {name}.to({dtype})"
        )
    if Distribution._validate_args and not torch.isfinite(x).all():
        n_bad = int((~torch.isfinite(x)).any(dim=1).sum())
        raise ValueError(f"{name} must be finite, got NaN or inf in {n_bad} of {len(x)} points")
