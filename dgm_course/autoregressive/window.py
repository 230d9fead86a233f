"""A decoder that sees a window of the past: what it cannot see is left to whoever conditions it."""

from __future__ import annotations

from dgm_course.autoregressive.pixelcnn import MaskedStack
from dgm_course.checks import check_count


class WindowPixelCNN(MaskedStack):
    """p(x | c) = Πᵢ p(xᵢ | cᵢ, x_window(i)): one masked convolution, then layers of 1×1 alone.

    The window of a pixel are the earlier ones at most w rows above and w columns beside it, all of
    them: one layer has no blind spot. At w = 0 no other pixel is in it, and the pixels are
    independent given the context. The context c, F features at every pixel, enters every layer.

    Source: Chen et al. 2017 (VLAE), section 3.1 and equation 7, https://arxiv.org/abs/1611.02731.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        window: half-width w of the window; from the longer side of an image less 1 on it is all
            that came before.
        n_channels: channels C of an image; each sees those before it at its own pixel, at w = 0,
            too.
        n_features: features of every layer, at least C.
        n_layers: the masked convolution and n_layers − 1 residual 1×1 layers.
        n_context: features F of the context, or None; with them, every call needs ``context``.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, bad images or a bad context.

    Omits: the paper's windows in grey of a coloured image.

    Example:
        >>> from dgm_course.autoregressive import visible_pixels
        >>> visible_pixels(WindowPixelCNN(17, window=1)).int()
        tensor([[1, 1, 1],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """

    def __init__(
        self,
        n_levels: int,
        *,
        window: int,
        n_channels: int = 1,
        n_features: int = 64,
        n_layers: int = 3,
        n_context: int | None = None,
    ) -> None:
        window = check_count(window, "window", 0)
        check_count(n_features, "n_features")
        kernel_sizes = [2 * window + 1] + [1] * (check_count(n_layers, "n_layers") - 1)
        super().__init__(n_levels, n_channels, n_features, kernel_sizes, n_context)
        self.window = window
