"""StyleGAN's generator: a style for each resolution, and what each of them decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate as resize
from torch.nn.functional import leaky_relu

from dgm_course.checks import (
    check_count,
    check_floating,
    check_instance,
    check_integers,
    check_number,
    check_points,
    check_shape,
)
from dgm_course.data.toy import Seed, as_generator

SLOPE = 0.2  # of the leaky ReLU below 0
N_MAPPING = 3  # layers from z to w
N_MEAN = 4096  # draws behind the mean style


def adain(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """scale · (x − μ(x)) / √(σ²(x) + ε) + shift, μ and σ² of each channel of each image alone.

    A channel leaves with the mean ``shift`` and the standard deviation |scale|, whatever it came
    with: its own two numbers are gone, and where it is large or small is all that it still says.
    Unlike batch normalisation's, the numbers are of one image, and are given with it.

    Source: Huang & Belongie 2017, equation 8, https://arxiv.org/abs/1703.06868.

    Args:
        x: feature maps, of at least two pixels.
        scale: of each image's channels.
        shift: the same.
        eps: ε > 0, what a variance must be large against; a constant channel becomes ``shift``.

    Shapes: ``(N, C, H, W)``, ``(N, C)`` and ``(N, C)``, to ``(N, C, H, W)``.

    Raises:
        ValueError: for other shapes, maps of one pixel, or an ε that is not positive.

    Example:
        >>> y = adain(torch.randn(2, 3, 4, 4), torch.full((2, 3), 0.5), torch.ones(2, 3))
        >>> round(y[0, 0].mean().item(), 4), round(y[0, 0].std(correction=0).item(), 4)
        (1.0, 0.5)
    """
    check_floating(x, "x")
    check_number(eps, "eps")
    if x.ndim != 4 or x.shape[2] * x.shape[3] < 2:
        raise ValueError(
            f"x must have shape (N, C, H, W) of at least 2 pixels, got shape {tuple(x.shape)}"
        )
    check_shape(scale, tuple(x.shape[:2]), "scale")
    check_shape(shift, tuple(x.shape[:2]), "shift")
    centred = x - x.mean((2, 3), keepdim=True)
    by = scale * (centred.square().mean((2, 3)) + eps).rsqrt()  # (N, C)
    return torch.addcmul(shift[..., None, None], centred, by[..., None, None])


def mix_styles(a: Tensor, b: Tensor, crossover: int | Tensor) -> Tensor:
    """a's styles at the first ``crossover`` resolutions, the coarsest, and b's at the others.

    Source: Karras, Laine & Aila 2019, section 3.1, https://arxiv.org/abs/1812.04948.

    Args:
        a: styles of L resolutions; b: the same.
        crossover: 0 (all of b) to L (all of a), for all examples or for each, ``(N,)``.

    Shapes: ``(N, L, W)`` both, to the same.

    Raises:
        ValueError: for styles of different shapes, or a crossover outside 0 … L.

    Example:
        >>> mix_styles(torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 1).flatten()
        tensor([0., 1., 1.])
    """
    check_floating(a, "a")
    if a.ndim != 3:
        raise ValueError(f"a must have shape (N, L, W), got shape {tuple(a.shape)}")
    check_shape(b, tuple(a.shape), "b")
    n, n_sizes = a.shape[:2]
    if not isinstance(crossover, Tensor):
        crossover = check_count(crossover, "crossover", 0, most=n_sizes)
        crossover = torch.full((n,), crossover, device=a.device)
    check_shape(crossover, (n,), "crossover")
    check_integers(crossover, 0, n_sizes, "crossover")
    is_coarse = torch.arange(n_sizes, device=a.device) < crossover[:, None]  # (N, L)
    return torch.where(is_coarse[..., None], a, b)


class StyleGenerator(nn.Module):
    """w = f(z); h ← AdaIN(leaky(C h + b ⊙ noise), A w), twice at each size; x = tanh(T h).

    f is a mapping network of three layers behind z / √(mean z²). The first h is a learned constant
    of start × start pixels, the same for all images; at each following size it is doubled by
    repetition. C is a convolution of 3 × 3 (none before the constant's own AdaIN), b a learned
    strength for each channel, the noise one map of N(0, 1) for each layer and example; A w = (1 +
    scale, shift). All that an image says of its z comes through these scales and shifts, L styles
    w, one a size; `forward` gives all sizes the same w, `synthesise` takes what it is given.

    Source: Karras, Laine & Aila 2019, section 2 and figure 1, https://arxiv.org/abs/1812.04948.

    Args:
        size: height and width of an image: start times a power of two, at least start.
        z_dim: numbers in z ~ N(0, I).
        w_dim: numbers W in a style.
        n_features: channels of every layer.
        n_channels: channels of the image.
        start: height and width of the constant, at least 2.

    Shapes: z ``(N, z_dim)`` to images in (−1, 1), ``(N, n_channels, size, size)``; noise is a list
    of L tensors ``(N, 2, s, s)``, s the sizes, and drawn anew where none is given.

    Raises:
        ValueError: for a size that is no such multiple (both numbers), or inputs of other shapes.

    Omits: growth of the network while it trains, blurred doubling, equalised learning rates; the
    paper's widths, which shrink with the size.

    Example:
        >>> g = StyleGenerator(16)
        >>> g.sizes, g(torch.randn(2, 16)).shape, sum(p.numel() for p in g.parameters())
        ((4, 8, 16), torch.Size([2, 3, 16, 16]), 38803)
        >>> a, b = g.styles(torch.randn(1, 16)), g.styles(torch.randn(1, 16))
        >>> g.synthesise(mix_styles(a, b, crossover=1)).shape  # a at 4 × 4, b from 8 × 8 on
        torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self,
        size: int = 16,
        z_dim: int = 16,
        *,
        w_dim: int = 32,
        n_features: int = 24,
        n_channels: int = 3,
        start: int = 4,
    ) -> None:
        super().__init__()
        self.sizes = _sizes(size, start)
        self.z_dim, self.w_dim = check_count(z_dim, "z_dim"), check_count(w_dim, "w_dim")
        c = check_count(n_features, "n_features")
        self.mapping = nn.Sequential()
        for n_in in (self.z_dim, *[self.w_dim] * (N_MAPPING - 1)):
            self.mapping += nn.Sequential(nn.Linear(n_in, self.w_dim), nn.LeakyReLU(SLOPE))
        self.constant = nn.Parameter(torch.randn(c, self.sizes[0], self.sizes[0]))
        self.layers = nn.ModuleList(
            _StyledLayer(c, self.w_dim, has_convolution=i > 0) for i in range(2 * len(self.sizes))
        )
        self.to_image = nn.Conv2d(c, check_count(n_channels, "n_channels"), 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, z_dim={self.z_dim}, w_dim={self.w_dim}"

    def forward(self, z: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        return self.synthesise(self.styles(z), noise)

    def styles(self, z: Tensor) -> Tensor:
        """w = f(z) at every resolution, ``(N, z_dim)`` to ``(N, L, W)``."""
        check_points(z, self.z_dim, self.constant.dtype, "z")
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        return self.mapping(z)[:, None].expand(-1, len(self.sizes), -1)

    def synthesise(self, styles: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images of a style for each resolution, ``(N, L, W)``, coarsest first, and of noise."""
        check_floating(styles, "styles")
        n = len(styles)
        check_shape(styles, (n, len(self.sizes), self.w_dim), "styles")
        noise = self.noise(n) if noise is None else noise
        if len(noise) != len(self.sizes):
            raise ValueError(f"noise must hold {len(self.sizes)} tensors, got {len(noise)}")
        h = self.constant.expand(n, -1, -1, -1)
        for i, layer in enumerate(self.layers):
            level, which = divmod(i, 2)
            size = self.sizes[level]
            check_shape(noise[level], (n, 2, size, size), f"noise[{level}]")
            if h.shape[2] < size:
                h = resize(h, scale_factor=2)  # repeats each pixel
            h = layer(h, styles[:, level], noise[level][:, which, None])
        return torch.tanh(self.to_image(h))

    def noise(self, n: int, generator: Seed | None = None) -> list[Tensor]:
        """Draws of N(0, 1) for n images, ``(n, 2, s, s)`` for each size s; times 0 there is none.

        Args:
            n: number of images.
            generator: a seed or a generator on the CPU; None takes torch's own.
        """
        n, source = check_count(n, "n"), None if generator is None else as_generator(generator)
        return [torch.randn(n, 2, s, s, generator=source).to(self.constant) for s in self.sizes]

    def draw_styles(self, n: int, mixing: float = 0.0, generator: Seed | None = None) -> Tensor:
        """Styles of n draws of z, ``(n, L, W)``, some of them mixed of two: what training feeds on.

        With probability ``mixing`` an example has a second z from some resolution on, each of the
        L − 1 places equally likely. So no resolution can count on what its neighbours were told.

        Source: as `mix_styles`; the paper mixes 9 of 10.

        Args:
            n: number of examples.
            mixing: a probability.
            generator: as in `noise`.

        Raises:
            ValueError: for a probability outside [0, 1].
        """
        n, source = check_count(n, "n"), None if generator is None else as_generator(generator)
        _check_share(mixing, "mixing")
        z = torch.randn(2, n, self.z_dim, generator=source).to(self.constant)
        a, b = self.styles(z[0]), self.styles(z[1])
        n_sizes = len(self.sizes)
        cut = torch.randint(1, max(2, n_sizes), (n,), generator=source)
        is_mixed = torch.rand(n, generator=source) < mixing
        return mix_styles(a, b, cut.where(is_mixed, torch.tensor(n_sizes)).to(a.device))

    @torch.no_grad()
    def mean_style(self) -> Tensor:
        """w̄, the mean style of 4096 draws of z, always the same ones: ``(W,)``.

        Of the weights as they are: no average that was taken of others, or before.
        """
        return self.draw_styles(N_MEAN, generator=0)[:, 0].mean(0)

    def truncate(self, styles: Tensor, psi: float | Tensor) -> Tensor:
        """w̄ + ψ (w − w̄): as they are at ψ = 1, and all at the mean style at ψ = 0.

        Source: Karras, Laine & Aila 2019, appendix B, https://arxiv.org/abs/1812.04948.

        Args:
            styles: ``(N, L, W)``.
            psi: ψ, for all resolutions or for each, ``(L,)``.

        Raises:
            ValueError: for ψ outside [0, 1], or not one or L of them.
        """
        check_floating(styles, "styles")
        if isinstance(psi, Tensor) and psi.ndim:
            check_shape(psi, (len(self.sizes),), "psi")
        for value in torch.as_tensor(psi).flatten().tolist():
            _check_share(value, "psi")
        weight = torch.as_tensor(psi).to(styles).view(-1, 1)
        return torch.lerp(self.mean_style(), styles, weight)  # at ψ = 1 the style to the bit

    @torch.no_grad()
    def sample(self, n: int, psi: float | Tensor = 1.0, generator: Seed | None = None) -> Tensor:
        """n images of styles truncated by ψ, unmixed.

        Args:
            n: number of images.
            psi: as in `truncate`.
            generator: as in `noise`.
        """
        source = None if generator is None else as_generator(generator)
        styles = self.truncate(self.draw_styles(n, generator=source), psi)
        return self.synthesise(styles, self.noise(n, source))


class _StyledLayer(nn.Module):
    """AdaIN(leaky(C h + b ⊙ noise), A w)."""

    def __init__(self, n_features: int, w_dim: int, *, has_convolution: bool) -> None:
        super().__init__()
        c = n_features
        self.convolution = nn.Conv2d(c, c, 3, padding=1) if has_convolution else nn.Identity()
        self.strength = nn.Parameter(torch.zeros(c, 1, 1))
        self.style = nn.Linear(w_dim, 2 * c)

    def forward(self, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        h = leaky_relu(self.convolution(h) + self.strength * noise, SLOPE)  # (N, C, s, s)
        scale, shift = self.style(w).chunk(2, 1)
        return adain(h, 1 + scale, shift)


class FactorControl(NamedTuple):
    """How far each of F factors moves with the style of one of L resolutions, others held."""

    share: Tensor  # (L, F), of the change when all styles are swapped; they need not add up to 1
    standard_error: Tensor  # (L, F), over the pairs of images
    change: Tensor  # (F,), the mean change when all are swapped, in the factor's unit
    n_pairs: Tensor  # (F,), pairs where the factor could be measured in every image, int64


@torch.no_grad()
def factor_control(
    generator: StyleGenerator,
    measure: Callable[[Tensor], Tensor],
    n: int,
    *,
    periods: Sequence[float | None] | None = None,
    seed: Seed | None = None,
) -> FactorControl:
    """E |m(x_l) − m(x)| / E |m(x_all) − m(x)|: what resolution l decides of a factor m.

    x is an image of z, x_l the same with the style of resolution l taken from another z, x_all with
    all of them, noise held. A share's standard error is that of a ratio of means over n pairs, to
    first order. Shares need not add up to 1: two swaps may undo each other, or do the same.

    Source: after Karras, Laine & Aila 2019, figure 3, https://arxiv.org/abs/1812.04948, which shows
    pictures; the ratio is this course's.

    Args:
        generator: whose styles are swapped.
        measure: images ``(n, C, H, W)`` in (−1, 1) to factors ``(n, F)``; NaN where an image has
            none, such as the hue of an empty one: such pairs are left out of that factor.
        n: number of pairs, at least 2.
        periods: of each factor, None for those that do not come round: the change of an angle or a
            hue is at most half its period.
        seed: a seed or a generator on the CPU; None takes torch's own.

    Raises:
        ValueError: for measures of another shape, periods of another number, or a factor that
            fewer than 2 pairs show, or none moves.
    """
    check_instance(generator, StyleGenerator, "generator")
    n, source = check_count(n, "n", 2), None if seed is None else as_generator(seed)
    a, b = (generator.draw_styles(n, generator=source) for _ in "ab")
    noise = generator.noise(n, source)
    ways = []
    for level in range(len(generator.sizes)):
        ways.append(a.clone())
        ways[-1][:, level] = b[:, level]
    found = [measure(generator.synthesise(styles, noise)) for styles in (a, *ways, b)]
    for values in found:
        check_floating(values, "what measure returns")
        if values.ndim != 2 or len(values) != n or values.shape != found[0].shape:
            raise ValueError(f"measure must return shape ({n}, F), got shape {tuple(values.shape)}")
    n_factors = found[0].shape[1]
    periods = [None] * n_factors if periods is None else periods
    if len(periods) != n_factors:
        raise ValueError(f"periods must hold one of each factor, {n_factors}, got {len(periods)}")
    moved = (torch.stack(found[1:]) - found[0]).abs().double()  # (L + 1, n, F)
    for factor, period in enumerate(periods):
        if period is not None:
            check_number(period, f"periods[{factor}]")
            around = moved[..., factor] % period
            moved[..., factor] = around.minimum(period - around)
    is_seen = moved.isfinite().all(0)  # (n, F)
    n_pairs = is_seen.sum(0)
    if (n_pairs < 2).any():
        raise ValueError(f"measure must be finite in at least 2 pairs, got {n_pairs.tolist()}")
    moved = moved.where(is_seen, 0)
    means = moved.sum(1) / n_pairs  # (L + 1, F)
    if (means[-1] == 0).any():
        raise ValueError(f"measure must change when all styles do, got {means[-1].tolist()}")
    share = means[:-1] / means[-1]
    off = moved[:-1] - share[:, None] * moved[-1]  # (L, n, F), of mean 0
    spread = (off.square().sum(1) / (n_pairs - 1)).sqrt()
    return FactorControl(share, spread / n_pairs.sqrt() / means[-1], means[-1], n_pairs)


def _sizes(size: int, start: int) -> tuple[int, ...]:
    """start, 2 start, …, size."""
    size, start = check_count(size, "size"), check_count(start, "start", 2)
    n_doublings = round(math.log2(size / start))
    if n_doublings < 0 or start * 2**n_doublings != size:
        raise ValueError(f"size must be start = {start} times a power of two, got {size}")
    return tuple(start * 2**i for i in range(n_doublings + 1))


def _check_share(value: float, name: str) -> None:
    check_number(value, name, or_zero=True)
    if value > 1:
        raise ValueError(f"{name} must be at most 1, got {value}")
