"""Normalizing flows: invertible maps x = g(z) from noise z to data x whose log-det is cheap."""

from dgm_course.flows.autoregressive import AutoregressiveFlow, Made
from dgm_course.flows.bijection import Bijection, Chain, Inverse, Permutation
from dgm_course.flows.coupling import CouplingFlow, image_orders
from dgm_course.flows.dequantised import Dequantised
from dgm_course.flows.elementwise import Affine, MixtureCdf
from dgm_course.flows.flow_model import DiagonalGaussian, FlowModel, forward_kl, reverse_kl
from dgm_course.flows.images import ActNorm, Conv1x1, ImageCoupling, Split, Squeeze
from dgm_course.flows.linear import LuFlow, QrFlow
from dgm_course.flows.multiscale import MultiScaleFlow, glow, realnvp
from dgm_course.flows.planar import PlanarFlow
from dgm_course.flows.rotated_prior import NormalScores, Rotation, rotate_prior
from dgm_course.flows.sylvester import SylvesterFlow

__all__ = [
    "ActNorm",
    "Affine",
    "AutoregressiveFlow",
    "Bijection",
    "Chain",
    "Conv1x1",
    "CouplingFlow",
    "Dequantised",
    "DiagonalGaussian",
    "FlowModel",
    "ImageCoupling",
    "Inverse",
    "LuFlow",
    "Made",
    "MixtureCdf",
    "MultiScaleFlow",
    "NormalScores",
    "Permutation",
    "PlanarFlow",
    "QrFlow",
    "Rotation",
    "Split",
    "Squeeze",
    "SylvesterFlow",
    "forward_kl",
    "glow",
    "image_orders",
    "realnvp",
    "reverse_kl",
    "rotate_prior",
]
