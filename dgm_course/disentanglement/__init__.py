"""Disentanglement: objectives that pull latents apart, and metrics that say whether they are."""

from dgm_course.disentanglement.factors import Factors
from dgm_course.disentanglement.information import (
    code_entropy,
    information_bound,
    table_information,
)
from dgm_course.disentanglement.metrics import (
    ConstantLatentWarning,
    majority_vote,
    mutual_information,
    mutual_information_gap,
    pair_metric,
)
from dgm_course.disentanglement.objectives import (
    FactorLosses,
    annealed_capacity,
    capacity_elbo,
    factor_elbo,
    factor_losses,
    permute_dimensions,
    tcvae_elbo,
    total_correlation_loss,
)
from dgm_course.disentanglement.pictures import (
    LatentOrder,
    heat_maps,
    latents_by_kl,
    traversals,
)

__all__ = [
    "ConstantLatentWarning",
    "FactorLosses",
    "Factors",
    "LatentOrder",
    "annealed_capacity",
    "capacity_elbo",
    "code_entropy",
    "factor_elbo",
    "factor_losses",
    "heat_maps",
    "information_bound",
    "latents_by_kl",
    "majority_vote",
    "mutual_information",
    "mutual_information_gap",
    "pair_metric",
    "permute_dimensions",
    "table_information",
    "tcvae_elbo",
    "total_correlation_loss",
    "traversals",
]
