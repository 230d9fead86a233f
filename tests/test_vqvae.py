"""Stage 1 of a VQ-VAE: its terms and their gradients by autograd, and digits."""

import pytest
import torch

from dgm_course.autoregressive import Uniform
from dgm_course.codes import VQVAE, VectorQuantizer
from dgm_course.data import digits
from dgm_course.training import training_steps

LEVELS = 3


def make(**settings):
    """A model of three codes, strong weights, in float64 and in evaluation mode."""
    torch.manual_seed(0)
    model = VQVAE(LEVELS, VectorQuantizer(3, 2, **settings), n_features=4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.6 * torch.randn_like(p))
    model.quantizer.initialise(model.features(images(20)), 0)
    return model.eval()


def images(n):
    return torch.randint(LEVELS, (n, 1, 4, 2), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_terms_are_those_of_the_quantised_grid(update):
    model, x = make(update=update, commitment=0.5), images(7)
    terms, h, z = model.terms(x), model.features(x), model.encode(x)
    assert h.shape == (7, 2, 1, 2)
    squared = (h - model.quantizer.codes(z[:, 0])).square().sum((1, 2, 3))
    log_p = model.decode(z).log_softmax(1).gather(1, x[:, None]).sum((1, 2, 3, 4))
    torch.testing.assert_close(terms.reconstruction, log_p)
    torch.testing.assert_close(terms.commitment, 0.5 * squared)
    torch.testing.assert_close(terms.codebook, squared * (update == "gradient"))
    torch.testing.assert_close(terms.loss, -log_p + (0.5 + (update == "gradient")) * squared)


def test_the_encoder_gets_the_decoders_gradient_and_its_commitment():
    model, x = make(update="gradient", commitment=0.5), images(7)
    found = torch.autograd.grad(model.terms(x).loss.sum(), [*model.encoder.parameters()])
    h = model.features(x)
    e = model.quantizer.codes(model.encode(x)[:, 0]).detach().requires_grad_()
    logits = model.decoder(e.movedim(-1, 1)).unflatten(1, (LEVELS, 1))
    log_p = torch.log_softmax(logits, 1).gather(1, x[:, None]).sum()
    (by_decoder,) = torch.autograd.grad(-log_p, e)
    handed = by_decoder + 2 * 0.5 * (h - e).detach()
    expected = torch.autograd.grad(h, [*model.encoder.parameters()], handed)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_only_terms_in_training_mode_teach_the_codebook():
    model, x = make(decay=0.5).train(), images(7)
    before = model.quantizer.codebook.clone()
    model.encode(x), model.log_prob_bound(x, Uniform(3).double())
    model.log_prob(x, Uniform(3).double())
    assert torch.equal(model.quantizer.codebook, before)
    model.terms(x)
    assert not torch.equal(model.quantizer.codebook, before)


def test_it_learns_the_digits():
    """90 steps of 48; with one code it could do no better than independent pixels' 108 nats."""
    torch.manual_seed(0)
    x = digits("train").images
    model = VQVAE(17, VectorQuantizer(16, 8, decay=0.9, restart=0.1), n_features=16)
    model.quantizer.initialise(model.features(x))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    order = torch.randperm(len(x))
    for _ in training_steps(lambda i: model.terms(x[order[i % 30 :: 30]]).loss, optimizer, 90):
        pass
    model.eval()
    with torch.no_grad():
        assert -model.terms(digits("test").images).reconstruction.mean() < 104
    assert model.quantizer.usage(model.encode(x)) == 16


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="quantizer must be a VectorQuantizer, got int"):
        VQVAE(3, 4)
    model = make()
    with pytest.raises(ValueError, match="x must hold integers 0 to 2, got values from 3 to 3"):
        model.terms(torch.full((2, 1, 4, 2), 3))
    with torch.no_grad():
        model.encoder[0].bias[0] = torch.nan
    for call in (model.terms, model.encode):
        with pytest.raises(ValueError, match="h must be finite, got NaN or inf in 4 of 4 vectors"):
            call(images(2))
