"""Linear flows: matrices whose determinant is read off a diagonal, by LU and by QR."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.linalg import solve_triangular

from dgm_course.checks import check_count, check_floating
from dgm_course.flows.bijection import Bijection


class PluMatrices(nn.Module):
    """W = P L diag(s) U: L and U unit lower and unit upper triangular, s = ± exp(log_s).

    log|det W| = Σ log_s, in O(D). With P and the signs fixed this reaches a 2^−D share of all
    matrices: −I in no choice of P if all signs are +. The numbers of L, of log_s and of U lie in
    one ``(L, D, D)`` parameter; P (as an order of the rows) and the signs are buffers.

    Source: Kingma & Dhariwal 2018, equation 10, https://arxiv.org/abs/1807.03039. The rows of
    their U, and of ours in `factors`, are those of diag(s) U. That the parameter holds them before
    they are scaled is ours: after, a narrow direction of the data asks for entries of 1 / its
    width, to which steps of one size take too long.

    Args:
        weight: the matrices to start from, ``(L, D, D)``, which give P and the signs, too.
    """

    order: Tensor
    sign: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if weight.ndim != 3 or weight.shape[1] != weight.shape[2] or not weight.numel():
            raise ValueError(f"weight must have shape (L, D, D), got {tuple(weight.shape)}")
        p, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal(dim1=1, dim2=2)  # (L, D)
        if not weight.isfinite().all() or (diagonal == 0).any():
            raise ValueError("weight must hold invertible matrices of finite numbers")
        unit = upper / diagonal[:, :, None]
        packed = lower.tril(-1) + unit.triu(1) + torch.diag_embed(diagonal.abs().log())
        self.packed = nn.Parameter(packed)  # below the diagonal L, on it log_s, above it U
        self.register_buffer("order", p.argmax(2))  # (L, D): row i of P L U is row order[i] of L U
        self.register_buffer("sign", diagonal.sign())  # (L, D)

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and diag(s) U, ``(L, D, D)`` each."""
        one = torch.diag_embed(torch.ones_like(self.sign))
        s = self.sign * self.packed.diagonal(dim1=1, dim2=2).exp()
        return self.packed.tril(-1) + one, s[:, :, None] * (self.packed.triu(1) + one)

    def weight(self) -> Tensor:
        """W = P L diag(s) U, ``(L, D, D)``."""
        lower, upper = self.factors()
        product = lower @ upper
        return product.gather(1, self.order[:, :, None].expand_as(product))

    def log_det(self) -> Tensor:
        """Σ log_s of all L matrices, a scalar."""
        return self.packed.diagonal(dim1=1, dim2=2).sum()

    def solve(self, columns: Tensor, lower: Tensor, upper: Tensor, i: int) -> Tensor:
        """W_i⁻¹ y for columns y, ``(…, D, N)``, by two triangular systems."""
        columns = columns.index_select(-2, self.order[i].argsort())  # Pᵀ y
        columns = solve_triangular(lower[i], columns, upper=False, unitriangular=True)
        return solve_triangular(upper[i], columns, upper=True)


class LinearFlow(Bijection):
    """z = f_1 ∘ … ∘ f_L(x), each f(x) = W (x − shift): abstract; subclasses say what W is made of.

    Data to noise multiplies, for that is the direction that training by maximum likelihood takes;
    noise to data solves. The shift comes first, so that it is the data's mean whatever W is.
    """

    shift: nn.Parameter  # (L, D)

    @abstractmethod
    def weight(self) -> Tensor:
        """The matrices W, ``(L, D, D)``, the first next to the noise."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """log|det W_1 … W_L|, a scalar in nats."""

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = W (x − shift), and log|det W|, the same for every point."""
        self.check(x, "x")
        # The layers' product first: D × D numbers go through all of them, not N × D.
        product, offset = torch.eye(self.dim).to(x), x.new_zeros(self.dim)
        for weight, shift in reversed([*zip(self.weight(), self.shift, strict=True)]):
            product, offset = weight @ product, weight @ (offset - shift)
        return torch.addmm(offset, x, product.T), self.log_det().expand(len(x))


class LuFlow(LinearFlow):
    """z = W (x − shift), W = P L U, and x = U⁻¹ L⁻¹ Pᵀ z + shift: log|det ∂g/∂z| = −Σ log_s.

    The diagonal of U is ± exp(log_s); P and the signs are fixed. It starts as the identity, whose
    P is I and whose signs are +: a 2^−D share of all matrices is within reach. A rotation by θ is
    among them for |θ| < 90°, with a pivot cos θ and an entry tan θ of L, which is 573 at 89.9°.

    Source: Kingma & Dhariwal 2018, equation 10, https://arxiv.org/abs/1807.03039 (PLU).

    Args:
        dim: number of features D.
        n_layers: number of layers L, stacked in ``plu.packed`` ``(L, D, D)`` and ``shift``.
        weight: the W to start from, ``(L, D, D)`` or ``(D, D)`` where L is 1, instead of the
            identity: its factors give P and the signs.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)`` to ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for sizes below 1, a weight of another shape or singular, or a bad batch, as
            for `PlanarFlow`.

    Example:
        >>> flow = LuFlow(2, weight=torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
        >>> flow.inverse(torch.tensor([[1.0, 3.0]]))[0].detach()
        tensor([[ 6., -2.]])
    """

    def __init__(self, dim: int, n_layers: int = 1, weight: Tensor | None = None) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        n_layers = check_count(n_layers, "n_layers")
        if weight is None:
            weight = torch.eye(dim).expand(n_layers, dim, dim)
        check_floating(weight, "weight")
        if weight.ndim == 2:
            weight = weight[None]
        if weight.shape != (n_layers, dim, dim):
            raise ValueError(
                f"weight must have shape ({n_layers}, {dim}, {dim}), got {tuple(weight.shape)}"
            )
        self.plu = PluMatrices(weight)
        self.shift = nn.Parameter(weight.new_zeros(n_layers, dim))

    def extra_repr(self) -> str:
        return f"{self.dim}, n_layers={len(self.shift)}"

    def weight(self) -> Tensor:
        """W = P L U of each layer, ``(L, D, D)``, the first next to the noise."""
        return self.plu.weight()

    def log_det(self) -> Tensor:
        """log|det W_1 … W_L| = Σ log_s, a scalar in nats."""
        return self.plu.log_det()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = U⁻¹ L⁻¹ Pᵀ z + shift, and −Σ log_s."""
        self.check(z, "z")
        factors = self.plu.factors()
        for i, shift in enumerate(self.shift):
            z = self.plu.solve(z.T, *factors, i).T + shift  # (N, D)
        return z, -self.log_det().expand(len(z))


class QrFlow(LinearFlow):
    """z = W (x − shift) with W = Q R, and x = R⁻¹ Qᵀ z + shift: log|det ∂g/∂z| = −Σ log_r.

    Q = H_1 … H_K with the Householder reflections H = I − 2 v vᵀ / ‖v‖², and R is upper triangular
    with the diagonal exp(log_r). Every reflection has determinant −1, so that det Q = (−1)^K:
    half of all orthogonal matrices for K = D or D − 1, the other half being out of reach.
    Reflections start in equal pairs, whose product is I; a last one without a pair mirrors space.

    Source: Tomczak & Welling 2016, equation 8, https://arxiv.org/abs/1611.09630 (Householder);
    Hoogeboom, van den Berg & Welling 2019, section 4, https://arxiv.org/abs/1901.11137 (QR).

    Args:
        dim: number of features D.
        n_reflections: K from 1 to D; D unless given.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)`` to ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for dim < 1, K outside 1 … D, or a bad batch, as for `PlanarFlow`.

    Example:
        >>> torch.linalg.det(QrFlow(3).weight()).sign().detach()
        tensor([-1.])
    """

    def __init__(self, dim: int, n_reflections: int | None = None) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        if n_reflections is None:
            n_reflections = dim
        n_reflections = check_count(n_reflections, "n_reflections", most=dim)
        v = torch.randn((n_reflections + 1) // 2, dim).repeat_interleave(2, 0)
        self.v = nn.Parameter(v[:n_reflections].clone())
        self.log_r = nn.Parameter(torch.zeros(dim))
        # R above its diagonal, row by row, before a row is scaled by exp(log_r), as in PluMatrices.
        self.r = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.shift = nn.Parameter(torch.zeros(1, dim))

    def extra_repr(self) -> str:
        return f"{self.dim}, n_reflections={len(self.v)}"

    def factors(self) -> tuple[Tensor, Tensor]:
        """Q and R, ``(D, D)`` each."""
        q = torch.eye(self.dim).to(self.v)
        for v in self.v:
            q = q - torch.outer(q @ v, 2 * v / v.square().sum())
        rows, columns = torch.triu_indices(self.dim, self.dim, 1, device=self.r.device)
        unit = torch.eye(self.dim).to(self.r).index_put((rows, columns), self.r)
        return q, self.log_r.exp()[:, None] * unit

    def weight(self) -> Tensor:
        """W = Q R, ``(1, D, D)``."""
        q, r = self.factors()
        return (q @ r)[None]

    def log_det(self) -> Tensor:
        """log|det W| = Σ log_r, a scalar in nats."""
        return self.log_r.sum()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = R⁻¹ Qᵀ z + shift, and −Σ log_r."""
        self.check(z, "z")
        q, r = self.factors()
        x = solve_triangular(r, (z @ q).T, upper=True).T + self.shift  # (N, D)
        return x, -self.log_det().expand(len(z))
