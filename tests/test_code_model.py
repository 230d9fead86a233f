"""Models of an image by a grid of codes, against a sum over grids written out by hand."""

import itertools

import pytest
import torch

from dgm_course.autoregressive import GatedPixelCNN, IndependentPixels, Uniform, all_images
from dgm_course.codes import VQVAE, DiscreteVAE, VectorQuantizer, all_grids, code_model

LEVELS = 3
# name -> constructor of a model of K words
MODELS = {
    "vqvae": lambda k, **sizes: VQVAE(LEVELS, VectorQuantizer(k, 2), n_features=4, **sizes),
    "dvae": lambda k, **sizes: DiscreteVAE(LEVELS, k, 2, n_features=4, **sizes),
}


def make(name, n_codes=3, seed=0, n_channels=1, **sizes):
    """A model of strong weights, in float64 and in evaluation mode, that uses all its codes."""
    torch.manual_seed(seed)
    model = MODELS[name](n_codes, n_channels=n_channels, **sizes).double()
    with torch.no_grad():
        for p_name, p in model.named_parameters():
            p.copy_((0.8 if p_name.startswith("encoder") else 0.3) * torch.randn_like(p))
        x = images(20, (8, 4), n_channels)
        if name == "vqvae":
            model.quantizer.initialise(model.features(x), 0)
        else:
            model.codebook.mul_(3)
            model.encoder[-1].bias -= model.posterior(x).log_q.mean((0, 1, 2))  # each code alike
    return model.eval()


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def images(n, size=(4, 2), channels=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LEVELS, (n, channels, *size), generator=generator)


def network():
    torch.manual_seed(2)
    prior = GatedPixelCNN(3, n_features=4, n_layers=2).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.mul_(2)
    return prior


PRIORS = {
    "uniform": lambda: Uniform(3).double(),
    "independent": lambda: IndependentPixels(images(5, (2, 1)), 3).double(),
    "network": network,
}


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]()


def joint_by_hand(model, x, prior):
    """p(z) p(x|z) of each grid and image ``(G, N)``, one grid, image and pixel at a time."""
    n_codes, (h, w) = model.n_codes, (s >> model.n_halvings for s in x.shape[2:])
    rows = []
    for codes in itertools.product(range(n_codes), repeat=h * w):
        z = torch.tensor(codes).view(1, 1, h, w)
        p = model.decode(z).softmax(1)[0]  # (levels, C, H, W)
        p_x = [p.gather(0, image[None]).prod() for image in x]
        rows.append(prior.log_prob(z).exp() * torch.stack(p_x))
    return torch.stack(rows)


# --- log p(x) ---------------------------------------------------------------------------------


@torch.no_grad()
def test_log_prob_is_the_sum_over_all_grids(name, prior, monkeypatch):
    model, x = make(name), images(6)
    joint = joint_by_hand(model, x, prior)
    grids = all_grids(3, (2, 1))
    torch.testing.assert_close(model.log_joint(x, grids, prior), joint.log())
    torch.testing.assert_close(model.log_prob(x, prior), joint.sum(0).log())
    monkeypatch.setattr(code_model, "CHUNK", 100)  # four grids at a time
    torch.testing.assert_close(model.log_prob(x, prior), joint.sum(0).log())


@torch.no_grad()
def test_the_probabilities_of_all_images_add_up_to_one(name, prior):
    model = make(name)
    assert model.log_prob(all_images(LEVELS, 1, (4, 2)), prior).exp().sum() == pytest.approx(1)


@torch.no_grad()
def test_the_bound_is_one_term_of_the_sum(name, prior):
    model, x = make(name), images(40)
    bound, exact = model.log_prob_bound(x, prior), model.log_prob(x, prior)
    assert (bound < exact).all()
    z = model.encode(x)
    assert z.shape == (40, 1, 2, 1)
    assert len(z.unique()) > 1
    number = 3 * z[:, 0, 0, 0] + z[:, 0, 1, 0]
    joint = joint_by_hand(model, x, prior)
    torch.testing.assert_close(bound, joint.log()[number, torch.arange(40)])


@torch.no_grad()
def test_with_one_code_the_bound_is_exact(name):
    class Certain:
        n_levels = 1

        def log_prob(self, z):
            return torch.zeros(len(z)).double()

    model, x = make(name, n_codes=1), images(9)
    torch.testing.assert_close(
        model.log_prob_bound(x, Certain()), model.log_prob(x, Certain()), rtol=1e-13, atol=0
    )


# --- shapes, samples --------------------------------------------------------------------------


@pytest.mark.parametrize("n_halvings", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(name, n_halvings, channels):
    model = make(name, n_halvings=n_halvings, n_channels=channels)
    x = images(2, (8, 4), channels)
    z = model.encode(x)
    assert z.shape == (2, 1, 8 >> n_halvings, 4 >> n_halvings)
    assert model.decode(z).shape == (2, LEVELS, channels, 8, 4)
    prior = Uniform(3).double()
    assert model.log_prob_bound(x, prior).shape == (2,)
    assert model.sample(5, (8, 4), prior).shape == (5, channels, 8, 4)


@torch.no_grad()
def test_samples_follow_the_model(name):
    """The shares of 81 images in 20,000 draws, each within five standard errors."""
    model, prior, n = make(name, n_halvings=1), network(), 20_000
    every = all_images(LEVELS, 1, (2, 2))
    p = model.log_prob(every, prior).exp()
    x = model.sample(n, (2, 2), prior, generator=0)
    found = (x.flatten(1)[:, None] == every.flatten(1)).all(2).double().mean(0)
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-4).all()
    assert torch.equal(x, model.sample(n, (2, 2), prior, generator=0))
    likeliest = model.sample(50, (2, 2), prior, noise=False, generator=0)
    of_codes = model.decode(all_grids(3, (1, 1))).argmax(1)
    assert (likeliest[:, None] == of_codes).flatten(2).all(2).any(1).all()


def test_all_grids():
    grids = all_grids(3, (2, 2))
    assert torch.equal(grids, all_images(3, 1, (2, 2)))
    assert all_grids(1, (9, 9)).shape == (1, 1, 9, 9)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 1, 4, 2), "x must hold integers 0 to 2, got dtype torch.float32"),
        (torch.full((2, 1, 4, 2), 3), "x must hold integers 0 to 2, got values from 3 to 3"),
        (torch.zeros(2, 3, 4, 2).long(), r"x must have shape \(N, 1, H, W\), got .*\(2, 3, 4, 2\)"),
        (torch.zeros(0, 1, 4, 2).long(), "got an empty batch"),
        (torch.zeros(2, 1, 4, 3).long(), r"divisible by 2\^n_halvings = 2, got 4 x 3"),
        ([[0]], "x must be a torch.Tensor"),
    ],
)
def test_bad_images_are_named(name, x, words):
    model, prior = make(name), Uniform(3).double()
    calls = (model.encode, lambda x: model.log_prob_bound(x, prior))
    for call in (*calls, lambda x: model.log_prob(x, prior)):
        with pytest.raises(ValueError, match=words):
            call(x)


def test_other_bad_input_is_named(name):
    model, x, prior = make(name), images(2), Uniform(3).double()
    for call in (model.log_prob_bound, model.log_prob):
        with pytest.raises(ValueError, match="n_levels = 3, the number of codes, got 4"):
            call(x, Uniform(4))
        with pytest.raises(ValueError, match="n_levels = 3, the number of codes, got None"):
            call(x, None)
    with pytest.raises(ValueError, match=r"100,000 grids of codes, got 3\^16 = 43,046,721"):
        model.log_prob(images(2, (8, 8)), prior)
    with pytest.raises(ValueError, match="z must hold integers 0 to 2, got values from 3 to 3"):
        model.decode(torch.full((1, 1, 2, 1), 3))
    with pytest.raises(ValueError, match=r"z must have shape \(N, 1, h, w\), got shape \(2, 2, 1"):
        model.decode(torch.zeros(2, 2, 1).long())
    with pytest.raises(ValueError, match=r"size of the grids' images, \(1, 4, 4\), got shape"):
        model.log_joint(x, torch.zeros(1, 1, 2, 2).long(), prior)
    with pytest.raises(ValueError, match="size must be divisible by"):
        model.sample(1, (3, 4), prior)
    with pytest.raises(ValueError, match=r"size must be a height and a width, \(H, W\), got 4"):
        model.sample(1, 4, prior)
