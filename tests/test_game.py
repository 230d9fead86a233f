"""The loop of two players against a bare one, and what neither may do to the other."""

import copy

import pytest
import torch
from torch import nn

from dgm_course.gan import Player, discriminator_loss, game_steps, generator_loss, play
from dgm_course.training import seed_everything

N = 16


def networks():
    """With batch normalisation, whose statistics move in whatever step they are used in."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    d = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Flatten(0))
    return g.double(), d.double()


def losses(g, d, *, detach=False):
    def of_discriminator(step):
        fake = g(torch.randn(N, 2, dtype=torch.float64))
        real = torch.randn(N, 2, dtype=torch.float64) + 3
        return discriminator_loss(d(real), d(fake.detach() if detach else fake))

    return of_discriminator, lambda step: generator_loss(d(g(torch.randn(N, 2).double())))


def players(g, d, **options):
    of_d, of_g = losses(g, d, **options)
    return (
        Player(of_d, torch.optim.Adam(d.parameters(), lr=0.01, betas=(0.5, 0.999))),
        Player(of_g, torch.optim.Adam(g.parameters(), lr=0.01, betas=(0.5, 0.999))),
    )


def bare(g, d, n_rounds, n_critic):
    """The loop as a textbook writes it."""
    of_d, of_g = losses(g, d, detach=True)
    one, two = (torch.optim.Adam(m.parameters(), lr=0.01, betas=(0.5, 0.999)) for m in (d, g))
    found = []
    for _ in range(n_rounds):
        for _ in range(n_critic):
            one.zero_grad()
            loss = of_d(0).mean()
            loss.backward()
            one.step()
        two.zero_grad()
        other = of_g(0).mean()
        other.backward()
        two.step()
        found.append((loss.item(), other.item()))
    return found


@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize("detach", [True, False])
def test_the_loop_is_a_bare_loop_to_the_bit(n_critic, detach):
    """Also where the loss forgets to detach: the weights of the other are constants."""
    (g, d), (bare_g, bare_d) = networks(), networks()
    seed_everything(1)
    expected = bare(bare_g, bare_d, 7, n_critic)
    seed_everything(1)
    history = play(*players(g, d, detach=detach), 7, n_critic=n_critic, progress=False)
    assert list(zip(history.discriminator, history.generator, strict=True)) == expected
    for ours, theirs in ((g, bare_g), (d, bare_d)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
    assert not history.interrupted


def test_a_run_is_resumed_where_it_stood():
    (g, d), (other_g, other_d) = networks(), networks()
    seed_everything(1)
    history = play(*players(g, d), 6, n_critic=2, progress=False)
    seed_everything(1)
    steps = game_steps(*players(other_g, other_d), 6, n_critic=2)
    rounds = [next(steps), next(steps)]
    assert all(p.requires_grad for m in (other_g, other_d) for p in m.parameters())
    rounds += steps
    assert [r.discriminator for r in rounds] == history.discriminator
    assert [r.generator for r in rounds] == history.generator
    assert torch.equal(g[0].weight, other_g[0].weight)


def test_no_step_computes_the_gradients_of_the_other():
    """Counted as they arrive: a gradient that is only wiped away later has still been paid for."""
    g, d = networks()
    arrived = {"g": 0, "d": 0}

    def count(name):
        def hook(weight):
            arrived[name] += 1

        return hook

    for name, module in (("g", g), ("d", d)):
        module[0].weight.register_post_accumulate_grad_hook(count(name))
    play(*players(g, d), 5, n_critic=3, progress=False)
    assert arrived == {"g": 5, "d": 15}


def test_no_gradient_is_left_in_the_other():
    g, d = networks()
    one, two = players(g, d)
    kept = []

    def of_generator(step):
        kept.append(d[0].weight.grad.clone())
        return two.loss(step)

    play(one, two._replace(loss=of_generator), 4, progress=False)
    assert torch.equal(d[0].weight.grad, kept[-1])


def test_a_weight_that_was_constant_stays_so_and_none_becomes_it():
    g, d = networks()
    d[0].bias.requires_grad_(False)
    before = d[0].bias.clone()
    one, two = players(g, d)

    def fails(step):
        if step == 2:
            raise RuntimeError("no more data")
        return one.loss(step)

    with pytest.raises(RuntimeError, match="no more data"):
        play(one._replace(loss=fails), two, 4, progress=False)
    flags = {name: p.requires_grad for name, p in d.named_parameters()}
    assert [name for name, needed in flags.items() if not needed] == ["0.bias"]
    assert all(p.requires_grad for p in g.parameters())
    assert torch.equal(d[0].bias, before)


@pytest.mark.parametrize("eta", [0.1, 0.3, 1.0])
def test_alternating_steps_on_a_bilinear_game_stay_on_an_ellipse(eta):
    """y first, then x: x² + y² + η x y is the same after every round."""
    x, y = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in "xy")
    one = Player(lambda step: -x * y, torch.optim.SGD([y], lr=eta))
    two = Player(lambda step: x * y, torch.optim.SGD([x], lr=eta))
    for _ in game_steps(one, two, 200):
        assert (x**2 + y**2 + eta * x * y).item() == pytest.approx(2 + eta, abs=1e-12)


def test_steps_are_numbered_by_player_and_schedules_run():
    x, y = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    seen = {"d": [], "g": []}

    def loss(name, weight):
        def of(step):
            seen[name].append(step)
            return 100 * weight

        return of

    one, two = torch.optim.SGD([y], lr=1.0), torch.optim.SGD([x], lr=1.0)
    half = torch.optim.lr_scheduler.StepLR
    play(
        Player(loss("d", y), one, half(one, 1, 0.5), max_grad_norm=1.0),
        Player(loss("g", x), two, half(two, 1, 0.5), max_grad_norm=2.0),
        2, n_critic=2, progress=False,
    )  # fmt: skip
    assert seen == {"d": [0, 1, 2, 3], "g": [0, 1]}
    assert y.item() == pytest.approx(1 - (1 + 1 / 2 + 1 / 4 + 1 / 8), abs=1e-5)
    assert x.item() == pytest.approx(1 - 2 * (1 + 1 / 2), abs=1e-5)


@pytest.mark.parametrize("who", ["discriminator", "generator"])
def test_an_interrupt_keeps_the_rounds_that_were_ended(who):
    g, d = networks()
    both = dict(zip(("discriminator", "generator"), players(g, d), strict=True))

    def stopped(step, loss=both[who].loss):
        if step == 3:
            raise KeyboardInterrupt
        return loss(step)

    both[who] = both[who]._replace(loss=stopped)
    history = play(both["discriminator"], both["generator"], 10, progress=False)
    assert history.interrupted
    assert len(history.discriminator) == len(history.generator) == 3
    assert len(repr(history)) < 100


def test_quick_shortens_the_game(monkeypatch):
    monkeypatch.setenv("DGM_COURSE_QUICK", "1")
    assert len(play(*players(*networks()), 60, n_critic=2, progress=False).generator) == 3


@pytest.mark.parametrize("who", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_game(who):
    both = [*players(*networks())]
    both[who] = both[who]._replace(loss=lambda step, loss=both[who].loss: loss(step) * torch.nan)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        play(*both, 4, progress=False)


D, G = players(*networks())


@pytest.mark.parametrize("call", [play, lambda *a, **k: game_steps(*a, **k)])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_critic": 0}, "n_critic must be an int of at least 1, got 0"),
        ({"n_critic": 1.5}, "n_critic must be an int of at least 1, got 1.5"),
        ({"n_rounds": -1}, "n_rounds must be an int of at least .*, got -1"),
        ({"generator": D}, "must train different weights, got 4 that both"),
        ({"discriminator": D.loss}, "discriminator must be a Player, got function"),
        ({"generator": G._replace(max_grad_norm=0)}, "max_grad_norm must be positive"),
        ({"discriminator": D._replace(max_grad_norm=-1)}, "max_grad_norm must be positive"),
    ],
)
def test_bad_games_are_refused(call, arguments, words):
    """Before the first step is asked for."""
    with pytest.raises(ValueError, match=words):
        call(**{"discriminator": D, "generator": G, "n_rounds": 2} | arguments)


def test_a_weight_in_two_hands_is_refused_also_when_only_one_is():
    g, d = networks()
    one, two = players(copy.deepcopy(g), d)
    shared = torch.optim.SGD([*g.parameters(), d[0].weight], lr=0.1)
    with pytest.raises(ValueError, match="got 1 that both optimisers hold"):
        play(one, two._replace(optimizer=shared), 2)
