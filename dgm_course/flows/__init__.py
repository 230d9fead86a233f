"""Normalizing flows: invertible maps x = g(z) from noise z to data x whose log-det is cheap."""

from dgm_course.flows.bijection import Bijection
from dgm_course.flows.flow_model import DiagonalGaussian, FlowModel, forward_kl, reverse_kl
from dgm_course.flows.planar import PlanarFlow
from dgm_course.flows.sylvester import SylvesterFlow

__all__ = [
    "Bijection",
    "DiagonalGaussian",
    "FlowModel",
    "PlanarFlow",
    "SylvesterFlow",
    "forward_kl",
    "reverse_kl",
]
