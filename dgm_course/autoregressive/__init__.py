"""Autoregressive image models: p(x) = Πᵢ p(xᵢ | x₍<ᵢ₎), each factor a softmax over the levels."""

from dgm_course.autoregressive.baselines import IndependentPixels, Uniform, all_images
from dgm_course.autoregressive.causality import (
    check_causal,
    sees_by_gradient,
    sees_by_perturbation,
)
from dgm_course.autoregressive.gated import GatedPixelCNN
from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.masked import MaskedConv2d, causal_mask, channel_groups
from dgm_course.autoregressive.pixelcnn import PixelCNN
from dgm_course.autoregressive.receptive_field import (
    blind_pixels,
    compose,
    count_blind,
    visible_by_formula,
    visible_by_gradient,
    visible_pixels,
)
from dgm_course.autoregressive.window import WindowPixelCNN
from dgm_course.causality import CausalityError

__all__ = [
    "CausalityError",
    "GatedPixelCNN",
    "ImageModel",
    "IndependentPixels",
    "MaskedConv2d",
    "PixelCNN",
    "Uniform",
    "WindowPixelCNN",
    "all_images",
    "blind_pixels",
    "causal_mask",
    "channel_groups",
    "check_causal",
    "compose",
    "count_blind",
    "sees_by_gradient",
    "sees_by_perturbation",
    "visible_by_formula",
    "visible_by_gradient",
    "visible_pixels",
]
