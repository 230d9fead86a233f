"""The adversarial game: two networks, what each minimises, and where that leads."""

from dgm_course.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from dgm_course.gan.dynamics import (
    alternating,
    bilinear_game,
    dirac_gan,
    eigenvalues,
    extragradient,
    game_field,
    path,
    simultaneous,
)
from dgm_course.gan.feature_quantizer import FeatureQuantizer, QuantizedScores
from dgm_course.gan.game import GameHistory, Player, Round, game_steps, play
from dgm_course.gan.infogan import CodedSamples, InfoGAN, LatentCodes
from dgm_course.gan.line_critic import (
    LineCritic,
    interpolates_density,
    optimal_critic,
    penalised_critic,
)
from dgm_course.gan.measures import ModeReport, interpolate, mode_report
from dgm_course.gan.penalties import gradient_penalty
from dgm_course.gan.quality import (
    PrecisionRecall,
    frechet_distance,
    gaussian_frechet_distance,
    precision_recall,
)
from dgm_course.gan.style import (
    FactorControl,
    StyleGenerator,
    adain,
    factor_control,
    mix_styles,
)
from dgm_course.gan.techniques import (
    HistoricalAverage,
    MinibatchDiscrimination,
    ReferenceBatch,
    VirtualBatchNorm,
    feature_matching_loss,
)
from dgm_course.gan.transport import (
    Matching,
    Transport,
    TransportCritic,
    optimal_matching,
    transport_critic,
    transport_plan,
    wasserstein_distance,
)
from dgm_course.gan.wasserstein import (
    LineDistances,
    clip_weights,
    lipschitz_estimate,
    parallel_lines,
    random_interpolates,
    spectrally_normalised,
)
from dgm_course.losses import (
    critic_loss,
    discriminator_loss,
    generator_loss,
    optimal_discriminator,
)

__all__ = [
    "CodedSamples",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "FactorControl",
    "FeatureQuantizer",
    "GameHistory",
    "HistoricalAverage",
    "InfoGAN",
    "LatentCodes",
    "LineCritic",
    "LineDistances",
    "Matching",
    "MinibatchDiscrimination",
    "ModeReport",
    "Player",
    "PrecisionRecall",
    "QuantizedScores",
    "ReferenceBatch",
    "Round",
    "StyleGenerator",
    "Transport",
    "TransportCritic",
    "VirtualBatchNorm",
    "adain",
    "alternating",
    "bilinear_game",
    "clip_weights",
    "critic_loss",
    "dirac_gan",
    "discriminator_loss",
    "eigenvalues",
    "extragradient",
    "factor_control",
    "feature_matching_loss",
    "frechet_distance",
    "game_field",
    "game_steps",
    "gaussian_frechet_distance",
    "generator_loss",
    "gradient_penalty",
    "interpolate",
    "interpolates_density",
    "lipschitz_estimate",
    "mix_styles",
    "mode_report",
    "optimal_critic",
    "optimal_discriminator",
    "optimal_matching",
    "parallel_lines",
    "path",
    "penalised_critic",
    "play",
    "precision_recall",
    "random_interpolates",
    "simultaneous",
    "spectrally_normalised",
    "transport_critic",
    "transport_plan",
    "wasserstein_distance",
]
