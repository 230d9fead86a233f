"""VQ-VAE-2: what conditions on what, and the bound against a sum over pairs of grids."""

import itertools

import pytest
import torch

from dgm_course.autoregressive import GatedPixelCNN, IndependentPixels, Uniform, all_images
from dgm_course.codes import VQVAE2, Codes, VectorQuantizer
from dgm_course.data import digits
from dgm_course.training import training_steps

LEVELS = 2


def make(n_top=3, n_bottom=2, n_halvings=0, **sizes):
    """Top and bottom codes of their own widths, strong weights, in float64."""
    torch.manual_seed(0)
    top, bottom = VectorQuantizer(n_top, 3), VectorQuantizer(n_bottom, 2)
    model = VQVAE2(LEVELS, top, bottom, n_features=4, n_halvings=n_halvings, **sizes).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_((0.3 if name.startswith("decoder") else 0.6) * torch.randn_like(p))
        trunk = model._trunk(images(30, (8, 8), model.n_channels))
        top.initialise(model._top_features(trunk), 0)
        t = top.codes(top.nearest(model._top_features(trunk)))
        bottom.initialise(model._bottom_features(trunk, t), 0)
    return model.eval()


def images(n, size=(4, 2), channels=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LEVELS, (n, channels, *size), generator=generator)


def priors():
    """p(t), a table for grids (2, 1), and p(b|t), a network whose context is the top's codes."""
    torch.manual_seed(3)
    p_top = IndependentPixels(torch.tensor([[[[0], [1]]], [[[2], [1]]]]), 3).double()
    p_bottom = GatedPixelCNN(2, n_features=4, n_layers=2, n_context=3).double()
    with torch.no_grad():
        for name, p in p_bottom.named_parameters():
            p.mul_(20 if "of_context" in name else 2)
    return p_top, p_bottom


@torch.no_grad()
def test_log_prob_is_the_sum_over_all_pairs_and_the_bound_a_term_of_it():
    model, x, (p_top, p_bottom) = make(), images(12), priors()
    t_x, b_x = model.encode(x)
    assert min(len(t_x.unique()), len(b_x.unique())) > 1
    total, term = torch.zeros(12).double(), torch.zeros(12).double()
    for t in itertools.product(range(3), repeat=2):
        t = torch.tensor(t).view(1, 1, 2, 1)
        context = model.top.codebook[t[0, 0]].movedim(-1, 0)[None]  # (1, 3, 2, 1)
        context = context[:, :, [0, 0, 1, 1]][..., [0, 0]]  # each place four times
        torch.testing.assert_close(model.context(t), context)
        b = torch.tensor([*itertools.product(range(2), repeat=8)]).view(256, 1, 4, 2)
        p = model.decode(Codes(t.expand(256, 1, 2, 1), b)).softmax(1)  # (256, levels, 1, 4, 2)
        log_p = p_top.log_prob(t) + p_bottom.log_prob(b, context=context.expand(256, 3, 4, 2))
        for n, image in enumerate(x):
            p_x = p.gather(1, image.expand(256, 1, 1, 4, 2)).flatten(1).prod(1)
            joint = log_p.exp() * p_x
            total[n] += joint.sum()
            term[n] += (joint * (t_x[n] == t).all() * (b_x[n] == b).flatten(1).all(1)).sum()
    exact, bound = model.log_prob(x, p_top, p_bottom), model.log_prob_bound(x, p_top, p_bottom)
    torch.testing.assert_close(exact, total.log())
    torch.testing.assert_close(bound, term.log())
    assert (bound < exact).all()


@torch.no_grad()
def test_the_probabilities_of_all_images_add_up_to_one():
    model, (p_top, p_bottom) = make(), priors()
    every = all_images(LEVELS, 1, (4, 2))
    assert model.log_prob(every, p_top, p_bottom).exp().sum() == pytest.approx(1)


def test_the_top_is_read_from_the_image_and_the_bottom_from_both():
    """By gradients: the bottom's features depend on the top's codes, the top's not on the bottom's;
    the decoder reads both.
    """
    model, x = make(), images(3, (8, 8))
    t = model.top.codes(model.encode(x).top[:, 0]).requires_grad_()
    b = model.bottom.codes(model.encode(x).bottom[:, 0]).requires_grad_()
    features = model._bottom_features(model._trunk(x), t)
    assert (torch.autograd.grad(features.square().sum(), t)[0] != 0).all()
    for gradient in torch.autograd.grad(model._logits(t, b).square().sum(), [t, b]):
        assert (gradient.abs().sum(-1) > 0).all()
    assert not torch.equal(model._bottom_features(model._trunk(x), t + 1), features)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_terms_are_those_of_both_grids(update):
    model, x = make(), images(5, (8, 8))
    for quantizer in (model.top, model.bottom):
        quantizer.update, quantizer.commitment = update, 0.5
    terms, codes, trunk = model.terms(x), model.encode(x), model._trunk(x)
    t, b = model.top.codes(codes.top[:, 0]), model.bottom.codes(codes.bottom[:, 0])
    squared = sum(
        (h - e).square().sum((1, 2, 3))
        for h, e in ((model._top_features(trunk), t), (model._bottom_features(trunk, t), b))
    )
    log_p = model.decode(codes).log_softmax(1).gather(1, x[:, None]).sum((1, 2, 3, 4))
    torch.testing.assert_close(terms.reconstruction, log_p)
    torch.testing.assert_close(terms.commitment, 0.5 * squared)
    torch.testing.assert_close(terms.codebook, squared * (update == "gradient"))


def test_every_part_learns_from_the_terms():
    model, x = make().train(), images(5, (8, 8))
    books = [model.top.codebook.clone(), model.bottom.codebook.clone()]
    model.terms(x).loss.sum().backward()
    assert all((p.grad != 0).any() for p in model.parameters())
    for before, quantizer in zip(books, (model.top, model.bottom), strict=True):
        assert not torch.equal(before, quantizer.codebook)


@torch.no_grad()
def test_samples_follow_the_model():
    """The shares of 16 images of 2 × 2 pixels in 10,000 draws, each within five errors."""
    model, n = make(), 10_000
    p_top, p_bottom = Uniform(3).double(), priors()[1]
    every = all_images(LEVELS, 1, (2, 2))
    p = model.log_prob(every, p_top, p_bottom).exp()
    x = model.sample(n, (2, 2), p_top, p_bottom, generator=0)
    found = (x.flatten(1)[:, None] == every.flatten(1)).all(2).double().mean(0)
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-4).all()
    assert torch.equal(x, model.sample(n, (2, 2), p_top, p_bottom, generator=0))
    assert model.sample(3, (2, 4), p_top, p_bottom, noise=False).shape == (3, 1, 2, 4)


@torch.no_grad()
def test_each_bottom_is_drawn_given_its_own_top():
    """Priors that return what they are told to: grids that differ between the samples."""
    model, tops = make(), torch.tensor([0, 2, 1]).view(3, 1, 1, 1)
    told = []

    class Given:
        n_levels = 3

        def sample(self, n, size, *, generator, context=None):
            told.append((size, context))
            return tops if context is None else tops.clamp_max(1).expand(3, 1, 2, 2)

    bottom = Given()
    bottom.n_levels = 2
    x = model.sample(3, (2, 2), Given(), bottom, noise=False)
    assert torch.equal(told[1][1], model.context(tops))
    assert [size for size, _ in told] == [(1, 1), (2, 2)]
    codes = Codes(tops, tops.clamp_max(1).expand(3, 1, 2, 2))
    assert torch.equal(x, model.decode(codes).argmax(1))


@pytest.mark.parametrize(("n_halvings", "n_channels"), [(0, 1), (1, 3)])
def test_shapes(n_halvings, n_channels):
    model = make(n_halvings=n_halvings, n_channels=n_channels)
    top, bottom = model.encode(images(2, (8, 4), n_channels))
    assert top.shape == (2, 1, 4 >> n_halvings, 2 >> n_halvings)
    assert bottom.shape == (2, 1, 8 >> n_halvings, 4 >> n_halvings)
    assert model.decode(Codes(top, bottom)).shape == (2, LEVELS, n_channels, 8, 4)


def test_it_learns_the_digits():
    """90 steps of 48; independent pixels have 108 nats."""
    torch.manual_seed(0)
    x = digits("train").images
    quantizers = [VectorQuantizer(16, 4, decay=0.9, restart=0.1) for _ in range(2)]
    model = VQVAE2(17, *quantizers, n_features=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    order = torch.randperm(len(x))
    for _ in training_steps(lambda i: model.terms(x[order[i % 30 :: 30]]).loss, optimizer, 90):
        pass
    model.eval()
    with torch.no_grad():
        assert -model.terms(digits("test").images).reconstruction.mean() < 107


def test_bad_input_is_named():
    model, (p_top, p_bottom) = make(), priors()
    x = images(2)
    with pytest.raises(ValueError, match="top must be a VectorQuantizer, got int"):
        VQVAE2(2, 3, model.bottom)
    with pytest.raises(ValueError, match="bottom must be a VectorQuantizer, got NoneType"):
        VQVAE2(2, model.top, None)
    with pytest.raises(ValueError, match=r"divisible by 2\^n_halvings = 2, got 4 x 3"):
        model.encode(torch.zeros(1, 1, 4, 3).long())
    with pytest.raises(ValueError, match="x must hold integers 0 to 1"):
        model.terms(x + 1)
    for call in (model.log_prob_bound, model.log_prob):
        with pytest.raises(ValueError, match="p_top must have n_levels = 3, .* got 2"):
            call(x, p_bottom, p_bottom)
        with pytest.raises(ValueError, match="p_bottom must have n_levels = 2, .* got 3"):
            call(x, p_top, p_top)
    with pytest.raises(ValueError, match="at most 100,000 pairs of grids, got 5,308,416"):
        model.log_prob(images(1, (4, 4)), p_top, p_bottom)
    top, bottom = model.encode(x)
    with pytest.raises(ValueError, match=r"b must have shape \(2, 1, 4, 2\), twice the sides"):
        model.decode(Codes(top, bottom[:, :, :2]))
    with pytest.raises(ValueError, match="t must hold integers 0 to 2"):
        model.decode(Codes(top + 3, bottom))
    with pytest.raises(ValueError, match="b must hold integers 0 to 1"):
        model.decode(Codes(top, bottom + 2))
    with pytest.raises(ValueError, match=r"t must have shape \(N, 1, h, w\)"):
        model.context(top[:, 0])
