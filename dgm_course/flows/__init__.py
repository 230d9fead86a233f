"""Normalizing flows: invertible maps x = g(z) from noise z to data x whose log-det is cheap."""

from dgm_course.flows.bijection import Bijection, Chain, Inverse, Permutation
from dgm_course.flows.coupling import CouplingFlow, image_orders
from dgm_course.flows.dequantised import Dequantised
from dgm_course.flows.elementwise import Affine, MixtureCdf
from dgm_course.flows.flow_model import DiagonalGaussian, FlowModel, forward_kl, reverse_kl
from dgm_course.flows.linear import LuFlow, QrFlow
from dgm_course.flows.planar import PlanarFlow
from dgm_course.flows.sylvester import SylvesterFlow

__all__ = [
    "Affine",
    "Bijection",
    "Chain",
    "CouplingFlow",
    "Dequantised",
    "DiagonalGaussian",
    "FlowModel",
    "Inverse",
    "LuFlow",
    "MixtureCdf",
    "Permutation",
    "PlanarFlow",
    "QrFlow",
    "SylvesterFlow",
    "forward_kl",
    "image_orders",
    "reverse_kl",
]
