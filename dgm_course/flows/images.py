"""The layers of image flows, RealNVP's and Glow's: vectors (N, D) outside, D = C · H · W."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from dgm_course.checks import check_count, check_number
from dgm_course.flows.bijection import Bijection
from dgm_course.flows.coupling import bounded
from dgm_course.flows.linear import PluMatrices

Size = tuple[int, int, int]  # C, H, W
Mask = Literal["checkerboard", "channels"]


class ImageBijection(Bijection):
    """A bijection of vectors ``(N, D)`` that it reads as images ``(N, C, H, W)``: abstract.

    Args:
        size: C, H, W of the image on the data's side.

    ``inner_size`` is that of the image on the noise's side which the next layer works on.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        if not isinstance(size, tuple | list) or len(size) != 3:
            raise ValueError(f"size must be (C, H, W), got {size!r}")
        channels, height, width = (check_count(n, "each number of size") for n in size)
        self.size: Size = (channels, height, width)
        self.inner_size = self.size
        self.dim = channels * height * width

    def extra_repr(self) -> str:
        return f"{self.size}"


class Squeeze(ImageBijection):
    """A data image ``(C, H, W)`` as ``(4 C, H/2, W/2)``: a permutation, of log|det| 0.

    Channel 4c + 2dy + dx at (i, j) is channel c at (2i + dy, 2j + dx).

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 3.6, https://arxiv.org/abs/1605.08803.
    """

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        channels, height, width = size
        if height % 2 or width % 2:
            raise ValueError(f"size must have even H and W to be squeezed, got {tuple(size)}")
        self.inner_size = (4 * channels, height // 2, width // 2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x, the 4 C channels spread over blocks of 2 × 2 pixels, and zeros."""
        self.check(z, "z")
        return pixel_shuffle(z.unflatten(1, self.inner_size), 2).flatten(1), z.new_zeros(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z, each block of 2 × 2 pixels stacked into channels, and zeros."""
        self.check(x, "x")
        return pixel_unshuffle(x.unflatten(1, self.size), 2).flatten(1), x.new_zeros(len(x))


class ActNorm(ImageBijection):
    """x = exp(log_scale_c) z + shift_c in every pixel of channel c: log|det| = H W Σ_c log_scale_c.

    It is the identity until `initialise` takes shift and scale from data, once, and never by
    itself: a layer that starts from whatever batch comes first, in whichever direction, starts
    anew after it was loaded, or from noise. That it was started is part of the state dict.

    Source: Kingma & Dhariwal 2018, section 3.1, https://arxiv.org/abs/1807.03039.

    Args:
        size: C, H, W of the image.
    """

    initialised: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.log_scale = nn.Parameter(torch.zeros(size[0], 1, 1))
        self.shift = nn.Parameter(torch.zeros(size[0], 1, 1))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Take the channels' mean and standard deviation from x ``(N, D)``, of N ≥ 2 images.

        Raises:
            ValueError: when it has been called before, for one image, or a constant channel.
        """
        self.check(x, "x")
        if self.initialised:
            raise ValueError("initialise must be called once, and this layer is initialised")
        if len(x) < 2:
            raise ValueError(f"x must hold at least 2 images to take a scale from, got {len(x)}")
        channels = x.unflatten(1, self.size).transpose(0, 1).flatten(1)  # (C, N · H · W)
        constant = (channels == channels[:, :1]).all(1).nonzero().flatten().tolist()
        if constant:
            raise ValueError(f"x must vary in every channel, got constant channels {constant}")
        self.shift.copy_(channels.mean(1)[:, None, None])
        self.log_scale.copy_(channels.std(1, correction=0).log()[:, None, None])
        self.initialised.fill_(True)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = exp(log_scale) z + shift and H W Σ log_scale."""
        self.check(z, "z")
        image = z.unflatten(1, self.size) * self.log_scale.exp() + self.shift
        return image.flatten(1), self._log_det().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = (x − shift) exp(−log_scale) and −H W Σ log_scale."""
        self.check(x, "x")
        image = (x.unflatten(1, self.size) - self.shift) * (-self.log_scale).exp()
        return image.flatten(1), -self._log_det().expand(len(x))

    def _log_det(self) -> Tensor:
        return self.size[1] * self.size[2] * self.log_scale.sum()


class Conv1x1(ImageBijection):
    """z = W x over the channels of every pixel, W = P L U: log|det ∂f/∂x| = H W Σ_c log_s.

    It starts as a random rotation, whose P and signs stay.

    Source: Kingma & Dhariwal 2018, section 3.2 and equation 10, https://arxiv.org/abs/1807.03039.

    Args:
        size: C, H, W of the image.
    """

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.plu = PluMatrices(torch.linalg.qr(torch.randn(size[0], size[0]))[0][None])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = W⁻¹ z in every pixel, by two triangular systems, and −H W Σ log_s."""
        self.check(z, "z")
        pixels = z.unflatten(1, (self.size[0], -1))  # (N, C, H · W)
        lower, upper = self.plu.factors()
        return self.plu.solve(pixels, lower, upper, 0).flatten(1), -self._log_det().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = W x in every pixel, and H W Σ log_s."""
        self.check(x, "x")
        pixels = x.unflatten(1, (self.size[0], -1))  # (N, C, H · W)
        return (self.plu.weight()[0] @ pixels).flatten(1), self._log_det().expand(len(x))

    def _log_det(self) -> Tensor:
        return self.size[1] * self.size[2] * self.plu.log_det()


class ImageCoupling(ImageBijection):
    """x_A = z_A, x_B = z_B · exp(c(z_A)) + t(z_A), A and B two halves of an image.

    c = limit · tanh(s / limit) and t come from three convolutions, of 3 × 3, 1 × 1 and 3 × 3; the
    last starts at 0, the layer as the identity.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, sections 3.4 and 3.5,
    https://arxiv.org/abs/1605.08803; the network is that of Kingma & Dhariwal 2018, section 3.3.

    Args:
        size: C, H, W of the image.
        mask: what A is: "checkerboard", the pixels of even i + j, or "channels", the first half.
        swap: whether A is the other half.
        n_hidden: channels of the hidden convolutions.
        limit: the bound on |c|.
    """

    kept: Tensor

    def __init__(
        self,
        size: Size,
        mask: Mask,
        swap: bool = False,
        n_hidden: int = 32,
        limit: float = 2.0,
    ) -> None:
        super().__init__(size)
        check_number(limit, "limit")
        channels, height, width = size
        if mask not in get_args(Mask):
            raise ValueError(f"mask must be 'checkerboard' or 'channels', got {mask!r}")
        n_parts = channels if mask == "channels" else height * width
        if n_parts < 2:
            raise ValueError(f"size must have 2 {mask} parts or more to divide, got {tuple(size)}")
        if mask == "checkerboard":
            kept = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0  # (H, W)
        else:
            kept = (torch.arange(channels) < channels // 2)[:, None, None]  # (C, 1, 1)
        self.register_buffer("kept", (kept.expand(size) != swap).clone())
        self.limit = limit
        self.network = small_network(channels, check_count(n_hidden, "n_hidden"))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and Σ c over the moved half."""
        self.check(z, "z")
        image = z.unflatten(1, self.size)
        log_scale, shift = self._log_scale_and_shift(image)
        return (image * log_scale.exp() + shift).flatten(1), log_scale.sum((1, 2, 3))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and −Σ c over the moved half."""
        self.check(x, "x")
        image = x.unflatten(1, self.size)
        log_scale, shift = self._log_scale_and_shift(image)
        return ((image - shift) * (-log_scale).exp()).flatten(1), -log_scale.sum((1, 2, 3))

    def _log_scale_and_shift(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """c and t ``(N, C, H, W)``, from the kept half, and 0 there."""
        s, t = self.network(image * self.kept).chunk(2, 1)
        return bounded(s, self.limit) * ~self.kept, t * ~self.kept


class Split(ImageBijection):
    """z_A = x_A, z_B = (x_B − m(x_A)) · exp(−c(x_A)): channels B of an image end as noise here.

    B gets its density N(m, exp(2c)) given A, as an affine map to N(0, I) instead of another term of
    the model: so the log-det is one, the base stays N(0, I), and to encode and decode an image
    gives it back. A, the first half of the channels, is what `MultiScaleFlow` goes on with.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 3.6, https://arxiv.org/abs/1605.08803;
    m and c of A as in the program of Kingma & Dhariwal 2018.

    Args:
        size: C, H, W of the image, C even.
        limit: the bound on |c|.
    """

    def __init__(self, size: Size, limit: float = 2.0) -> None:
        super().__init__(size)
        check_number(limit, "limit")
        channels, height, width = size
        if channels % 2:
            raise ValueError(f"size must have an even C to be split, got {tuple(size)}")
        self.inner_size = (channels // 2, height, width)
        self.limit = limit
        self.network = nn.Conv2d(channels // 2, channels, 3, padding=1)
        set_to_zero(self.network)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x_B = z_B exp(c) + m beside x_A = z_A, and Σ c."""
        self.check(z, "z")
        a, b = z.chunk(2, 1)
        log_scale, mean = self._log_scale_and_mean(a)
        return torch.cat([a, b * log_scale.exp() + mean], 1), log_scale.sum(1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_B = (x_B − m) exp(−c) beside z_A = x_A, and −Σ c."""
        self.check(x, "x")
        a, b = x.chunk(2, 1)
        log_scale, mean = self._log_scale_and_mean(a)
        return torch.cat([a, (b - mean) * (-log_scale).exp()], 1), -log_scale.sum(1)

    def _log_scale_and_mean(self, a: Tensor) -> tuple[Tensor, Tensor]:
        s, mean = self.network(a.unflatten(1, self.inner_size)).flatten(1).chunk(2, 1)
        return bounded(s, self.limit), mean


def small_network(channels: int, n_hidden: int) -> nn.Sequential:
    """C channels to 2 C by three convolutions, the last of which starts at 0."""
    network = nn.Sequential(
        *(nn.Conv2d(channels, n_hidden, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(n_hidden, n_hidden, 1), nn.ReLU()),
        nn.Conv2d(n_hidden, 2 * channels, 3, padding=1),
    )
    set_to_zero(network[-1])
    return network


def set_to_zero(layer: nn.Module) -> None:
    """Zero weights and biases: what a coupling starts from to be the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
