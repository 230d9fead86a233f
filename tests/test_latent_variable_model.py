"""Posteriors that cannot be inverted, priors that are passed in, and what the bounds make of them.

The numbers of Gaussian posteriors under N(0, I) are the business of test_gaussian_vae.
"""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from dgm_course.flows import FlowModel, PlanarFlow
from dgm_course.vae import (
    AutoregressiveVAE,
    ExplicitPosterior,
    GaussianVAE,
    LatentVariableModel,
    decompose_kl,
    free_bits,
    importance_weighted_bound,
    log_prob_by_importance,
    log_prob_by_quadrature,
    reconstruction_minus_kl,
)
from dgm_course.vae.latent_variable_model import FlowPrior, StandardNormal
from dgm_course.vae.linear import parameters_of
from tests.contracts import standard_normal, strong

# --- posteriors, each as a model around a VAE -------------------------------------------------


class Around(LatentVariableModel):
    """The VAE's decoder and prior, to which a posterior of another kind is added."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.x_dim, self.z_dim = vae, vae.x_dim, vae.z_dim

    @property
    def prior(self):
        return self.vae.prior

    def encode(self, x):
        return self.vae.encode(x)

    def decode(self, z):
        return self.vae.decode(z)

    def mean(self, z):
        return self.vae.mean(z)

    def as_numbers(self, x):
        return self.vae.as_numbers(x)


class Bent(Around):
    """z = z₀ + ½ tanh z₀, z₀ from the encoder: nobody can ask for log q at another z."""

    def posterior(self, x):
        return BentPosterior(self.encode(x))


class BentPosterior:
    def __init__(self, q):
        self.q0 = q

    def rsample_and_log_prob(self, n_samples):
        z = self.q0.rsample((n_samples,))
        return bend(z), self.q0.log_prob(z) - log_det(z)


def bend(z):
    return z + 0.5 * z.tanh()


def log_det(z):
    return (1 + 0.5 * (1 - z.tanh() ** 2)).log().sum(-1)


class Full(Around):
    """A Gaussian with correlations, and a density everywhere."""

    def encode(self, x):
        q = self.vae.encode(x).base_dist
        scale_tril = torch.diag_embed(q.scale)
        scale_tril = scale_tril + torch.tensor([[0.0, 0.0], [0.4, 0.0]]).to(q.scale)
        return MultivariateNormal(q.loc, scale_tril=scale_tril)


POSTERIORS = {"diagonal": lambda vae: vae, "full": Full, "bent": Bent}


def expectation(model, x, f):
    """E f(z, log q(z|x)) by a sum over the plane on which the encoder draws, ``(N,)``."""
    ticks = torch.linspace(-7, 7, 181, dtype=torch.float64)
    noise = torch.cartesian_prod(ticks, ticks)
    weight = torch.exp(-0.5 * noise.square().sum(1)) * (ticks[1] - ticks[0]) ** 2 / (2 * math.pi)
    q = model.encode(x)
    if isinstance(q, MultivariateNormal):
        z = q.loc + torch.einsum("nij,gj->gni", q.scale_tril, noise)
    else:
        z = q.base_dist.loc + q.base_dist.scale * noise[:, None]
    log_q = q.log_prob(z)
    if isinstance(model, Bent):
        z, log_q = bend(z), log_q - log_det(z)
    return weight @ f(z, log_q)


# --- priors -----------------------------------------------------------------------------------


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def shifted():
    return Independent(Normal(doubles(0.5, -0.5), doubles(0.7, 1.3)), 1)


def mixture():
    parts = Independent(
        Normal(doubles([-1.0, 0.0], [1.5, 0.5]), doubles([0.8, 1.0], [0.5, 1.2])), 1
    )
    return MixtureSameFamily(Categorical(doubles(0.3, 0.7)), parts)


def correlated():
    return MultivariateNormal(doubles(0.2, 0.0), doubles([1.0, 0.5], [0.5, 1.2]))


def flow():
    return strong(FlowModel(standard_normal(2), PlanarFlow(2, 2)), seed=5, scale=0.6)


PRIORS = {
    "standard": lambda: None,
    "shifted": shifted,
    "correlated": correlated,
    "mixture": mixture,
    "flow": flow,
}
CLOSED = {  # those pairs for which torch.distributions has a KL
    ("diagonal", "standard"),
    ("diagonal", "shifted"),
    ("full", "correlated"),
}
PAIRS = [(q, p) for q in POSTERIORS for p in PRIORS]


def model_of(posterior, prior, seed=0):
    """Three features, two latents; a prior's own weights stay as they are."""
    vae = strong(GaussianVAE(3, 2, 8, noise="diagonal"), seed, scale=0.4)
    given = PRIORS[prior]()
    model = GaussianVAE(3, 2, 8, noise="diagonal", prior=given).double()
    model.load_state_dict(vae.state_dict(), strict=False)
    torch.manual_seed(seed)
    return POSTERIORS[posterior](model), torch.randn(4, 3, dtype=torch.float64)


# --- the ELBO ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_elbo_says_whether_its_kl_is_exact(posterior, prior):
    model, x = model_of(posterior, prior)
    terms = model.elbo(x, 3)
    assert terms.exact_kl == ((posterior, prior) in CLOSED)
    assert terms.reconstruction.shape == terms.kl.shape == terms.elbo.shape == (4,)
    torch.manual_seed(1)
    first = model.elbo(x).kl
    same = torch.equal(first, model.elbo(x).kl)
    assert same == terms.exact_kl  # a closed form does not move with the draws


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_elbo_is_its_integral_and_below_log_p(posterior, prior):
    model, x = model_of(posterior, prior)
    with torch.no_grad():
        reconstruction = expectation(model, x, lambda z, _: model.log_likelihood(x, z))
        kl = expectation(model, x, lambda z, log_q: log_q - model.prior.log_prob(z))
        torch.manual_seed(2)
        runs = [model.elbo(x, 1000) for _ in range(20)]
        exact = log_prob_by_quadrature(model, x, limit=9.0)
    for term, value in (("reconstruction", reconstruction), ("kl", kl)):
        draws = torch.stack([getattr(run, term) for run in runs])
        error = draws.std(0) / len(runs) ** 0.5
        assert ((draws.mean(0) - value).abs() < 4 * error + 1e-6).all(), term
    assert (reconstruction - kl < exact).all()


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_l_1_is_the_elbo_on_the_same_draws(posterior, prior):
    model, x = model_of(posterior, prior)
    for seed in range(3):
        torch.manual_seed(seed)
        l_1 = importance_weighted_bound(model, x, 1)
        torch.manual_seed(seed)
        z, log_q = model.posterior(x).rsample_and_log_prob(1)
        torch.manual_seed(seed)
        terms = model.elbo(x)
        kl = (log_q - model.prior.log_prob(z))[0]
        torch.testing.assert_close(l_1, terms.reconstruction - kl, atol=1e-10, rtol=0)
        if not terms.exact_kl:
            torch.testing.assert_close(l_1, terms.elbo, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_importance_sampling_finds_log_p(posterior, prior):
    model, x = model_of(posterior, prior)
    with torch.no_grad():
        exact = log_prob_by_quadrature(model, x, limit=9.0)
        torch.manual_seed(3)
        value, error = log_prob_by_importance(model, x, 20_000)
        l_8 = importance_weighted_bound(model, x.repeat(500, 1), 8).reshape(500, 4)
    assert ((value - exact).abs() < 5 * error + 1e-6).all()
    assert (l_8.mean(0) < exact + 4 * l_8.std(0) / 500**0.5).all()


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_gradients_reach_every_weight(posterior, prior):
    model, x = model_of(posterior, prior)
    for bound in (lambda: model.elbo(x).elbo, lambda: importance_weighted_bound(model, x, 3)):
        model.zero_grad()
        bound().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name


# --- priors -----------------------------------------------------------------------------------


def test_a_flow_is_a_distribution_over_codes_of_any_batch_shape():
    model, _ = model_of("diagonal", "flow")
    inner = model._prior
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(
        model.prior.log_prob(z), torch.stack([inner.log_prob(part) for part in z])
    )
    assert isinstance(model.prior, FlowPrior)
    assert model.prior.sample((3, 4)).shape == (3, 4, 2)
    assert model.prior.sample().shape == (2,)
    assert any(name.startswith("_prior.") for name in model.state_dict())


@pytest.mark.parametrize("prior", PRIORS)
def test_samples_come_from_the_prior(prior):
    model, _ = model_of("diagonal", prior)
    ticks = torch.linspace(-9, 9, 241, dtype=torch.float64)
    z = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        density = model.prior.log_prob(z).exp() * (ticks[1] - ticks[0]) ** 2
        exact = density @ model.mean(z)
    assert density.sum().item() == pytest.approx(1, abs=2e-3)
    torch.manual_seed(4)
    x = model.sample(40_000)
    assert ((x.mean(0) - exact).abs() < 5 * x.std(0) / 200).all()


def test_a_decoder_that_sees_features_keeps_the_prior():
    vae, x = model_of("diagonal", "shifted")
    model = AutoregressiveVAE(vae, 1).double()
    assert model.prior is vae.prior
    torch.testing.assert_close(model.elbo(x).kl, vae.elbo(x).kl)


@pytest.mark.parametrize("prior", ["mixture", "flow"])
def test_surgery_takes_a_models_prior(prior):
    model, x = model_of("diagonal", prior)
    with torch.no_grad():
        q = model.encode(x)
        found = decompose_kl(q, prior=model.prior, method="quadrature")
        kl = expectation(model, x, lambda z, log_q: log_q - model.prior.log_prob(z))
    assert found.analytic_average_kl is None
    torch.testing.assert_close(found.average_kl, kl.mean(), atol=1e-5, rtol=0)


def test_surgerys_closed_form_is_the_elbos():
    model, x = model_of("diagonal", "shifted")
    with torch.no_grad():
        q = model.encode(x)
        _, minus_kl = reconstruction_minus_kl(q, lambda z: model.log_likelihood(x, z), model.prior)
        torch.testing.assert_close(-minus_kl, model.elbo(x).kl)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (Normal(torch.zeros(2), 1.0), r"event shape \(2,\), that of a code, got \(2,\) and \(\)"),
        (standard_normal(3), r"got \(\) and \(3,\)"),
        (Independent(Normal(torch.zeros(5, 2), 1.0), 1), r"got \(5,\) and \(2,\)"),
        (Normal(0.0, 1.0), r"got \(\) and \(\)"),
        (FlowModel(standard_normal(3), PlanarFlow(3, 1)), r"got \(\) and \(3,\)"),
        (PlanarFlow(2, 1), r"prior must be a Distribution or a flow \(base, .*\), got PlanarFlow"),
        ("normal", "prior must be a Distribution or a flow .*, got str"),
    ],
)
def test_priors_of_other_codes_are_refused(prior, words):
    with pytest.raises(ValueError, match=words):
        GaussianVAE(3, 2, prior=prior)


class Wrong(Around):
    def __init__(self, vae, z_shape, log_q_shape):
        super().__init__(vae)
        self.shapes = z_shape, log_q_shape

    def posterior(self, x):
        return self

    def rsample_and_log_prob(self, n_samples):
        return tuple(torch.zeros(shape) for shape in self.shapes)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 4, 3), (2, 4)),  # three latents, where the prior has two
        ((2, 4, 1), (2, 4)),
        ((2, 4, 2), (2, 4, 2)),  # a density of each latent
        ((2, 4, 2), (4,)),
        ((4, 2), (4,)),
        ((1, 4, 2), (1, 4)),  # one draw in the place of two
    ],
)
def test_posteriors_of_another_shape_are_refused(shapes):
    model = Wrong(GaussianVAE(3, 2), *shapes)
    x = torch.zeros(4, 3)
    words = r"posterior must draw codes \(2, N, 2\), of the prior's dimension, with log q"
    for call in (model.elbo, lambda x, k: importance_weighted_bound(model, x, k)):
        with pytest.raises(ValueError, match=words):
            call(x, 2)


def test_an_explicit_posterior_of_another_dimension_is_refused():
    """One latent's KL would be broadcast against a prior of two."""
    vae = GaussianVAE(3, 2)

    class Narrow(Around):
        def encode(self, x):
            return Independent(Normal(x[:, :1], 1.0), 1)

        def decode(self, z):
            return self.vae.decode(z.expand(*z.shape[:-1], 2))

    model = Narrow(vae)
    with pytest.raises(ValueError, match=r"posterior must have event shape \(2,\).* got \(1,\)"):
        model.elbo(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="posterior must draw codes"):
        importance_weighted_bound(model, torch.zeros(4, 3), 2)


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_free_bits_want_a_kl_of_each_latent(posterior, prior):
    model, x = model_of(posterior, prior)
    if (posterior, prior) == ("diagonal", "standard"):
        assert isinstance(model.prior, StandardNormal)
        assert free_bits(model, x, 0.1).shape == ()
    else:
        with pytest.raises(ValueError, match="Gaussian|Independent"):
            free_bits(model, x, 0.1)


def test_closed_forms_for_the_standard_prior_want_it():
    vae = GaussianVAE(3, 2, 0, prior=standard_normal(2, torch.float32))
    with pytest.raises(ValueError, match=r"vae must have the prior N\(0, I\)"):
        parameters_of(vae)


@pytest.mark.parametrize("estimator", ["dreg", "stl"])
def test_leaving_the_score_out_needs_a_density_everywhere(estimator):
    for posterior in ("diagonal", "full"):
        model, x = model_of(posterior, "flow")
        assert importance_weighted_bound(model, x, 1, estimator=estimator).isfinite().all()
    model, x = model_of("bent", "standard")
    with pytest.raises(ValueError, match=f"'{estimator}' needs .* got BentPosterior"):
        importance_weighted_bound(model, x, 1, estimator=estimator)


class Masked(Around):
    """log p(x|z) is another value for some codes."""

    def __init__(self, vae, where, value):
        super().__init__(vae)
        self.where, self.value = where, value

    def decode(self, z):
        p, where, value = self.vae.decode(z), self.where(z), self.value

        class Somewhere:
            def log_prob(self, x):
                log_p = p.log_prob(x)
                return log_p.masked_fill(where.expand_as(log_p), value)

        return Somewhere()


@pytest.mark.parametrize(("value", "n_bad"), [(math.nan, 1), (-math.inf, 4), (math.inf, 1)])
def test_weights_that_say_nothing_are_refused(value, n_bad):
    """−inf for one code is a weight of 0; for all of them log p(x) would be −inf, and grad NaN."""
    vae, x = model_of("diagonal", "standard")

    model = Masked(vae, lambda z: torch.arange(z.shape[-2]) < n_bad, value)
    for call in (
        lambda: importance_weighted_bound(model, x, 3),
        lambda: log_prob_by_importance(model, x, 3),
    ):
        with pytest.raises(ValueError, match=f"log-weights must not be .* {n_bad} of 4 points"):
            call()
    if value < 0:
        model.where = lambda z: torch.arange(3)[:, None] == 0  # one code of the three
        assert importance_weighted_bound(model, x, 3).isfinite().all()


def test_codes_without_any_x_add_nothing_to_log_p():
    """They are a whole chunk of the sum, whose terms are all exp(−∞)."""
    vae, x = model_of("diagonal", "standard")
    x = x.repeat(40, 1)  # 4166 nodes at once: the first twenty rows of 201
    model = Masked(vae, lambda z: z[..., 0] < -4.8, -math.inf)
    ours, all_codes = (log_prob_by_quadrature(m, x, n=201) for m in (model, vae))
    torch.testing.assert_close(ours, all_codes, atol=1e-3, rtol=0)


def test_a_posterior_is_what_encode_returns():
    model, x = model_of("diagonal", "standard")
    assert isinstance(model.posterior(x), ExplicitPosterior)
    torch.manual_seed(5)
    z, log_q = model.posterior(x).rsample_and_log_prob(7)
    torch.manual_seed(5)
    q = model.encode(x)
    assert torch.equal(z, q.rsample((7,)))
    assert torch.equal(log_q, q.log_prob(z))
