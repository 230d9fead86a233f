"""A flow as the prior and the same flow as the posterior: one bound, told in two codes."""

import pytest
import torch
from torch import nn

from dgm_course.autoregressive import WindowPixelCNN
from dgm_course.flows import AutoregressiveFlow, FlowModel, PlanarFlow
from dgm_course.vae import (
    GaussianVAE,
    PixelVAE,
    PushedVAE,
    importance_weighted_bound,
    log_prob_by_quadrature,
)
from dgm_course.vae.objectives import log_weights
from tests.contracts import standard_normal


def flow(dim, conditioned_on="data"):
    """An autoregressive flow of two layers, far from the identity."""
    layers = AutoregressiveFlow(dim, 2, 8, conditioned_on=conditioned_on)
    return FlowModel(standard_normal(dim), layers)


def random(model, scale=0.4, seed=1):
    torch.manual_seed(seed)
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn_like(p))
    return model


MODELS = {
    "gaussian": lambda: GaussianVAE(5, 3, 8, prior=flow(3)),
    "written in one pass": lambda: GaussianVAE(5, 3, 8, prior=flow(3, "noise")),
    "levels": lambda: GaussianVAE(6, 2, 8, likelihood="categorical", n_levels=4, prior=flow(2)),
    "window": lambda: PixelVAE(
        WindowPixelCNN(4, window=1, n_features=6, n_context=3), (2, 3), z_dim=4, prior=flow(4)
    ),
}


@pytest.fixture(params=MODELS)
def vae(request):
    return random(MODELS[request.param]())


def data(vae, n=4):
    if hasattr(vae, "decoder") and getattr(vae, "likelihood", "") == "gaussian":
        return torch.randn(n, vae.x_dim, generator=torch.Generator().manual_seed(0)).double()
    return torch.randint(4, (n, vae.x_dim), generator=torch.Generator().manual_seed(0))


def same_draws(call, model):
    torch.manual_seed(2)
    return call(model)


def test_every_weight_and_every_bound_is_the_same(vae):
    x, pushed = data(vae), PushedVAE(vae)
    for of in (
        lambda m: log_weights(m, x, 7),  # draw by draw
        lambda m: m.elbo(x, 7).elbo,
        lambda m: m.elbo(x, 7).reconstruction,
        lambda m: m.elbo(x, 7).kl,
        lambda m: importance_weighted_bound(m, x, 7),
    ):
        ours, theirs = same_draws(of, pushed), same_draws(of, vae)
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_the_prior_is_not_the_standard_one_and_the_posterior_no_gaussian(vae):
    """Else the identity would say nothing."""
    x, pushed = data(vae), PushedVAE(vae)
    draw = lambda m: m.posterior(x).rsample_and_log_prob(7)  # noqa: E731
    (z, log_q), (noise, log_q_noise) = same_draws(draw, vae), same_draws(draw, pushed)
    assert (z - noise).abs().amax() > 0.3
    assert (log_q - log_q_noise).abs().amax() > 0.3
    torch.testing.assert_close(pushed.codes(noise), z)
    at_noise = pushed.prior.log_prob(noise)
    torch.testing.assert_close(at_noise, standard_normal(vae.z_dim).log_prob(noise))
    # The change of variables, its determinant from autograd:
    f = vae.prior.flow.bijection.inverse
    jacobian = torch.autograd.functional.jacobian(lambda v: f(v)[0].sum(0), z.flatten(0, 1))
    expected = torch.linalg.slogdet(jacobian.transpose(0, 1))[1].view_as(log_q)
    torch.testing.assert_close(log_q - log_q_noise, expected, atol=1e-9, rtol=0)


def test_the_gradients_are_the_same(vae):
    x, pushed = data(vae), PushedVAE(vae)
    gradients = []
    for model in (vae, pushed):
        vae.zero_grad()
        same_draws(lambda m: m.elbo(x, 3).elbo.sum(), model).backward()
        gradients.append([p.grad.clone() for p in vae.parameters() if p.grad is not None])
    assert len(gradients[0]) == len([*vae.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def test_log_p_is_the_same_integral():
    vae = random(MODELS["levels"](), scale=0.4)
    x = data(vae)
    expected = log_prob_by_quadrature(vae, x, n=401, limit=12.0)
    found = log_prob_by_quadrature(PushedVAE(vae), x, n=401, limit=8.0)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_samples_and_means_are_those_of_the_code():
    vae = random(MODELS["gaussian"]())
    pushed = PushedVAE(vae)
    noise = torch.randn(3, 3).double()
    torch.testing.assert_close(pushed.mean(noise), vae.mean(pushed.codes(noise)))
    ours, theirs = (same_draws(lambda m: m.sample(50), m) for m in (pushed, vae))
    torch.testing.assert_close(ours, theirs)


def test_another_prior_is_refused():
    plain = GaussianVAE(5, 3)
    for bad, kind in [
        (plain, "StandardNormal"),
        (GaussianVAE(5, 3, prior=standard_normal(3)), "Independent"),
        (nn.Linear(2, 2), "Linear"),
        (None, "NoneType"),
    ]:
        with pytest.raises(ValueError, match=rf"vae must have a flow as its prior .*got {kind}"):
            PushedVAE(bad)
    assert PushedVAE(GaussianVAE(5, 3, prior=FlowModel(standard_normal(3), PlanarFlow(3))))
