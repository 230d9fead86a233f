"""Denoisers that learn: their algebra on exact targets, the loss by hand, how near they come."""

import math

import pytest
import torch
from torch import nn

from dgm_course.data import eight_gaussians_density
from dgm_course.diffusion import (
    ConvNetwork,
    CosineSchedule,
    Denoiser,
    DenseNetwork,
    Guided,
    LinearSchedule,
    MixtureDenoiser,
    ancestral,
    ddim,
    log_prob_ode,
    ode,
    q_sample,
    time_grid,
    variational_bound,
)
from dgm_course.training import fit, seed_everything
from tests.diffusion import each_schedule

each_target = pytest.mark.parametrize("target", ["noise", "data", "velocity"])


class Known(nn.Module):
    """A network that returns what it was given, and keeps what it was asked."""

    n_condition = 3

    def __init__(self, answer):
        super().__init__()
        self.size, self.answer = tuple(answer.shape[1:]), answer

    def forward(self, x, c):
        self.asked = x
        return self.answer


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@each_schedule
@each_target
def test_the_right_target_gives_back_data_and_noise(schedule, target):
    x0, noise, t = normal(20, 1, 3, 2), normal(20, 1, 3, 2, seed=1), torch.linspace(0.02, 1, 20)
    alpha, sigma = (
        getattr(schedule, k)(t.double())[:, None, None, None] for k in ("alpha", "sigma")
    )
    scale = (alpha**2 + sigma**2).sqrt()
    answer = {"noise": noise, "data": x0, "velocity": (alpha * noise - sigma * x0) / scale}[target]
    model = Denoiser(Known(answer), schedule, target).double()
    found = model.predict(q_sample(x0, t.double(), noise, schedule), t.double())
    torch.testing.assert_close(found.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.noise, noise, rtol=1e-8, atol=1e-8)
    asked = model.network.asked  # of unit size for data of unit size, whatever the schedule
    torch.testing.assert_close(asked * scale, q_sample(x0, t.double(), noise, schedule))
    torch.testing.assert_close(model.score(alpha * x0 + sigma * noise, t.double()), -noise / sigma)


@each_target
def test_a_velocity_is_the_derivative_by_the_angle(target):
    """With α = cos φ, σ = sin φ: v = dx_t/dφ, and x_t, v are x₀, ε turned by φ."""
    schedule, x0, noise = CosineSchedule(0.0), normal(7, 2), normal(7, 2, seed=1)
    t = torch.full((7,), 0.3, dtype=torch.float64)
    model = Denoiser(Known(x0), schedule, "velocity").double()
    found, h = model._target(x0, t, noise), 1e-5
    step = h / (0.5 * math.pi * (1 - schedule.end))
    ahead, behind = (q_sample(x0, t + s, noise, schedule) for s in (step, -step))
    torch.testing.assert_close(found, (ahead - behind) / (2 * h), rtol=1e-8, atol=1e-8)


@each_target
def test_the_loss_is_the_squared_error_of_the_target(target):
    torch.manual_seed(0)
    model = Denoiser(DenseNetwork((1, 2, 2), 8, 1), LinearSchedule(), target).double()
    nn.init.normal_(model.network.last.weight)
    x0 = normal(9, 1, 2, 2)
    generator = torch.Generator().manual_seed(4)
    t = torch.rand(9, generator=generator, dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x_t = q_sample(x0, t, noise, model.schedule)
    alpha, sigma = (getattr(model.schedule, k)(t)[:, None, None, None] for k in ("alpha", "sigma"))
    wanted = {"noise": noise, "data": x0, "velocity": alpha * noise - sigma * x0}[target]
    expected = (model(x_t, t) - wanted).square().flatten(1).sum(1)
    torch.testing.assert_close(model.loss(x0, generator=4), expected)


def test_the_loss_of_the_best_denoiser_is_its_floor():
    """Var(x₀ | x_t) in units of ε: the network is told the answer, and the loss is not 0."""
    exact = MixtureDenoiser(LinearSchedule(), [0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    x0 = exact.sample(20_000, 0)
    generator = torch.Generator().manual_seed(1)
    t = torch.rand(len(x0), generator=generator, dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x_t = q_sample(x0, t, noise, exact.schedule)
    model = Denoiser(Known(exact.predict(x_t, t).noise), exact.schedule).double()
    loss = model.loss(x0, generator=1)
    floor = exact.variance(x_t, t) * (-exact.schedule.log_snr(t)).exp().reciprocal()
    gap = loss - floor
    assert gap.mean().item() == pytest.approx(0, abs=4 * gap.std().item() / 20_000**0.5)
    assert floor.mean() > 0.1


def excess(target, seed):
    """E‖ε̂ − ε*‖² over p_t at four t, after 400 steps, about 3 s."""
    seed_everything(seed)
    exact = MixtureDenoiser.of(eight_gaussians_density(scale=0.4), LinearSchedule())
    model = Denoiser(DenseNetwork(2, 64, 2), exact.schedule, target)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    data = exact.sample(100_000, seed).float()
    loss = lambda _: model.loss(data[torch.randint(len(data), (256,))])  # noqa: E731
    fit(loss, optimizer, 400, scheduler=scheduler, progress=False)
    off = []
    for t in (0.02, 0.1, 0.3, 0.95):
        x = exact.sample(4000, 1, t).float()
        with torch.no_grad():
            gap = model.predict(x, t).noise - exact.predict(x, t).noise
        off.append(gap.square().sum(1).mean().item())
    return off


@pytest.mark.parametrize("target", ["noise", "velocity"])
def test_what_is_learned_is_near_the_best(target):
    """The zero from which the network starts is off by about 2."""
    assert max(excess(target, seed=0)) < 0.15


def test_labels_are_told_hidden_and_guided():
    torch.manual_seed(0)
    model = Denoiser(DenseNetwork(2, 16, 1), LinearSchedule(), n_classes=3)
    nn.init.normal_(model.network.last.weight)
    x, labels = normal(30, 2).float(), torch.arange(30) % 3
    told, alone = model.given(labels), model.predict(x, 0.4)
    assert not torch.allclose(told.predict(x, 0.4).noise, alone.noise)
    apart = [model.given(torch.full((30,), k)).predict(x, 0.4).noise for k in range(3)]
    expected = torch.stack(apart, 1)[torch.arange(30), labels]
    torch.testing.assert_close(told.predict(x, 0.4).noise, expected)
    hidden, shown = (model.loss(x, labels, drop=d, generator=1) for d in (1.0, 0.0))
    torch.testing.assert_close(hidden, model.loss(x, generator=1))
    assert not torch.isclose(shown, hidden).any()
    some = model.loss(x, labels, drop=0.5, generator=1)
    n_hidden = torch.isclose(some, hidden).sum().item()
    assert 5 <= n_hidden <= 25
    assert n_hidden + torch.isclose(some, shown).sum() == 30
    guided = Guided(told, model, 2.0).predict(x, 0.4).noise
    torch.testing.assert_close(guided, 2 * told.predict(x, 0.4).noise - alone.noise)
    assert ddim(Guided(told, model, 2.0), x, time_grid(3)).shape == (30, 2)


@pytest.mark.parametrize("network", [DenseNetwork, ConvNetwork])
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 4, 6)])
def test_images_go_through_all(network, size):
    torch.manual_seed(0)
    model = Denoiser(network(size, 8, 2), CosineSchedule(), "velocity")
    x = torch.randn(2, *size)
    assert (model.loss(x) > 0).all()
    times = time_grid(3)
    for run in (ancestral, ddim, ode):
        assert run(model, x, times).shape == (2, *size)
    levels = torch.randint(17, (2, *size))
    nats = variational_bound(model, levels, times, "forward", levels=17).nats
    assert nats.shape == (2,)
    if size[0] == 1:
        found = log_prob_ode(model, x, time_grid(2, first=0.01), "heun", n_probes=2)
        assert found.z.shape == x.shape
    other = Denoiser(network(size, 8, 2), CosineSchedule(), "velocity")
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.predict(x, 0.3).noise, model.predict(x, 0.3).noise)
    assert model.double().predict(x.double(), 0.3).x0.dtype == torch.float64


def test_it_starts_as_the_mean_of_nothing():
    """The last layer's weights are 0: ε̂ = 0 at the start, and the loss is that of noise alone."""
    model = Denoiser(DenseNetwork(2), LinearSchedule())
    nn.init.zeros_(model.network.last.bias)
    assert (model.predict(normal(5, 2).float(), 0.5).noise == 0).all()


def test_a_network_convolves_with_the_sizes_it_reads():
    """A shifted image is answered by the shifted answer, away from the edges."""
    torch.manual_seed(0)
    network = ConvNetwork((1, 24, 24), 4, 2)
    nn.init.normal_(network.last.weight)
    x, c = torch.zeros(1, 1, 24, 24), torch.randn(1, 8)
    x[0, 0, 10, 10] = 1.0
    one, other = network(x, c), network(x.roll(2, -1), c)
    torch.testing.assert_close(one.roll(2, -1)[..., 8:16, 8:16], other[..., 8:16, 8:16])
    assert not torch.allclose(one, network(x, 2 * c))


@pytest.mark.parametrize(
    "text", ["LinearSchedule(beta_min=0.1, beta_max=20)", "target='noise'", "n_classes=3"]
)
def test_it_says_what_it_is(text):
    assert text in repr(Denoiser(DenseNetwork(2), LinearSchedule(), n_classes=3))


X = torch.zeros(3, 2)
PLAIN = Denoiser(DenseNetwork(2, 4, 1), LinearSchedule())
CLASSES = Denoiser(DenseNetwork(2, 4, 1), LinearSchedule(), n_classes=2)
LABELS = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Denoiser(3, LinearSchedule()), "network must be a Module, got int"),
        (lambda: Denoiser(DenseNetwork(2), 3), "schedule must be a Schedule, got int"),
        (lambda: Denoiser(DenseNetwork(2), LinearSchedule(), "x"), "target must be one of .* 'x'"),
        (lambda: Denoiser(DenseNetwork(2), LinearSchedule(), n_classes=-1), "n_classes must be an"),
        (lambda: DenseNetwork(0), "size must be an int of at least 1, got 0"),
        (lambda: DenseNetwork(2, 0), "width must be an int of at least 1"),
        (lambda: DenseNetwork(2, 4, 0), "n_layers must be an int of at least 1"),
        (lambda: ConvNetwork(8), r"size must be \(C, H, W\), got 8"),
        (lambda: ConvNetwork((8, 8)), r"size must be \(C, H, W\), got \(8, 8\)"),
        (lambda: PLAIN.loss(X[:, :1]), r"x must have shape \(N, 2\), got shape \(3, 1\)"),
        (lambda: PLAIN.loss(X[:0]), r"x must have shape \(N, 2\), got shape \(0, 2\)"),
        (lambda: PLAIN.loss(X.double()), "x must have the weights' dtype, torch.float32, got"),
        (lambda: PLAIN.loss(X.long()), "x must hold floating-point numbers, got torch.int64"),
        (lambda: PLAIN.loss(X * math.nan), "x0 must be finite"),
        (lambda: PLAIN.loss(X, LABELS), "labels must be None for a denoiser of n_classes = 0"),
        (lambda: PLAIN.given(LABELS), "labels must be None"),
        (lambda: PLAIN.predict(X, 0.0), r"t must have σ\(t\) > 0 for a learned denoiser"),
        (lambda: PLAIN.predict(X, 1.2), r"t must lie in \[0, 1\], got values from 1.2"),
        (lambda: log_prob_ode(PLAIN, X, time_grid(2)), r"t must have σ\(t\) > 0"),
        (
            lambda: CLASSES.loss(X, LABELS + 1),
            "labels must hold integers 0 to 1, got values from 1",
        ),
        (lambda: CLASSES.loss(X, LABELS[:2]), r"labels must have shape \(3,\), got shape \(2,\)"),
        (lambda: CLASSES.loss(X, LABELS, drop=-0.1), "drop must be at least 0"),
        (lambda: CLASSES.loss(X, LABELS, drop=1.5), "drop must be at most 1, got 1.5"),
        (lambda: CLASSES.given(LABELS[:2]).predict(X, 0.5), r"labels must have shape \(3,\)"),
        (
            lambda: Denoiser(Known(X[:, :1]), LinearSchedule()).predict(X[:, :1].repeat(2, 1), 0.5),
            r"what the network returns must have shape \(6, 1\), got shape \(3, 1\)",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
