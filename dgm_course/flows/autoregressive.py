"""Autoregressive flows: one triangular map, read in one pass or written feature by feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dgm_course.checks import check_count, check_number, check_points, values_are_checked
from dgm_course.flows.bijection import Bijection, as_orders, check_transform
from dgm_course.flows.coupling import bounded

ConditionedOn = Literal["data", "noise"]
Weights = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # w1, b1, w2, b2, w3, b3


class MadeStack(nn.Module):
    """L networks like `Made`, of the orders ``(L, D)``: weights are stacked and masked together."""

    orders: Tensor
    hidden: Tensor

    def __init__(self, orders: Tensor, n_hidden: int, n_outputs: int, n_context: int) -> None:
        super().__init__()
        n_layers, dim = orders.shape
        n_hidden = check_count(n_hidden, "n_hidden")
        n_outputs = check_count(n_outputs, "n_outputs")
        self.n_context = n_context = check_count(n_context, "n_context", 0)
        lowest = 0 if n_context else 1  # units of degree 0 carry the context to the first feature
        hidden = lowest + torch.arange(n_hidden) * (dim - lowest) // n_hidden
        self.register_buffer("orders", orders)
        self.register_buffer("hidden", hidden, persistent=False)  # their degrees, from the sizes
        # Units of degree d are those from ends[d] to ends[d + 1].
        self.ends = torch.searchsorted(hidden, torch.arange(dim + 1)).tolist()
        self.w1 = nn.Parameter(torch.empty(n_layers, n_hidden, n_context + dim))
        self.b1 = nn.Parameter(torch.empty(n_layers, n_hidden))
        self.w2 = nn.Parameter(torch.empty(n_layers, n_hidden, n_hidden))
        self.b2 = nn.Parameter(torch.empty(n_layers, n_hidden))
        self.w3 = nn.Parameter(torch.empty(n_layers, n_outputs, dim, n_hidden))
        self.b3 = nn.Parameter(torch.empty(n_layers, n_outputs, dim))
        for weight, bias in ((self.w1, self.b1), (self.w2, self.b2), (self.w3, self.b3)):
            bound = weight.shape[-1] ** -0.5  # as nn.Linear's: 1 / √(number of inputs)
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def features(self) -> Tensor:
        """The features' degrees, 1 to D in each network's order: ``(L, D)``."""
        return self.orders.argsort(1) + 1

    def masks(self) -> tuple[Tensor, Tensor, Tensor]:
        """`Made`'s M₁ and M₃ of each network, and the M₂ of all."""
        hidden, features, dtype = self.hidden, self.features(), self.w1.dtype
        inputs = torch.cat([features.new_zeros(len(features), self.n_context), features], 1)
        first, last = hidden[:, None] >= inputs[:, None], features[:, :, None] > hidden
        return first.to(dtype), (hidden[:, None] >= hidden).to(dtype), last.to(dtype)

    def weights(self) -> list[Weights]:
        """Each network's masked weights and biases, w3 as ``(n_outputs · D, n_hidden)``."""
        first, second, last = self.masks()
        w3, b3 = (self.w3 * last[:, None]).flatten(1, 2), self.b3.flatten(1)
        stacks = (self.w1 * first, self.b1, self.w2 * second, self.b2, w3, b3)
        return [*zip(*stacks, strict=True)]

    def given(self, context: Tensor | None, points: Tensor) -> Tensor:
        """The context ``(N, n_context)``, checked: of no columns where n_context is 0."""
        if self.n_context == 0 and context is None:
            return points[:, :0]
        if self.n_context == 0 or context is None:
            kind = type(context).__name__
            raise ValueError(f"context must be None if n_context = 0, and only then, got {kind}")
        check_points(context, self.n_context, self.w1.dtype, "context")
        if len(context) != len(points):
            raise ValueError(f"context must have {len(points)} rows, got {len(context)}")
        return context


class Made(nn.Module):
    """n_outputs numbers for each feature, functions of the features before it in the order alone.

    A network of two hidden ReLU layers with masked weights. Everything has a degree: a feature and
    its outputs their place in the order, 1 to D; hidden units 1 to D − 1, sorted and spread evenly.
    A hidden unit reads what has its degree or less, an output the units *below* its degree, so
    that no path leads from a feature to its own outputs.

    All D(D − 1)/2 pairs of features are connected if each degree has a unit, n_hidden ≥ D − 1 (with
    a context ≥ D). With fewer some are not: at D = 8 and 4 units 3 of 28 are lost.

    Source: Germain, Gregor, Murray & Larochelle 2015, section 4,
    https://arxiv.org/abs/1502.03509, where hidden degrees are drawn at random.

    Args:
        dim: number of features D.
        n_hidden: units of each hidden layer.
        n_outputs: numbers for each feature.
        order: order[k] is the feature that comes k-th; 0, 1, … unless given. A buffer.
        n_context: numbers of a context, of degree 0: every output sees them all.

    Shapes: ``forward`` maps ``(N, D)``, and a context ``(N, n_context)``, to ``(N, n_outputs, D)``.

    Raises:
        ValueError: for sizes out of range, an order that is no permutation, or a bad batch.

    Example:
        >>> first, second, last = Made(3, n_hidden=4, order=[2, 0, 1]).masks()
        >>> last @ second @ first  # paths: from feature 2 to 0, from both to 1
        tensor([[ 0.,  0.,  4.],
                [ 4.,  0., 12.],
                [ 0.,  0.,  0.]])
    """

    def __init__(
        self,
        dim: int,
        n_hidden: int,
        n_outputs: int = 2,
        order: Sequence[int] | Tensor | None = None,
        *,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        orders = as_orders([torch.arange(dim) if order is None else order], "order")
        if orders.shape[1] != dim:
            raise ValueError(f"order must hold dim = {dim} features, got {orders.shape[1]}")
        self.networks = MadeStack(orders, n_hidden, n_outputs, n_context)

    def extra_repr(self) -> str:
        _, n_outputs, dim, n_hidden = self.networks.w3.shape
        return f"{dim}, n_hidden={n_hidden}, n_outputs={n_outputs}"

    @property
    def degrees(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the features ``(D,)`` and of the two hidden layers, ``(n_hidden,)`` each."""
        return self.networks.features()[0], self.networks.hidden, self.networks.hidden

    def masks(self) -> tuple[Tensor, Tensor, Tensor]:
        """M₁ ``(n_hidden, n_context + D)``, M₂ ``(n_hidden, n_hidden)``, M₃ ``(D, n_hidden)``.

        Row i, column j of M₃ M₂ M₁ counts the paths from input j to an output of feature i.
        """
        first, second, last = self.networks.masks()
        return first[0], second, last[0]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The outputs, ``(N, n_outputs, D)``."""
        check_points(x, self.dim, self.networks.w1.dtype, "x")
        inputs = torch.cat([self.networks.given(context, x), x], 1)
        (weights,) = self.networks.weights()
        return network(inputs, weights).unflatten(1, (-1, self.dim))


class AutoregressiveFlow(Bijection):
    """z_i = (x_i − μ_i) e^(−a_i), μ_i and a_i functions of x_1 … x_(i−1): log|det ∂f/∂x| = −Σ a.

    L such layers, the order of the features reversed from each to the next. Conditioned on "data"
    (MAF) their networks, each a `Made`, read x: f takes one pass, and g, which writes what they
    read, goes feature by feature, x_i = z_i e^(a_i) + μ_i. Conditioned on "noise" (IAF) x and z
    change places, x_i = (z_i − μ_i) e^(−a_i): with the same state dict that is `Inverse` of the
    other, and g takes one pass. The flow starts as the identity.

    Feature by feature takes D steps, and no more arithmetic than one pass: hidden units are sorted
    by degree, and each step computes those of one degree from what is known.

    Source: Papamakarios, Pavlakou & Murray 2017, equations 3 to 5,
    https://arxiv.org/abs/1705.07057 (MAF); Kingma et al. 2016, sections 3 and 4,
    https://arxiv.org/abs/1606.04934 (IAF: their σ is e^(−a) here, and their shift −μ e^(−a)).

    Args:
        dim: number of features D; a single one is stretched and shifted.
        n_layers: number of layers L.
        n_hidden: units of each hidden layer; see `Made` for fewer than D − 1.
        conditioned_on: what the networks read, "data" or "noise".
        limit: the bound on |a| = |limit · tanh(s / limit)|. μ has none: over many features strong
            weights can carry it out of range, which is refused.
        n_context: numbers of a context that every μ_i and a_i sees, given with each batch.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)``, and a context ``(N, n_context)``, to
    ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for arguments out of range, a bad batch, as for `PlanarFlow`, or one whose
            result overflows.

    Example:
        >>> flow = AutoregressiveFlow(3, conditioned_on="noise")
        >>> x, log_det = flow(torch.randn(5, 3))
        >>> x.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        dim: int,
        n_layers: int = 4,
        n_hidden: int = 64,
        conditioned_on: ConditionedOn = "data",
        limit: float = 3.0,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        n_layers = check_count(n_layers, "n_layers")
        if conditioned_on not in get_args(ConditionedOn):
            raise ValueError(f"conditioned_on must be 'data' or 'noise', got {conditioned_on!r}")
        check_number(limit, "limit")
        self.conditioned_on, self.limit = conditioned_on, limit
        order = torch.arange(dim)
        orders = torch.stack([order.flip(0) if i % 2 else order for i in range(n_layers)])
        self.networks = MadeStack(orders, n_hidden, 2, n_context)
        nn.init.zeros_(self.networks.w3)  # the identity
        nn.init.zeros_(self.networks.b3)

    def extra_repr(self) -> str:
        n_layers = len(self.networks.orders)
        return f"{self.dim}, n_layers={n_layers}, conditioned_on={self.conditioned_on!r}"

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = g(z) and log|det ∂g/∂z|: one pass for "noise", feature by feature for "data"."""
        return self._carry(z, context, "z", in_one_pass=self.conditioned_on == "noise")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f(x) and log|det ∂f/∂x|: one pass for "data", feature by feature for "noise"."""
        return self._carry(x, context, "x", in_one_pass=self.conditioned_on == "data")

    @property
    def n_parameters(self) -> int:
        """n_context: how many numbers `transform` takes for each point."""
        return self.networks.n_context

    def transform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` of S codes for each of N points, whose parameters are their context.

        Args:
            z: ``(S, N, D)``.
            parameters: ``(N, n_context)``; of no columns where the flow has no context.

        Returns:
            x ``(S, N, D)`` and nats ``(S, N)``.

        Raises:
            ValueError: for shapes or a dtype that do not fit, NaN or inf.
        """
        check_transform(self, z, parameters, self.networks.w1.dtype)
        context = parameters.repeat(len(z), 1) if self.n_parameters else None  # (S · N, n_context)
        x, log_det = self(z.flatten(0, 1), context)
        return x.unflatten(0, z.shape[:2]), log_det.unflatten(0, z.shape[:2])

    def _carry(
        self, points: Tensor, context: Tensor | None, name: str, in_one_pass: bool
    ) -> tuple[Tensor, Tensor]:
        """The points after all layers, and log|det|; feature by feature the last layer is first."""
        self.check(points, name)
        given, log_scales = self.networks.given(context, points), []
        layers = [*zip(self.networks.orders, self.networks.weights(), strict=True)]
        for order, weights in layers if in_one_pass else layers[::-1]:
            if in_one_pass:
                shift, s = network(torch.cat([given, points], 1), weights).chunk(2, 1)
                a = bounded(s, self.limit)
                points = (points - shift) * (-a).exp()
            else:
                points, a = self._feature_by_feature(points, given, order, weights)
            log_scales.append(a)
        if values_are_checked() and not points.isfinite().all():
            n_bad = int((~points.isfinite()).any(1).sum())
            raise ValueError(
                f"{name} or weights must be smaller: {n_bad} of {len(points)} overflow"
            )
        log_det = torch.cat(log_scales, 1).sum(1)
        return points, -log_det if in_one_pass else log_det

    def _feature_by_feature(
        self, points: Tensor, given: Tensor, order: Tensor, weights: Weights
    ) -> tuple[Tensor, Tensor]:
        """y, of which (y − μ(y)) e^(−a(y)) are the points, and a: both ``(N, D)``, a in order."""
        w1, b1, w2, b2, w3, b3 = weights
        n_given = given.shape[1]
        w1 = torch.cat([w1[:, :n_given], w1[:, n_given:].index_select(1, order)], 1)
        w3, b3 = (stack.unflatten(0, (2, -1)).index_select(1, order) for stack in (w3, b3))
        known, h1, h2, log_scales = given, points[:, :0], points[:, :0], []
        for d, column in enumerate(points.index_select(1, order).split(1, 1)):
            new = slice(*self.networks.ends[d : d + 2])  # d features are known, so these can be
            if new.start < new.stop:
                h = linear(known, w1[new, : n_given + d], b1[new]).relu()
                h1 = torch.cat([h1, h], 1)
                h2 = torch.cat([h2, linear(h1, w2[new, : new.stop], b2[new]).relu()], 1)
            shift, s = linear(h2, w3[:, d, : new.stop], b3[:, d]).split(1, 1)
            log_scales.append(bounded(s, self.limit))
            known = torch.cat([known, column * log_scales[-1].exp() + shift], 1)
        return known[:, n_given:].index_select(1, order.argsort()), torch.cat(log_scales, 1)


def network(inputs: Tensor, weights: Weights) -> Tensor:
    """The outputs of two hidden ReLU layers: ``(N, n_context + D)`` to ``(N, n_outputs · D)``."""
    w1, b1, w2, b2, w3, b3 = weights
    return linear(linear(linear(inputs, w1, b1).relu(), w2, b2).relu(), w3, b3)
