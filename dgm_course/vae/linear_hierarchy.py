"""The hierarchical VAE in closed form: linear layers, for which every posterior is Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from dgm_course.checks import check_count, check_instance
from dgm_course.vae.hierarchical import ConditionalGaussian, HierarchicalVAE


class LinearHierarchy(NamedTuple):
    """y_(l−1) = W_l y_l + b_l + √ψ_l ε for l = 1 … L, y_0 = x the data, y_L = z_L ~ N(0, I)."""

    weights: list[Tensor]  # W_1 (D, M_1), …, W_L (M_(L−1), M_L)
    biases: list[Tensor]  # b_1 (D,), …
    variances: list[Tensor]  # ψ_1 (D,), …

    @property
    def sizes(self) -> list[int]:
        """D, M_1, …, M_L."""
        return [*(len(weight) for weight in self.weights), self.weights[-1].shape[1]]

    def joint(self) -> MultivariateNormal:
        """p(x, z_1, …, z_L): its precision is I for z_L plus (I, −W)ᵀ Ψ⁻¹ (I, −W) of each layer."""
        ends = [0, *accumulate(self.sizes)]
        precision = self.weights[0].new_zeros(ends[-1], ends[-1])
        precision[ends[-2] :, ends[-2] :] = torch.eye(self.sizes[-1]).to(precision)
        for start, end, weight, variance in zip(
            ends, ends[2:], self.weights, self.variances, strict=False
        ):
            residual = torch.cat([torch.eye(len(weight)).to(weight), -weight], 1)
            precision[start:end, start:end] += residual.T / variance @ residual
        means = [weight.new_zeros(self.sizes[-1])]
        for weight, bias in zip(self.weights[::-1], self.biases[::-1], strict=True):
            means.insert(0, weight @ means[0] + bias)
        return MultivariateNormal(torch.cat(means), precision_matrix=precision)

    def marginal(self) -> MultivariateNormal:
        """p(x), whose ``log_prob`` is the exact log p(x) in nats."""
        joint, d = self.joint(), self.sizes[0]
        return MultivariateNormal(joint.mean[:d], joint.covariance_matrix[:d, :d])

    def posterior_precision(self) -> Tensor:
        """Λ, the precision of (z_1, …, z_L) given x, the same at every x: ``(M, M)``."""
        d = self.sizes[0]
        return self.joint().precision_matrix[d:, d:]

    def conditional(self, layer: int, given: int) -> tuple[Tensor, Tensor, Tensor]:
        """V ``(M_l, ·)``, c and the covariance of p(y_l|y_given) = N(V y_given + c, ·)."""
        joint, ends = self.joint(), [0, *accumulate(self.sizes)]
        of, by = (slice(*ends[i : i + 2]) for i in (layer, given))
        sigma, mean = joint.covariance_matrix, joint.mean
        weight = torch.linalg.solve(sigma[by, by], sigma[by, of]).T
        return weight, mean[of] - weight @ mean[by], sigma[of, of] - weight @ sigma[by, of]


def mean_field_gap(precision: Tensor, sizes: Sequence[int]) -> Tensor:
    """½ (Σ_l ln|Λ_ll| − ln|Λ|) in nats: the least KL(q ‖ p) of a product q over blocks of p.

    p is a Gaussian of precision Λ; the best q has its mean and the precisions Λ_ll.

    Source: derived; cf. Bishop 2006, section 10.1.2.

    Args:
        precision: Λ ``(M, M)``.
        sizes: of the blocks on its diagonal, which add up to M.
    """
    sizes = [check_count(m, f"sizes[{i}]") for i, m in enumerate(sizes)]
    if sum(sizes) != len(precision):
        raise ValueError(f"sizes must add up to {len(precision)}, got {sizes}")
    ends = [0, *accumulate(sizes)]
    blocks = sum(torch.logdet(precision[i:j, i:j]) for i, j in pairwise(ends))
    return 0.5 * (blocks - torch.logdet(precision))


def hierarchy_of(vae: HierarchicalVAE) -> LinearHierarchy:
    """The parameters of a model with hidden = 0 and a Gaussian decoder, without gradients."""
    check_instance(vae, HierarchicalVAE, "vae")
    if vae.vae.hidden != 0 or vae.vae.likelihood != "gaussian":
        raise ValueError(
            "vae must have hidden=0 and a Gaussian decoder, got "
            f"hidden={vae.vae.hidden}, likelihood={vae.vae.likelihood!r}"
        )
    down = cast("list[ConditionalGaussian]", [*vae.down])
    maps = [
        cast(nn.Linear, network[0]) for network in (vae.vae.decoder, *(p.network for p in down))
    ]
    log_variances = [vae.vae.noise_log_variance.expand(vae.x_dim), *(p.log_variance for p in down)]
    return LinearHierarchy(
        [linear.weight.detach() for linear in maps],
        [linear.bias.detach() for linear in maps],
        [cast(Tensor, value).detach().exp() for value in log_variances],
    )


@torch.no_grad()
def with_best_posterior(vae: HierarchicalVAE) -> HierarchicalVAE:
    """The model itself, its posterior now the best that it can be for this decoder and prior.

    A chain's is the exact posterior, p(z_1|x) p(z_2|z_1) …; an independent one has the exact
    means, and the inverse of Λ's diagonal for variances.

    Raises:
        ValueError: for a model that is not linear, or a chain one of whose layers has correlations
            given the layer below: its q(z_l|·) has none.
    """
    exact = hierarchy_of(vae)
    up = cast("list[ConditionalGaussian]", [*vae.up])
    networks = [vae.vae.encoder, *(q.network for q in up)]
    log_variances = [vae.vae.code_log_variance, *(cast(Tensor, q.log_variance) for q in up)]
    independent = (1 / exact.posterior_precision().diagonal()).split(vae.z_dims)
    for i, (network, log_variance) in enumerate(zip(networks, log_variances, strict=True)):
        chained = vae.posterior_kind == "chain"
        weight, bias, covariance = exact.conditional(i + 1, given=i if chained else 0)
        variance = covariance.diagonal()
        if not chained:
            variance = independent[i]
        elif (worst := (covariance - variance.diag()).abs().max()) > 1e-6 * variance.max():
            raise ValueError(
                f"vae must have uncorrelated codes in each layer, given the layer below, for a "
                f"chain to be exact, got a covariance of {worst:.2g} in z{i + 1}"
            )
        linear = cast(nn.Linear, network[0])
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
        log_variance.copy_(variance.log())
    return vae
