"""Image flows: each layer against its sentence, and both stacks against autograd."""

import pytest
import torch
from torch.distributions import Normal

from dgm_course.data import digits
from dgm_course.flows import (
    ActNorm,
    Conv1x1,
    Dequantised,
    FlowModel,
    ImageCoupling,
    MultiScaleFlow,
    Split,
    Squeeze,
    glow,
    realnvp,
)
from tests.contracts import (
    assert_density_stays,
    assert_inverse_undoes_forward,
    assert_log_det_is_autograds,
    assert_state_is_whole,
    standard_normal,
    strong,
)

LAYERS = {
    "squeeze": lambda: Squeeze((2, 4, 2)),
    "split": lambda: Split((4, 2, 3)),
    "actnorm": lambda: ActNorm((3, 2, 2)),
    "conv1x1": lambda: Conv1x1((3, 2, 3)),
    "conv1x1-one": lambda: Conv1x1((1, 2, 2)),
    "checkerboard": lambda: ImageCoupling((2, 3, 3), "checkerboard", n_hidden=4),
    "checkerboard-swapped": lambda: ImageCoupling((1, 3, 3), "checkerboard", True, n_hidden=4),
    "channels": lambda: ImageCoupling((3, 2, 2), "channels", n_hidden=4),
    "channels-swapped": lambda: ImageCoupling((3, 2, 2), "channels", True, n_hidden=4),
}
STACKS = {
    "glow-4": lambda: glow((1, 4, 4), n_steps=2, n_hidden=4),
    "glow-8": lambda: glow((1, 8, 8), n_steps=2, n_hidden=4),
    "glow-8-three-scales": lambda: glow((1, 8, 8), n_scales=3, n_steps=1, n_hidden=4),
    "glow-colour": lambda: glow((3, 4, 4), n_steps=1, n_hidden=4),
    "realnvp-4": lambda: realnvp((1, 4, 4), n_layers=2, n_hidden=4),
    "realnvp-8": lambda: realnvp((1, 8, 8), n_layers=2, n_hidden=4),
    "realnvp-colour": lambda: realnvp((3, 4, 4), n_layers=1, n_hidden=4),
}
ALL = LAYERS | STACKS


def strong_flow(name):
    """Weights far from the initial ones; less far where many networks are stacked."""
    return strong(ALL[name](), scale=1.0 if name in LAYERS else 0.2)


def noise(flow, n=3):
    return torch.randn(n, flow.dim, dtype=torch.float64)


# --- properties of every layer and of both stacks ------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_log_det_equals_autograd_and_the_inverse_undoes(name):
    flow = strong_flow(name)
    z = noise(flow)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z[None])[0][0], z[0])
    sign = int(torch.linalg.slogdet(jacobian)[0])  # of a squeeze, and of a rotation, either
    assert_log_det_is_autograds(flow, z, atol=1e-9, sign=sign)
    assert_inverse_undoes_forward(flow, noise(flow, 20), atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_reloaded_it_is_the_same_to_the_bit(name):
    flow = strong_flow(name)
    torch.manual_seed(7)  # other rotations, with another P and other signs
    assert_state_is_whole(flow, ALL[name]().double(), noise(flow))


@pytest.mark.parametrize("name", ALL)
def test_eval_sampling_and_batches_of_one_change_nothing(name):
    flow = strong_flow(name)
    assert_density_stays(flow, noise(flow, 4), atol=1e-9)


# --- squeeze, split, coupling, 1 × 1 convolution -------------------------------------------------


def test_squeeze_puts_the_pixel_at_dy_dx_into_channel_4c_2dy_dx():
    image = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    z = Squeeze((2, 4, 6)).inverse(image.flatten(1))[0].reshape(8, 2, 3)
    for c in range(2):
        for dy in range(2):
            for dx in range(2):
                expected = image[0, c, dy::2, dx::2]
                torch.testing.assert_close(z[4 * c + 2 * dy + dx], expected, atol=0, rtol=0)


def test_split_gives_the_second_half_a_density_given_the_first():
    split = strong(Split((2, 2, 2)))
    x = torch.randn(5, 8, dtype=torch.float64)
    z, log_det = split.inverse(x)
    assert torch.equal(z[:, :4], x[:, :4])
    out = split.network(x[:, :4].reshape(5, 1, 2, 2)).flatten(1)
    c, mean = 2 * torch.tanh(out[:, :4] / 2), out[:, 4:]
    torch.testing.assert_close(z[:, 4:], (x[:, 4:] - mean) / c.exp())
    expected = Normal(mean, c.exp()).log_prob(x[:, 4:]).sum(1)
    standard = Normal(torch.zeros(()).double(), torch.ones(()).double())
    torch.testing.assert_close(standard.log_prob(z[:, 4:]).sum(1) + log_det, expected)


def test_what_a_split_lets_go_of_is_the_end_of_the_noise():
    flow = strong(glow((1, 4, 4), n_steps=1, n_hidden=4), scale=0.2)
    assert flow.inner_size == (8, 1, 1)  # the first 8 numbers; the split's 8 come after them
    x = noise(flow)
    z, layers = flow.inverse(x)[0], [*flow.layers]
    at = next(i for i, layer in enumerate(layers) if isinstance(layer, Split))
    for layer in layers[:at:-1]:
        x, _ = layer.inverse(x)
    assert torch.equal(layers[at].inverse(x)[0][:, 8:], z[:, 8:])


@pytest.mark.parametrize("mask", ["checkerboard", "channels"])
def test_a_coupling_leaves_its_half_alone_and_its_swap_the_other(mask):
    size = (2, 2, 3)
    masks = []
    for swap in (False, True):
        layer = strong(ImageCoupling(size, mask, swap, n_hidden=4))
        z = noise(layer, 6)
        masks.append((layer(z)[0] == z).all(0).reshape(size))
    if mask == "checkerboard":
        assert masks[0].tolist() == [[[True, False, True], [False, True, False]]] * 2
    else:
        assert masks[0].tolist() == [[[True] * 3] * 2, [[False] * 3] * 2]
    assert torch.equal(masks[1], ~masks[0])


def test_the_log_det_of_a_convolution_counts_every_pixel():
    """A missing H · W passes on one pixel."""
    layer = strong(Conv1x1((3, 4, 5)))
    expected = 20 * torch.linalg.slogdet(layer.plu.weight()[0])[1]
    torch.testing.assert_close(layer.inverse(noise(layer))[1], expected.expand(3))


# --- the start from data -------------------------------------------------------------------------


def test_actnorm_starts_from_data_when_asked_and_never_by_itself():
    norm = ActNorm((2, 2, 2)).double()
    torch.manual_seed(0)
    x = (3 + 5 * torch.randn(50, 2, 4)).double().flatten(1)
    for direction in (norm, norm.inverse):
        image, log_det = direction(x)
        assert torch.equal(image, x)
        assert torch.equal(log_det, torch.zeros(50).double())
    norm.initialise(x)
    z = norm.inverse(x)[0].reshape(50, 2, 4).transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(1), torch.zeros(2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(2).double())
    state = {k: v.clone() for k, v in norm.state_dict().items()}
    norm.eval()
    norm(x[:1])
    norm.inverse(-x)
    assert all(torch.equal(v, state[k]) for k, v in norm.state_dict().items())
    with pytest.raises(ValueError, match="must be called once"):
        norm.initialise(x)
    fresh = ActNorm((2, 2, 2)).double()
    fresh.load_state_dict(state)
    with pytest.raises(ValueError, match="must be called once"):
        fresh.initialise(x)


def test_actnorm_refuses_what_has_no_scale():
    norm = ActNorm((3, 1, 2)).double()
    with pytest.raises(ValueError, match="at least 2 images to take a scale from, got 1"):
        norm.initialise(torch.randn(1, 6).double())
    x = torch.randn(5, 6).double()
    x[:, 2:4] = 0.1  # whose standard deviation rounds to 1e-17, not 0
    with pytest.raises(ValueError, match=r"got constant channels \[1\]"):
        norm.initialise(x)
    assert not norm.initialised


@pytest.mark.parametrize("make", [glow, realnvp])
def test_a_flow_starts_all_its_norms_from_digits(make):
    flow = make((1, 8, 8), 2, n_hidden=8)
    base = standard_normal(64, torch.float32)
    model = Dequantised(FlowModel(base, flow), 17)
    x = model.dequantise(digits("train").images[:300], torch.Generator().manual_seed(0))
    before = model.bits_per_dim(digits("test").images).mean()
    flow.initialise(x)
    norms = [layer for layer in flow.layers if isinstance(layer, ActNorm)]
    assert all(norm.initialised for norm in norms)
    assert model.bits_per_dim(digits("test").images).mean() < before
    z = flow.inverse(x)[0].detach()
    assert abs(z.mean()) < 0.05
    assert z.square().mean() == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match=f"got {len(norms)} of {len(norms)} that are"):
        flow.initialise(x)
    fresh = make((1, 8, 8), 2, n_hidden=8)
    fresh.load_state_dict(flow.state_dict())
    assert torch.equal(fresh.inverse(x)[0], z)
    with pytest.raises(ValueError, match="that are"):
        fresh.initialise(x)


def test_a_start_that_fails_leaves_every_norm_as_it_was():
    size = (1, 4, 4)
    flow = MultiScaleFlow(size, [ActNorm((4, 2, 2)), Squeeze(size), ActNorm(size)])
    x = torch.randn(5, 16)
    x.view(5, 4, 4)[:, :, 1::2] = 0.3  # the second norm's channels 1 and 3 are constant
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with pytest.raises(ValueError, match=r"constant channels \[1, 3\]"):
        flow.initialise(x)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    flow.initialise(torch.randn(5, 16))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Squeeze((1, 3, 4)),
            r"size must have even H and W to be squeezed, got \(1, 3, 4\)",
        ),
        (lambda: Squeeze((1, 4, 5)), "even H and W"),
        (lambda: Split((3, 4, 4)), r"size must have an even C to be split, got \(3, 4, 4\)"),
        (lambda: Split((2, 4, 4), limit=0), "limit must be positive and finite, got 0"),
        (lambda: ActNorm((0, 4, 4)), "each number of size must be an int of at least 1, got 0"),
        (lambda: ActNorm((4, 4)), r"size must be \(C, H, W\), got \(4, 4\)"),
        (lambda: ImageCoupling((1, 4, 4), "channels"), "2 channels parts or more"),
        (lambda: ImageCoupling((4, 1, 1), "checkerboard"), "2 checkerboard parts or more"),
        (lambda: ImageCoupling((4, 2, 2), "rows"), "'checkerboard' or 'channels', got 'rows'"),
        (lambda: ImageCoupling((4, 2, 2), "channels", limit=-1), "limit must be positive"),
        (lambda: glow((1, 6, 6)), r"even H and W to be squeezed, got \(2, 3, 3\)"),
        (lambda: glow((1, 4, 4), n_scales=0), "n_scales must be an int of at least 1, got 0"),
        (lambda: realnvp((1, 4, 4), n_layers=0), "n_layers must be an int of at least 1, got 0"),
        (lambda: realnvp((1, 3, 4)), "even H and W"),
        (lambda: MultiScaleFlow((1, 4, 4), []), "layers must be one or more, got"),
        (
            lambda: MultiScaleFlow((1, 4, 4), [Squeeze((1, 4, 4)), ActNorm((4, 2, 2))]),
            r"layers\[1\] must have the size \(1, 4, 4\) .* got \(4, 2, 2\)",
        ),
        (
            lambda: MultiScaleFlow((1, 4, 4), [Squeeze((1, 4, 4))]).initialise(torch.zeros(2, 16)),
            "must find ActNorms that are not initialised, got 0 of 0",
        ),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", ALL)
def test_bad_batches_are_refused(name):
    flow = ALL[name]()
    for direction in (flow, flow.inverse):
        for bad, words in [
            (torch.zeros(2, *flow.size), rf"\(N, {flow.dim}\), got shape \(2, "),
            (torch.zeros(2, flow.dim + 1), "must have shape"),
            (torch.zeros(0, flow.dim), "empty batch"),
            (torch.full((2, flow.dim), torch.nan), "NaN or inf in 2 of 2"),
        ]:
            with pytest.raises(ValueError, match=words):
                direction(bad)
