"""What every model family shares: estimates with their errors, units, the table of likelihoods."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_floating,
    check_integers,
    check_same_shape,
    check_tensor,
    values_are_checked,
)


class Estimate(NamedTuple):
    """A Monte-Carlo average with its standard error, both in the units of what was averaged."""

    value: float
    standard_error: float

    @classmethod
    def from_samples(cls, samples: Tensor) -> Estimate:
        """mean ± std / √S of S independent samples, shape ``(S,)``."""
        check_tensor(samples, "samples")
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
    check_floating(values, "values")
    _check_axis(dim, values, "values")
    if values.shape[dim] == 0:
        raise ValueError(f"values must not be empty along dim {dim}, got {tuple(values.shape)}")
    return torch.logsumexp(values, dim) - math.log(values.shape[dim])


def _check_axis(dim: int, values: Tensor, name: str) -> None:
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise ValueError(f"dim must be an int, got {dim!r}")
    if not -values.ndim <= dim < values.ndim:
        raise ValueError(f"dim must be an axis of {name}, {tuple(values.shape)}, got {dim}")


def bits_per_dim(nats: Tensor, n_dims: int) -> Tensor:
    """nats / (D ln 2): the one conversion from nats per example to bits per dimension.

    Args:
        nats: a negative log-likelihood per example, of any shape.
        n_dims: the number of dimensions D of an example: C · H · W for an image.
    """
    check_tensor(nats, "nats")
    check_count(n_dims, "n_dims")
    return nats / (n_dims * math.log(2))


def gaussian_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−½ ((x − mean) / σ)² − ln σ − ½ ln 2π, σ = exp(log_scale), of each number, in nats.

    The three are of one shape, or broadcast to it.
    """
    for name, values in (("x", x), ("mean", mean), ("log_scale", log_scale)):
        check_floating(values, name)
    squared = ((x - mean) * (-log_scale).exp()).square()
    return -0.5 * squared - log_scale - 0.5 * math.log(2 * math.pi)


def logistic_level_log_prob(
    levels: Tensor, mean: Tensor, log_scale: Tensor, *, n_levels: int
) -> Tensor:
    """log [σ(b) − σ(a)]: the mass of a logistic between the edges of a level, in nats.

    Level k stands for the number v = 2k / (n_levels − 1) − 1, from −1 to 1, and its edges lie half
    a step away: a, b = (v ∓ 1/(n_levels − 1) − mean) / scale. The lowest level has no lower edge
    and the highest no upper one, so that the masses of all levels add up to 1.

    Written as log σ(b) + log σ(−a) + log(1 − e^(a−b)), which is the same number: b − a is known
    without a subtraction, so that no far tail and no narrow level is lost to rounding. In float32
    value and gradient are finite up to |log_scale| = 80.

    Source: Salimans et al. 2017 (PixelCNN++), equation 2, https://arxiv.org/abs/1701.05517. Their
    program puts the density at the middle of a level in place of a mass below 10⁻⁵; nothing is
    replaced here.

    Args:
        levels: integers 0 … n_levels − 1.
        mean: where the logistic lies, in the units of v.
        log_scale: log of its scale, in these units.
        n_levels: number of levels, at least 2.

    Shapes: any three that broadcast, to what they broadcast to.

    Raises:
        ValueError: for levels that are not integers in that range.

    Example:
        >>> zero = torch.tensor(0.0)
        >>> log_p = logistic_level_log_prob(torch.arange(4), zero, zero, n_levels=4)
        >>> log_p.exp()
        tensor([0.3392, 0.1608, 0.1608, 0.3392])
    """
    check_integers(levels, 0, check_count(n_levels, "n_levels", 2) - 1, "levels")
    check_floating(mean, "mean")
    check_floating(log_scale, "log_scale")
    # Two levels that share an edge get the same number for it, to the last digit.
    lower, upper = ((2 * levels.long() + k - n_levels).to(mean) / (n_levels - 1) for k in (0, 2))
    inverse_scale = torch.exp(-log_scale)
    log_mass = (
        logsigmoid((upper - mean) * inverse_scale),  # log σ(b)
        logsigmoid((mean - lower) * inverse_scale),  # log σ(−a)
        torch.log(-torch.expm1(-2 / (n_levels - 1) * inverse_scale)),  # log(1 − e^(a−b))
    )
    below, above, width = torch.broadcast_tensors(*log_mass)
    lowest, highest = levels == 0, levels == n_levels - 1
    width = width.masked_fill(lowest | highest, 0)
    return below.masked_fill(highest, 0) + above.masked_fill(lowest, 0) + width


def categorical_kl(p_logits: Tensor, q_logits: Tensor, dim: int = 1) -> Tensor:
    """KL(p ‖ q) = Σ_v p_v (log p_v − log q_v) in nats, of p and q = softmax(logits) along ``dim``.

    With a source's exact conditionals as p and a model's logits as q it is what the model loses at
    each step on average over the next symbol, free of the noise that one drawn symbol has.

    Args:
        p_logits: logits, or log-probabilities, which softmax leaves as they are; −inf for 0.
        q_logits: those of q, of the same shape.
        dim: the axis of the categories: 1 for a sequence model's ``(N, V, T)``.

    Shapes: two of one shape, to that shape without ``dim``.

    Raises:
        ValueError: for other shapes, logits that are NaN or +inf, or −inf for all categories.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]])
        >>> categorical_kl(p.log(), q.log(), 0)  # ½ ln 2, as log 2 is lost half of the time
        tensor(0.3466)
    """
    check_same_shape("p_logits", p_logits, "q_logits", q_logits)
    logs = []
    for name, logits in (("p_logits", p_logits), ("q_logits", q_logits)):
        check_floating(logits, name)
        _check_axis(dim, logits, name)
        logs.append(logits.log_softmax(dim))
        if values_are_checked() and logs[-1].isnan().any():
            raise ValueError(
                f"{name} must have a finite one along dim {dim} and no NaN or +inf, got "
                f"{int(logs[-1].isnan().any(dim).sum())} laws without"
            )
    log_p, log_q = logs
    gap = (log_p - log_q).masked_fill(log_p.isneginf(), 0)  # 0 log 0 = 0, whatever q says
    return (log_p.exp() * gap).sum(dim)


class Divergences(NamedTuple):
    """How far two densities are apart, in nats."""

    kl: float  # KL(p ‖ q)
    reverse_kl: float  # KL(q ‖ p)
    jsd: float  # ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q)/2; at most ln 2


@torch.no_grad()
def divergences(
    log_p: Callable[[Tensor], Tensor],
    log_q: Callable[[Tensor], Tensor],
    box: tuple[float, float] | Sequence[tuple[float, float]],
    n: int | None = None,
) -> Divergences:
    """∫ p (log p − log q) dx, the same turned round, and JSD(p ‖ q), by the midpoint rule.

    Of smooth densities it is exact to some ten digits once a cell is narrower than they are.

    Args:
        log_p: points to log p in nats, of float64.
        log_q: the same of q. Either may be −inf; where p > 0 = q, KL(p ‖ q) is inf.
        box: (low, high) for points ``(N,)`` of a line; two such pairs for ``(N, 2)``, a plane.
        n: cells along each axis; None takes 4,000 of a line and 600 of a plane.

    Raises:
        ValueError: if p or q has not all its mass within the box, to 10⁻³ (its mass is named): the
            box is too small, the cells are too wide, or it is no density; or returns another shape.

    Example:
        >>> one, other = (torch.distributions.Normal(mean, 1.0) for mean in (0.0, 2.0))
        >>> found = divergences(one.log_prob, other.log_prob, (-10, 12))
        >>> round(found.kl, 6), round(found.jsd, 4)  # μ²/2
        (2.0, 0.3368)
    """
    edges = as_numbers(box, "box", torch.float64)
    if edges.shape not in ((2,), (2, 2)) or not (edges[..., 0] < edges[..., 1]).all():
        raise ValueError(f"box must be (low, high), or two such pairs, low < high, got {box!r}")
    if not torch.isfinite(edges).all():
        raise ValueError(f"box must be finite, got {box!r}")
    n = check_count((4000 if edges.ndim == 1 else 600) if n is None else n, "n")
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    axes = [low + (high - low) * middles for low, high in edges.view(-1, 2)]
    points = torch.cartesian_prod(*axes)
    cell = (edges[..., 1] - edges[..., 0]).prod() / n ** len(axes)
    at = dict[str, Tensor]()
    for name, log_density in (("p", log_p), ("q", log_q)):
        parts = [log_density(part) for part in points.split(2**16)]
        if any(not isinstance(v, Tensor) or v.ndim != 1 for v in parts):
            raise ValueError(f"log_{name} must return shape (N,), got {parts[0]!r}")
        at[name] = torch.cat(parts).double()
        if not abs((mass := (at[name].exp().sum() * cell).item()) - 1) < 1e-3:
            raise ValueError(
                f"{name} must have its mass within the box, got {mass:.6g} of 1 by {n} cells a side"
            )
    at["m"] = torch.logaddexp(at["p"], at["q"]) - math.log(2)

    def kl(a: Tensor, b: Tensor) -> float:
        mass = a.exp()
        return (torch.where(mass > 0, mass * (a - b), 0.0).sum() * cell).item()

    jsd = (kl(at["p"], at["m"]) + kl(at["q"], at["m"])) / 2
    return Divergences(kl(at["p"], at["q"]), kl(at["q"], at["p"]), jsd)


Kind = Literal["exact", "bound"]


class LikelihoodRow(NamedTuple):
    """What a model's bits for test images are: a line of the table of likelihoods on the digits.

    ``nats`` is the mean of −log p(x) over the test images. Its error is that of this mean alone,
    as if the images had been drawn anew; another seed of the training adds to it. Of a bound, −log
    p(x) itself is at most ``nats``.
    """

    name: str
    kind: Kind
    levels: int  # of a pixel: a likelihood of other levels is no competitor
    n_images: int
    n_dims: int
    nats: Estimate
    bits_per_dim: Estimate
    n_parameters: int | None  # None where nobody counted
    seconds: float | None  # of one core, to train; None where nobody measured


def likelihood_row(
    name: str,
    log_prob: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    levels: int,
    kind: Kind = "exact",
    n_parameters: int | None = None,
    seconds: float | None = None,
) -> LikelihoodRow:
    """mean −log p(x) ± std / √N over N test images, in nats and in bits per dimension.

    Args:
        name: what the table calls the model.
        log_prob: images to log p(x) in nats, ``(N, C, H, W)`` to ``(N,)``; of a bound, to a lower
            bound on it, such as the ELBO. It is called once, without gradients.
        images: integers 0 … levels − 1, ``(N, C, H, W)``, N ≥ 2: those that every row takes.
        levels: levels of a pixel.
        kind: "exact" or "bound".
        n_parameters: how many numbers were learned.
        seconds: of one core, to train.

    Raises:
        ValueError: for images that are not such integers, another kind, or a log_prob that returns
            another shape or what is not finite.

    Example:
        >>> images = torch.randint(17, (5, 1, 8, 8))
        >>> row = likelihood_row("uniform", lambda x: torch.full((5,), -181.33), images, levels=17)
        >>> print(f"{row.bits_per_dim.value:.3f} bits, {row.kind}, of {row.n_dims} pixels")
        4.088 bits, exact, of 64 pixels
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be 'exact' or 'bound', got {kind!r}")
    check_tensor(images, "images")
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(
            f"images must have shape (N, C, H, W) with N >= 2, got shape {tuple(images.shape)}"
        )
    check_integers(images, 0, check_count(levels, "levels", 2) - 1, "images")
    with torch.no_grad():
        log_p = log_prob(images)
    check_tensor(log_p, "what log_prob returns")
    if log_p.shape != (len(images),):
        raise ValueError(
            f"log_prob must return shape ({len(images)},), got shape {tuple(log_p.shape)}"
        )
    if not torch.isfinite(log_p).all():
        n_bad = int((~torch.isfinite(log_p)).sum())
        raise ValueError(f"log_prob must be finite, got NaN or inf for {n_bad} of {len(images)}")
    nats, n_dims = Estimate.from_samples(-log_p), images[0].numel()
    bits = Estimate(*(bits_per_dim(torch.tensor(v), n_dims).item() for v in nats))
    return LikelihoodRow(name, kind, levels, len(images), n_dims, nats, bits, n_parameters, seconds)


LIKELIHOODS = Path(__file__).parent / "results" / "likelihoods.csv"


def read_likelihoods(path: Path = LIKELIHOODS) -> list[LikelihoodRow]:
    """The table of likelihoods on the test digits, as it was made, the most nats first."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            LikelihoodRow(
                name=line["name"],
                kind=cast("Kind", line["kind"]),
                levels=int(line["levels"]),
                n_images=int(line["images"]),
                n_dims=int(line["dimensions"]),
                nats=Estimate(float(line["nats"]), float(line["nats_error"])),
                bits_per_dim=Estimate(float(line["bits_per_dim"]), float(line["bits_error"])),
                n_parameters=int(line["parameters"]) if line["parameters"] else None,
                seconds=float(line["seconds"]) if line["seconds"] else None,
            )
            for line in csv.DictReader(file)
        ]


def write_likelihoods(rows: Iterable[LikelihoodRow], path: Path = LIKELIHOODS) -> None:
    """Write the table that `read_likelihoods` reads."""
    titles = "name,kind,levels,images,dimensions,nats,nats_error,bits_per_dim,bits_error"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*titles.split(","), "parameters", "seconds"])
        for row in sorted(rows, key=lambda row: -row.nats.value):
            numbers = [f"{v:.4f}" for v in (*row.nats, *row.bits_per_dim)]
            seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
            out.writerow([*row[:5], *numbers, row.n_parameters, seconds])
