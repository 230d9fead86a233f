"""A VAE with an image model as its decoder, against plain VAEs, enumeration and the model alone."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent

from dgm_course.autoregressive import (
    GatedPixelCNN,
    IndependentPixels,
    PixelCNN,
    WindowPixelCNN,
    all_images,
)
from dgm_course.data import digits
from dgm_course.flows import AutoregressiveFlow, FlowModel
from dgm_course.training import fit, seed_everything
from dgm_course.vae import (
    GaussianVAE,
    PixelVAE,
    active_units,
    annealed_beta,
    beta_elbo,
    decompose_kl,
    free_bits,
    importance_weighted_bound,
    kl_per_dimension,
    log_prob_by_importance,
    log_prob_by_quadrature,
)
from tests.contracts import standard_normal

SIZE = (2, 3)
# name -> a decoder of tiny images of this size, with a context
DECODERS = {
    "window-0": lambda: WindowPixelCNN(3, window=0, n_features=6, n_context=3),
    "window-1": lambda: WindowPixelCNN(3, window=1, n_features=6, n_context=3),
    "whole past": lambda: WindowPixelCNN(2, window=2, n_features=6, n_context=2, n_layers=2),
    "plain": lambda: PixelCNN(3, n_features=6, n_layers=3, n_context=2),
    "gated": lambda: GatedPixelCNN(2, n_features=4, n_layers=2, n_context=2),
    "two channels": lambda: WindowPixelCNN(
        2, window=1, n_channels=2, n_features=6, n_layers=2, n_context=2
    ),
}


def random(model, scale=1.0, seed=0):
    """The model in float64, with weights of scale 1 in the decoder and in what z passes through."""
    torch.manual_seed(seed)
    model.double()
    with torch.no_grad():
        for p in [*model.decoder.parameters(), *model.to_context.parameters()]:
            p.copy_(scale * torch.randn_like(p))
    return model


def make(name, context="map", z_dim=2, **options):
    torch.manual_seed(0)
    return random(PixelVAE(DECODERS[name](), SIZE, z_dim=z_dim, context=context, **options))


@pytest.fixture(params=DECODERS)
def name(request):
    return request.param


@pytest.fixture(params=["map", "bias"])
def context(request):
    return request.param


def data(model, n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.decoder.n_levels, (n, model.x_dim), generator=generator)


def codes(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(model):
    return all_images(model.decoder.n_levels, model.decoder.n_channels, SIZE).flatten(1)


# --- p(x|z) -----------------------------------------------------------------------------------


def test_all_tiny_images_of_a_code_sum_to_one(name, context):
    model, z = make(name, context), codes(3, 1, 2)
    x = tiny(model)
    total = model.log_likelihood(x, z.expand(3, len(x), 2)).exp().sum(1)  # of each of three codes
    torch.testing.assert_close(total, torch.ones(3).double(), atol=1e-8, rtol=0)


def test_log_likelihood_is_the_decoders_own(name, context):
    """Of images with the pixels row by row, channel after channel; by a loop over the codes."""
    model, z = make(name, context), codes(4, 5, 2)
    x = data(model)
    found = model.log_likelihood(x, z)
    assert found.shape == (4, 5)
    images = torch.stack([v.reshape(model.decoder.n_channels, *SIZE) for v in x])
    weight, bias = model.to_context.weight, model.to_context.bias
    for s in range(4):
        c = z[s] @ weight.T + bias
        if context == "map":
            c = c.reshape(5, model.decoder.n_context, *SIZE)
        else:
            c = torch.stack([torch.stack([c] * 3, 2)] * 2, 2)
        expected = model.decoder.log_prob(images, context=c)
        torch.testing.assert_close(found[s], expected, atol=1e-12, rtol=0)


def test_draws_are_the_cached_samplers(name):
    model, z = make(name), codes(4, 2)
    p = model.decode(z)
    torch.manual_seed(3)
    x = p.sample((6,))
    assert (x.shape, x.dtype) == ((6, 4, model.x_dim), torch.int64)
    torch.manual_seed(3)
    contexts = model.context_of(z).expand(6, -1, -1, -1, -1).flatten(0, 1)
    expected = model.decoder.sample(24, SIZE, context=contexts)
    assert torch.equal(x, expected.flatten(1).view(6, 4, -1))


def test_draws_of_each_code_are_as_frequent_as_they_are_likely():
    model, z, n = make("whole past"), codes(2, 2), 20_000
    candidates = tiny(model)
    drawn = model.decode(z).sample((n,))  # (n, 2, 6)
    place = 2 ** torch.arange(6)
    for i in range(2):
        p = torch.zeros(64, dtype=torch.float64)
        log_p = model.log_likelihood(candidates, z[i].expand(64, 2)).detach()
        p[candidates @ place] = log_p.exp()
        counts = torch.bincount(drawn[:, i] @ place, minlength=64)
        assert ((counts - n * p) / (n * p).clamp_min(1).sqrt()).abs().max() < 5


def test_p_of_x_sums_to_one_over_all_images():
    """∫ p(x|z) p(z) dz by quadrature, over every image: prior, codes and decoder together."""
    model = random(PixelVAE(DECODERS["whole past"](), SIZE, z_dim=1), 0.5)
    log_p = log_prob_by_quadrature(model, tiny(model), n=201)
    assert abs(log_p.exp().sum().item() - 1) < 1e-6


# --- how z enters -----------------------------------------------------------------------------


def as_pixel_vae(vae, n_levels):
    """A window of 0 with the weights of a VAE whose logits are linear in z.

    relu(u) − relu(−u) = u carries them through the layers; the VAE's own, through one.
    """
    decoder = WindowPixelCNN(
        n_levels, window=0, n_features=2 * n_levels, n_layers=1, n_context=n_levels
    )
    model = PixelVAE(decoder, SIZE, z_dim=vae.z_dim, hidden=vae.hidden).double()
    model.encoder.load_state_dict(vae.encoder.state_dict())
    both = torch.eye(n_levels).repeat(2, 1) * torch.tensor([[1.0]] * n_levels + [[-1.0]] * n_levels)
    last = vae.decoder[2]  # (D · V, 2 M), reads relu(z), relu(−z)
    with torch.no_grad():
        for p in decoder.parameters():
            p.zero_()
        decoder.of_context[0].weight.copy_(both[:, :, None, None])
        decoder.head[0].weight.copy_((both @ both.T)[:, :, None, None])
        decoder.head[1].weight.copy_(both.T[:, :, None, None])
        weight = last.weight[:, : vae.z_dim].unflatten(0, (vae.x_dim, n_levels))
        model.to_context.weight.copy_(weight.transpose(0, 1).flatten(0, 1))
        model.to_context.bias.copy_(last.bias.unflatten(0, (vae.x_dim, n_levels)).T.flatten())
    return model


def linear_vae(n_levels, z_dim=2):
    torch.manual_seed(0)
    vae = GaussianVAE(6, z_dim, 2 * z_dim, likelihood="categorical", n_levels=n_levels).double()
    with torch.no_grad():
        vae.decoder[0].weight.copy_(torch.cat([torch.eye(z_dim), -torch.eye(z_dim)]))
        vae.decoder[0].bias.zero_()
        half = torch.randn(6 * n_levels, z_dim)
        vae.decoder[2].weight.copy_(torch.cat([half, -half], 1))
        vae.decoder[2].bias.normal_()
    return vae


def test_a_window_of_0_is_a_plain_vae():
    """The same function: log p(x|z), bounds, their gradients for the encoder."""
    vae = linear_vae(4)
    model = as_pixel_vae(vae, 4)
    x, z = torch.randint(4, (7, 6)), codes(3, 7, 2)
    torch.testing.assert_close(
        model.log_likelihood(x, z), vae.log_likelihood(x, z), atol=1e-12, rtol=0
    )
    for of in (
        lambda m: m.elbo(x, 5).elbo,
        lambda m: free_bits(m, x, 0.3, 5),
        lambda m: importance_weighted_bound(m, x, 5, estimator="dreg"),
    ):
        gradients = []
        for m in (model, vae):
            torch.manual_seed(4)
            value = of(m)
            gradients += [torch.autograd.grad(value.sum(), m.encoder[0].weight)[0], value]
        torch.testing.assert_close(gradients[:2], gradients[2:], atol=1e-10, rtol=0)


def test_at_0_pixels_are_independent_given_z(context):
    model, z = make("window-0", context), codes(5, 2)
    x = data(model)
    images = [v.view(5, 1, *SIZE) for v in (x, data(model, seed=7))]
    one, other = (model.decoder(v, context=model.context_of(z)) for v in images)
    assert torch.equal(one, other), "whatever the pixels are"
    logits = one[:, :, 0].flatten(2).transpose(1, 2)  # (N, D, levels)
    expected = Independent(Categorical(logits=logits), 1).log_prob(x)
    torch.testing.assert_close(model.log_likelihood(x, z), expected, atol=1e-12, rtol=0)


def test_a_map_differs_from_pixel_to_pixel_and_a_bias_does_not():
    z = codes(5, 2)
    logits = {}
    for context in ("map", "bias"):
        model = make("window-0", context)
        x = torch.zeros(5, 1, *SIZE, dtype=torch.long)
        logits[context] = model.decoder(x, context=model.context_of(z))[:, :, 0].flatten(2)
        # What z itself does differs too, not the map's constant part alone:
        logits[f"{context} by z"] = logits[context][1:] - logits[context][:1]
    for key, values in logits.items():
        apart = (values[:, :, 1:] - values[:, :, :1]).abs().amax((0, 1))  # of the first pixel
        if key.startswith("bias"):
            assert (apart == 0).all()
        else:
            assert (apart > 0.1).all()


@pytest.mark.parametrize("name", ["window-1", "plain", "gated"])
def test_z_enters_every_layer(name):
    model, z = make(name), codes(5, 2)
    x = data(model)
    layers = [
        *getattr(model.decoder, "of_context", ()),
        *(layer.of_context for layer in getattr(model.decoder, "layers", ())),
    ]
    before = model.log_likelihood(x, z)
    for layer in layers:
        kept = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.zero_()
            assert (model.log_likelihood(x, z) - before).abs().max() > 1e-6
            layer.weight.copy_(kept)
    n_layers = {"window-1": 3, "plain": 3, "gated": 2}[name]
    assert len(layers) == n_layers
    n_context, width = model.decoder.n_context, {"gated": 4 * 4}.get(name, 6)
    told = sum(p.numel() for layer in layers for p in layer.parameters())
    assert told == n_layers * n_context * width


@pytest.mark.parametrize("context", ["map", "bias"])
def test_parameters_by_hand(context):
    """Encoder 64-64-16, z to 16 features, three layers of 24 that see these, two of the head."""
    decoder = WindowPixelCNN(17, window=2, n_features=24, n_layers=3, n_context=16)
    model = PixelVAE(decoder, (8, 8), context=context)
    encoder = 64 * 64 + 64 + 64 * 16 + 16
    to_context = (8 + 1) * 16 * (64 if context == "map" else 1)
    pixels = 25 * 24 + 24 + 2 * (24 * 24 + 24) + (24 * 24 + 24) + 24 * 17 + 17
    of_context = 3 * 16 * 24
    total = sum(p.numel() for p in model.parameters())
    assert total == encoder + to_context + pixels + of_context


# --- objectives -------------------------------------------------------------------------------


def test_free_bits_are_free_for_each_latent():
    """Not for their sum: of two latents, one is above its allowance and one below."""
    model = make("window-1", z_dim=2)
    x = data(model, 40)
    with torch.no_grad():
        model.encoder[2].weight.zero_()
        model.encoder[2].bias.copy_(torch.tensor([2.0, 0.1, 0.0, 0.0]))  # means, log-variances
    each = kl_per_dimension(model.encode(x)).mean(0)  # 2.0 and 0.005 nats
    torch.manual_seed(5)
    found = free_bits(model, x, 0.5)
    torch.manual_seed(5)
    terms = model.elbo(x)
    reconstruction = terms.reconstruction.mean()
    torch.testing.assert_close(found, reconstruction - each[0] - 0.5)
    on_the_total = reconstruction - terms.kl.mean().clamp_min(2 * 0.5)
    assert found < on_the_total - 0.4


def test_objectives_and_what_reads_a_code_take_it_as_it_is(name):
    model = make(name)
    x = data(model, 8)
    torch.manual_seed(6)
    terms = model.elbo(x, 3)
    assert terms.exact_kl
    assert torch.equal(beta_elbo(terms, annealed_beta(5, 10)), terms.reconstruction - terms.kl / 2)
    torch.manual_seed(6)
    log_w = importance_weighted_bound(model, x, 1)
    torch.manual_seed(6)
    q = model.posterior(x).q
    z = q.rsample((1,))
    expected = model.log_likelihood(x, z) + model.prior.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(log_w, expected[0])
    split = decompose_kl(model.encode(x), n_samples=20, generator=0)
    torch.testing.assert_close(split.analytic_average_kl, terms.kl.double().mean())
    assert active_units(model.encode(x).mean).shape == (2,)
    for p in model.parameters():
        p.grad = None
    terms.elbo.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_bounds_and_samples_against_the_exact_log_p():
    model = random(PixelVAE(DECODERS["whole past"](), SIZE, z_dim=1), 0.5)
    x = data(model, 30)
    torch.manual_seed(7)
    with torch.no_grad():
        log_p = log_prob_by_quadrature(model, x, n=201)
        assert (model.elbo(x, 2000).elbo < log_p + 0.02).all()
        found = log_prob_by_importance(model, x, 2000)
    assert ((found.value - log_p).abs() < 5 * found.standard_error).all()
    assert found.standard_error.max() < 0.2


def test_a_prior_that_is_a_flow_is_trained_with_the_rest():
    flow = FlowModel(standard_normal(2), AutoregressiveFlow(2, 1))
    model = make("window-1", prior=flow)
    terms = model.elbo(data(model), 4)
    assert not terms.exact_kl
    terms.elbo.sum().backward()
    assert all(p.grad is not None for p in flow.parameters())
    assert model.sample(3).shape == (3, 6)


def test_learns_the_digits():
    x = digits("train").images.flatten(1)
    seed_everything(0)
    model = PixelVAE(WindowPixelCNN(17, window=1, n_features=16, n_context=8), (8, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss = lambda step: -model.elbo(x[torch.randint(len(x), (64,))]).elbo  # noqa: E731
    history = fit(loss, optimizer, 60, max_grad_norm=1.0, progress=False)
    assert history.loss[0] > 170
    assert sum(history.loss[-5:]) / 5 < 120


# --- bad input --------------------------------------------------------------------------------


def window(w, **options):
    return WindowPixelCNN(3, window=w, n_features=4, n_context=2, **options)


@pytest.mark.parametrize(
    ("decoder", "options", "words"),
    [
        (lambda: window(8), {}, r"window of at most 7, .* images of 8 × 8, got window = 8"),
        (lambda: window(5), {"size": (2, 5)}, r"at most 4, .* of 2 × 5, got window = 5"),
        (lambda: WindowPixelCNN(3, window=1), {}, "must take a context, .* n_context is None"),
        (lambda: IndependentPixels(torch.zeros(2, 1, 8, 8).long(), 3), {}, "n_context is None"),
        (lambda: GatedPixelCNN(3, n_context=2, n_classes=4), {}, "no classes, got n_classes = 4"),
        (lambda: nn.Linear(3, 3), {}, "decoder must be an image model .* got Linear"),
        (lambda: None, {}, "decoder must be an image model .* got NoneType"),
        (lambda: window(1), {"context": "label"}, "context must be 'map' or 'bias', got 'label'"),
        (lambda: window(1), {"size": (8, 0)}, "size's width must be an int of at least 1, got 0"),
        (lambda: window(1), {"size": 8}, r"size must be a height and a width, \(H, W\), got 8"),
        (lambda: window(1), {"size": (1, 8, 8)}, r"\(H, W\), got \(1, 8, 8\)"),
        (lambda: window(1), {"z_dim": 0}, "z_dim must be an int of at least 1, got 0"),
        (lambda: window(1), {"hidden": 0}, "hidden must be an int of at least 1, got 0"),
        (lambda: window(1), {"prior": standard_normal(3)}, r"event shape \(8,\), .* \(3,\)"),
    ],
)
def test_bad_arguments_are_refused(decoder, options, words):
    arguments = {"size": (8, 8)} | options
    with pytest.raises(ValueError, match=words):
        PixelVAE(decoder(), **arguments)


def test_the_widest_window_is_taken():
    assert PixelVAE(window(7), (8, 8)).decoder.window == 7
    assert PixelVAE(window(4), (2, 5)).decoder.window == 4


def test_bad_data_and_codes_are_refused():
    model = make("window-1")
    x, z = data(model), codes(5, 2)
    for bad, words in [
        (x.double(), "x must hold integers 0 to 2, got dtype torch.float64"),
        (x + 1, "x must hold integers 0 to 2, got values from 1 to 3"),
        (x[:, :5], r"x must have shape \(N, 6\), got shape \(5, 5\)"),
        (x.view(5, 1, 2, 3), r"x must have shape \(N, 6\), got shape \(5, 1, 2, 3\)"),
        (x[:0], "x must hold at least one point"),
        (x.numpy(), "x must be a torch.Tensor, got ndarray"),
    ]:
        for call in (model.elbo, model.encode, lambda v: model.log_likelihood(v, z)):
            with pytest.raises(ValueError, match=words):
                call(bad)
    for bad, words in [
        (codes(5, 3), r"z must have shape \(..., N, 2\) .* got shape \(5, 3\)"),
        (z[0], r"got shape \(2,\)"),
        (z.float(), "dtype torch.float64, got shape .* torch.float32"),
        (z.numpy(), "z must be a torch.Tensor, got ndarray"),
        (z / 0, "context must be finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.decode(bad).log_prob(x)
    with pytest.raises(ValueError, match=r"z must have shape \(..., 5, 2\), codes for each"):
        model.log_likelihood(x, codes(4, 2))
    with pytest.raises(NotImplementedError, match="has no formula"):
        model.mean(z)
