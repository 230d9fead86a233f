"""A table of known factors: which rows share a value of one, and how often each value comes."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm_course.checks import check_finite, check_tensor


class Factors:
    """N rows of K known factors, of which each is a partition of the rows into values.

    Args:
        factors: ``(N, K)``, numbers of any kind: two rows share a value where they are equal.

    Raises:
        ValueError: for another shape, NaN, a factor that takes one value only, or one with a value
            that a single row has: no other row shares it.
    """

    def __init__(self, factors: Tensor) -> None:
        check_tensor(factors, "factors")
        if factors.ndim != 2 or not factors.numel():
            raise ValueError(f"factors must have shape (N, K), got shape {tuple(factors.shape)}")
        check_finite(factors, "factors", "rows")
        self.n_rows, self.n_factors = factors.shape
        self.labels, self.counts = [], []  # of each factor: (N,), and (V,) rows of each value
        for column in factors.detach().cpu().T:
            _, label, count = column.unique(return_inverse=True, return_counts=True)
            self.labels.append(label)
            self.counts.append(count)
        if still := [k for k, count in enumerate(self.counts) if len(count) == 1]:
            raise ValueError(
                f"factors must vary, each over two values or more, got a single one in factors "
                f"{still} of {self.n_factors}, over {self.n_rows} rows"
            )
        if alone := [k for k, count in enumerate(self.counts) if count.min() == 1]:
            raise ValueError(
                "factors must have two rows or more with each value, got values that one row has "
                f"alone in factors {alone} of {self.n_factors}, over {self.n_rows} rows"
            )
        self._order = [label.argsort() for label in self.labels]
        self._start = [count.cumsum(0) - count for count in self.counts]

    def sharing(self, k: int, rows: Tensor, chance: torch.Generator) -> Tensor:
        """For each of these rows, one at random with the same value of factor k, of any shape."""
        label = self.labels[k][rows]
        share = torch.rand(rows.shape, generator=chance, dtype=torch.float64)
        within = (share * self.counts[k][label]).long()
        return self._order[k][self._start[k][label] + within]

    def entropies(self) -> Tensor:
        """H(v_k) = −Σ_v p(v) log p(v) of each factor in nats, ``(K,)``, float64."""
        shares = [count.double() / self.n_rows for count in self.counts]
        return torch.stack([-torch.xlogy(p, p).sum() for p in shares])

    def averages(self) -> list[Tensor]:
        """For each factor ``(N, V)``, float64: a product with it averages over a value's rows."""
        hot = [torch.nn.functional.one_hot(label).double() for label in self.labels]
        return [rows / rows.sum(0) for rows in hot]
