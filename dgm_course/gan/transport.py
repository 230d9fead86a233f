"""Earth to be moved: Wasserstein's distance of samples, and both linear programs behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dgm_course.checks import check_floating, check_points, check_tensor


class Matching(NamedTuple):
    """The cheapest way to pair two samples of one size."""

    distance: Tensor  # W₁, the mean length of a pair, scalar
    order: Tensor  # (N,) int64: x[i] goes to y[order[i]]


class Transport(NamedTuple):
    """The cheapest plan, and what it costs."""

    cost: float  # Σ_ij P_ij c_ij
    plan: Tensor  # P (N, M), float64: the mass that goes from i to j


class TransportCritic(NamedTuple):
    """The 1-Lipschitz function that tells two sets of weights apart best, and by how much."""

    value: float  # Σ_i (p_i − q_i) f_i
    f: Tensor  # (N,), float64, 0 at the first point


def wasserstein_distance(x: Tensor, y: Tensor) -> Tensor:
    """W₁ = ∫₀¹ |F_x⁻¹(u) − F_y⁻¹(u)| du on the line; in space min_σ (1/N) Σ_i ‖x_i − y_σ(i)‖₂.

    Exact, of the two samples: not of the densities behind them, from which it differs by an error
    that is about N^(−1/D) in D > 2 dimensions. On the line any two sizes will do, and a pass takes
    as long as two sorts; in space the sizes must be equal: see `optimal_matching`. Differentiable
    in x and y.

    Source: Peyré & Cuturi 2019, remark 2.30 and proposition 2.1, https://arxiv.org/abs/1803.00567.

    Args:
        x: sample ``(N,)`` or ``(N, D)``.
        y: sample ``(M,)`` or ``(M, D)``; M = N where D > 1.

    Returns:
        A scalar, in the units of x.

    Raises:
        ValueError: for fewer than two samples, numbers that are not finite, different features or
            dtypes, and different sizes where D > 1 (both numbers).

    Example:
        >>> wasserstein_distance(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([4.0, 5.0]))
        tensor(3.5000)
    """
    x, y = _samples(x, y)
    if x.shape[1] > 1:
        return optimal_matching(x, y).distance
    x, y = (sample[_order(sample), 0] for sample in (x, y))
    n, m = len(x), len(y)
    if n == m:
        return (x - y).abs().mean()
    # Both quantile functions are steps. In units of 1 / (n m) their ends are integers, and exact.
    ends = [step * torch.arange(1, size + 1, device=x.device) for size, step in ((n, m), (m, n))]
    end = torch.cat(ends).sort().values
    width = end.diff(prepend=end.new_zeros(1)).double() / (n * m)
    return ((x[(end - 1) // m] - y[(end - 1) // n]).abs() * width.to(x)).sum()


def optimal_matching(x: Tensor, y: Tensor) -> Matching:
    """The σ with the least Σ_i ‖x_i − y_σ(i)‖₂ of all N!, and W₁, the mean of these lengths.

    Between samples of one size the best plan splits no point. On the line it pairs the sorted
    samples; in space it is found by `scipy.optimize.linear_sum_assignment`, whose time grows as N³
    and which needs the N² distances.

    Source: as `wasserstein_distance`; the algorithm: Crouse 2016,
    https://doi.org/10.1109/TAES.2016.140952.

    Args:
        x: sample ``(N,)`` or ``(N, D)``; y: another of the same shape.

    Raises:
        ValueError: as `wasserstein_distance`; for different sizes, also on the line.

    Example:
        >>> x, y = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 1.0], [0.0, 1.0]])
        >>> optimal_matching(x, y)
        Matching(distance=tensor(1.), order=tensor([1, 0]))
    """
    x, y = _samples(x, y)
    if len(x) != len(y):
        raise ValueError(f"x and y must have the same number of samples, got {len(x)} and {len(y)}")
    if x.shape[1] == 1:
        order = torch.empty(len(x), dtype=torch.int64, device=x.device)
        order[_order(x)] = _order(y)
    else:
        from scipy.optimize import linear_sum_assignment

        # By subtraction: far from the origin a matrix product has no digits left.
        a, b = (sample.detach().double().cpu() for sample in (x, y))
        length = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        _, columns = linear_sum_assignment(length.numpy())
        order = torch.as_tensor(columns, dtype=torch.int64, device=x.device)
    return Matching((x - y[order]).norm(dim=1).mean(), order)


def transport_plan(cost: Tensor, p: Tensor, q: Tensor) -> Transport:
    """min_P Σ_ij P_ij c_ij over P ≥ 0 with the row sums p and the column sums q: the primal.

    Source: Kantorovich 1942; Peyré & Cuturi 2019, equation 2.11, https://arxiv.org/abs/1803.00567.
    Solved by `scipy.optimize.linprog`, with N · M unknowns.

    Args:
        cost: c ``(N, M)``, of a unit of mass from i to j; with distances the result is W₁.
        p: weights ``(N,)``, at least 0 and of sum 1.
        q: weights ``(M,)``, the same.

    Raises:
        ValueError: for a cost or weights of other shapes, not finite, or weights that are no
            probabilities.

    Example:
        >>> p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
        >>> transport_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), p, q).cost
        0.25
    """
    check_points(cost, None, None, "cost")
    n, m = cost.shape
    p, q = _weights(p, n, "p"), _weights(q, m, "q")
    from scipy import sparse

    rows = sparse.kron(sparse.eye_array(n), torch.ones(1, m).numpy())
    columns = sparse.kron(torch.ones(1, n).numpy(), sparse.eye_array(m))
    found = _solved(
        cost.detach().double().cpu().flatten().numpy(),
        A_eq=sparse.vstack([rows, columns]),
        b_eq=torch.cat([p, q]).numpy(),
    )
    return Transport(float(found.fun), torch.as_tensor(found.x).view(n, m))


def transport_critic(distance: Tensor, p: Tensor, q: Tensor) -> TransportCritic:
    """max_f Σ_i (p_i − q_i) f_i over all f with f_i − f_j ≤ d_ij: the dual, a critic on N points.

    Kantorovich and Rubinstein: where d is a metric, one function is enough, and the value is the
    cost of `transport_plan`. For other costs, such as squared distances, it is not.

    Source: Villani 2009, remark 6.5, https://doi.org/10.1007/978-3-540-71050-9; Peyré & Cuturi
    2019, section 6.1, https://arxiv.org/abs/1803.00567. Solved by `scipy.optimize.linprog`, with N
    unknowns and N² constraints.

    Args:
        distance: d ``(N, N)``, a metric on the points that p and q share.
        p: weights ``(N,)``, at least 0 and of sum 1: of the data.
        q: weights ``(N,)``, the same: of the samples.

    Raises:
        ValueError: as `transport_plan`; for d that is no metric.

    Example:
        >>> d = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
        >>> transport_critic(d, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.5, 0.0]))
        TransportCritic(value=2.5, f=tensor([0., 1., 3.], dtype=torch.float64))
    """
    check_points(distance, None, None, "distance")
    n, d = len(distance), distance.detach().double().cpu()
    if distance.shape != (n, n):
        raise ValueError(f"distance must have shape (N, N), got shape {tuple(distance.shape)}")
    _check_metric(d)
    p, q = _weights(p, n, "p"), _weights(q, n, "q")
    from scipy import sparse

    each, ones = sparse.eye_array(n), torch.ones(n, 1).numpy()
    found = _solved(
        (q - p).numpy(),
        A_ub=sparse.kron(each, ones) - sparse.kron(ones, each),  # row (i, j): f_i − f_j
        b_ub=d.flatten().numpy(),
        bounds=[(0, 0)] + [(None, None)] * (n - 1),  # a constant changes nothing
    )
    return TransportCritic(-float(found.fun), torch.as_tensor(found.x))


def _samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both as ``(N, D)``, checked."""
    for name, sample in (("x", x), ("y", y)):
        check_tensor(sample, name)
        if sample.ndim in (1, 2) and len(sample) == 1:
            raise ValueError(f"{name} must hold at least 2 samples, got 1")
    x, y = (sample[:, None] if sample.ndim == 1 else sample for sample in (x, y))
    check_points(x, None, None, "x")
    check_points(y, x.shape[1], None, "y")
    if x.dtype != y.dtype:
        raise ValueError(f"x and y must have the same dtype, got {x.dtype} and {y.dtype}")
    return x, y


def _order(x: Tensor) -> Tensor:
    """How ``(N, 1)`` is sorted; by NumPy, five times as fast as torch where it has vectors."""
    order = np.argsort(x.detach().squeeze(1).double().cpu().numpy())
    return torch.as_tensor(order, device=x.device)


def _weights(weights: Tensor, n: int, name: str) -> Tensor:
    """The weights in float64, on the CPU, divided by their sum."""
    check_floating(weights, name)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got shape {tuple(weights.shape)}")
    weights = weights.detach().double().cpu()
    total = weights.sum().item()
    if not (weights >= 0).all() or not abs(total - 1) < 1e-5:
        raise ValueError(
            f"{name} must be at least 0 and have the sum 1, got the least "
            f"{weights.min().item():g} and the sum {total:g}"
        )
    return weights / total


def _check_metric(d: Tensor) -> None:
    """Raise a ValueError unless distances are symmetric, 0 on the diagonal alone, and no detour."""
    slack = 1e-5 * d.abs().max()
    between = d + torch.eye(len(d), dtype=d.dtype)
    if (d - d.T).abs().max() > slack or d.diagonal().abs().max() > slack or between.min() <= 0:
        raise ValueError(
            "distance must be symmetric, 0 on its diagonal and positive elsewhere, got "
            f"values from {d.min().item():g} to {d.max().item():g}"
        )
    for k, via in enumerate(d):
        saved = d - (via[:, None] + via)
        if saved.max() > slack:
            i, j = divmod(int(saved.argmax()), len(d))
            raise ValueError(
                f"distance must have no shorter detour, got {d[i, j].item():g} from {i} to {j}, "
                f"and {(via[i] + via[j]).item():g} by way of {k}"
            )


def _solved(objective: Any, **constraints: Any) -> Any:
    from scipy.optimize import linprog

    found = linprog(objective, method="highs", **constraints)
    if not found.success:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    return found
