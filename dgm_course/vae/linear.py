"""The linear VAE in closed form: what training on Gaussian data should reach.

Data x ~ N(m, Σ), a decoder N(x; W z + b, diag ψ), an encoder N(z; V x + c, diag s²). Every
expectation over the data is exact: log p(x) has a standard deviation of √(D/2) nats under its own
density, so that ten thousand samples would leave the second decimal open.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from dgm_course.checks import check_count, check_floating, check_instance, check_number
from dgm_course.vae.autoregressive_decoder import AutoregressiveVAE
from dgm_course.vae.gaussian_vae import GaussianVAE
from dgm_course.vae.latent_variable_model import ElboTerms, StandardNormal


class LinearVAE(NamedTuple):
    """x = W z + b + √ψ ε with codes z ~ N(V x + c, diag s²): the parameters, and exact averages."""

    weight: Tensor  # W (D, M)
    mean: Tensor  # b (D,)
    noise_variance: Tensor  # ψ (D,)
    code_weight: Tensor  # V (M, D)
    code_bias: Tensor  # c (M,)
    code_variance: Tensor  # s² (M,)

    def marginal(self) -> MultivariateNormal:
        """p(x) = N(b, W Wᵀ + diag ψ), whose ``log_prob`` is the exact log p(x) in nats."""
        return MultivariateNormal(
            self.mean, self.weight @ self.weight.T + torch.diag(self.noise_variance)
        )

    def expected_elbo(self, data: MultivariateNormal) -> ElboTerms:
        """E_π of both terms of the ELBO over x ~ π = N(m, Σ), nats of shape (), with gradients.

        With the residual r = x − W z − b, of mean m − W(V m + c) − b and covariance
        (I − W V) Σ (I − W V)ᵀ + W diag(s²) Wᵀ, the reconstruction is
        −½ Σ_d (ln 2πψ_d + E r_d² / ψ_d); the KL term is ½ Σ_j (E μ_j² + s_j² − 1 − ln s_j²), with
        μ(x) = V x + c.
        """
        m, sigma = self._moments(data)
        mu = self.code_weight @ m + self.code_bias
        r = m - self.weight @ mu - self.mean
        rest = torch.eye(len(m), dtype=m.dtype) - self.weight @ self.code_weight
        r2 = r**2 + _diagonal(rest, sigma) + self.weight**2 @ self.code_variance
        log_noise = (2 * math.pi * self.noise_variance).log()
        mu2 = mu**2 + _diagonal(self.code_weight, sigma)
        kl = 0.5 * (mu2 + self.code_variance - 1 - self.code_variance.log()).sum()
        return ElboTerms(-0.5 * (log_noise + r2 / self.noise_variance).sum(), kl)

    def activity(self, data: MultivariateNormal) -> Tensor:
        """Var_π(E_q[z_j]) = (V Σ Vᵀ)_jj of each latent, ``(M,)``, as `active_units` compares it."""
        return _diagonal(self.code_weight, self._moments(data)[1])

    def with_best_encoder(self, beta: float = 1.0) -> LinearVAE:
        """The same decoder, with the diagonal Gaussian encoder that is best for it at this β.

        The best q is proportional to p(x|z)^(1/β) p(z) where that is diagonal: one latent, or
        columns of W that are orthogonal after division by √ψ. Else it has its mean, and
        1/s² = 1 + diag(WᵀΨ⁻¹W)/β.
        """
        scaled = self.weight.T / (beta * self.noise_variance)  # WᵀΨ⁻¹/β (M, D)
        precision = torch.eye(len(scaled), dtype=scaled.dtype) + scaled @ self.weight
        code_weight = torch.linalg.solve(precision, scaled)
        return self._replace(
            code_weight=code_weight,
            code_bias=-code_weight @ self.mean,
            code_variance=1 / precision.diagonal(),
        )

    def _moments(self, data: MultivariateNormal) -> tuple[Tensor, Tensor]:
        check_instance(data, MultivariateNormal, "data")
        if data.mean.shape != self.mean.shape:
            raise ValueError(
                f"data must be a Gaussian of {len(self.mean)} features, "
                f"got a mean of shape {tuple(data.mean.shape)}"
            )
        dtype = self.mean.dtype
        return data.mean.to(dtype), data.covariance_matrix.to(dtype)


def parameters_of(vae: GaussianVAE) -> LinearVAE:
    """The parameters of a `GaussianVAE` with hidden = 0, with their gradients.

    Raises:
        ValueError: for one that is not linear, whose noise depends on z, or whose prior is not
            the N(0, I) that is in every formula here.
    """
    check_instance(vae, GaussianVAE, "vae")
    if vae.hidden != 0 or vae.likelihood != "gaussian" or vae.noise == "network":
        raise ValueError(
            "vae must have hidden=0 and a Gaussian decoder whose noise does not depend on z, got "
            f"hidden={vae.hidden}, likelihood={vae.likelihood!r}, noise={vae.noise!r}"
        )
    if not isinstance(vae.prior, StandardNormal):
        raise ValueError(f"vae must have the prior N(0, I), got {vae.prior}")
    encoder, decoder = cast(nn.Linear, vae.encoder[0]), cast(nn.Linear, vae.decoder[0])
    return LinearVAE(
        decoder.weight,
        decoder.bias,
        vae.noise_log_variance.exp().expand(vae.x_dim),
        encoder.weight,
        encoder.bias,
        vae.code_log_variance.exp(),
    )


def expected_elbo_of(model: GaussianVAE | AutoregressiveVAE, data: MultivariateNormal) -> ElboTerms:
    """E_π of both terms for a linear model, nats of shape (), with or without a window.

    What an autoregressive decoder leaves, y = (I − A) x, is Gaussian data for a plain decoder and
    an encoder V (I − A)⁻¹; A has a zero diagonal, so that no log-determinant appears.
    """
    if isinstance(model, GaussianVAE):
        return parameters_of(model).expected_elbo(data)
    linear = parameters_of(model.vae)
    m, sigma = linear._moments(data)
    rest = torch.eye(len(m), dtype=m.dtype) - model.context * model.mask  # I − A
    left = MultivariateNormal(rest @ m, rest @ sigma @ rest.T)
    code_weight = torch.linalg.solve(rest, linear.code_weight, left=False)
    return linear._replace(code_weight=code_weight).expected_elbo(left)


# --- fixed isotropic noise ------------------------------------------------------------------


def fixed_noise_rate(
    eigenvalue: Tensor | float, noise_variance: Tensor | float, beta: Tensor | float = 1.0
) -> Tensor:
    """½ ln(λ / (βσ²)) where λ > βσ², else 0: the best rate in nats along an eigenvector of Σ.

    The transition is at λ = βσ²: a latent whose direction varies less than the noise, times β, is
    not worth its price. Rotating Σ changes nothing.

    Source: derived; cf. Lucas, Tucker, Grosse & Norouzi 2019, section 4,
    https://arxiv.org/abs/1911.02469, for β = 1.

    Args:
        eigenvalue: λ > 0 of the data's covariance.
        noise_variance: σ² > 0 of the decoder, fixed.
        beta: weight of the KL term, positive.
    """
    return -0.5 * _kept(eigenvalue, noise_variance, beta).log()


def fixed_noise_activity(
    eigenvalue: Tensor | float, noise_variance: Tensor | float, beta: Tensor | float = 1.0
) -> Tensor:
    """max(0, 1 − βσ²/λ) = 1 − e^(−2 rate): the variance of the posterior mean at the optimum."""
    return 1 - _kept(eigenvalue, noise_variance, beta)


def best_with_fixed_noise(
    data: MultivariateNormal, z_dim: int, noise_variance: float, beta: float = 1.0
) -> LinearVAE:
    """The maximum of E_π[reconstruction − β KL] at fixed noise: W = U √(Λ − βσ²)₊, the best z_dim.

    Divided by β the objective is an ELBO with noise βσ², up to a constant: probabilistic PCA.

    Source: derived from Tipping & Bishop 1999, equation 7 and appendix A,
    https://doi.org/10.1111/1467-9868.00196.
    """
    check_instance(data, MultivariateNormal, "data")
    m, sigma = data.mean.double(), data.covariance_matrix.double()
    _positive(noise_variance=noise_variance, beta=beta)
    z_dim = check_count(z_dim, "z_dim", most=len(m))
    eigenvalues, vectors = torch.linalg.eigh(sigma)  # ascending
    top = (eigenvalues - beta * noise_variance).clamp_min(0).sqrt().flip(0)[:z_dim]
    weight = vectors.flip(1)[:, :z_dim] * top
    return _with_zero_encoder(weight, m, torch.full_like(m, noise_variance)).with_best_encoder(beta)


# --- learned diagonal noise, two features, one latent ---------------------------------------


def diagonal_noise_rate(correlation: Tensor | float, beta: Tensor | float = 1.0) -> Tensor:
    """½ ln((2 − β)(1 + |ρ|) / (β (1 − |ρ|))) for 1 ≤ β < 1 + |ρ|, 0 beyond: the rate in nats.

    For β > 1 it is the rate of the best (W, ψ). For β = 1 the best are a ridge, and this is the
    lowest rate on it, ½ ln((1 + |ρ|) / (1 − |ρ|)): Wyner's common information of the two features,
    which bounds the rate of every decoder that makes them independent given z. Below 1 the
    objective has no maximum: ψ₁ → 0 earns ½ ln(1/ψ₁) at the price of β ½ ln(1/ψ₁).

    Source: derived; for β = 1 cf. Wyner 1975, https://doi.org/10.1109/TIT.1975.1055346.

    Args:
        correlation: ρ of the two features, −1 < ρ < 1.
        beta: weight of the KL term, at least 1.
    """
    for name, value in (("correlation", correlation), ("beta", beta)):
        if not isinstance(value, Tensor):
            check_number(value, name, or_negative=True)
    rho, beta = torch.as_tensor(correlation).abs().double(), torch.as_tensor(beta).double()
    if (rho >= 1).any() or (beta < 1).any():
        raise ValueError(
            f"correlation must lie inside (−1, 1) and beta be at least 1, "
            f"got |ρ| up to {rho.max():g} and β from {beta.min():g}"
        )
    odds = (2 - beta).clamp_min(0) * (1 + rho) / (beta * (1 - rho))
    return 0.5 * odds.clamp_min(1).log()


def best_with_diagonal_noise(data: MultivariateNormal, beta: float = 1.0) -> LinearVAE:
    """The maximum of E_π[reconstruction − β KL] over W (2, 1) and ψ, for β > 1 the only one.

    With A = 1 − e^(−2 rate): W_d² = Σ_dd A (1 + |ρ|) / 2, both of one sign where ρ > 0, and
    ψ_d = Σ_dd − W_d². At β = 1 it is the point of the ridge with the lowest rate.

    Source: derived, as `diagonal_noise_rate`.
    """
    check_instance(data, MultivariateNormal, "data")
    m, sigma = data.mean.double(), data.covariance_matrix.double()
    if len(m) != 2:
        raise ValueError(f"data must have two features, got {len(m)}")
    scale = sigma.diagonal().sqrt()
    rho = sigma[0, 1] / scale.prod()
    activity = 1 - torch.exp(-2 * diagonal_noise_rate(rho, beta))
    weight = scale * (activity * (1 + rho.abs()) / 2).sqrt()
    weight = torch.stack([weight[0], weight[1] * torch.where(rho < 0, -1.0, 1.0)])
    start = _with_zero_encoder(weight[:, None], m, sigma.diagonal() - weight**2)
    return start.with_best_encoder(beta)


def collapse_costs(covariance: Tensor) -> Tensor:
    """½ (Σ_d ln Σ_dd − ln det Σ) in nats, −½ ln(1 − ρ²) for two features: what z is worth.

    It is the best expected log-density minus that of independent features, which is the best that
    a Gaussian decoder with diagonal noise and no latent can do.

    Shapes: covariance ``(D, D)`` to ``()``.
    """
    check_floating(covariance, "covariance")
    if covariance.ndim != 2 or len(covariance) != covariance.shape[1]:
        raise ValueError(f"covariance must have shape (D, D), got {tuple(covariance.shape)}")
    if torch.linalg.cholesky_ex(covariance.double()).info > 0:
        raise ValueError(f"covariance must be positive definite, got {covariance.tolist()}")
    return 0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance))


def ridge(data: MultivariateNormal, first_weight: Tensor) -> list[LinearVAE]:
    """The best models with one latent and learned diagonal noise, at β = 1: W Wᵀ + diag ψ = Σ.

    W = (t, Σ₁₂ / t) and ψ = diag(Σ) − W²: one free number t, all with the same, best, expected
    ELBO E log π(x) and with rates from `diagonal_noise_rate` up to infinity, where a ψ is 0.

    Args:
        data: N(m, Σ) of two features.
        first_weight: values of t, ``(P,)``; 0 only where Σ₁₂ = 0.

    Raises:
        ValueError: for a t that leaves a ψ that is not positive.
    """
    check_instance(data, MultivariateNormal, "data")
    m, sigma = data.mean.double(), data.covariance_matrix.double()
    if len(m) != 2:
        raise ValueError(f"data must have two features, got {len(m)}")
    check_floating(first_weight, "first_weight")
    if first_weight.ndim != 1:
        raise ValueError(f"first_weight must have shape (P,), got {tuple(first_weight.shape)}")
    t = first_weight.double()
    # With Σ₁₂ = 0 the second weight is 0, also at t = 0, where the latent is not used.
    second = sigma[0, 1] / torch.where(t == 0, 1.0, t)
    weight = torch.stack([t, second], 1)  # (P, 2)
    psi = sigma.diagonal() - weight**2
    if not (psi > 0).all() or (sigma[0, 1] != 0 and (t == 0).any()):
        raise ValueError(
            f"first_weight must leave a positive noise, W² below {sigma.diagonal().tolist()}, "
            f"got W² up to {(weight**2).max(0).values.tolist()}"
        )
    return [
        _with_zero_encoder(w[:, None], m, p).with_best_encoder()
        for w, p in zip(weight, psi, strict=True)
    ]


def _kept(
    eigenvalue: Tensor | float, noise_variance: Tensor | float, beta: Tensor | float
) -> Tensor:
    """min(1, βσ²/λ): the share of the code's variance that is noise."""
    _positive(eigenvalue=eigenvalue, noise_variance=noise_variance, beta=beta)
    noise = torch.as_tensor(beta * noise_variance).double()
    return (noise / torch.as_tensor(eigenvalue).double()).clamp_max(1)


def _positive(**values: Tensor | float) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            check_number(value, name)
        elif not (value > 0).all():
            raise ValueError(f"{name} must be positive, got {value}")


def _diagonal(a: Tensor, sigma: Tensor) -> Tensor:
    """diag(A Σ Aᵀ)."""
    return ((a @ sigma) * a).sum(1)


def _with_zero_encoder(weight: Tensor, mean: Tensor, noise_variance: Tensor) -> LinearVAE:
    z_dim = weight.shape[1]
    return LinearVAE(
        weight,
        mean,
        noise_variance,
        weight.new_zeros(z_dim, len(mean)),
        weight.new_zeros(z_dim),
        weight.new_ones(z_dim),
    )
