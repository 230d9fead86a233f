"""Autoregressive image models: p(x) = Πᵢ p(xᵢ | x₍<ᵢ₎), each factor a softmax over the levels."""

from dgm_course.autoregressive.baselines import IndependentPixels, Uniform, all_images
from dgm_course.autoregressive.causality import (
    check_causal,
    sees_by_gradient,
    sees_by_perturbation,
)
from dgm_course.autoregressive.diagonal_bilstm import DiagonalBiLSTM, skew, unskew
from dgm_course.autoregressive.gated import GatedPixelCNN
from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.logistic import (
    LogisticMixture,
    discretised_logistics,
    discretised_logistics_log_prob,
)
from dgm_course.autoregressive.masked import MaskedConv2d, causal_mask, channel_groups
from dgm_course.autoregressive.pixel_rnn import LSTMStep, lstm_step
from dgm_course.autoregressive.pixelcnn import PixelCNN
from dgm_course.autoregressive.pixelcnn_plus_plus import PixelCNNPlusPlus
from dgm_course.autoregressive.pixelsnail import PixelSNAIL
from dgm_course.autoregressive.receptive_field import (
    blind_pixels,
    compose,
    count_blind,
    visible_by_diagonal_bilstm,
    visible_by_formula,
    visible_by_gradient,
    visible_by_row_lstm,
    visible_in,
    visible_in_by_gradient,
    visible_pixels,
)
from dgm_course.autoregressive.row_lstm import RowLSTM
from dgm_course.autoregressive.window import WindowPixelCNN
from dgm_course.causality import CausalityError

__all__ = [
    "CausalityError",
    "DiagonalBiLSTM",
    "GatedPixelCNN",
    "ImageModel",
    "IndependentPixels",
    "LSTMStep",
    "LogisticMixture",
    "MaskedConv2d",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelSNAIL",
    "RowLSTM",
    "Uniform",
    "WindowPixelCNN",
    "all_images",
    "blind_pixels",
    "causal_mask",
    "channel_groups",
    "check_causal",
    "compose",
    "count_blind",
    "discretised_logistics",
    "discretised_logistics_log_prob",
    "lstm_step",
    "sees_by_gradient",
    "sees_by_perturbation",
    "skew",
    "unskew",
    "visible_by_diagonal_bilstm",
    "visible_by_formula",
    "visible_by_gradient",
    "visible_by_row_lstm",
    "visible_in",
    "visible_in_by_gradient",
    "visible_pixels",
]
