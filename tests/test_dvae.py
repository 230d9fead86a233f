"""The discrete VAE: ELBO and gradient against sums over all grids, and log p(x) above both."""

import itertools
import math

import pytest
import torch

from dgm_course.autoregressive import IndependentPixels, Uniform
from dgm_course.codes import DiscreteVAE, all_grids
from dgm_course.data import digits
from dgm_course.training import training_steps

LEVELS = 3


def make():
    """Three words, two places, strong weights, in float64."""
    torch.manual_seed(0)
    model = DiscreteVAE(LEVELS, 3, 2, n_features=4).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_((0.4 if name.startswith("encoder") else 0.6) * torch.randn_like(p))
    return model


def images(n):
    return torch.randint(LEVELS, (n, 1, 4, 2), generator=torch.Generator().manual_seed(1))


def prior():
    z = torch.tensor([[[[0], [1]]], [[[2], [1]]], [[[2], [2]]]])
    return IndependentPixels(z, 3).double()


def elbo_by_hand(model, x, log_prior):
    """Σ_z q(z|x) (log p(x|z) + log p(z) − log q(z|x)), image by image and grid by grid."""
    q = model.posterior(x).log_q.exp().flatten(1, 2)  # (N, 2, K)
    total = torch.zeros(len(x)).double()
    for i, j in itertools.product(range(3), repeat=2):
        z = torch.tensor([i, j]).view(1, 1, 2, 1)
        p = model.decode(z).softmax(1)[0]
        for n, image in enumerate(x):
            q_z = q[n, 0, i] * q[n, 1, j]
            log_p = p.gather(0, image[None]).log().sum() + log_prior(z)[0]
            total[n] = total[n] + q_z * (log_p - q_z.log())
    return total


@pytest.mark.parametrize("which", ["uniform", "table"])
def test_the_enumerated_elbo_is_the_sum_with_its_gradients(which):
    model, x = make(), images(4)
    given = None if which == "uniform" else prior()
    log_prior = (given or Uniform(3).double()).log_prob
    found = model.elbo_by_enumeration(x, prior=given).elbo
    expected = elbo_by_hand(model, x, log_prior)
    torch.testing.assert_close(found, expected)
    weights = [*model.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.sum(), weights),
        torch.autograd.grad(expected.sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("which", ["uniform", "table"])
def test_log_p_exceeds_the_elbo_by_the_posteriors_divergence(which):
    model, x = make(), images(30)
    given = None if which == "uniform" else prior()
    p_z = given or Uniform(3).double()
    grids = all_grids(3, (2, 1))
    joint = model.log_joint(x, grids, p_z)  # (G, N)
    log_q = torch.stack(
        [model.posterior(x).log_prob(z.expand(30, 2, 1)[None])[0].sum((1, 2)) for z in grids[:, 0]]
    )
    kl = (log_q.exp() * (log_q - joint.log_softmax(0))).sum(0)
    gap = model.log_prob(x, p_z) - model.elbo_by_enumeration(x, prior=given).elbo
    torch.testing.assert_close(gap, kl)
    assert (gap > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("which", ["uniform", "table"])
def test_draws_average_to_the_enumerated_terms(which):
    """2,000 draws, each image within five standard errors of its own draws."""
    model, x = make(), images(5)
    given = None if which == "uniform" else prior()
    exact = model.elbo_by_enumeration(x, prior=given)
    many = x.repeat_interleave(2000, 0)
    for drawn, expected in zip(model.elbo(many, prior=given, generator=0), exact, strict=True):
        each = drawn.view(5, 2000)
        error = 5 * each.std(1) / 2000**0.5
        assert ((each.mean(1) - expected).abs() <= error + 1e-12).all()
    means = model.elbo(x, 3, generator=1)
    assert means.elbo.shape == (5,)


def test_relaxed_terms_near_0_are_those_of_a_draw():
    model, x = make(), images(6)
    for hard in (False, True):
        torch.manual_seed(3)
        terms = model.relaxed_terms(x, 1e-6, straight_through=hard)
        torch.manual_seed(3)
        z = model.posterior(x).sample(1)[0]
        logits = model.decode(z[:, None]).log_softmax(1)
        log_p = logits.gather(1, x[:, None]).sum((1, 2, 3, 4))
        torch.testing.assert_close(terms.reconstruction, log_p)
        torch.testing.assert_close(terms.kl, model.elbo_by_enumeration(x).kl)


def test_weights_inside_the_simplex_bound_nothing():
    """Of 16 different images no model has a mean log p(x) above −ln 16; relaxed terms have, for at
    a high temperature the weights of two words tell more than 2² words can.
    """
    torch.manual_seed(0)
    x, temperature = images(16), 10.0
    assert len(x.unique(dim=0)) == 16
    model = DiscreteVAE(LEVELS, 2, 2, n_features=16).double()
    with torch.no_grad():
        model.codebook.mul_(temperature / 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    many = x.repeat(4, 1, 1, 1)
    for _ in training_steps(lambda _: -model.relaxed_terms(many, temperature).elbo, optimizer, 200):
        pass
    with torch.no_grad():
        assert model.relaxed_terms(many, temperature).elbo.mean() > -math.log(16)
        assert model.log_prob(x, Uniform(2).double()).mean() < -math.log(16)


def test_it_learns_the_digits():
    """200 steps of 48; with one word it could do no better than independent pixels' 108 nats."""
    torch.manual_seed(0)
    x = digits("train").images
    model = DiscreteVAE(17, 8, n_features=16, n_halvings=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.randperm(len(x))
    batch = lambda i: x[order[i % 30 :: 30]]  # noqa: E731
    for _ in training_steps(lambda i: -model.relaxed_terms(batch(i), 1.0).elbo, optimizer, 200):
        pass
    with torch.no_grad():
        assert -model.elbo_by_enumeration(digits("test").images).elbo.mean() < 107.5


def test_encode_takes_the_likeliest_words():
    model, x = make(), images(6)
    assert torch.equal(model.encode(x)[:, 0], model.posterior(x).log_q.argmax(-1))


def test_bad_input_is_named():
    model, x = make(), images(2)
    with pytest.raises(ValueError, match="dim must be an int"):
        DiscreteVAE(3, 4, 0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        model.relaxed_terms(x, 0.0)
    with pytest.raises(ValueError, match="x must hold integers 0 to 2, got values"):
        model.posterior(x + 1)
    for call in (model.elbo, model.elbo_by_enumeration):
        with pytest.raises(ValueError, match="n_levels = 3, the number of codes, got 5"):
            call(x, prior=Uniform(5))
    with pytest.raises(ValueError, match="n_samples must be"):
        model.elbo(x, 0)
    with torch.no_grad():
        model.encoder[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match="logits must be finite, got NaN or inf in 4 of 4"):
        model.encode(x)
