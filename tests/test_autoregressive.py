import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from dgm_course.autoregressive import (
    CausalityError,
    DiagonalBiLSTM,
    GatedPixelCNN,
    IndependentPixels,
    PixelCNN,
    RowLSTM,
    Uniform,
    all_images,
    check_causal,
    sees_by_gradient,
    sees_by_perturbation,
)
from dgm_course.autoregressive.gated import gate
from dgm_course.checks import unchecked_values
from tests.autoregressive import (
    MODELS,
    NETWORKS,
    conditions,
    fit_independent,
    fitting,
    images,
    make,
    strong,
)


@pytest.fixture(params=MODELS)
def model(request):
    return make(request.param)


# --- properties of every model --------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 5), (3, 6), (1, 4), (4, 1)])
def test_is_causal(model, size):
    check_causal(model, fitting(model, size))


def tiny(model):
    """All images of a size at which there are a few hundred of them."""
    size = (2, 2) if model.n_channels == 1 else (1, 2)
    return all_images(model.n_levels, model.n_channels, fitting(model, size))


def test_probabilities_of_all_tiny_images_sum_to_one(model):
    x = tiny(model)
    # In each class and at some contexts: all images of one context add up to 1.
    told = conditions(model, model.n_classes or 3, x.shape[2:])
    for one in range(model.n_classes or 3):
        of_one = {k: v if v is None else v[[one] * len(x)] for k, v in told.items()}
        total = model.log_prob(x, **of_one).exp().sum().item()
        assert abs(total - 1) < 1e-12


def test_log_prob_adds_up_the_softmax_of_every_pixel(model):
    size = fitting(model, (3, 5))
    x, told = images(model, 4, size), conditions(model, 4, size)
    logits = model(x, **told)
    assert logits.shape == (4, model.n_levels, model.n_channels, *size)
    expected = Categorical(logits=logits.movedim(1, -1)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(model.log_prob(x, **told), expected, atol=1e-12, rtol=0)
    assert model.log_prob(x, **told).shape == (4,)


def test_an_image_does_not_depend_on_its_batch(model):
    x, told = images(model, 4, (4, 4)), conditions(model, 4, (4, 4))
    together = model(x, **told)
    alone = model(x[2:3], **{k: v if v is None else v[2:3] for k, v in told.items()})
    torch.testing.assert_close(together[2:3], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_images_of_any_dtype_are_cast(model, dtype):
    x, told = images(model, 3, (4, 4)), conditions(model, 3, (4, 4))
    expected = model.log_prob(x, **told)
    torch.testing.assert_close(model.log_prob(x.to(dtype), **told), expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_sees_every_earlier_value_within_one_layer(name):
    """Not blind: the nearest earlier values act on the logits, all channels of them."""
    model = make(name)
    height, width = fitting(model, (3, 3))
    sees = sees_by_gradient(model, (height, width), n_images=20)
    channels = model.n_channels
    for logit in range(len(sees)):
        pixel, c = divmod(logit, channels)
        seen = set(range(pixel * channels, pixel * channels + c))  # earlier channels here
        if pixel % width:
            seen |= set(range((pixel - 1) * channels, pixel * channels))  # the left neighbour
        if pixel >= width:
            above = pixel - width
            seen |= set(range(above * channels, (above + 1) * channels))  # the one above
        assert seen <= set(sees[logit].nonzero()[:, 0].tolist()), logit


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_that_is_open_has_a_gradient(name):
    model = make(name)
    size = fitting(model, (5, 5))
    x, told = images(model, 8, size), conditions(model, 8, size)
    model.log_prob(x, **told).sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert p.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETWORKS)
def test_starts_near_uniform(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    x, told = images(model, 16, (6, 6)), conditions(model, 16, (6, 6))
    if told["context"] is not None:
        told["context"] = told["context"].float()
    nats = -model.log_prob(x, **told).mean() / x[0].numel()
    assert abs(nats.item() - math.log(model.n_levels)) < 0.5


@pytest.mark.parametrize("name", [name for name in NETWORKS if "classes" in name])
def test_the_class_moves_every_logit(name):
    moved = torch.zeros(())
    for seed in range(6):  # a group of three features may be at rest in one of them
        model = make(name, seed)
        x, context = images(model, 8, (3, 3)), conditions(model, 8, (3, 3))["context"]
        one, other = (model(x, torch.full((8,), label), context) for label in (0, 1))
        moved = moved + (one - other).abs().amax((0, 1))
    assert (moved > 1e-6).all()


WITH_CONTEXT = [name for name in NETWORKS if "context" in name]


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_the_context_is_seen_at_its_pixel_by_every_channel(name):
    """And from its left and upper neighbours, by way of what those pixels' features pass on.

    Not where all layers but the first are 1×1: the first passes on pixels alone.
    """
    size, moved = (3, 3), torch.zeros(())
    for seed in range(6):  # a group of three features may be at rest in one of them
        model = make(name, seed)
        x, told = images(model, 4, size), conditions(model, 4, size)
        context = told["context"].requires_grad_()
        logits = model(x, told["labels"], context)  # (4, n_levels, C, 3, 3)
        weights = torch.randn(logits.shape[:2], dtype=torch.float64)[:, :, None, None, None]
        rows = [
            torch.autograd.grad(one, context, retain_graph=True)[0].abs().sum((0, 1)).flatten()
            for one in (logits * weights).sum((0, 1)).flatten()
        ]
        moved = moved + torch.stack(rows).view(model.n_channels, 9, 9)  # channel, logit, context
    assert (moved.diagonal(dim1=1, dim2=2) > 1e-6).all()
    passed_on = not name.startswith("window")
    assert (moved[:, 4, [1, 3]] > 1e-6).all() == passed_on
    assert moved[:, 4, [1, 3]].any() == passed_on


@pytest.mark.parametrize("family", [PixelCNN, GatedPixelCNN])
def test_one_layer_sees_the_context_of_its_own_pixel_only(family):
    model = strong(family(3, n_features=6, n_layers=1, n_context=2))
    x, told = images(model, 1, (3, 3)), conditions(model, 1, (3, 3))
    before = model(x, **told)
    for pixel in range(9):
        moved = told["context"].clone()
        moved[0, :, pixel // 3, pixel % 3] += 1
        seen = (model(x, context=moved) - before).abs().sum((0, 1, 2)).flatten() > 1e-9
        assert seen.nonzero().flatten().tolist() == [pixel]


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_every_feature_of_the_context_acts_in_every_layer(name):
    model = make(name)
    x, told = images(model, 8, (3, 3)), conditions(model, 8, (3, 3))
    told["context"].requires_grad_()
    model.log_prob(x, **told).sum().backward()
    assert (told["context"].grad.abs().sum((0, 2, 3)) > 1e-6).all()
    convs = [
        *getattr(model, "of_context", ()),
        *(layer.of_context for layer in getattr(model, "layers", ())),
    ]
    assert len(convs) >= 2
    before = model(x, **told)
    for conv in convs:
        weight = conv.weight.detach().clone()
        with torch.no_grad():
            conv.weight.zero_()
            assert (model(x, **told) - before).abs().max() > 1e-6
            conv.weight.copy_(weight)


def test_a_context_of_zeros_says_nothing():
    for family in (PixelCNN, GatedPixelCNN):
        torch.manual_seed(0)
        told = family(3, n_features=4, n_layers=2, n_context=2)
        plain = family(3, n_features=4, n_layers=2)
        plain.load_state_dict({k: v for k, v in told.state_dict().items() if "context" not in k})
        x = images(plain, 3, (4, 4))
        assert torch.equal(told(x, context=torch.zeros(3, 2, 4, 4)), plain(x))


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["plain", "gated", "gated-classes", "row-lstm", "bilstm", "plus-plus", "snail", "uniform"],
)
@pytest.mark.parametrize("method", ["forward", "log_prob"])
def test_bad_images_are_refused(name, method):
    model = make(name)
    call, good = getattr(model, method), images(model, 3, (4, 4))
    for bad, words in [
        (good.double(), "integers 0 to 2, got dtype torch.float64"),
        (good.bool(), "got dtype torch.bool"),
        (good + 1, "integers 0 to 2, got values from 1 to 3"),
        (good - 1, "got values from -1 to 1"),
        (good[0], r"\(N, 1, H, W\), got shape \(1, 4, 4\)"),
        (good[:, 0], r"got shape \(3, 4, 4\)"),
        (good.expand(-1, 3, -1, -1), r"\(N, 1, H, W\), got shape \(3, 3, 4, 4\)"),
        (good[:0], "must hold pixels, got an empty batch"),
        (good[:, :, :0], "must hold pixels"),
        (good.numpy(), "must be a torch.Tensor, got ndarray"),
    ]:
        with pytest.raises(ValueError, match=words):
            call(bad, **conditions(model, 3, (4, 4)))


def test_bad_labels_are_refused():
    conditional, plain = make("gated-classes"), make("gated")
    x = images(conditional, 3, (4, 4))
    for bad, words in [
        (None, "must be given: the model has 4 classes"),
        (torch.tensor([0, 1, 4]), "integers 0 to 3, got values from 0 to 4"),
        (torch.tensor([0, -1, 1]), "got values from -1 to 1"),
        (torch.tensor([0.0, 1.0, 2.0]), "got dtype torch.float32"),
        (torch.tensor([0, 1]), r"shape \(3,\), got shape \(2,\)"),
        (torch.tensor(1), r"shape \(3,\), got shape \(\)"),
        (torch.eye(4).long()[:3], r"shape \(3,\), got shape \(3, 4\)"),
    ]:
        for call in (conditional, conditional.log_prob):
            with pytest.raises(ValueError, match=words):
                call(x, bad)
        with pytest.raises(ValueError, match=words):
            conditional.sample(3, (4, 4), labels=bad)
    for model in (plain, make("plain")):
        with pytest.raises(ValueError, match="no classes"):
            model.log_prob(x, torch.tensor([0, 1, 2]))
        with pytest.raises(ValueError, match="no classes"):
            model.sample(3, (4, 4), labels=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("name", ["plain-context", "gated-context"])
def test_a_bad_context_is_refused(name):
    model = make(name)
    x, good = images(model, 3, (4, 5)), conditions(model, 3, (4, 5))["context"]
    with_nan = good.clone()
    with_nan[1, 0, 2] = float("nan")
    for bad, words in [
        (None, "context must be given: the model has n_context = 2 features"),
        (good[:, :1], r"shape \(3, 2, 4, 5\), got shape \(3, 1, 4, 5\)"),
        (good[:1], r"shape \(3, 2, 4, 5\), got shape \(1, 2, 4, 5\)"),
        (good.mT, r"shape \(3, 2, 4, 5\), got shape \(3, 2, 5, 4\)"),
        (good[:, :, 0, 0], r"shape \(3, 2, 4, 5\), got shape \(3, 2\)"),
        (good.float(), "context .* weights, torch.float64, got torch.float32"),
        (good.long(), "context .* weights, torch.float64, got torch.int64"),
        (with_nan, "context must be finite, got NaN or inf in 1 of 3 maps"),
        (good.numpy(), "context must be a torch.Tensor, got ndarray"),
    ]:
        for call in (model, model.log_prob):
            with pytest.raises(ValueError, match=words):
                call(x, context=bad)
        with pytest.raises(ValueError, match=words):
            model.sample(3, (4, 5), context=bad)
    for name in ("plain", "gated", "row-lstm", "bilstm", "plus-plus", "snail", "uniform"):
        model = make(name)
        with pytest.raises(ValueError, match="context must be None: the model has none"):
            model.log_prob(x, context=good)
        with pytest.raises(ValueError, match="context must be None: the model has none"):
            model.sample(3, (4, 5), context=good)


def test_values_are_not_read_where_checks_are_off():
    model = make("plain-context")
    x, context = images(model, 2, (4, 4)), conditions(model, 2, (4, 4))["context"]
    with unchecked_values():
        model(x + 1, context=context / 0)  # read by nobody, so a GPU need not wait
        with pytest.raises(ValueError, match="got dtype"):
            model(x.double(), context=context)


@pytest.mark.parametrize("family", [PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize(
    ("n_levels", "options", "words"),
    [
        (1, {}, "n_levels must be an int of at least 2, got 1"),
        (2.0, {}, "n_levels must be an int of at least 2, got 2.0"),
        (2, {"n_channels": 0}, "n_channels must be an int of at least 1, got 0"),
        (2, {"n_channels": 3, "n_features": 2}, "got 2 features for 3 channels"),
        (2, {"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        (2, {"kernel_size": 1}, "kernel_size must be an int of at least 3, got 1"),
        (2, {"kernel_size": 4}, "must be odd"),
    ],
)
def test_bad_arguments_are_refused(family, n_levels, options, words):
    with pytest.raises(ValueError, match=words):
        family(n_levels, **options)


def test_no_conditions_are_not_zero_conditions():
    with pytest.raises(ValueError, match="n_classes must be an int of at least 1, got 0"):
        GatedPixelCNN(2, n_classes=0)
    for family in (PixelCNN, GatedPixelCNN):
        with pytest.raises(ValueError, match="n_context must be an int of at least 1, got 0"):
            family(2, n_context=0)


# --- baselines ------------------------------------------------------------------------------


def test_uniform_costs_the_log_of_the_levels():
    x = torch.zeros(2, 3, 4, 5, dtype=torch.long)
    torch.testing.assert_close(Uniform(7, 3).log_prob(x), torch.full((2,), -60 * math.log(7)))


def test_independent_pixels_are_counts():
    x = torch.tensor([0, 0, 2]).view(3, 1, 1, 1).expand(3, 1, 1, 2)
    model = IndependentPixels(x, 4, smoothing=0.5).double()
    p = model(x[:1]).softmax(1)[0, :, 0, 0, 1]
    torch.testing.assert_close(p.exp().log().tolist(), [0.5, 0.1, 0.3, 0.1])
    with pytest.raises(ValueError, match=r"\(N, 1, 1, 2\)"):
        model(torch.zeros(1, 1, 2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="smoothing must be positive and finite, got 0"):
        IndependentPixels(x, 4, smoothing=0)
    with pytest.raises(ValueError, match="images must hold integers 0 to 1, got values"):
        IndependentPixels(x, 2)


def test_independent_pixels_sum_to_one_and_are_causal():
    model = fit_independent()
    assert abs(model.log_prob(all_images(3, 1, (2, 3))).exp().sum().item() - 1) < 1e-12
    check_causal(model, (2, 3))


def test_independent_pixels_are_the_best_of_their_kind():
    """No other table of independent levels gives its images a higher likelihood."""
    torch.manual_seed(0)
    x = torch.randint(3, (40, 1, 2, 2))
    best = IndependentPixels(x, 3, smoothing=1e-9).double()
    for scale in (0.01, 0.3):
        other = copy.deepcopy(best)
        other.log_p = (other.log_p + scale * torch.randn_like(other.log_p)).log_softmax(0)
        assert other.log_prob(x).sum() < best.log_prob(x).sum()


def test_all_images_are_all_different():
    x = all_images(3, 2, (1, 2))
    assert x.shape == (81, 2, 1, 2)
    assert len(x.unique(dim=0)) == 81
    assert (x.amin().item(), x.amax().item()) == (0, 2)
    with pytest.raises(ValueError, match=r"3\^16 such images"):
        all_images(3, 1, (4, 4))


# --- the certificate fails where it must ----------------------------------------------------


def conv(model, number):
    """The number-th masked k×k layer of a plain model, the own row's of a gated one."""
    if isinstance(model, PixelCNN):
        return [model.first, *model.residual][number]
    return model.layers[number].horizontal


def all_ones(model):
    conv(model, 1).mask.fill_(1)


def own_value_in_the_first_layer(model):
    mask = conv(model, 0).mask
    mask[:, :, mask.shape[2] // 2, mask.shape[3] // 2] = 1


def right_half_of_the_centre_row(model):
    mask = conv(model, 1).mask
    mask[:, :, mask.shape[2] // 2] = 1


def one_feature(model):
    conv(model, 1).mask[0, :, -1, -1] = 1


def a_normalisation_over_the_image(model):
    first = conv(model, 0)
    first.register_forward_hook(lambda _, __, out: out - out.mean((2, 3), keepdim=True))


LEAKS = [
    all_ones,
    own_value_in_the_first_layer,
    right_half_of_the_centre_row,
    one_feature,
    a_normalisation_over_the_image,
]


@pytest.mark.parametrize("name", ["plain", "plain-rgb", "gated", "gated-rgb"])
@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_every_leak_is_found_in_both_ways(name, leak):
    model = make(name)
    leak(model)
    assert sees_by_gradient(model, (4, 4)).triu().any()
    assert sees_by_perturbation(model, (4, 4)).triu().any()
    with pytest.raises(CausalityError, match="the logits of row 0, column"):
        check_causal(model, (4, 4))


@pytest.mark.parametrize("name", ["gated", "gated-rgb"])
def test_leaks_of_the_vertical_stack_are_found(name):
    model = make(name)
    model.layers[0].vertical.mask[:, :, 1] = 1  # its own row, of the image
    with pytest.raises(CausalityError, match="row 0, column 0"):
        check_causal(model, (4, 4))


@pytest.mark.parametrize("layer", ["first", "head"])
def test_a_channel_that_sees_itself_is_found(layer):
    model = make("plain-rgb")
    found = model.first if layer == "first" else model.head[1]
    found.mask[:, :, found.mask.shape[2] // 2, found.mask.shape[3] // 2] = 1
    own = "channel 0 see (its own value|that of row 0, column 0, channel 1)"
    with pytest.raises(CausalityError, match=own):
        check_causal(model, (3, 3))


def test_a_gate_whose_halves_serve_different_channels_is_found():
    model = make("gated-rgb")
    for layer in model.layers:
        shifted = layer.horizontal.mask.roll(1, 0)
        layer.horizontal.mask.copy_(shifted)
    with pytest.raises(CausalityError, match="channel"):
        check_causal(model, (3, 3))


def test_what_rounds_is_found_by_perturbation():
    class Rounds(PixelCNN):
        def logits_of(self, values, labels=None, context=None):
            whole = values.detach().round().sum((1, 2, 3)).view(-1, 1, 1, 1, 1)
            return super().logits_of(values) + whole * torch.arange(3.0).view(1, 3, 1, 1, 1)

    model = strong(Rounds(3, n_features=4, n_layers=2))
    assert not sees_by_gradient(model, (3, 3)).triu().any()
    with pytest.raises(CausalityError, match="by perturbation; 45 pairs of 45 leak"):
        check_causal(model, (3, 3))


def test_a_perturbed_pixel_always_takes_another_level():
    class Total(PixelCNN):  # every logit moves with every value
        def logits_of(self, values, labels=None, context=None):
            total = values.sum((1, 2, 3)).view(-1, 1, 1, 1, 1)
            return total * torch.arange(2.0).view(1, 2, 1, 1, 1) + 0 * values[:, None]

    for seed in range(5):
        assert sees_by_perturbation(Total(2), (3, 3), n_images=1, seed=seed).all()


def test_the_first_leak_is_named():
    model = make("plain")
    model.first.mask[:, :, 1, 2] = 1
    with pytest.raises(CausalityError, match="row 0, column 0 see that of row 0, column 1, by"):
        check_causal(model, (3, 3))


def test_the_certificate_leaves_the_model_alone():
    model = PixelCNN(3, n_features=4, n_layers=2)
    before = nn.utils.parameters_to_vector(model.parameters()).clone()
    check_causal(model, (3, 3))
    after = nn.utils.parameters_to_vector(model.parameters())
    assert after.dtype == torch.float32
    assert np.array_equal(before.detach(), after.detach())
    assert all(p.grad is None for p in model.parameters())


def test_a_gate_opens_the_first_half_by_the_second():
    value, opening = torch.tensor([[[1.0, -0.5]]]), torch.tensor([[[30.0, -30.0]]])
    opened = gate(torch.cat([value, opening], 1).double())  # (1, 1, 2)
    assert opened.squeeze().tolist() == pytest.approx([math.tanh(1.0), 0.0], abs=1e-12)
