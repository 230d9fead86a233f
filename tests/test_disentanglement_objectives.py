"""Capacity, FactorVAE, β-TCVAE and InfoGAN's bound, against formulas and enumerations."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
    kl_divergence,
)

from dgm_course.density_ratio import Network
from dgm_course.disentanglement import (
    annealed_capacity,
    capacity_elbo,
    code_entropy,
    factor_elbo,
    factor_losses,
    information_bound,
    permute_dimensions,
    table_information,
    tcvae_elbo,
    total_correlation_loss,
)
from dgm_course.flows import PlanarFlow
from dgm_course.losses import log_loss
from dgm_course.training import fit, seed_everything
from dgm_course.vae import ElboTerms, FlowPosterior, GaussianVAE, LinearVAE, decompose_kl, kl_terms

N = 6


def terms(kl):
    kl = torch.tensor(kl, requires_grad=True)
    return ElboTerms(torch.full_like(kl, -20.0).detach(), kl)


# --- capacity ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kl", "sign"), [([1.0, 3.0], 1), ([5.0, 9.0], -1), ([1.0, 9.0], -1)])
def test_capacity_holds_the_mean_rate_from_both_sides(kl, sign):
    """[1, 9] has its mean above C = 4: per example the two slopes would cancel."""
    given = terms(kl)
    value = capacity_elbo(given, gamma=10, capacity=4)
    assert value.item() == pytest.approx(-20 - 10 * abs(sum(kl) / 2 - 4))
    (slope,) = torch.autograd.grad(value, given.kl)
    assert slope.tolist() == [sign * 5.0] * 2


def test_capacity_rises_in_a_straight_line_and_stays():
    assert [annealed_capacity(s, 4, 8.0) for s in (0, 1, 2, 4, 9)] == [0, 2, 4, 8, 8]


@pytest.mark.parametrize("value", [-1.0, math.nan, "1"])
def test_weights_are_not_negative(value):
    given, d = terms([1.0, 2.0]), torch.zeros(2)
    for call, name in (
        (lambda: capacity_elbo(given, value, 1), "gamma"),
        (lambda: capacity_elbo(given, 1, value), "capacity"),
        (lambda: annealed_capacity(1, 2, value), "most"),
        (lambda: factor_elbo(given, d, value), "gamma"),
        (lambda: factor_losses(*pair(), torch.zeros(8, 4), value), "gamma"),
        (lambda: tcvae_elbo(d, kl_terms(*posteriors(2)), value), "beta"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite"):
            call()


def test_terms_must_have_one_shape():
    with pytest.raises(ValueError, match=r"must have the same shape, got \(2,\) and \(2, 1\)"):
        capacity_elbo(ElboTerms(torch.zeros(2), torch.zeros(2, 1)), 1, 1)
    with pytest.raises(ValueError, match="terms' reconstruction must be a torch.Tensor"):
        capacity_elbo(3, 1, 1)
    with pytest.raises(ValueError, match="log_ratio must have the same shape"):
        factor_elbo(terms([1.0, 2.0]), torch.zeros(2, 1), 1)
    with pytest.raises(ValueError, match="total_correlation must have the same shape"):
        tcvae_elbo(torch.zeros(3), kl_terms(*posteriors(2))._replace(
            mutual_information=torch.zeros(3)), 1)  # fmt: skip


# --- FactorVAE ---------------------------------------------------------------------------------


def pair(gamma=None):
    torch.manual_seed(0)
    return GaussianVAE(4, 3, 8).double(), Network(3, 5).double()


DATA = torch.randn(2 * N, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(model, d, gamma):
    """Both losses with each part written out, the encoder run for each half."""
    torch.manual_seed(7)
    noise = torch.randn(2 * N, 3, dtype=torch.float64)
    qs = [model.encode(half).base_dist for half in DATA.split(N)]
    first, second = (q.loc + q.scale * e for q, e in zip(qs, noise.split(N), strict=True))
    order = torch.rand(3, N).argsort(1).T
    mixed = torch.stack([second[order[:, j], j] for j in range(3)], 1)
    kl = kl_divergence(Independent(qs[0], 1), model.prior)
    elbo = model.decode(first).log_prob(DATA[:N]) - kl
    ones, zeros = torch.ones(N).double(), torch.zeros(N).double()
    of_d = log_loss(d(first), ones) + log_loss(d(mixed), zeros)
    return -(elbo - gamma * d(first)), of_d


def gradients(loss, module):
    found = torch.autograd.grad(loss.sum(), [*module.parameters()], allow_unused=True)
    return [torch.zeros(1) if g is None else g for g in found]


@pytest.mark.parametrize("gamma", [0.0, 10.0])
def test_both_losses_are_those_written_out(gamma):
    model, d = pair()
    torch.manual_seed(7)
    losses = factor_losses(model, d, DATA, gamma)
    of_model, of_d = by_hand(model, d, gamma)
    torch.testing.assert_close(losses.model, of_model, atol=1e-12, rtol=0)
    torch.testing.assert_close(losses.discriminator, of_d, atol=1e-12, rtol=0)
    assert not losses.log_ratio.requires_grad


def test_the_sum_of_both_losses_gives_each_player_its_own_gradient():
    model, d = pair()
    torch.manual_seed(7)
    losses = factor_losses(model, d, DATA, 10.0)
    total = losses.model + losses.discriminator
    of_model, of_d = by_hand(model, d, 10.0)
    for module, alone in ((model, of_model), (d, of_d)):
        both = torch.autograd.grad(total.sum(), [*module.parameters()], retain_graph=True)
        for found, expected in zip(both, gradients(alone, module), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert all(p.requires_grad for p in d.parameters())


def test_the_discriminators_own_loss_reaches_no_encoder_and_is_the_same():
    model, d = pair()
    torch.manual_seed(7)
    losses = factor_losses(model, d, DATA, 10.0)
    torch.manual_seed(7)
    alone = total_correlation_loss(model, d, DATA)
    torch.testing.assert_close(alone, losses.discriminator, atol=1e-12, rtol=0)
    for loss in (alone, losses.discriminator):
        assert all((g == 0).all() for g in gradients(loss, model))
    assert any((g != 0).any() for g in gradients(alone, d))


def test_the_encoder_runs_once_and_decodes_one_half():
    model, d = pair()
    rows = {"encoder": [], "decoder": []}
    for name, seen in rows.items():
        module = getattr(model, name)
        module.register_forward_pre_hook(lambda m, x, seen=seen: seen.append(len(x[0])))
    original = model.codes_given
    encoded = []
    model.codes_given = lambda h: encoded.append(len(h)) or original(h)
    factor_losses(model, d, DATA, 1.0)
    assert encoded == [2 * N]
    assert rows["decoder"] == [N]


def test_a_total_correlation_costs():
    """A discriminator that grows with z₁ z₂: descent on the model's loss lowers E z₁ z₂."""
    z = torch.ones(3, 2, requires_grad=True)
    value = factor_elbo(ElboTerms(torch.zeros(3), torch.zeros(3)), z.prod(1), gamma=2.0)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert (slope == -2).all()


def test_each_column_is_permuted_in_an_order_of_its_own():
    rho = 0.9
    torch.manual_seed(0)
    covariance = torch.tensor([[1, rho], [rho, 1.0]])
    z = MultivariateNormal(torch.zeros(2), covariance).sample((4000,))
    mixed = permute_dimensions(z, 1)
    assert torch.equal(mixed.sort(0).values, z.sort(0).values)
    assert abs(torch.corrcoef(mixed.T)[0, 1]) < 0.06  # 4 standard errors of 1/√n
    assert torch.equal(permute_dimensions(z, 1), mixed)
    with pytest.raises(ValueError, match="z must hold two codes or more"):
        permute_dimensions(z[:1])


def test_the_trained_log_ratio_is_the_total_correlation_of_a_gaussian():
    """A linear encoder of two equal features: q(z) is a Gaussian, of TC −½ ln(1 − ρ²)."""
    seed_everything(0)
    model = GaussianVAE(2, 2, 0)
    with torch.no_grad():
        model.encoder[0].weight.copy_(torch.eye(2))
        model.encoder[0].bias.zero_()
        model.code_log_variance.fill_(math.log(0.25))
    d = Quadratic()
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    data = MultivariateNormal(torch.zeros(2), covariance)

    def loss(step):
        return total_correlation_loss(model, d, data.sample((512,)))

    optimizer = torch.optim.Adam(d.parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    fit(loss, optimizer, 400, scheduler=decay, progress=False)
    expected = -0.5 * math.log(1 - (0.8 / 1.25) ** 2)
    found = factor_losses(model, d, data.sample((20_000,)), 1.0).log_ratio.mean().item()
    assert found == pytest.approx(expected, abs=0.05)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, z):
        return self.head(torch.cat([z, z.square(), z.prod(1, keepdim=True), z[:, :1] ** 0], 1))[
            :, 0
        ]


def test_any_posterior_and_any_prior_will_do():
    torch.manual_seed(0)
    d = Network(2, 4).double()
    bent = FlowPosterior(GaussianVAE(4, 2, 8), PlanarFlow(2, 2)).double()
    mixture = MultivariateNormal(torch.zeros(2).double(), 4 * torch.eye(2).double())
    other = GaussianVAE(4, 2, 8, prior=mixture).double()
    for model in (bent, other):
        losses = factor_losses(model, d, DATA, 3.0)
        assert [v.shape for v in losses] == [(N,)] * 3
        assert all(g.isfinite().all() for g in gradients(losses.model, model))


def test_a_bad_batch_or_discriminator_is_refused():
    model, d = pair()
    for call in (lambda x: factor_losses(model, d, x, 1.0),
                 lambda x: total_correlation_loss(model, d, x)):  # fmt: skip
        with pytest.raises(ValueError, match="x must hold four points or more, .* got 1"):
            call(DATA[:1])
        with pytest.raises(ValueError, match="x must be finite"):
            call(DATA * math.inf)
    assert len(factor_losses(model, d, DATA[:7], 1.0).model) == 3
    column = nn.Sequential(nn.Linear(3, 1)).double()
    with pytest.raises(ValueError, match=r"what discriminator returns must have shape \(6,\)"):
        factor_losses(model, column, DATA, 1.0)
    with pytest.raises(ValueError, match="discriminator must be a Module, got function"):
        factor_losses(model, lambda z: z[:, 0], DATA, 1.0)


# --- β-TCVAE -----------------------------------------------------------------------------------


def posteriors(n, dim=2, seed=0):
    torch.manual_seed(seed)
    mean = torch.randn(n, dim, dtype=torch.float64, requires_grad=True)
    q = Independent(Normal(mean, 0.3 + torch.rand(n, dim, dtype=torch.float64)), 1)
    return q, q.rsample()


def test_the_three_terms_add_up_and_are_those_of_a_broadcast():
    q, z = posteriors(30, 3)
    found = kl_terms(q, z)
    log_p = Normal(q.base_dist.loc[None], q.base_dist.scale[None]).log_prob(z[:, None])  # (N, N, M)
    joint = log_p.sum(2).logsumexp(1) - math.log(30)
    marginals = (log_p.logsumexp(1) - math.log(30)).sum(1)
    prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    own = q.log_prob(z)
    for term, expected in zip(
        found, (own - joint, joint - marginals, marginals - prior), strict=True
    ):
        torch.testing.assert_close(term, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(sum(found), own - prior, atol=1e-10, rtol=0)
    (slope,) = torch.autograd.grad(
        found.total_correlation.sum(), q.base_dist.loc, retain_graph=True
    )
    (expected,) = torch.autograd.grad((joint - marginals).sum(), q.base_dist.loc)
    torch.testing.assert_close(slope, expected, atol=1e-10, rtol=0)


def test_over_all_data_the_terms_are_those_of_a_quadrature():
    q, _ = posteriors(40)
    exact = decompose_kl(q, method="quadrature")
    mean = torch.zeros(3).double()
    for _ in range(300):
        mean += torch.stack([t.detach().mean() for t in kl_terms(q, q.sample())]) / 300
    assert mean[0].item() == pytest.approx(exact.mutual_information.item(), abs=0.02)
    assert (mean[1] + mean[2]).item() == pytest.approx(exact.marginal_kl.item(), abs=0.02)


def test_beta_weighs_the_total_correlation_alone():
    q, z = posteriors(5)
    given, rec = kl_terms(q, z), torch.randn(5).double()
    torch.testing.assert_close(tcvae_elbo(rec, given, 1.0), rec - sum(given))
    torch.testing.assert_close(
        tcvae_elbo(rec, given, 6.0), rec - sum(given) - 5 * given.total_correlation
    )


def test_the_terms_refuse_other_codes_and_priors():
    q, z = posteriors(5)
    with pytest.raises(ValueError, match=r"z must have shape \(5, 2\), got shape \(4, 2\)"):
        kl_terms(q, z[:4])
    full = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    with pytest.raises(ValueError, match="prior must be factorised"):
        kl_terms(q, z, prior=full)


# --- what picks the axes -----------------------------------------------------------------------


def plane(degrees):
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def rotated(eigenvalues, degrees, noise=0.25):
    """Probabilistic PCA with its axes turned, and the best diagonal encoder for it."""
    weight = torch.diag((torch.tensor(eigenvalues).double() - noise).sqrt()) @ plane(degrees)
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    model = LinearVAE(weight, zero, noise * one, torch.zeros(2, 2).double(), zero, one)
    return model.with_best_encoder()


def data_of(eigenvalues):
    return MultivariateNormal(
        torch.zeros(2).double(), torch.diag(torch.tensor(eigenvalues)).double()
    )


@pytest.mark.parametrize("eigenvalues", [(4.0, 1.0), (4.0, 3.0), (4.0, 4.0)])
@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 90])
def test_a_turn_leaves_the_likelihood_and_costs_the_elbo_its_closed_form(eigenvalues, degrees):
    """ELBO − log p = −½ (ln Π diag M − ln det M), M = I + WᵀW/σ²: 0 where M is diagonal."""
    model, straight = rotated(eigenvalues, degrees), rotated(eigenvalues, 0)
    data = data_of(eigenvalues)
    x = data.sample((50,))
    torch.testing.assert_close(
        model.marginal().log_prob(x), straight.marginal().log_prob(x), atol=1e-11, rtol=0
    )
    m = torch.eye(2).double() + model.weight.T @ model.weight / 0.25
    loss = -0.5 * (m.diagonal().log().sum() - torch.logdet(m))
    found = model.expected_elbo(data).elbo - straight.expected_elbo(data).elbo
    torch.testing.assert_close(found, loss, atol=1e-10, rtol=0)
    if eigenvalues[0] == eigenvalues[1] or degrees in (0, 90):
        assert abs(loss) < 1e-12
    if eigenvalues == (4.0, 1.0) and degrees == 45:
        assert loss.item() == pytest.approx(-0.2231, abs=1e-4)


def learned_angle(eigenvalues, seed):
    """Degrees between the axes of W after L-BFGS on the exact ELBO, and the data's axes."""
    torch.manual_seed(seed)
    noise, data = torch.full((2,), 0.25).double(), data_of(eigenvalues)
    zero = torch.zeros(2).double()
    weight, code = (torch.randn(2, 2).double().requires_grad_() for _ in range(2))
    log_variance = torch.zeros(2).double().requires_grad_()
    parameters = [weight, code, log_variance]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=300, tolerance_grad=1e-10, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        model = LinearVAE(weight, zero, noise, code, zero, log_variance.exp())
        loss = -model.expected_elbo(data).elbo
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        first = weight[:, weight.norm(dim=0).argmax()]
        angle = math.degrees(math.atan2(first[1].abs(), first[0].abs()))
    return min(angle, 90 - angle)


@pytest.mark.parametrize("eigenvalues", [(4.0, 1.0), (4.0, 3.0)])
def test_unequal_eigenvalues_give_the_axes_to_a_tenth_of_a_degree(eigenvalues):
    assert max(learned_angle(eigenvalues, seed) for seed in range(3)) < 0.1


def test_equal_eigenvalues_leave_the_angle_to_the_start():
    assert max(learned_angle((4.0, 4.0), seed) for seed in range(4)) > 3


# --- information -------------------------------------------------------------------------------


def table(n_codes=4, n_noises=8, n_outcomes=16, seed=0):
    """p(x|c) of a small generator: for each code and noise one outcome, noisily."""
    torch.manual_seed(seed)
    p = (2 * torch.randn(n_codes, n_noises, n_outcomes)).double().softmax(2)
    return p.mean(1)  # (C, X)


def test_the_bound_is_the_information_at_the_posterior_and_below_it_by_the_kl():
    p = table()
    prior = Categorical(torch.ones(4).double())
    joint = p / 4
    exact = table_information(joint)
    posterior = joint / joint.sum(0)  # (C, X)
    wrong = Categorical(logits=(posterior.log() + torch.randn(4, 16).double()).T)  # q(c|x)
    kl = kl_divergence(Categorical(posterior.T), wrong) @ joint.sum(0)
    c, x = torch.cartesian_prod(torch.arange(4), torch.arange(16)).T
    for q, gap in ((Categorical(posterior.T), 0.0), (wrong, kl)):
        log_q = q.logits[x, c]  # of every pair, weighed by its probability
        bound = (information_bound(log_q, prior) * joint[c, x]).sum()
        torch.testing.assert_close(exact - bound, torch.as_tensor(gap).double(), atol=1e-12, rtol=0)
    assert kl > 0.05
    assert 0.05 < exact < math.log(4)


def test_the_bound_of_a_continuous_code_is_that_of_a_linear_channel():
    """x = c + s ε with c ~ N(0, 1): q exact gives ½ ln(1 + 1/s²), and its mean is the bound."""
    torch.manual_seed(0)
    s, prior = 0.5, Normal(torch.tensor(0.0).double(), 1.0)
    c = prior.sample((100_000,))
    x = c + s * torch.randn(100_000).double()
    q = Normal(x / (1 + s**2), (s**2 / (1 + s**2)) ** 0.5)
    bound = information_bound(q.log_prob(c), prior).mean().item()
    assert bound == pytest.approx(0.5 * math.log(1 + 1 / s**2), abs=0.01)


def test_entropies_of_codes_add():
    codes = [
        Categorical(torch.ones(10)),
        Uniform(-1.0, 1.0),
        Independent(Normal(torch.zeros(3), 2.0), 1),
    ]
    expected = math.log(10) + math.log(2) + 1.5 * math.log(2 * math.pi * math.e * 4)
    assert code_entropy(codes).item() == pytest.approx(expected, abs=1e-5)
    assert code_entropy(codes[0]).item() == pytest.approx(math.log(10), abs=1e-6)


@pytest.mark.parametrize(
    "prior", [Bernoulli(0.5), Poisson(3.0), [Categorical(torch.ones(2)), Poisson(1.0)]]
)
def test_codes_of_unknown_kind_are_refused(prior):
    with pytest.raises(ValueError, match="codes that are Categorical, Uniform or Normal, got"):
        information_bound(torch.zeros(3), prior)


def test_a_bound_needs_log_probabilities():
    prior = Categorical(torch.ones(4))
    with pytest.raises(ValueError, match="log_q of categorical codes must be at most 0, got up to"):
        information_bound(torch.tensor([-1.0, 0.3]), prior)
    with pytest.raises(ValueError, match=r"log_q must have shape \(3,\), got shape \(3, 1\)"):
        information_bound(torch.zeros(3, 1), prior)
    with pytest.raises(ValueError, match="one distribution for code 0, got a batch"):
        information_bound(torch.zeros(3), Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="one code or more, got none"):
        code_entropy([])
    for joint, words in ((torch.ones(2), "joint must have shape"), (torch.ones(2, 2), "sum of 4")):
        with pytest.raises(ValueError, match=words):
            table_information(joint)
