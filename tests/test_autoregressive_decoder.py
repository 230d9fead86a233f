import itertools
import math

import pytest
import torch
from torch.distributions import Distribution, MultivariateNormal

from dgm_course.data import correlated_gaussian
from dgm_course.vae import AutoregressiveVAE, GaussianVAE

# name -> a constructor with 4 features and 2 latents
MODELS = {
    "gaussian-0": lambda: AutoregressiveVAE(GaussianVAE(4, 2, 5, noise="diagonal"), 0),
    "gaussian-1": lambda: AutoregressiveVAE(GaussianVAE(4, 2, 5, noise="network"), 1),
    "gaussian-3": lambda: AutoregressiveVAE(GaussianVAE(4, 2, 0), 3),
    "bernoulli-2": lambda: AutoregressiveVAE(GaussianVAE(4, 2, 5, likelihood="bernoulli"), 2),
    "bernoulli-3": lambda: AutoregressiveVAE(GaussianVAE(4, 2, 5, likelihood="bernoulli"), 3),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.6 * torch.randn_like(p))
    return model


def is_binary(model):
    return model.vae.likelihood == "bernoulli"


def data(model, n=6):
    x = torch.randn(n, 4, dtype=torch.float64)
    return (x > 0).double() if is_binary(model) else x


def conditionals(model, x, z):
    """log p(x_d | x_<d, z) of each feature ``(N, D)``, feature by feature and by hand."""
    p, a = model.vae.decode(z).base_dist, model.context
    columns = []
    for d in range(4):
        seen = range(max(0, d - model.window), d)
        shift = sum((a[d, j] * x[:, j] for j in seen), torch.zeros(len(x)).double())
        if is_binary(model):
            on = torch.sigmoid(p.logits[:, d] + shift)
            columns.append(torch.where(x[:, d] == 1, on, 1 - on).log())
        else:
            error = (x[:, d] - p.loc[:, d] - shift) / p.scale[:, d]
            columns.append(-0.5 * error**2 - p.scale[:, d].log() - 0.5 * math.log(2 * math.pi))
    return torch.stack(columns, 1)


def test_log_likelihood_is_the_product_of_conditionals(model):
    x, z = data(model), torch.randn(6, 2).double()
    torch.testing.assert_close(model.log_likelihood(x, z), conditionals(model, x, z).sum(1))


def test_a_feature_sees_its_window_and_nothing_else(model):
    """By the gradient of each feature's parameter with respect to the features."""
    z = torch.randn(1, 2).double()
    x = data(model, 1)

    def parameter(x):
        p = model.decode(z)
        given = p._given(x @ p.weights.T).base_dist
        return (given.logits if is_binary(model) else given.loc)[0]

    jacobian = torch.autograd.functional.jacobian(parameter, x)[:, 0]  # (D, D)
    back = torch.arange(4)[:, None] - torch.arange(4)
    assert ((jacobian != 0) == ((back >= 1) & (back <= model.window))).all()


def test_all_binary_images_add_up_to_one():
    torch.manual_seed(0)
    for name in ("bernoulli-2", "bernoulli-3"):
        model = MODELS[name]().double()
        torch.nn.init.normal_(model.context)
        x = torch.tensor(list(itertools.product([0, 1], repeat=4)))
        z = torch.randn(1, 2).double().expand(16, 2)
        assert model.log_likelihood(x, z).exp().sum().item() == pytest.approx(1)


def test_with_the_window_closed_it_is_the_vae(model):
    x = data(model)
    closed = AutoregressiveVAE(model.vae, 0).double()
    torch.nn.init.normal_(closed.context)
    z = torch.randn(6, 2).double()
    torch.testing.assert_close(closed.log_likelihood(x, z), model.vae.log_likelihood(x, z))
    torch.testing.assert_close(model.elbo(x).kl, model.vae.elbo(x).kl)


def test_samples_follow_the_conditionals(model):
    torch.manual_seed(1)
    n, z = 60_000, torch.randn(1, 2).double()
    x = model.decode(z.expand(n, 2)).sample()
    assert x.shape == (n, 4)
    if is_binary(model):
        images = torch.tensor(list(itertools.product([0, 1], repeat=4))).double()
        with torch.no_grad():
            exact = model.log_likelihood(images, z.expand(16, 2)).exp()
        found = torch.stack([(x == image).all(1).double().mean() for image in images])
        assert ((found - exact).abs() < 5 * (exact / n).sqrt() + 1e-4).all()
    else:
        with torch.no_grad():
            g = torch.linalg.inv(torch.eye(4).double() - model.context * model.mask)
            scale = model.vae.decode(z).base_dist.scale[0]
            cov = g @ torch.diag(scale**2) @ g.T
            mean = model.mean(z)[0]
            torch.testing.assert_close(mean, g @ model.vae.mean(z)[0])
        assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / n**0.5).all()
        torch.testing.assert_close(torch.cov(x.T), cov, atol=0.05 * cov.max().item(), rtol=0.05)


def test_window_1_holds_the_rotated_toy_without_z():
    """N(m, Σ) = p(x₁) p(x₂|x₁): nothing is left for the latent."""
    data = correlated_gaussian(angle=math.pi / 4)
    m, sigma = data.mean.double(), data.covariance_matrix.double()
    model = AutoregressiveVAE(GaussianVAE(2, 1, 0, noise="diagonal"), 1).double()
    slope = sigma[0, 1] / sigma[0, 0]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.context[1, 0] = slope
        model.vae.decoder[0].bias.copy_(torch.stack([m[0], m[1] - slope * m[0]]))
        model.vae.noise_log_variance.copy_(
            torch.stack([sigma[0, 0], sigma[1, 1] - slope * sigma[0, 1]]).log()
        )
    x = data.sample((5,)).double()
    terms = model.elbo(x)
    torch.testing.assert_close(terms.elbo, MultivariateNormal(m, sigma).log_prob(x))
    assert (terms.kl == 0).all()


def test_starts_as_the_vae():
    torch.manual_seed(0)
    model = MODELS["gaussian-1"]()
    assert (model.context == 0).all()


def test_decode_returns_a_distribution(model):
    p = model.decode(torch.randn(3, 5, 2).double())
    assert isinstance(p, Distribution)
    assert (p.batch_shape, p.event_shape) == ((3, 5), (4,))
    assert p.sample().shape == (3, 5, 4)


def test_samples_without_noise():
    torch.manual_seed(0)
    assert MODELS["gaussian-1"]().sample(7, noise=False).shape == (7, 4)
    with pytest.raises(NotImplementedError, match="has no formula"):
        MODELS["bernoulli-2"]().sample(7, noise=False)


def test_refuses():
    with pytest.raises(ValueError, match="window must be at most 3, got 4"):
        AutoregressiveVAE(GaussianVAE(4, 1), 4)
    with pytest.raises(ValueError, match="window must be"):
        AutoregressiveVAE(GaussianVAE(4, 1), -1)
    with pytest.raises(ValueError, match="got 'categorical'"):
        AutoregressiveVAE(GaussianVAE(4, 1, likelihood="categorical", n_levels=3), 1)
    with pytest.raises(ValueError, match=r"\(N, 4\), got shape \(2, 3\)"):
        MODELS["gaussian-1"]().elbo(torch.zeros(2, 3))
