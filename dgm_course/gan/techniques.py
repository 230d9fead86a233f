"""What steadies the game: matched features, remembered weights, a fixed batch, a look sideways."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_floating, check_number, check_tensor


def feature_matching_loss(real: Tensor, fake: Tensor) -> Tensor:
    """‖mean d(x) − mean d(G(z))‖², d a layer of the discriminator: the generator's loss.

    A statistic of two batches, and no mean of losses per example. Its expectation is
    ‖E d(x) − E d(G(z))‖² + tr Cov d(x) / N + tr Cov d(G(z)) / M: what the last term asks for is a
    generator that varies less. Every generator with the right mean features is an equilibrium.

    Source: Salimans et al. 2016, section 3.1, https://arxiv.org/abs/1606.03498.

    Shapes: features of data ``(N, ...)`` and of samples ``(M, ...)`` to a scalar.

    Raises:
        ValueError: for features of different shapes, or an empty batch.

    Example:
        >>> feature_matching_loss(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.zeros(5, 2))
        tensor(4.)
    """
    check_floating(real, "real")
    check_floating(fake, "fake")
    if real.ndim < 2 or real.shape[1:] != fake.shape[1:] or 0 in (len(real), len(fake)):
        raise ValueError(
            "real and fake must be features (N, ...) and (M, ...), got shapes "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    return (real.mean(0) - fake.mean(0)).square().sum()


class HistoricalAverage:
    """‖θ − (1/T) Σ_t θ_t‖², θ_1 … θ_T the weights at the T calls before: a pull to their mean.

    A call in each step of a player is one more term of its loss. At the first it is 0.

    Source: Salimans et al. 2016, section 3.3, https://arxiv.org/abs/1606.03498.

    Args:
        weights: the parameters of a player.

    Example:
        >>> w = nn.Parameter(torch.tensor([1.0]))
        >>> pull = HistoricalAverage([w])
        >>> [pull().item(), w.data.fill_(3.0).item(), pull().item()]  # (3 − 1)²
        [0.0, 3.0, 4.0]
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.weights = [*weights]
        if not self.weights:
            raise ValueError("weights must hold at least one parameter, got none")
        for weight in self.weights:
            check_tensor(weight, "weights")
        self.n_calls, self.means = 0, list[Tensor]()

    def __call__(self) -> Tensor:
        """The penalty, a scalar; then θ joins the mean."""
        here = [weight.detach() for weight in self.weights]
        means = self.means or here
        pairs = zip(self.weights, means, strict=True)
        penalty = torch.stack([(w - mean).square().sum() for w, mean in pairs]).sum()
        self.n_calls += 1
        moves = zip(means, here, strict=True)
        self.means = [mean + (w - mean) / self.n_calls for mean, w in moves]
        return penalty


class VirtualBatchNorm(nn.Module):
    """γ (x − μ_i) / √(σ²_i + ε) + β, μ_i and σ²_i of a fixed reference batch and of x_i itself.

    So an example sees the reference and no other example, and the output is the same in training
    and in evaluation. The first R examples of what comes in are the reference: `ReferenceBatch`
    puts them there. They are normalised by their own statistics, with gradients through them.

    Source: Salimans et al. 2016, section 3.5, https://arxiv.org/abs/1606.03498.

    Args:
        n_features: channels C.
        n_reference: number R of reference examples, at least 2.
        eps: ε > 0.

    Shapes: ``(R + N, C, ...)`` to the same.

    Raises:
        ValueError: for fewer than R examples, or other channels.
    """

    def __init__(self, n_features: int, n_reference: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.n_features = check_count(n_features, "n_features")
        self.n_reference = check_count(n_reference, "n_reference", 2)
        check_number(eps, "eps")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.n_features))
        self.bias = nn.Parameter(torch.zeros(self.n_features))

    def extra_repr(self) -> str:
        return f"{self.n_features}, n_reference={self.n_reference}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        check_floating(x, "x")
        r = self.n_reference
        if x.ndim < 2 or x.shape[1] != self.n_features or len(x) < r:
            raise ValueError(
                f"x must have shape (R + N, {self.n_features}, ...) with R = {r} reference "
                f"examples, got shape {tuple(x.shape)}"
            )
        flat = x.flatten(2) if x.ndim > 2 else x[..., None]  # (R + N, C, P)
        # From the reference's mean: else a difference of large squares.
        flat = flat - flat[:r].mean((0, 2), keepdim=True)
        squares = flat.square().mean(2)  # (R + N, C)
        mean = flat.mean(2) / (r + 1)
        square = (r * squares[:r].mean(0) + squares) / (r + 1)
        is_reference = torch.arange(len(x), device=x.device)[:, None] < r
        mean = mean.masked_fill(is_reference, 0)
        variance = torch.where(is_reference, squares[:r].mean(0), square - mean.square())
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((flat - mean[..., None]) * scale[..., None] + self.bias[:, None]).view_as(x)


class ReferenceBatch(nn.Module):
    """x to the network's answer on (reference, x), without the reference's part.

    Args:
        network: any whose normalisations are `VirtualBatchNorm` of as many reference examples.
        reference: what its input is like, drawn once and kept, ``(R, ...)``.

    Shapes: ``(N, ...)`` to the network's output of these N.

    Raises:
        ValueError: for a layer of another R (both numbers), or x of another shape than (N, ...).
    """

    reference: Tensor

    def __init__(self, network: nn.Module, reference: Tensor) -> None:
        super().__init__()
        check_floating(reference, "reference")
        for name, layer in network.named_modules():
            if isinstance(layer, VirtualBatchNorm) and layer.n_reference != len(reference):
                raise ValueError(
                    f"reference must hold n_reference = {layer.n_reference} examples, as layer "
                    f"{name} of the network has it, got {len(reference)}"
                )
        self.network = network
        self.register_buffer("reference", reference.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x, "x")
        if x.shape[1:] != self.reference.shape[1:]:
            raise ValueError(
                f"x must be like the reference, {tuple(self.reference.shape)} but for their "
                f"number, got shape {tuple(x.shape)}"
            )
        return self.network(torch.cat([self.reference, x]))[len(self.reference) :]


class MinibatchDiscrimination(nn.Module):
    """(h_i, o_i), o_ib = Σ_{j ≠ i} exp(−‖M_ib − M_jb‖₁), M_i = h_i T: how close the others lie.

    A discriminator that sees o can tell a batch of equal samples from a batch of data. Feed it
    data and samples in batches of their own.

    Source: Salimans et al. 2016, section 3.2, https://arxiv.org/abs/1606.03498, whose sum has the
    constant term j = i too.

    Args:
        n_features: numbers A in h_i.
        n_kernels: numbers B in o_i.
        kernel_dim: numbers C in a row M_ib.

    Shapes: ``(N, A)`` to ``(N, A + B)``. Memory: N² B C numbers.

    Raises:
        ValueError: for h of another shape.
    """

    def __init__(self, n_features: int, n_kernels: int = 16, kernel_dim: int = 4) -> None:
        super().__init__()
        a, b, c = (
            check_count(n_features, "n_features"),
            check_count(n_kernels, "n_kernels"),
            check_count(kernel_dim, "kernel_dim"),
        )
        self.kernels = nn.Parameter(torch.randn(a, b, c) / a**0.5)

    def extra_repr(self) -> str:
        return "n_features={}, n_kernels={}, kernel_dim={}".format(*self.kernels.shape)

    def forward(self, h: Tensor) -> Tensor:
        check_floating(h, "h")
        if h.ndim != 2 or h.shape[1] != len(self.kernels):
            raise ValueError(
                f"h must have shape (N, {len(self.kernels)}), got shape {tuple(h.shape)}"
            )
        m = torch.einsum("na,abc->nbc", h, self.kernels)
        # Not cdist: it has no second derivative, which a gradient penalty needs.
        closeness = (-(m[:, None] - m).abs().sum(3)).exp()  # (N, N, B)
        itself = torch.eye(len(h), dtype=torch.bool, device=h.device)[..., None]
        return torch.cat([h, closeness.masked_fill(itself, 0).sum(1)], 1)
