"""InfoGAN: what is said of a code, who learns it, and that it comes to be said."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal

from dgm_course.disentanglement import code_entropy, information_bound
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    InfoGAN,
    LatentCodes,
    Player,
    discriminator_loss,
    generator_loss,
    play,
)
from dgm_course.training import seed_everything

CODES = LatentCodes([3, 2], n_continuous=2)
N = 8


class Critic(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(hidden, 1)

    def features(self, x):
        return self.body(x)


def game(codes=CODES, seed=0, **options):
    seed_everything(seed)
    g = nn.Sequential(nn.Linear(2 + codes.n_inputs, 16), nn.ReLU(), nn.Linear(16, 2))
    return InfoGAN(g, Critic(), codes, z_dim=2, **options)


def test_codes_are_drawn_from_their_prior():
    c = CODES.sample(40_000, generator=0)
    assert c.shape == (40_000, 4)
    for j, k in enumerate((3, 2)):
        share = c[:, j].long().bincount() / len(c)
        torch.testing.assert_close(share, torch.full((k,), 1 / k), atol=0.012, rtol=0)
    assert c[:, 2:].abs().max() <= 1
    torch.testing.assert_close(c[:, 2:].mean(0), torch.zeros(2), atol=0.015, rtol=0)
    torch.testing.assert_close(c[:, 2:].var(0), torch.full((2,), 1 / 3), atol=0.01, rtol=0)
    assert torch.equal(CODES.sample(5, generator=1), CODES.sample(5, generator=1))


def test_their_entropy_is_that_of_their_priors():
    assert CODES.entropy == pytest.approx(math.log(6) + 2 * math.log(2))
    assert code_entropy(CODES.priors).item() == pytest.approx(CODES.entropy, abs=1e-6)


def test_a_network_reads_unit_vectors():
    c = torch.tensor([[2.0, 0.0, -0.5, 0.25]])
    assert CODES.as_inputs(c).tolist() == [[0, 0, 1, 1, 0, -0.5, 0.25]]


def test_log_q_is_that_of_torchs_distributions():
    torch.manual_seed(0)
    parameters, c = 2 * torch.randn(N, CODES.n_parameters).double(), CODES.sample(N).double()
    first, second, mean, log_scale = parameters.split([3, 2, 2, 2], 1)
    expected = Categorical(logits=first).log_prob(c[:, 0])
    expected = expected + Categorical(logits=second).log_prob(c[:, 1])
    expected = expected + Normal(mean, log_scale.exp()).log_prob(c[:, 2:]).sum(1)
    torch.testing.assert_close(CODES.log_q(parameters, c), expected, atol=1e-12, rtol=0)
    alone = torch.cat(
        [CODES.log_q(p, k) for p, k in zip(parameters.split(1), c.split(1), strict=True)]
    )
    torch.testing.assert_close(alone, expected, atol=1e-12, rtol=0)


def test_the_bound_is_at_most_the_entropy_and_zero_where_nothing_is_said():
    categorical = LatentCodes([5])
    c = categorical.sample(100, generator=0)
    silent = categorical.log_q(torch.zeros(100, 5), c)
    bound = information_bound(silent, categorical.priors)
    torch.testing.assert_close(bound, torch.zeros(100), atol=1e-6, rtol=0)
    sure = categorical.log_q(50 * categorical.as_inputs(c), c)
    bound = information_bound(sure, categorical.priors)
    torch.testing.assert_close(bound, torch.full((100,), math.log(5)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_losses_are_the_games_less_the_weighted_log_q(weight):
    model, x = game(weight=weight), torch.randn(N, 2)
    torch.manual_seed(1)
    made = model.make(N)
    real, fake = (model.discriminator.head(model.discriminator.body(v))[:, 0] for v in (x, made.x))
    log_q = model.log_q(made.x, made.codes)
    for loss, plain in (
        (lambda: model.discriminator_loss(x), discriminator_loss(real, fake)),
        (lambda: model.generator_loss(N), generator_loss(fake)),
    ):
        torch.manual_seed(1)
        torch.testing.assert_close(loss(), plain - weight * log_q)


def test_each_step_moves_its_own_weights():
    model = game()
    loss = model.discriminator_loss(torch.randn(N, 2)).mean()
    loss.backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.critic_parameters())
    own = {*map(id, model.critic_parameters())} | {*map(id, model.generator.parameters())}
    assert own == {*map(id, model.parameters())}


def trained(weight, n_rounds=250, seed=0):
    """Two clusters, one binary code: I is ln 2 where each cluster has its code."""
    model = game(LatentCodes([2]), seed, weight=weight)

    def data():
        return torch.randn(64, 2) * 0.3 + 2.0 * (2 * torch.randint(2, (64, 1)) - 1)

    players = (
        Player(lambda _: model.discriminator_loss(data()),
               torch.optim.Adam(model.critic_parameters(), lr=2e-3, betas=(0.5, 0.999))),
        Player(lambda _: model.generator_loss(64),
               torch.optim.Adam(model.generator.parameters(), lr=2e-3, betas=(0.5, 0.999))),
    )  # fmt: skip
    play(*players, n_rounds, progress=False)
    return model.information()


def test_the_game_makes_samples_tell_their_code():
    found = trained(1.0)
    assert found.value <= math.log(2) + 1e-6
    assert found.value > 0.55
    assert trained(0.0, 50).value < 0.2  # nobody asks for it, and it is not said


def test_images_need_a_generator_that_reads_the_codes():
    codes = LatentCodes([10], 2)
    model = InfoGAN(DCGANGenerator(8, 4 + codes.n_inputs), DCGANDiscriminator(8), codes, z_dim=4)
    given = torch.tensor([[7.0, 0.0, 0.5]]).expand(3, 3)
    x, c = model.make(3, given)
    assert x.shape == (3, 1, 8, 8)
    assert torch.equal(c, given)
    assert model.generator_loss(4).shape == (4,)
    assert model.discriminator_loss(torch.randn(4, 1, 8, 8)).shape == (4,)


def test_odd_codes_are_refused():
    with pytest.raises(ValueError, match="one code or more, got none"):
        LatentCodes([])
    with pytest.raises(ValueError, match=r"categories\[1\] must be an int of at least 2, got 1"):
        LatentCodes([3, 1])
    for odd in (3, "ab", [2.5], None):
        with pytest.raises(ValueError, match="categories"):
            LatentCodes(odd)
    c = CODES.sample(4)
    for bad, words in (
        (c[:, :3], r"c must have shape \(N, 4\), got \(4, 3\)"),
        (c.long(), "c must hold floating-point numbers"),
        (c + 3, "whole numbers from 0 to 2 in column 0, got values from 3"),
        (c + 0.5, "whole numbers from 0 to 2 in column 0"),
    ):
        with pytest.raises(ValueError, match=words):
            CODES.as_inputs(bad)
    with pytest.raises(
        ValueError, match=r"parameters must have shape \(4, 9\), got shape \(4, 8\)"
    ):
        CODES.log_q(torch.zeros(4, 8), c)


def test_odd_players_are_refused():
    with pytest.raises(ValueError, match="codes must be a LatentCodes, got int"):
        InfoGAN(nn.Identity(), Critic(), 3, 2)
    with pytest.raises(ValueError, match=r"features\(x\) and a head, .* got Linear"):
        InfoGAN(nn.Identity(), nn.Linear(2, 1), CODES, 2)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        game(weight=-1.0)
    with pytest.raises(ValueError, match=r"codes must have shape \(3, 4\)"):
        game().make(3, CODES.sample(2))
