"""A discriminator behind a dictionary: what it sees, what flows back, and when the words move."""

import copy

import pytest
import torch
from torch import nn

from dgm_course.codes import VectorQuantizer
from dgm_course.gan import DCGANDiscriminator, FeatureQuantizer, gradient_penalty


def quantised(n_codes=5, commitment=0.25):
    """In float64 and training mode, with weights far from the gentle initial ones."""
    torch.manual_seed(0)
    plain = DCGANDiscriminator(8, 4, 3, norm=nn.Identity)
    with torch.no_grad():
        for p in plain.parameters():
            p.copy_(0.3 * torch.randn_like(p))
    quantizer = VectorQuantizer(n_codes, 8, decay=0.9, commitment=commitment)
    return FeatureQuantizer(plain, quantizer).double().train()


def images(n=6):
    source = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=source, dtype=torch.float64)


def by_loops(d, x):
    """Codes, the nearest of each place, and its squared distance."""
    h = d.discriminator.features[:-1](x)  # (N, 8, 2, 2)
    codes, apart = torch.empty_like(h), torch.empty(len(x), 2, 2, dtype=h.dtype)
    for n in range(len(x)):
        for i in range(2):
            for j in range(2):
                distances = (d.quantizer.codebook - h[n, :, i, j]).square().sum(1)
                codes[n, :, i, j] = d.quantizer.codebook[distances.argmin()]
                apart[n, i, j] = distances.min()
    return codes, apart


def test_the_head_sees_the_nearest_codes():
    d, x = quantised(), images()
    with torch.no_grad():
        codes, apart = by_loops(d, x)
        expected = d.discriminator.head(codes.flatten(1))[:, 0]
        torch.testing.assert_close(d(x), expected)
        assert (d(x) - d.discriminator(x)).abs().max() > 0.1
        terms = d.terms(x)
    torch.testing.assert_close(terms.scores, expected)
    torch.testing.assert_close(terms.commitment, 0.25 * apart.mean((1, 2)))


def test_with_every_feature_a_code_it_is_the_plain_discriminator():
    d, x = quantised(n_codes=24), images()
    d.quantizer.initialise(d.features(x))
    torch.testing.assert_close(d(x), d.discriminator(x))
    assert d.quantizer.usage(d.indices(x)) == 24
    assert d.terms(x).commitment.max() < 1e-20


@pytest.mark.parametrize("way", ["call", "terms"])
def test_the_gradient_by_a_code_is_copied_to_the_feature(way):
    d, x = quantised(commitment=0), images().requires_grad_()
    scores = d(x) if way == "call" else d.terms(x).scores
    (found,) = torch.autograd.grad(scores.sum(), x)
    h = d.discriminator.features(x)
    (expected,) = torch.autograd.grad((h * d.discriminator.head.weight).sum(), x)
    torch.testing.assert_close(found, expected)
    penalty = gradient_penalty(d, x, target=0)
    torch.testing.assert_close(penalty, expected.square().sum((1, 2, 3)))


def test_commitment_moves_the_features_and_nothing_behind_them():
    d = quantised()
    d.terms(images()).commitment.sum().backward()
    assert d.discriminator.head.weight.grad is None
    assert all(p.grad.abs().max() > 0 for p in d.discriminator.features.parameters())


def test_the_dictionary_moves_in_training_with_its_terms_alone():
    d, x = quantised(), images()
    start = copy.deepcopy(d.quantizer.state_dict())

    def is_moved():
        return any(not torch.equal(v, start[k]) for k, v in d.quantizer.state_dict().items())

    for look in (d, d.indices, d.features, lambda x: gradient_penalty(d, x, target=0)):
        look(x)
        assert not is_moved()
    d.eval().terms(x)
    d(x)
    assert not is_moved()
    before = d(x)
    d.train()
    torch.testing.assert_close(d.terms(x).scores, before)  # moved once its answer is known
    assert is_moved()
    h = d.features(x).flatten(0, 2)
    fresh = VectorQuantizer(5, 8, decay=0.9).double()
    fresh.load_state_dict(start)
    fresh(h)
    torch.testing.assert_close(d.quantizer.codebook, fresh.codebook)


def test_no_image_sees_another():
    d, x = quantised(), images()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(d(x[order]), d(x)[order])
    torch.testing.assert_close(d(x[:1]), d(x)[:1])


PLAIN = DCGANDiscriminator(8, 4, 3)
D = FeatureQuantizer(PLAIN, VectorQuantizer(5, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: FeatureQuantizer(PLAIN, VectorQuantizer(5, 4)),
            "quantizer.dim must be the discriminator's 8 channels, got 4",
        ),
        (lambda: FeatureQuantizer(nn.Identity(), VectorQuantizer(5, 4)), "a DCGANDiscriminator"),
        (lambda: D(torch.zeros(2, 3, 8, 7)), r"x must have shape \(2, 3, 8, 8\)"),
        (lambda: D.terms(torch.zeros(2, 3, 8, 8).long()), "x must hold floating-point"),
        (lambda: D(torch.zeros(0, 3, 8, 8)), "at least one vector"),
        (lambda: D(torch.zeros(1, 3, 8, 8) / 0), "finite"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
