"""InfoGAN: a generator whose samples tell the codes that they were made with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Uniform
from torch.nn.functional import one_hot

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_floating,
    check_instance,
    check_number,
    check_shape,
    values_are_checked,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.losses import discriminator_loss, generator_loss
from dgm_course.probability import Estimate, gaussian_log_prob


class LatentCodes:
    """p(c) = Π_j p(c_j): categorical codes of equally likely values, then uniform ones on [−1, 1].

    A row of c has a column for each code, the categorical ones first, as whole numbers from 0. A
    network reads them as `as_inputs` has them, each category by a unit vector; what it says of them
    is `n_parameters` numbers: the log-odds of each category, a mean and a log-scale of each
    continuous code.

    Source: Chen et al. 2016, sections 5 and 6, https://arxiv.org/abs/1606.03657.

    Args:
        categories: K_j ≥ 2 of each categorical code.
        n_continuous: how many continuous codes.

    Raises:
        ValueError: for no codes at all, or one of fewer than two values.

    Example:
        >>> codes = LatentCodes([10], n_continuous=2)
        >>> codes.n_inputs, codes.n_parameters, round(codes.entropy, 4)  # ln 10 + 2 ln 2
        (12, 14, 3.6889)
    """

    def __init__(self, categories: Iterable[int] = (10,), n_continuous: int = 0) -> None:
        kinds = as_numbers(
            [*categories] if isinstance(categories, Iterable) else None, "categories"
        )
        self.categories = tuple(
            check_count(k, f"categories[{i}]", 2) for i, k in enumerate(kinds.tolist())
        )
        self.n_continuous = check_count(n_continuous, "n_continuous", 0)
        if not self.n_codes:
            raise ValueError("categories and n_continuous must make one code or more, got none")

    def __repr__(self) -> str:
        return f"LatentCodes({self.categories}, n_continuous={self.n_continuous})"

    @property
    def n_codes(self) -> int:
        """Columns of c."""
        return len(self.categories) + self.n_continuous

    @property
    def n_inputs(self) -> int:
        """Columns of `as_inputs`."""
        return sum(self.categories) + self.n_continuous

    @property
    def n_parameters(self) -> int:
        """Numbers that say q(c|x)."""
        return sum(self.categories) + 2 * self.n_continuous

    @property
    def priors(self) -> list[Distribution]:
        """p(c_j) of each code."""
        uniform = [Uniform(-1.0, 1.0) for _ in range(self.n_continuous)]
        return [*(Categorical(torch.ones(k)) for k in self.categories), *uniform]

    @property
    def entropy(self) -> float:
        """H(c) = Σ ln K_j + n ln 2 in nats, the second part differential."""
        return sum(map(math.log, self.categories)) + self.n_continuous * math.log(2)

    def sample(self, n: int, generator: Seed | None = None) -> Tensor:
        """n rows of codes ``(n, C)``."""
        chance = None if generator is None else as_generator(generator)
        c = torch.rand(check_count(n, "n"), self.n_codes, generator=chance)
        sizes = torch.tensor([*self.categories] + [2] * self.n_continuous)
        c = c * sizes
        split = len(self.categories)
        return torch.cat([c[:, :split].floor().minimum(sizes[:split] - 1.0), c[:, split:] - 1], 1)

    def as_inputs(self, c: Tensor) -> Tensor:
        """A unit vector for each category, and the continuous codes: ``(N, C)`` to ``(N, I)``."""
        self._check(c)
        hot = [one_hot(c[:, j].long(), k).to(c) for j, k in enumerate(self.categories)]
        return torch.cat([*hot, c[:, len(self.categories) :]], 1)

    def log_q(self, parameters: Tensor, c: Tensor) -> Tensor:
        """log q(c|x) = Σ_j log q(c_j|x) in nats ``(N,)``, with q as `n_parameters` numbers say.

        A categorical code's log-odds are normalised over its own values; a continuous code is
        Gaussian.

        Raises:
            ValueError: for parameters other than ``(N, P)``, or codes that there are not.
        """
        self._check(c)
        check_floating(parameters, "parameters")
        check_shape(parameters, (len(c), self.n_parameters), "parameters")
        *logits, mean, log_scale = parameters.split(
            [*self.categories, self.n_continuous, self.n_continuous], 1
        )
        log_q = gaussian_log_prob(c[:, len(logits) :].to(mean), mean, log_scale).sum(1)
        for j, odds in enumerate(logits):
            log_p = odds.log_softmax(1)
            log_q = log_q + log_p.gather(1, c[:, j, None].long()).squeeze(1)
        return log_q

    def _check(self, c: Tensor) -> None:
        check_floating(c, "c")
        if c.ndim != 2 or c.shape[1] != self.n_codes or not len(c):
            raise ValueError(f"c must have shape (N, {self.n_codes}), got {tuple(c.shape)}")
        if values_are_checked():
            for j, k in enumerate(self.categories):
                column = c[:, j]
                if not ((column >= 0) & (column < k) & (column == column.floor())).all():
                    raise ValueError(
                        f"c must hold whole numbers from 0 to {k - 1} in column {j}, got values "
                        f"from {column.min():g} to {column.max():g}"
                    )


class Discriminator(Protocol):
    """A discriminator whose last layer is linear in its features, such as `DCGANDiscriminator`."""

    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads, ``(N, F)``."""


class CodedSamples(NamedTuple):
    """Samples, and the codes that they were made with."""

    x: Tensor
    codes: Tensor  # (N, C)


class InfoGAN(nn.Module):
    """min_{G,Q} max_D V(D, G) − λ L_I(G, Q), where L_I = H(c) + E log q(c|G(z, c)) ≤ I(c; G(z, c)).

    Q, which says q(c|x), is one linear layer on the discriminator's features. It sees no data and
    needs no labels: of its own samples the game knows the codes. Both losses carry −λ log q(c|x):
    in the discriminator's step it tightens the bound, by Q and by the features that Q reads; in
    the generator's step it raises I. So Q belongs into the discriminator's optimiser:
    ``model.critic_parameters()``, beside ``model.generator.parameters()``, with `play`.

    Source: Chen et al. 2016, equation 6, https://arxiv.org/abs/1606.03657.

    Args:
        generator: noise and codes side by side, ``(N, z_dim + codes.n_inputs)``, to samples.
        discriminator: log-odds ``head(features(x))``.
        codes: p(c).
        z_dim: numbers of noise.
        weight: λ ≥ 0; at 0 it is a GAN that somebody listens to.

    Raises:
        ValueError: for codes of another kind, λ < 0, or a discriminator without a linear head.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        codes: LatentCodes,
        z_dim: int,
        *,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_instance(codes, LatentCodes, "codes")
        check_number(weight, "weight", or_zero=True)
        head = getattr(discriminator, "head", None)
        if not isinstance(head, nn.Linear) or not hasattr(discriminator, "features"):
            raise ValueError(
                "discriminator must have features(x) and a head, an nn.Linear on them, got "
                f"{type(discriminator).__name__}"
            )
        self.generator, self.discriminator = generator, discriminator
        self.codes, self.z_dim, self.weight = codes, check_count(z_dim, "z_dim", 0), weight
        self.recogniser = nn.Linear(head.in_features, codes.n_parameters).to(head.weight)

    def extra_repr(self) -> str:
        return f"{self.codes}, z_dim={self.z_dim}, weight={self.weight:g}"

    def critic_parameters(self) -> list[nn.Parameter]:
        """What moves in the discriminator's step: its own weights, and Q's."""
        return [*self.discriminator.parameters(), *self.recogniser.parameters()]

    def make(self, n: int, codes: Tensor | None = None) -> CodedSamples:
        """n samples G(z, c) with their codes, drawn unless they are given as ``(n, C)``."""
        weight = self.recogniser.weight
        c = self.codes.sample(n).to(weight) if codes is None else codes.to(weight)
        check_shape(c, (check_count(n, "n"), self.codes.n_codes), "codes")
        z = torch.randn(n, self.z_dim).to(weight)
        return CodedSamples(self.generator(torch.cat([z, self.codes.as_inputs(c)], 1)), c)

    def log_q(self, x: Tensor, codes: Tensor) -> Tensor:
        """log q(c|x) in nats ``(N,)``."""
        return self.codes.log_q(self.recogniser(self._features(x)), codes)

    def discriminator_loss(self, x: Tensor) -> Tensor:
        """−log D(x) − log(1 − D(G)) − λ log q(c|G), of N data and N samples, ``(N,)``."""
        made = self.make(len(x))
        features = self._features(made.x.detach())
        real, fake = (self._head(h) for h in (self._features(x), features))
        log_q = self.codes.log_q(self.recogniser(features), made.codes)
        return discriminator_loss(real, fake) - self.weight * log_q

    def generator_loss(self, n: int) -> Tensor:
        """−log D(G(z, c)) − λ log q(c|G(z, c)) of n samples, ``(n,)``."""
        made = self.make(n)
        features = self._features(made.x)
        log_q = self.codes.log_q(self.recogniser(features), made.codes)
        return generator_loss(self._head(features)) - self.weight * log_q

    @torch.no_grad()
    def information(self, n: int = 2000) -> Estimate:
        """L_I = H(c) + mean log q(c|x) of n samples in nats: at most I(c; x), up to its error."""
        return Estimate.from_samples(self.codes.entropy + self.log_q(*self.make(n)))

    def _features(self, x: Tensor) -> Tensor:
        return self.discriminator.features(x)  # type: ignore[operator]

    def _head(self, features: Tensor) -> Tensor:
        return self.discriminator.head(features).squeeze(1)  # type: ignore[operator]
