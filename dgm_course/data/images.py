"""Images as integer levels: the digits that need no download, and binarisation by name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dgm_course.checks import check_count, check_integers
from dgm_course.data.toy import Seed, as_generator


class Images(NamedTuple):
    """Images ``(N, 1, H, W)`` as integer levels, and their labels ``(N,)``, int64."""

    images: Tensor
    labels: Tensor


def digits(split: str = "train") -> Images:
    """The 1797 handwritten digits that come with scikit-learn, 8 × 8 pixels: no download.

    Every fifth image of each digit is a test image, counted in the order of the data: 1442 for
    training, 355 for testing, 34 to 36 of each digit. Both parts keep that order, which goes
    writer by writer: shuffle before you take a few. The 13 writers occur in both parts.

    Source: Alpaydin & Kaynak 1998, the test part of
    https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits.

    Args:
        split: "train" or "test".

    Shapes: images ``(N, 1, 8, 8)``, int64, 17 levels 0 … 16, 16 is ink; labels ``(N,)``, int64.
    """
    check_split(split)
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).long()[:, None]  # (N, 1, 8, 8)
    labels = torch.from_numpy(bunch.target).long()
    # How many images of the same digit there are up to this one, itself included.
    count = one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1)  # (N,)
    chosen = (count % 5 == 0) == (split == "test")
    return Images(images[chosen], labels[chosen])


def binarise(images: Tensor, method: str, *, levels: int, generator: Seed | None = None) -> Tensor:
    """Images of 0 and 1 from images of the levels 0 … levels − 1.

    "threshold": 1 where x ≥ levels / 2, which is x ≥ 128 for MNIST and x ≥ 9 for the digits.
    "stochastic": 1 with probability x / (levels − 1), each pixel by itself.

    They make different data sets, about two nats per image apart on MNIST: name the one you use
    next to a likelihood.

    Args:
        images: integers of any shape.
        method: "threshold" or "stochastic".
        levels: how many levels a pixel can have: 256 for MNIST, 17 for the digits.
        generator: a seed or a generator, for "stochastic"; "threshold" draws nothing.

    Shapes: as ``images``, in its dtype and on its device.

    Raises:
        ValueError: for images that are not integers, empty, or outside the levels, another
            method, or "stochastic" without a generator.
    """
    if method not in ("threshold", "stochastic"):
        raise ValueError(f"method must be 'threshold' or 'stochastic', got {method!r}")
    check_integers(images, 0, check_count(levels, "levels", 2) - 1, "images")
    if images.numel() == 0:
        raise ValueError(f"images must hold pixels, got shape {tuple(images.shape)}")
    if method == "threshold":
        return (images >= levels / 2).to(images.dtype)  # a float: an integer would wrap in bytes
    if generator is None:
        raise ValueError("generator must be a seed or a torch.Generator for 'stochastic', got None")
    generator = as_generator(generator)
    # A uniform integer below levels − 1 falls below x with probability x / (levels − 1), exactly.
    draw = torch.randint(
        levels - 1, images.shape, generator=generator, device=generator.device, dtype=torch.int32
    )
    return (draw.to(images.device) < images).to(images.dtype)


def check_split(split: str) -> None:
    """Raise a ValueError unless split is "train" or "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
