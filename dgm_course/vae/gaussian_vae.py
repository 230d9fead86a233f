"""The variational autoencoder with Gaussian codes."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from dgm_course.checks import (
    check_count,
    check_number,
    check_points,
    check_tensor,
    values_are_checked,
)
from dgm_course.vae.latent_variable_model import (
    Flow,
    LatentVariableModel,
    as_distribution,
    check_codes,
    check_prior,
)

Likelihood = Literal["gaussian", "bernoulli", "categorical"]
Noise = Literal["fixed", "shared", "diagonal", "network"]


class GaussianVAE(LatentVariableModel):
    """z ~ p(z), x ~ p(x|z) with parameters from a network, q(z|x) = N(μ(x), diag σ²(x)).

    Source: Kingma & Welling 2014, section 3 and appendix C, https://arxiv.org/abs/1312.6114.

    The noise of a Gaussian decoder N(x; μ_θ(z), diag σ²) decides what the latent is needed for:
    "fixed" at ``noise_scale``; "shared", one learned σ; "diagonal", one for each feature;
    "network", σ_θ(z). The learned ones start at ``noise_scale``, or where `start_at` puts them.

    Args:
        x_dim: number of features D.
        z_dim: number of latents M.
        hidden: units of the one hidden layer (ReLU) of encoder and decoder. 0 is the linear VAE:
            means linear in x and in z, and a learned posterior variance that does not depend on x
            (with "network", log σ_θ² is linear in z).
        likelihood: "gaussian"; "bernoulli", for x in [0, 1], where a value in between stands for
            the average over pixels that are 1 with that probability; "categorical", for integer
            levels.
        n_levels: number of levels 0 … n_levels − 1, for "categorical".
        noise: which noise a Gaussian decoder has; the others have their own.
        noise_scale: σ, in the units of x.
        prior: p(z), N(0, I) if none is given: a distribution over codes, of event shape ``(M,)``,
            or a flow, which is then trained with the rest. Only a flow follows ``.to(...)`` and
            ``.double()``.

    Shapes: x ``(N, D)``; integers are cast to the weights' dtype; z ``(..., M)``.

    Raises:
        ValueError: for a prior over codes of another width, a batch of the wrong shape or dtype,
            empty, with NaN or inf, Bernoulli targets outside [0, 1], levels out of range, or
            log-variances whose exponential leaves the dtype.

    Omits: deeper networks, other posteriors.
    """

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden: int = 64,
        *,
        likelihood: Likelihood = "gaussian",
        n_levels: int | None = None,
        noise: Noise = "fixed",
        noise_scale: float = 1.0,
        prior: Distribution | Flow | None = None,
    ) -> None:
        super().__init__()
        x_dim, z_dim = check_count(x_dim, "x_dim"), check_count(z_dim, "z_dim")
        hidden = check_count(hidden, "hidden", 0)
        if likelihood not in ("gaussian", "bernoulli", "categorical"):
            raise ValueError(
                f"likelihood must be 'gaussian', 'bernoulli' or 'categorical', got {likelihood!r}"
            )
        if (likelihood == "categorical") != (n_levels is not None):
            raise ValueError(
                "n_levels must be an int for a categorical likelihood and None for others, "
                f"got {n_levels} for {likelihood!r}"
            )
        if n_levels is not None:
            n_levels = check_count(n_levels, "n_levels", 2)
        if noise not in ("fixed", "shared", "diagonal", "network"):
            raise ValueError(
                f"noise must be 'fixed', 'shared', 'diagonal' or 'network', got {noise!r}"
            )
        if likelihood != "gaussian" and (noise, noise_scale) != ("fixed", 1.0):
            raise ValueError(f"noise and noise_scale are for a Gaussian decoder, not {likelihood}")
        check_number(noise_scale, "noise_scale")
        if prior is not None:
            check_prior(prior, z_dim)
        self._prior = prior
        self.x_dim, self.z_dim, self.hidden = x_dim, z_dim, hidden
        self.likelihood, self.n_levels, self.noise = likelihood, n_levels, noise
        self.encoder = one_hidden_layer(x_dim, hidden, z_dim if hidden == 0 else 2 * z_dim)
        if hidden == 0:
            self.code_log_variance = nn.Parameter(torch.zeros(z_dim))
        outputs = n_levels or (2 if noise == "network" else 1)
        self.decoder = one_hidden_layer(z_dim, hidden, x_dim * outputs)
        log_variance = torch.tensor(2 * math.log(noise_scale))
        if noise in ("shared", "diagonal"):
            start = log_variance.expand(x_dim if noise == "diagonal" else 1).clone()
            self.noise_log_variance = nn.Parameter(start)
        else:  # for "network", what is added to the network's output
            self.register_buffer("noise_log_variance", log_variance)

    @property
    def prior(self) -> Distribution:
        """p(z), of event shape ``(M,)``."""
        return super().prior if self._prior is None else as_distribution(self._prior)

    def start_at(self, mean: Tensor, variance: Tensor) -> GaussianVAE:
        """Start a Gaussian decoder at N(mean, diag variance), the data's moments, and no use of z.

        The last layers' weights shrink to a hundredth, codes start at the prior, and learned
        noise at ``variance`` (its mean where it is shared). From there, where collapse is a best
        point training finds it, and elsewhere it leaves it: what training ends with is then due
        to the objective and hardly to the draw of the weights.

        Args:
            mean, variance: of each feature, ``(D,)``.

        Returns:
            The model itself.
        """
        if self.likelihood != "gaussian":
            raise ValueError(f"start_at is for a Gaussian decoder, not {self.likelihood}")
        for name, value in (("mean", mean), ("variance", variance)):
            check_tensor(value, name)
            if value.shape != (self.x_dim,) or not torch.isfinite(value).all():
                raise ValueError(f"{name} must be finite, of shape ({self.x_dim},), got {value}")
        if (variance <= 0).any():
            raise ValueError(f"variance must be positive, got {variance}")
        with torch.no_grad():
            for network in (self.encoder, self.decoder):
                last = cast(nn.Linear, network[-1])
                last.weight.mul_(0.01)
                last.bias.zero_()
            if self.hidden == 0:
                self.code_log_variance.zero_()
            last.bias[: self.x_dim] = mean
            if self.noise == "network":
                last.bias[self.x_dim :] = variance.log() - self.noise_log_variance
            elif self.noise == "diagonal":
                self.noise_log_variance.copy_(variance.log())
            elif self.noise == "shared":
                self.noise_log_variance.fill_(variance.mean().log())
        return self

    def encode(self, x: Tensor) -> Independent[Normal]:
        """q(z|x) = N(μ(x), diag σ²(x)): data ``(N, D)`` to batch shape ``(N,)``, event ``(M,)``."""
        return self.codes_given(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What the encoder's last layer reads: ``(N, D)`` to ``(N, hidden)``; x if hidden = 0."""
        x = self.as_numbers(x)
        if self.n_levels is not None:
            x = 2 * x / (self.n_levels - 1) - 1  # levels to [−1, 1]
        for layer in [*self.encoder][:-1]:
            x = layer(x)
        return x

    def codes_given(self, features: Tensor) -> Independent[Normal]:
        """q(z|x) of an x that is known by its ``features``."""
        out = self.encoder[-1](features)
        out = out.to(self.encoder[-1].weight.dtype)  # which autocast makes narrower
        if self.hidden == 0:
            mean, log_variance = out, self.code_log_variance.expand_as(out)
        else:
            mean, log_variance = out.chunk(2, dim=1)  # (N, M) each
        return Independent(Normal(mean, scale_of(log_variance, "encoder")), 1)

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z): codes ``(..., M)`` to batch shape ``(...)`` and event shape ``(D,)``."""
        check_codes(z, self.z_dim, next(self.parameters()).dtype)
        out = self.decoder(z).to(z.dtype)
        if self.likelihood == "bernoulli":  # whose own check would refuse values inside (0, 1)
            return Independent(Bernoulli(logits=out, validate_args=False), 1)
        if self.n_levels is not None:
            return Independent(Categorical(logits=out.unflatten(-1, (self.x_dim, -1))), 1)
        log_variance = self.noise_log_variance
        if self.noise == "network":
            out, residual = out.chunk(2, dim=-1)
            log_variance = log_variance + residual
        return Independent(Normal(out, scale_of(log_variance, "decoder").expand_as(out)), 1)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z]: codes ``(N, M)`` to data without the decoder's noise, ``(N, D)``."""
        observation = self.decode(z)
        if self.n_levels is None:
            return observation.mean
        p = cast("Independent[Categorical]", observation).base_dist.probs  # (N, D, n_levels)
        return p @ torch.arange(self.n_levels, dtype=p.dtype, device=p.device)

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        weight = next(self.parameters())
        if isinstance(x, Tensor) and self.likelihood != "gaussian":
            if self.n_levels is not None and (x.is_floating_point() or x.dtype == torch.bool):
                raise ValueError(f"x must hold integer levels, got dtype {x.dtype}")
            x = x if x.is_floating_point() else x.to(weight.dtype)
        check_points(x, self.x_dim, weight.dtype, "x")
        if self.likelihood != "gaussian" and values_are_checked():
            top = 1 if self.n_levels is None else self.n_levels - 1
            low, high = (bound.item() for bound in x.aminmax())
            if low < 0 or high > top:
                kind = "[0, 1]" if self.n_levels is None else f"the levels 0 … {top}"
                raise ValueError(
                    f"x must lie in {kind} for a {self.likelihood} decoder, "
                    f"got values from {low:g} to {high:g}"
                )
        return x


def one_hidden_layer(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    """One hidden layer of ReLUs, or, with hidden = 0, an affine map."""
    if hidden == 0:
        return nn.Sequential(nn.Linear(n_in, n_out))
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_out))


def scale_of(log_variance: Tensor, whose: str) -> Tensor:
    """σ = exp(½ ln σ²), where σ² neither overflows nor vanishes in its dtype."""
    if values_are_checked():
        limit = -math.log(torch.finfo(log_variance.dtype).tiny)
        low, high = (bound.item() for bound in log_variance.detach().aminmax())
        if not (-limit < low and high < limit):  # NaN too
            raise ValueError(
                f"the {whose}'s log-variances must lie between ±{limit:.0f}, where their "
                f"exponential stays in {log_variance.dtype}, got {low:.4g} to {high:.4g}"
            )
    return (0.5 * log_variance).exp()
