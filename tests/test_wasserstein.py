"""Wasserstein's game in parts: its loss, its points, and three ways to hold a slope."""

import math

import pytest
import torch
from torch import nn

from dgm_course.gan import (
    Player,
    clip_weights,
    critic_loss,
    gradient_penalty,
    lipschitz_estimate,
    parallel_lines,
    play,
    random_interpolates,
    spectrally_normalised,
    transport_critic,
    transport_plan,
)

# --- the critic's loss ----------------------------------------------------------------------------


def test_the_loss_falls_as_data_score_higher_than_samples():
    real, fake = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([1.0, 5.0])
    loss = critic_loss(real, fake)
    assert loss.tolist() == [-1.0, 2.0]
    loss.sum().backward()
    assert real.grad.tolist() == [-1.0, -1.0]


def test_at_the_best_critic_its_mean_is_minus_the_distance():
    points = torch.tensor([0.0, 1.0, 3.0, 7.0])
    p, q = torch.tensor([[0.5, 0, 0, 0.5], [0, 0.5, 0.5, 0]])
    best = transport_critic((points[:, None] - points).abs(), p, q)
    loss = critic_loss(best.f[[0, 3]], best.f[[1, 2]])
    assert loss.mean().item() == pytest.approx(-best.value) == pytest.approx(-2.5)


# --- random interpolates --------------------------------------------------------------------------


def test_an_example_has_one_weight_for_all_its_features():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 5000, 1, 3, 3, dtype=torch.float64)
    x = random_interpolates(real, fake)
    eps = ((x - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(eps, eps[:, :1].expand(-1, 9))
    eps = eps[:, 0].sort().values
    even = (torch.arange(5000) + 0.5) / 5000
    assert (eps - even).abs().max() < 1.63 / 5000**0.5  # Kolmogorov's bound at 1 %


def test_interpolates_are_drawn_again_from_a_seed():
    real, fake = torch.zeros(4, 2), torch.ones(4, 2)
    some = random_interpolates(real, fake, 3)
    assert torch.equal(some, random_interpolates(real, fake, torch.Generator().manual_seed(3)))
    torch.manual_seed(3)
    assert torch.equal(some, random_interpolates(real, fake))
    assert not torch.equal(some, random_interpolates(real, fake))


# --- clipping -------------------------------------------------------------------------------------


def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def test_clipping_is_that_of_a_bare_loop_to_the_bit():
    ours, theirs = critic(), critic()
    x = torch.randn(40, 2)
    parameters = [*ours.parameters()]
    one, two = (torch.optim.Adam(f.parameters(), 0.01) for f in (ours, theirs))
    clip_weights(one, 0.05)
    for _ in range(40):
        one.zero_grad()
        critic_loss(ours(x), ours(x + 1)).mean().backward()
        one.step()
        two.zero_grad()
        critic_loss(theirs(x), theirs(x + 1)).mean().backward()
        two.step()
        with torch.no_grad():
            for weight in theirs.parameters():
                weight.copy_(weight.clip(-0.05, 0.05))
    for mine, old, other in zip(ours.parameters(), parameters, theirs.parameters(), strict=True):
        assert mine is old  # the very weights that the optimiser holds
        assert torch.equal(mine, other)
    assert max(w.abs().max().item() for w in parameters) == pytest.approx(0.05)


def test_in_a_game_each_step_of_the_critic_is_clipped_and_no_other_player():
    f, theta = critic(), nn.Parameter(torch.full((2,), 5.0))
    of_f, of_theta = torch.optim.SGD(f.parameters(), 1.0), torch.optim.SGD([theta], 0.1)
    handle = clip_weights(of_f, 0.2)
    largest = []

    def loss(step):
        largest.append(max(w.abs().max().item() for w in f.parameters()))
        return critic_loss(f(torch.randn(16, 2)), f(torch.randn(16, 2) + theta))

    players = Player(loss, of_f), Player(lambda step: -f(torch.randn(16, 2) + theta), of_theta)
    play(*players, 4, n_critic=3, progress=False)
    assert len(largest) == 12
    assert largest[0] > 0.2  # as the layers began
    assert max(largest[1:]) <= 0.2 + 1e-8
    assert theta.min() > 1
    handle.remove()
    play(*players, 1, n_critic=3, progress=False)
    assert max(largest[-2:]) > 0.2


# --- spectral normalisation -----------------------------------------------------------------------


def conv_critic():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, 2, 1), nn.LeakyReLU(0.2), nn.ConvTranspose2d(6, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0)),
    )


def test_every_layers_norm_is_one_by_its_singular_value():
    network = conv_critic()
    before = [network[i].weight.detach().clone() for i in (0, 2, 5, 7)]
    assert spectrally_normalised(network) is network
    x = torch.randn(3, 1, 8, 8)
    for _ in range(50):
        network(x)
    for i, weight in zip((0, 2, 5, 7), before, strict=True):
        flat = (weight.transpose(0, 1) if i == 2 else weight).flatten(1)
        sigma = torch.linalg.matrix_norm(flat, 2)
        torch.testing.assert_close(network[i].weight, weight / sigma, atol=1e-4, rtol=1e-4)


def test_between_its_layers_no_slope_exceeds_one():
    torch.manual_seed(0)
    f = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.LeakyReLU(0.2))
    f = nn.Sequential(f, nn.Linear(32, 1), nn.Flatten(0))
    spectrally_normalised(f, 5)
    adam = torch.optim.Adam(f.parameters(), 0.01)
    x = torch.randn(200, 2)
    for _ in range(100):
        adam.zero_grad()
        critic_loss(f(x), f(x + torch.tensor([2.0, 0.0]))).mean().backward()
        adam.step()
    points = torch.cat([x + t * torch.tensor([2.0, 0.0]) for t in torch.linspace(0, 1, 9)])
    assert 0.5 < lipschitz_estimate(f.eval(), points) <= 1 + 1e-3


# --- its measure ----------------------------------------------------------------------------------


def test_the_estimate_is_the_largest_slope_and_no_more_than_lipschitzs_constant():
    torch.manual_seed(0)
    w = torch.randn(1, 4, 4, dtype=torch.float64)
    linear = lambda x: (x * w).flatten(1).sum(1)  # noqa: E731
    assert lipschitz_estimate(linear, torch.zeros(2, 1, 4, 4).double()) == pytest.approx(w.norm())
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    found = lipschitz_estimate(lambda x: x.sin().sum(1), x)
    assert found == pytest.approx(1.0)  # cos 0
    assert lipschitz_estimate(lambda x: x.sin().sum(1), x[-1:]) == pytest.approx(-math.cos(2))


def test_it_equals_the_penaltys_slope():
    f, x = critic(), torch.randn(50, 2)
    penalty = gradient_penalty(f, x)
    slope = lipschitz_estimate(f, x)
    assert min(abs((slope - 1) ** 2 - p) for p in penalty.tolist()) < 1e-6
    assert not any(w.grad is not None for w in f.parameters())


# --- parallel lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.0, 0.5, -2.0])
def test_the_lines_distances_are_those_of_points_on_them(theta):
    height = torch.arange(6, dtype=torch.float64) / 5
    points = torch.cat([torch.stack([torch.full((6,), x).double(), height], 1) for x in (0, theta)])
    p, q = (
        torch.cat([torch.ones(6), torch.zeros(6)]) / 6,
        torch.cat([torch.zeros(6), torch.ones(6)]) / 6,
    )
    found = [d.item() for d in parallel_lines(torch.tensor([theta], dtype=torch.float64))]
    assert found[0] == pytest.approx(transport_plan(torch.cdist(points, points), p, q).cost)
    if theta == 0:  # the same points
        p = q = p[:6]
    middle = (p + q) / 2
    total = (p - q).abs().sum() / 2
    jsd = (torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)).sum() / 2
    kl = torch.where(p > 0, p * (p / q).log(), 0).sum()
    assert found[1:] == pytest.approx([total.item(), jsd.item(), kl.item()])


# --- bad input ------------------------------------------------------------------------------------

S, X = torch.zeros(3), torch.zeros(3, 2)
ADAM = torch.optim.Adam([nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: critic_loss(S, S[:, None]), r"real and fake must have the same shape, got \(3,\)"),
        (lambda: critic_loss(S.long(), S.long()), "real must hold floating-point numbers"),
        (lambda: critic_loss(S, S.long()), "fake must hold floating-point numbers"),
        (lambda: random_interpolates(X, X[:2]), r"same shape, got \(3, 2\) and \(2, 2\)"),
        (lambda: random_interpolates(X, X.double()), "real and fake must have one dtype"),
        (lambda: random_interpolates(X.long(), X), "real must hold floating-point numbers"),
        (lambda: random_interpolates(S, S), r"real must have shape \(N, ...\), got shape \(3,\)"),
        (lambda: random_interpolates(X, X, 0.5), "seed must be an int or a torch.Generator"),
        (lambda: clip_weights(ADAM, 0.0), "c must be positive and finite, got 0.0"),
        (lambda: clip_weights(ADAM, -0.1), "c must be positive and finite, got -0.1"),
        (lambda: clip_weights(ADAM, math.nan), "c must be positive and finite, got nan"),
        (lambda: clip_weights(critic(), 0.1), "optimizer must be a Optimizer, got Sequential"),
        (lambda: spectrally_normalised(nn.ReLU()), "network must have linear layers or conv"),
        (lambda: spectrally_normalised(S), "network must be a Module, got Tensor"),
        (lambda: spectrally_normalised(critic(), 0), "n_iterations must be an int of at least 1"),
        (
            lambda: spectrally_normalised(spectrally_normalised(critic())),
            "plain weights, got 2 of 2 layers parametrised",
        ),
        (lambda: lipschitz_estimate(torch.sum, X[:0]), "x must have shape"),
        (lambda: parallel_lines(S.long()), "theta must hold floating-point numbers"),
    ],
)
def test_bad_parts_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_batch_normalisation_undoes_it():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with pytest.warns(UserWarning, match="batch normalisation divides by the scale"):
        spectrally_normalised(network)
