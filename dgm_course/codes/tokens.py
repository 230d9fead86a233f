"""Images as grids of tokens and back: what a model of text and images asks of its first stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm_course.checks import (
    check_count,
    check_images,
    check_instance,
    check_integers,
    check_tensor,
)
from dgm_course.codes.code_model import CodeModel, levels_of
from dgm_course.codes.quantizer import VectorQuantizer
from dgm_course.data.toy import Seed


class PatchTokens(nn.Module):
    """z_ij = argmin_k ‖x_ij − e_k‖² of each patch x_ij of P × P pixels; back, e_k rounded.

    A dictionary without a network: encoder and decoder are the identity, and `fit` is Lloyd's
    k-means on all patches of the images.

    Args:
        n_codes: number K of tokens.
        patch: side P of a patch, in pixels.
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image.

    Shapes: integers x ``(N, C, H, W)`` to z ``(N, H / P, W / P)``, int64, and back.

    Raises:
        ValueError: for images that are not integers, not a batch, empty, outside the levels or not
            divisible into patches; for z outside the codes.

    Omits: what a patch's neighbours say of it.

    Example:
        >>> x = torch.tensor([[[[0, 0, 9, 9], [0, 0, 9, 9]]]])
        >>> tokens = PatchTokens(n_codes=2).fit(x, generator=0)
        >>> z = tokens.encode(x)
        >>> z.shape, torch.equal(tokens.decode(z), x)
        (torch.Size([1, 1, 2]), True)
    """

    def __init__(
        self, n_codes: int, patch: int = 2, *, n_levels: int = 17, n_channels: int = 1
    ) -> None:
        super().__init__()
        self.n_codes, self.patch = check_count(n_codes, "n_codes"), check_count(patch, "patch")
        self.n_levels = check_count(n_levels, "n_levels", 2)
        self.n_channels = check_count(n_channels, "n_channels")
        dim = self.n_channels * self.patch**2
        self.quantizer = VectorQuantizer(self.n_codes, dim, decay=0.0).eval()

    def extra_repr(self) -> str:
        return f"patch={self.patch}, n_levels={self.n_levels}, n_channels={self.n_channels}"

    def fit(self, x: Tensor, n_steps: int = 20, *, generator: Seed | None = None) -> PatchTokens:
        """n_steps of Lloyd's k-means from K different patches of x, drawn at random.

        Returns:
            The tokens themselves.

        Raises:
            ValueError: for fewer different patches than codes.
        """
        n_steps, patches = check_count(n_steps, "n_steps"), self.patches(x)
        self.quantizer.initialise(patches, generator).train()
        for _ in range(n_steps):
            self.quantizer(patches)  # without decay, a call is a step
        self.quantizer.eval()
        return self

    def patches(self, x: Tensor) -> Tensor:
        """The patches as vectors, ``(N, C, H, W)`` to ``(N, H / P, W / P, C P²)``."""
        check_images(x, self.n_levels, self.n_channels)
        p, (height, width) = self.patch, x.shape[2:]
        if height % p or width % p:
            raise ValueError(f"x must have sides divisible by {p}, got {height} x {width}")
        apart = x.unflatten(3, (width // p, p)).unflatten(2, (height // p, p))
        return apart.permute(0, 2, 4, 1, 3, 5).flatten(3).to(self.quantizer.codebook.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to tokens ``(N, H / P, W / P)``."""
        return self.quantizer.nearest(self.patches(x))

    def decode(self, z: Tensor) -> Tensor:
        """Tokens ``(N, h, w)`` to images ``(N, C, h P, w P)``, int64."""
        check_tokens(z, self.n_codes)
        levels = self.quantizer.codes(z).round().clamp(0, self.n_levels - 1).long()
        apart = levels.unflatten(3, (self.n_channels, self.patch, self.patch))
        return apart.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class ModelTokens(nn.Module):
    """z(x) of a model such as a `VQVAE`; back, the likeliest level of each pixel, argmax p(x_d|z).

    Args:
        model: trained; nothing learns here.

    Shapes: integers x ``(N, C, H, W)`` to z ``(N, h, w)``, int64, and back.

    Raises:
        ValueError: as the model does, and for z outside the codes.

    Example:
        >>> from dgm_course.codes import VQVAE
        >>> tokens = ModelTokens(VQVAE(17, VectorQuantizer(32, 8)))
        >>> z = tokens.encode(torch.zeros(2, 1, 8, 16, dtype=torch.long))
        >>> z.shape, tokens.decode(z).shape
        (torch.Size([2, 4, 8]), torch.Size([2, 1, 8, 16]))
    """

    def __init__(self, model: CodeModel) -> None:
        super().__init__()
        check_instance(model, CodeModel, "model")
        self.model, self.n_codes = model, model.n_codes

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to tokens ``(N, h, w)``."""
        return self.model.encode(x)[:, 0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Tokens ``(N, h, w)`` to images ``(N, C, H, W)``, int64."""
        check_tokens(z, self.n_codes)
        return levels_of(self.model.logits_of(z[:, None]), noise=False, generator=None)


def check_tokens(z: Tensor, n_codes: int) -> None:
    """Raise a ValueError unless z is a batch ``(N, h, w)`` of tokens."""
    check_tensor(z, "z")
    if z.ndim != 3 or z.numel() == 0:
        raise ValueError(f"z must have shape (N, h, w), not empty, got shape {tuple(z.shape)}")
    check_integers(z, 0, n_codes - 1, "z")
