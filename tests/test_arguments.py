"""Odd arguments are refused by name where they enter, and NumPy's ints are ints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from dgm_course import causality, data, losses, probability
from dgm_course.autoregressive import GatedPixelCNN, IndependentPixels, PixelCNN, Uniform
from dgm_course.checks import MOST, check_count, check_number
from dgm_course.codes import (
    VQVAE,
    VQVAE2,
    DiscreteVAE,
    GumbelSoftmax,
    ModelTokens,
    PatchTokens,
    VectorQuantizer,
)
from dgm_course.density_ratio import (
    AVB,
    MLP,
    DensityRatio,
    ImplicitPosterior,
    JointAVB,
    Logistic,
    PairCritic,
    entropy,
    gan_value,
    gaussian_log_ratio,
    grid_posterior,
    kl_to_prior,
    tempered,
    total_correlation,
    total_variation,
    two_sample_test,
)
from dgm_course.diffusion import (
    ConvNetwork,
    Denoiser,
    DenseNetwork,
    ExplodingSchedule,
    LinearSchedule,
    MixtureDenoiser,
    ancestral,
    ddim,
    level_log_prob,
    log_prob_ode,
    ode,
    optimal_variances,
    posterior,
    q_sample,
    time_grid,
    variational_bound,
)
from dgm_course.disentanglement import (
    Factors,
    annealed_capacity,
    capacity_elbo,
    factor_elbo,
    factor_losses,
    heat_maps,
    information_bound,
    majority_vote,
    mutual_information_gap,
    pair_metric,
    permute_dimensions,
    table_information,
    tcvae_elbo,
    total_correlation_loss,
    traversals,
)
from dgm_course.flows import (
    ActNorm,
    Affine,
    AutoregressiveFlow,
    Chain,
    Conv1x1,
    CouplingFlow,
    Dequantised,
    FlowModel,
    ImageCoupling,
    Inverse,
    LuFlow,
    Made,
    MixtureCdf,
    MultiScaleFlow,
    Permutation,
    PlanarFlow,
    Split,
    Squeeze,
    SylvesterFlow,
    glow,
    image_orders,
    realnvp,
    rotate_prior,
)
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    FeatureQuantizer,
    InfoGAN,
    LatentCodes,
    MinibatchDiscrimination,
    StyleGenerator,
    VirtualBatchNorm,
    adain,
    bilinear_game,
    clip_weights,
    dirac_gan,
    feature_matching_loss,
    frechet_distance,
    gaussian_frechet_distance,
    gradient_penalty,
    interpolate,
    interpolates_density,
    lipschitz_estimate,
    mix_styles,
    mode_report,
    optimal_critic,
    optimal_matching,
    parallel_lines,
    path,
    penalised_critic,
    precision_recall,
    random_interpolates,
    simultaneous,
    spectrally_normalised,
    transport_critic,
    transport_plan,
    wasserstein_distance,
)
from dgm_course.mixtures import GaussianMixture, MeanFieldGaussian
from dgm_course.reversible import (
    IRevNet,
    ResidualSequence,
    ReversibleBlock,
    ReversibleSequence,
    drift,
    lipschitz_block,
    saved_bytes,
)
from dgm_course.sequences import (
    DALLE,
    GPT,
    KeyValueCache,
    SparseTransformer,
    WaveNet,
    distillation_kl,
    fixed_masks,
    linear_student_optimum,
    score_entries,
    sparse_attention,
    strided_masks,
)
from dgm_course.training import seed_everything
from dgm_course.vae import (
    AggregatedPosterior,
    ElboTerms,
    GaussianVAE,
    active_units,
    activity,
    binary_codes,
    decompose_kl,
    free_bits,
    gaussian_elbo,
    importance_weighted_bound,
    kl_terms,
    log_prob_by_quadrature,
    reparameterised,
    score_function,
    signal_to_noise,
    split_gap,
)
from dgm_course.vae.linear import collapse_costs, fixed_noise_rate

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
Q = Independent(Normal(X, 1.0), 1)
VAE = GaussianVAE(2, 1)
normal = lambda phi: Normal(phi[..., 0], phi[..., 1])  # noqa: E731
FLOW = FlowModel(Independent(Normal(torch.zeros(2), 1.0), 1), PlanarFlow(2))
PIXELS = PixelCNN(4, n_features=4, n_layers=2)
CLASSES = GatedPixelCNN(4, n_features=4, n_layers=2, n_classes=3)
IMAGES = torch.zeros(2, 1, 3, 3, dtype=torch.long)
MIXTURE = GaussianMixture(1).fit(X)
CODES = VectorQuantizer(4, 2)
VQ = VQVAE(4, CODES, n_features=4, n_halvings=0)
BRACKETS, TEXT = data.Brackets(), data.to_tokens("abab")
STANDARD, EVEN = Normal(0.0, 1.0), torch.tensor([0.5, 0.5])
IMPLICIT = (ImplicitPosterior(2, 2), PairCritic(2, 2), Independent(Normal(torch.zeros(2), 1.0), 1))
BAYES, SIMULATED = AVB(lambda x, z: z.sum(-1), *IMPLICIT), JointAVB(torch.square, *IMPLICIT)
EXACT = grid_posterior(Independent(Normal(torch.zeros(2), 1.0), 1).log_prob, ((-6, 6), (-6, 6)))
DCGAN, GRID = DCGANGenerator(8), data.gaussian_grid_density()
STYLE = StyleGenerator(8, 2, n_features=4)
INFO_GAN = InfoGAN(DCGANGenerator(8, 4), DCGANDiscriminator(8), LatentCodes([2]), z_dim=2)
PATCHES, VQ_TOKENS = PatchTokens(4, 3, n_levels=4), ModelTokens(VQ)
# Two words of a caption, one patch of an image: V = 2 + 4 + 1, T = 2 + 1.
PICTURES = DALLE(GPT(7, 3, 1, 2, 4), PATCHES, n_words=2, n_text=2, size=(1, 1))
WAVENET, CHAIN = WaveNet(2, 3), data.MarkovChain([[0.9, 0.1], [0.1, 0.9]])
TOKENS, WORDS = torch.zeros(6, 3, dtype=torch.long), GPT(4, 5, 1, 2, 4)
HEADS = torch.zeros(1, 2, 5, 1)
TURN = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
TERMS, KINDS = ElboTerms(X[:, 0], X[:, 1]), torch.tensor([0, 1]).repeat(3)[:, None]
NOISED = MixtureDenoiser(LinearSchedule(), [1.0], torch.zeros(1, 2), torch.eye(2)[None])
LEARNED = Denoiser(DenseNetwork(2, 4, 1), LinearSchedule(), n_classes=3)
CHAIN_OF_TIMES = time_grid(2)
HALVED = ResidualSequence([lipschitz_block(2, 1.0, 0)])
REMEMBERS = IRevNet((1, 2, 2), 2, n_blocks=(1,), n_hidden=(2,))
CODE_LOG_ODDS = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0))


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, "3", True, None, [1], math.nan, np.float64(2), 10**12]
)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (FLOW.sample, "n"),
        (FLOW.rsample_and_log_prob, "n"),
        (VAE.sample, "n"),
        (lambda n: VAE.elbo(X, n), "n_samples"),
        (lambda n: importance_weighted_bound(VAE, X, n), "k"),
        (lambda n: score_function(torch.sum, normal, X[0], n), "n_samples"),
        (lambda n: signal_to_noise(VAE, VAE.parameters(), X, n), "k"),
        (lambda n: split_gap(VAE, X, n_steps=n), "n_steps"),
        (binary_codes, "n_latents"),
        (VAE.posterior(X).rsample_and_log_prob, "n_samples"),
        (lambda n: decompose_kl(Q, n_samples=n), "n_samples"),
        (lambda n: PIXELS.sample(n, (3, 3)), "n"),
        (lambda n: PIXELS.sample(1, (n, 3)), "size's height"),
        (lambda n: data.two_moons(n, 0), "n"),
        (MIXTURE.sample, "n_samples"),
        (PlanarFlow, "dim"),
        (lambda n: SylvesterFlow(2, n), "n_hidden"),
        (lambda n: AutoregressiveFlow(2, n), "n_layers"),
        (lambda n: Made(2, 4, n), "n_outputs"),
        (lambda n: GaussianVAE(n, 1), "x_dim"),
        (lambda n: PixelCNN(4, n_features=n), "n_features"),
        (lambda n: MLP(hidden=n), "hidden"),
        (lambda n: two_sample_test(X, X, n_permutations=n), "n_permutations"),
        (lambda n: ImplicitPosterior(2, 2, n), "noise_dim"),
        (lambda n: PairCritic(2, 2, n), "hidden"),
        (lambda n: BAYES.estimate(X, n), "n_samples"),
        (lambda n: SIMULATED.critic_loss(X, n), "n_samples"),
        (lambda n: tempered(0, n), "n_steps"),
        (lambda n: total_variation(X, EXACT, n), "n_cells"),
        (lambda n: entropy(X, n), "k"),
        (data.Epidemic, "n_people"),
        (WaveNet, "n_layers"),
        (lambda n: WAVENET.sample(n, 5), "n"),
        (lambda n: WAVENET.sample(2, n), "length"),
        (lambda n: CHAIN.sample(2, n), "length"),
        (lambda n: GPT(n, 5, 1, 2, 4), "n_tokens"),
        (lambda n: GPT(4, n, 1, 2, 4), "context"),
        (lambda n: GPT(4, 5, n, 2, 4), "n_layers"),
        (lambda n: GPT(4, 5, 1, n, 4), "n_heads"),
        (lambda n: GPT(4, 5, 1, 2, n), "width"),
        (lambda n: WORDS.sample(n, 5), "n"),
        (lambda n: WORDS.sample(2, n), "length"),
        (lambda n: WORDS.sample(2, 5, top_k=0 if n is None else n), "top_k"),
        (lambda n: SparseTransformer(4, n, 1, 2, 4), "context"),
        (lambda n: SparseTransformer(4, 9, n, 2, 4), "n_layers"),
        (lambda n: SparseTransformer(4, 9, 1, 2, 4, stride=0 if n is None else n), "stride"),
        (lambda n: strided_masks(n, 2), "n"),
        (lambda n: fixed_masks(2, n), "stride"),
        (lambda n: score_entries(2, n), "stride"),
        (lambda n: sparse_attention(HEADS, HEADS, HEADS, n), "stride"),
        (lambda n: KeyValueCache(WORDS, n, 5), "n"),
        (lambda n: DALLE(WORDS, PATCHES, n, 2, (1, 1)), "n_words"),
        (lambda n: DALLE(WORDS, PATCHES, 2, n, (1, 1)), "n_text"),
        (lambda n: PICTURES.generate(TOKENS[0, :2], n), "n"),
        (PatchTokens, "n_codes"),
        (lambda n: PatchTokens(4, n), "patch"),
        (lambda n: PATCHES.fit(IMAGES, n), "n_steps"),
        (lambda n: KeyValueCache(WORDS, 2, n), "length"),
        (lambda n: VectorQuantizer(n, 2), "n_codes"),
        (lambda n: VectorQuantizer(4, n), "dim"),
        (lambda n: VQVAE(4, CODES, n_features=n), "n_features"),
        (lambda n: VQVAE2(4, CODES, CODES, n_features=n), "n_features"),
        (lambda n: DiscreteVAE(4, n), "n_codes"),
        (lambda n: VQ.sample(n, (3, 3), Uniform(4)), "n"),
        (GumbelSoftmax(X).rsample, "n_samples"),
        (lambda n: pair_metric(X, KINDS, n_points=n), "n_points"),
        (lambda n: pair_metric(X, KINDS, n_pairs=n), "n_pairs"),
        (lambda n: majority_vote(X, KINDS, n_rows=n), "n_rows"),
        (lambda n: mutual_information_gap(Q, KINDS, n_samples=0 if n is None else n), "n_samples"),
        (lambda n: annealed_capacity(1, n, 1.0), "n_steps"),
        (time_grid, "n_steps"),
        (lambda n: DenseNetwork(2, n), "width"),
        (lambda n: DenseNetwork(2, 4, n), "n_layers"),
        (lambda n: ConvNetwork((1, n, 8)), "size"),
        (lambda n: ConvNetwork((1, 8, 8), n), "width"),
        (lambda n: NOISED.sample(n, 0), "n"),
        (lambda n: NOISED.start(n, 2), "n"),
        (lambda n: lipschitz_block(n, 1.0, 0), "dim"),
        (lambda n: lipschitz_block(2, 1.0, 0, n_hidden=n), "n_hidden"),
        (lambda n: ResidualSequence(HALVED.blocks, 0 if n is None else n), "checkpoint_every"),
        (lambda n: IRevNet((1, 4, 4), n), "n_classes"),
        (lambda n: IRevNet((1, 4, 4), 2, n_channels=n), "n_channels"),
        (lambda n: IRevNet((1, 4, 4), 2, n_blocks=[n]), "each number of n_blocks"),
        (data.LaggedProcess, "lag"),
        (lambda n: data.gaussian_grid(n, 0), "n"),
        (lambda n: data.gaussian_grid_density(n), "side"),
        (lambda n: data.shapes(n, 0), "n"),
        (lambda n: data.all_shapes((n, 1, 1, 1, 1)), "sizes' count of shape"),
        (DCGANGenerator, "size"),
        (lambda n: DCGANDiscriminator(8, n), "n_features"),
        (DCGAN.sample, "n"),
        (StyleGenerator, "size"),
        (lambda n: StyleGenerator(8, n), "z_dim"),
        (lambda n: StyleGenerator(8, n_features=n), "n_features"),
        (STYLE.sample, "n"),
        (STYLE.noise, "n"),
        (STYLE.draw_styles, "n"),
        (lambda n: MinibatchDiscrimination(2, n), "n_kernels"),
        (LatentCodes([2]).sample, "n"),
        (INFO_GAN.make, "n"),
        (lambda n: VirtualBatchNorm(2, n), "n_reference"),
        (lambda n: path(simultaneous, bilinear_game(), X, 0.1, n), "n_steps"),
        (lambda n: interpolate(X, X, n), "n"),
        (lambda n: spectrally_normalised(torch.nn.Linear(2, 1), n), "n_iterations"),
        (lambda n: precision_recall(X, X, n), "k"),
        (data.Chirps, "period"),
        (lambda n: data.MarkovChain.random(3, n, generator=0), "order"),
        (data.Brackets, "n_kinds"),
        (BRACKETS.entropy, "length"),
        (lambda n: BRACKETS.sample(n, 4), "n"),
        (lambda n: data.windows(TEXT, n), "length"),
        (lambda n: data.ngram_nats(TEXT, TEXT, n), "n"),
    ],
)
def test_a_count_is_an_int_from_1_on(call, name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        call(value)


@pytest.mark.parametrize("value", [-1.0, 0.0, "1", None, True, [1.0], math.nan, math.inf])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: PIXELS.sample(1, (3, 3), temperature=v), "temperature"),
        (lambda v: WAVENET.sample(1, 3, temperature=v), "temperature"),
        (lambda v: WORDS.sample(1, 3, temperature=v), "temperature"),
        (lambda v: IndependentPixels(IMAGES, 4, v), "smoothing"),
        (lambda v: AutoregressiveFlow(2, limit=v), "limit"),
        (lambda v: GaussianVAE(2, 1, noise_scale=v), "noise_scale"),
        (lambda v: GumbelSoftmax(X, v), "temperature"),
        (lambda v: Logistic(ridge=v), "ridge"),
        (lambda v: log_prob_by_quadrature(VAE, X, limit=v), "limit"),
        (lambda v: data.log_normaliser("U1", box=math.inf if v is None else v), "box"),
        (lambda v: LinearSchedule(v), "beta_min"),
        (lambda v: LinearSchedule(0.1, v), "beta_max"),
        (lambda v: ExplodingSchedule(v), "sigma_min"),
        (lambda v: time_grid(3, v), "power"),
        (lambda v: fixed_noise_rate(v, 1.0), "eigenvalue"),
        (lambda v: data.ArProcess([0.5], v), "sigma"),
        (lambda v: data.Chirps(radius=v), "radius"),
        (lambda v: data.MarkovChain.random(2, temperature=v, generator=0), "temperature"),
        (lambda v: data.ngram_nats(TEXT, TEXT, 1, v), "smoothing"),
        (lambda v: data.gaussian_grid_density(scale=v), "scale"),
        (lambda v: data.gaussian_grid(3, 0, spacing=v), "spacing"),
        (lambda v: path(simultaneous, bilinear_game(), X, v, 3), "eta"),
        (lambda v: mode_report(X, GRID, within=v), "within"),
        (lambda v: VirtualBatchNorm(2, 2, v), "eps"),
        (lambda v: clip_weights(torch.optim.SGD([X]), v), "c"),
        (lambda v: penalised_critic(STANDARD, STANDARD, X[0], v), "weight"),
        (lambda v: tempered(0, 5, share=v), "share"),
        (lambda v: linear_student_optimum([0.5], v, 2), "sigma"),
        (lambda v: lipschitz_block(2, v, 0), "constant"),
    ],
)
def test_a_scale_is_positive_and_finite(call, name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        call(value)


ODD = [torch.Tensor.tolist, torch.Tensor.numpy, lambda x: None]
TENSORS = [
    (FLOW.log_prob, X, "x"),
    (Made(2, 4), X, "x"),
    (lambda x: AutoregressiveFlow(2, n_context=2)(X, x), X, "context"),
    (VAE.elbo, X, "x"),
    (VAE.decode, X[:, :1], "z"),
    (lambda x: log_prob_by_quadrature(VAE, x), X, "x"),
    (active_units, X, "means"),
    (activity, X, "means"),
    (lambda x: gaussian_elbo(VAE, x, X[:, :1], X[:, :1, None]), X, "x"),
    (lambda x: gaussian_elbo(VAE, X, x, X[:, :1, None]), X[:, :1], "mean"),
    (lambda x: gaussian_elbo(VAE, X, X[:, :1], x), X[:, :1, None], "scale_tril"),
    (lambda x: reparameterised(torch.square, normal, x, 3), X[0], "parameters"),
    (lambda x: signal_to_noise(VAE, VAE.parameters(), x, 2), X, "x"),
    (lambda x: split_gap(VAE, x), X, "x"),
    (AggregatedPosterior(Q).log_prob, X, "z"),
    (PIXELS, IMAGES, "x"),
    (lambda x: CLASSES(IMAGES, labels=x), IMAGES[:, 0, 0, 0], "labels"),
    (lambda x: PIXELS.sample(2, (3, 3), given=x), IMAGES, "given"),
    (lambda x: data.binarise(x, "threshold", levels=4), IMAGES, "images"),
    (lambda x: data.energy("U1", x), X, "z"),
    (lambda x: probability.log_mean_exp(x, 0), X, "values"),
    (probability.Estimate.from_samples, X[0], "samples"),
    (lambda x: losses.log_loss(X[0], x), X[0], "label"),
    (lambda x: gan_value(X[0], x), X[0], "logit_q"),
    (lambda x: losses.discriminator_loss(X[0], x), X[0], "fake"),
    (lambda x: losses.optimal_discriminator(X[0], x), X[0], "log_q"),
    (lambda x: feature_matching_loss(X, x), X, "fake"),
    (lambda x: gradient_penalty(torch.sum, x), X, "x"),
    (MinibatchDiscrimination(2), X, "h"),
    (VirtualBatchNorm(2, 2), X, "x"),
    (DCGAN, X, "z"),
    (LatentCodes([], 2).as_inputs, X, "c"),
    (lambda x: LatentCodes([], 2).log_q(x, X), X.repeat(1, 2), "parameters"),
    (DCGANDiscriminator(8), X, "x"),
    (FeatureQuantizer(DCGANDiscriminator(8, 1), CODES), X, "x"),
    (STYLE, X, "z"),
    (STYLE.synthesise, X[:, None], "styles"),
    (lambda x: adain(X[..., None, None].expand(6, 2, 2, 2), x, X), X, "scale"),
    (lambda x: mix_styles(X[:, None], x, 1), X[:, None], "b"),
    (dirac_gan(), X, "w"),
    (lambda x: mode_report(x, GRID), X, "x"),
    (lambda x: interpolate(X, x, 3), X, "b"),
    (lambda x: losses.critic_loss(X[0], x), X[0], "fake"),
    (lambda x: random_interpolates(X, x), X, "fake"),
    (lambda x: lipschitz_estimate(torch.sum, x), X, "x"),
    (lambda x: wasserstein_distance(x, X), X, "x"),
    (lambda x: optimal_matching(X, x), X, "y"),
    (lambda x: transport_plan(x, EVEN, EVEN), X[:2], "cost"),
    (lambda x: transport_plan(X[:2], x, EVEN), EVEN, "p"),
    (lambda x: transport_critic(x, EVEN, EVEN), X[:2], "distance"),
    (lambda x: optimal_critic(STANDARD, STANDARD, x), X[0], "x"),
    (lambda x: interpolates_density(STANDARD, STANDARD, x), X[0], "x"),
    (parallel_lines, X[0], "theta"),
    (lambda x: frechet_distance(X, x), X, "y"),
    (lambda x: gaussian_frechet_distance(x, X.T @ X, X[0], X.T @ X), X[0], "mean_x"),
    (lambda x: gaussian_frechet_distance(X[0], X.T @ X, X[0], x), X.T @ X, "cov_y"),
    (lambda x: precision_recall(x, X), X, "real"),
    (lambda x: DensityRatio(Logistic(), n_folds=2).fit(X, x), X, "x_q"),
    (lambda x: kl_to_prior(X, X, x), X, "z_prior"),
    (total_correlation, X, "z"),
    (BAYES.critic_loss, X, "x"),
    (SIMULATED.posterior_loss, X, "x"),
    (lambda x: PairCritic(2, 2)(x, X[None]), X, "x"),
    (lambda x: total_variation(x, EXACT), X, "z"),
    (entropy, X, "z"),
    (lambda x: gaussian_log_ratio(x, 0.0, 1.0), X, "z"),
    (lambda x: data.Epidemic(2).log_likelihood(x, X[None, :, :1]), X[:, :1], "x"),
    (lambda x: kl_terms(Q, x), X, "z"),
    (lambda x: capacity_elbo(TERMS._replace(kl=x), 1, 1), X[0], "terms' kl"),
    (lambda x: factor_elbo(TERMS, x, 1), X[:, 0], "log_ratio"),
    (lambda x: factor_losses(VAE, CODE_LOG_ODDS, x, 1), X, "x"),
    (lambda x: total_correlation_loss(VAE, CODE_LOG_ODDS, x), X, "x"),
    (permute_dimensions, X, "z"),
    (lambda x: tcvae_elbo(x, kl_terms(Q, X), 1), X[:, 0], "reconstruction"),
    (lambda x: pair_metric(x, KINDS), X, "codes"),
    (lambda x: majority_vote(X, x), KINDS, "factors"),
    (lambda x: mutual_information_gap(Q, x), KINDS, "factors"),
    (Factors, KINDS, "factors"),
    (lambda x: information_bound(x, Normal(0.0, 1.0)), X[:, 0], "log_q"),
    (table_information, X, "joint"),
    (lambda x: traversals(VAE.mean, x, [0.0]), X[0], "z"),
    (lambda x: heat_maps(x, KINDS[:, 0], KINDS[:, 0]), X, "codes"),
    (lambda x: heat_maps(X, KINDS[:, 0], x), KINDS[:, 0], "y"),
    (rotate_prior(Independent(Normal(torch.zeros(2).double(), 1.0), 1), TURN), X, "z"),
    (collapse_costs, torch.eye(2), "covariance"),
    (lambda x: q_sample(x, 0.5, X, LinearSchedule()), X, "x0"),
    (lambda x: q_sample(X, 0.5, x, LinearSchedule()), X, "noise"),
    (lambda x: posterior(X, x, 0.1, 0.5, LinearSchedule()), X, "x_t"),
    (lambda x: NOISED.predict(x, 0.5), X, "x"),
    (NOISED.log_prob, X, "x"),
    (NOISED.given, KINDS[:, 0], "labels"),
    (LEARNED.loss, X, "x"),
    (lambda x: LEARNED.predict(x, 0.5), X, "x"),
    (lambda x: LEARNED.loss(X, x), KINDS[:, 0], "labels"),
    (LEARNED.given, KINDS[:, 0], "labels"),
    (lambda x: variational_bound(NOISED, x, CHAIN_OF_TIMES), X, "x0"),
    (lambda x: optimal_variances(NOISED, x, CHAIN_OF_TIMES), X, "x0"),
    (lambda x: level_log_prob(x, X, X.exp(), n_levels=4), IMAGES, "levels"),
    (lambda x: level_log_prob(KINDS, x, X.exp(), n_levels=4), X, "mean"),
    (lambda x: level_log_prob(KINDS, X, x, n_levels=4), X.exp(), "variance"),
    (lambda x: ancestral(NOISED, x, CHAIN_OF_TIMES), X, "x"),
    (lambda x: ddim(NOISED, x, CHAIN_OF_TIMES), X, "x"),
    (lambda x: ode(NOISED, x, CHAIN_OF_TIMES), X, "x"),
    (lambda x: log_prob_ode(NOISED, x, CHAIN_OF_TIMES), X, "x"),
    (HALVED, X, "x"),
    (HALVED.inverse, X, "y"),
    (ReversibleSequence(HALVED.blocks), X, "x"),
    (ReversibleBlock(torch.nn.Tanh(), torch.nn.Tanh()), X, "x"),
    (lambda x: drift(HALVED, x), X, "x"),
    (lambda x: saved_bytes(HALVED, x), X, "x"),
    (REMEMBERS, X[:, None, None].expand(6, 1, 2, 2), "x"),
    (REMEMBERS.inverse, X[:, :, None, None].repeat(1, 2, 2, 2), "features"),
    (CODES, X, "h"),
    (CODES.perplexity, IMAGES, "indices"),
    (VQ.terms, IMAGES, "x"),
    (VQ.decode, IMAGES, "z"),
    (GumbelSoftmax, X, "logits"),
    (WAVENET, X, "x"),
    (lambda x: WAVENET.sample(6, 3, x), X, "given"),
    (WORDS, TOKENS, "tokens"),
    (WORDS.log_prob, TOKENS, "tokens"),
    (lambda x: WORDS.sample(6, 3, x), TOKENS, "given"),
    (KeyValueCache(WORDS, 6, 3), TOKENS, "read"),
    (lambda x: sparse_attention(x, HEADS, HEADS, 2), HEADS, "q"),
    (lambda x: sparse_attention(HEADS, HEADS, x, 2), HEADS, "v"),
    (lambda x: PICTURES.terms(x, IMAGES[:, 0, :1, :1]), TOKENS[:2, :2], "captions"),
    (lambda x: PICTURES.terms(TOKENS[:2, :2], x), IMAGES[:, 0, :1, :1], "z"),
    (lambda x: PICTURES.log_prob(TOKENS[:2, :2], x), IMAGES, "x"),
    (lambda x: PICTURES.caption_log_prob(IMAGES, x), TOKENS[:2, :2], "captions"),
    (lambda x: PICTURES.generate(x, 2), TOKENS[0, :2], "caption"),
    (PATCHES.encode, IMAGES, "x"),
    (PATCHES.decode, IMAGES[:, 0], "z"),
    (VQ_TOKENS.encode, IMAGES, "x"),
    (VQ_TOKENS.decode, IMAGES[:, 0], "z"),
    (data.decode_caption, TOKENS[0], "tokens"),
    (data.render, X, "factors"),
    (data.measured_factors, X, "images"),
    (CHAIN.log_prob, IMAGES[:, 0, 0], "x"),
    (data.ArProcess([0.5]).conditionals, X, "x"),
    (data.ArProcess([0.5]).spectrum, X[0], "frequency"),
    (data.Chirps(4).log_prob, X, "x"),
    (CHAIN.conditionals, IMAGES[:, 0, 0], "x"),
    (BRACKETS.is_valid, IMAGES[:, 0, 0], "x"),
    (BRACKETS.decode, IMAGES[:, 0, 0], "x"),
    (data.to_text, TEXT, "tokens"),
    (lambda x: data.windows(x, 2), TEXT, "tokens"),
    (lambda x: data.ngram_nats(TEXT, x, 1), TOKENS, "test"),
    (data.compressed_nats, TEXT, "tokens"),
    (lambda x: data.BytePairs(x, 1), TEXT, "tokens"),
    (lambda x: probability.categorical_kl(X, x), X, "q_logits"),
    (lambda x: distillation_kl(WAVENET, WAVENET, x), X, "z"),
    (lambda x: distillation_kl(WAVENET, lambda _: x, X), X, "teacher's output 0"),
    (lambda x: probability.gaussian_log_prob(X, x, X), X, "mean"),
    (lambda x: causality.sees_by_gradient(lambda v: v, x), X, "values"),
]
OPTIONAL = ("labels", "given", "context")  # None is an argument there


@pytest.mark.parametrize(
    ("call", "x", "name", "as_what"),
    [(*row, odd) for row in TENSORS for odd in ODD[: 2 if row[2] in OPTIONAL else 3]],
)
def test_what_is_no_tensor_is_named(call, x, name, as_what):
    with pytest.raises(ValueError, match=rf"{name} must be (a torch.Tensor|given)"):
        call(as_what(x))


@pytest.mark.parametrize("size", [5, (5,), (3, 3, 3), None, "ab", (2.5, 3), (0, 3), (3, True)])
def test_a_size_is_a_height_and_a_width(size):
    with pytest.raises(ValueError, match="size.* must be"):
        PIXELS.sample(1, size)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FlowModel(None, PlanarFlow(2)), "base must be a Distribution .* got NoneType"),
        (lambda: FlowModel(FLOW.base, 3), "bijection must be a Bijection, got int"),
        (lambda: split_gap(3, X), "model must be a LatentVariableModel, got int"),
        (lambda: signal_to_noise(3, [], X, 2), "model must be a LatentVariableModel, got int"),
        (lambda: gaussian_elbo(3, X, X, X), "model must be a LatentVariableModel, got int"),
        (lambda: free_bits(3, X, 0.1), "model must be a LatentVariableModel, got int"),
        (lambda: VAE.elbo(X[0]), r"x must have shape \(N, 2\), got shape \(2,\)"),
        (lambda: DensityRatio().fit(X[:, 0], X), r"x_p must have shape \(N, D\)"),
        (lambda: total_correlation(X[:, 0]), r"z must have shape \(N, D\)"),
        (lambda: seed_everything(-1), "seed must be an int of at least 0, got -1"),
        (lambda: data.checkerboard(3, 2**70), "seed must fit 64 bits"),
        (lambda: MeanFieldGaussian([0.0], [["a"]]), "precision must be an array of numbers"),
        (lambda: collapse_costs(-torch.eye(2)), "covariance must be positive definite"),
        (lambda: losses.brier_loss(X[0], X[0] + 9), r"label must lie in \[0, 1\]"),
        (lambda: probability.log_mean_exp(X, 2), r"dim must be an axis of values, \(6, 2\), got 2"),
    ],
)
def test_other_odd_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_ints_of_numpy_are_ints(kind):
    assert FLOW.sample(kind(3)).shape == (3, 2)
    assert VAE.sample(kind(3)).shape == (3, 2)
    assert PIXELS.sample(kind(2), (kind(3), kind(3))).shape == (2, 1, 3, 3)
    assert data.two_moons(kind(3), kind(0)).shape == (3, 2)
    assert WaveNet(kind(2), kind(3)).sample(kind(3), kind(2)).shape == (3, 2)
    gpt = GPT(kind(4), kind(5), kind(1), kind(2), kind(4))
    assert gpt.sample(kind(3), kind(2), top_k=kind(2)).shape == (3, 2)
    sparse = SparseTransformer(kind(4), kind(5), kind(1), kind(2), kind(4), stride=kind(2))
    assert sparse.sample(kind(3), kind(2)).shape == (3, 2)
    assert data.LaggedProcess(kind(4)).sample(kind(3), kind(2), kind(0)).shape == (3, 2)
    assert MIXTURE.sample(kind(3))[0].shape == (3, 2)
    assert PlanarFlow(kind(2), kind(3)).w.shape == (3, 2)
    assert Made(kind(2), kind(3), n_context=kind(1)).networks.w1.shape == (1, 3, 3)
    assert Uniform(kind(4)).n_levels == 4
    assert type(check_count(kind(3), "n")) is int
    assert check_count(MOST, "n") == MOST


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e308])
def test_a_temperature_never_overflows(temperature):
    torch.manual_seed(0)
    x = PIXELS.sample(4, (3, 3), temperature=temperature)
    if temperature < 1:
        assert (x == PIXELS.sample(4, (3, 3), temperature=1e-6)).all(), "the likeliest level"
    assert WORDS.sample(4, 5, temperature=temperature).max() < 4


def test_a_number_may_be_a_tensor_with_a_gradient():
    check_number(torch.ones((), requires_grad=True), "beta")
    with pytest.raises(ValueError, match="beta must be at least 0 and finite"):
        check_number(-torch.ones(1), "beta", or_zero=True)


def test_points_that_need_a_gradient_and_half_precision_reach_a_mixture():
    data_64 = MultivariateNormal(torch.zeros(2), torch.eye(2)).sample((20,))
    for x in (data_64.requires_grad_(), data_64.bfloat16()):
        assert np.isfinite(GaussianMixture(1).fit(x).score(x))


@pytest.mark.parametrize("value", [None, 5, "a", (1, 4), 2.5])
@pytest.mark.parametrize(
    "call",
    [
        ActNorm, Conv1x1, Split, Squeeze, glow, realnvp,
        lambda size: ImageCoupling(size, "channels"),
        lambda size: MultiScaleFlow(size, [Squeeze((1, 4, 4))]),
    ],
)  # fmt: skip
def test_the_size_of_an_image_flow_is_three_numbers(call, value):
    with pytest.raises(ValueError, match=r"size must be \(C, H, W\), got"):
        call(value)


@pytest.mark.parametrize("value", ["a", {}, [None], ["a"]])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: LuFlow(2, weight=v), "weight"),
        (lambda v: CouplingFlow(2, 2, orders=v), "orders"),
        (lambda v: Made(2, 4, order=v), "order"),
        (lambda v: Dequantised(FLOW, 4, low=v), "low"),
        (lambda v: Dequantised(FLOW, 4, high=v), "high"),
        (lambda v: Dequantised(v, 4), "flow"),
        (lambda v: MixtureCdf(v, [0.0], [1.0]), "weights"),
        (lambda v: MixtureCdf([1.0], v, [1.0]), "means"),
        (lambda v: MixtureCdf([1.0], [0.0], v), "scales"),
        (lambda v: MultiScaleFlow((1, 4, 4), v), "layers"),
        (lambda v: image_orders(v, 4, 2), "height"),
        (lambda v: image_orders(4, 4, v), "n_layers"),
        (lambda v: Chain(Affine(2), v), r"layers\[1\]"),
        (Inverse, "bijection"),
        (Permutation, "order"),
        (Permutation([1, 0]), "z"),
        (Permutation([1, 0]).inverse, "x"),
    ],
)
def test_what_a_flow_is_made_of_is_named(call, name, value):
    with pytest.raises(ValueError, match=name):
        call(value)
