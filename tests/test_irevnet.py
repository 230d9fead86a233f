"""i-RevNet: nothing is discarded before the projection, and it classifies all the same."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, pixel_unshuffle

from dgm_course.data import digits
from dgm_course.reversible import IRevNet
from dgm_course.training import seed_everything, training_steps

F64 = torch.float64


def small(**others):
    torch.manual_seed(0)
    model = IRevNet(**{"size": (1, 4, 4), "n_classes": 3, "n_blocks": (2, 1)} | {
        "n_channels": 2, "n_hidden": (3, 4)} | others)  # fmt: skip
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.to(F64)


def test_features_are_the_formula():
    model = small().eval()
    x = torch.randn(3, 1, 4, 4, dtype=F64)
    h = torch.cat([torch.zeros_like(x), x], 1)
    for i, stage in enumerate(model.stages):
        h = pixel_unshuffle(h, 2) if i else h
        for block in stage.blocks:
            x1, x2 = h.chunk(2, 1)
            x1 = x1 + block.f(x2)
            h = torch.cat([x1, x2 + block.g(x1)], 1)
    assert h.shape == (3, *model.feature_size) == (3, 8, 2, 2)
    torch.testing.assert_close(model.features(x), h)
    logits = model.projection(model.norm(h).relu().mean((2, 3)))
    torch.testing.assert_close(model(x), logits)
    assert len(model.stages[0].blocks) == 2


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"size": (3, 4, 8), "n_channels": 4},
        {"size": (2, 3, 5), "n_blocks": [2], "n_hidden": [3]},
        {"size": (1, 8, 8), "n_blocks": (1, 1, 1), "n_hidden": (3, 3, 3)},
    ],
)
def test_every_image_comes_back_and_so_do_all_features(others):
    model = small(**others).eval()
    x = torch.randn(5, *model.size, dtype=F64)
    features = model.features(x)
    assert (model.inverse(features) - x).abs().max() < 1e-9
    assert model.padding(features).shape[1] == model.n_padded
    if model.n_padded:
        assert model.padding(features).abs().max() < 1e-9
    other = torch.randn_like(features)  # no image's, but the padded map is a bijection
    h = model.padded(other)
    for i, stage in enumerate(model.stages):
        h = stage(pixel_unshuffle(h, 2) if i else h)
    torch.testing.assert_close(h, other, atol=1e-9, rtol=0)


def test_gradients_reach_every_weight_from_the_loss():
    model, x = small(), torch.randn(6, 1, 4, 4, dtype=F64)
    cross_entropy(model(x), torch.arange(6) % 3).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.stages[1].blocks[0].f[0].weight.grad.abs().max() > 0


# --- digits -------------------------------------------------------------------------------------


def test_a_small_one_learns_and_remembers():
    seed_everything(0)
    (train, labels), (test, test_labels) = digits("train"), digits("test")
    train, test = train / 16, test / 16
    model = IRevNet((1, 8, 8), 10, n_blocks=(1, 1, 1))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, total_steps=60)

    def loss(step):
        i = torch.randint(len(train), (64,))
        return cross_entropy(model(train[i]), labels[i], reduction="none")

    for _ in training_steps(loss, adam, 60, cycle):
        pass
    model.eval().requires_grad_(False)
    share = (model(test).argmax(1) == test_labels).double().mean()
    assert share > 0.9365  # five points below a ResNet of its size, trained four times as long
    assert (model.inverse(model.features(test)) - test).abs().max() < 1e-2
    model, test = model.double(), test.double()
    assert (model.inverse(model.features(test)) - test).abs().max() < 1e-9


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"size": (4, 4)}, r"size must be \(C, H, W\), got \(4, 4\)"),
        ({"size": (1, 4, 0)}, "each number of size must be an int of at least 1, got 0"),
        ({"size": (1, 4, 5)}, r"H and W divisible by 2\^\(S - 1\) = 2, got 4 and 5"),
        ({"n_classes": 1}, "n_classes must be an int of at least 2, got 1"),
        ({"n_channels": 3}, "n_channels must be even, 2 or 4 say, got 3"),
        ({"size": (3, 4, 4)}, "n_channels must be an int of at least 3, got 2"),
        ({"n_blocks": ()}, r"n_blocks must be one int or more, got \(\)"),
        ({"n_blocks": 2}, "n_blocks must be one int or more, got 2"),
        ({"n_blocks": (1, 0)}, "each number of n_blocks must be an int of at least 1, got 0"),
        ({"n_hidden": (3,)}, "n_hidden must be as many as n_blocks, 2, got 1"),
    ],
)
def test_bad_arguments_are_refused(others, words):
    with pytest.raises(ValueError, match=words):
        small(**others)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], "must have shape .N, .*, got shape"),
        (lambda x: x[:0], r"N >= 1, got shape \(0, "),
        (lambda x: x[..., :1], "must have shape .N, .*, got shape"),
        (lambda x: x.float(), "must have the dtype of the weights, torch.float64, got torch.float"),
        (lambda x: x.long(), "must have the dtype of the weights, torch.float64, got torch.int64"),
        (lambda x: x * math.nan, "must be finite, got NaN or inf in 2 of 2 images"),
        (lambda x: x.tolist(), "must be a torch.Tensor, got list"),
    ],
)
@pytest.mark.parametrize("call", ["forward", "features", "logits", "inverse", "padding"])
def test_bad_batches_are_refused(call, change, words):
    model = small()
    x = torch.ones(2, *(model.size if call in ("forward", "features") else model.feature_size))
    name = "x" if call in ("forward", "features") else "features"
    with pytest.raises(ValueError, match=f"{name} .*{words}"):
        getattr(model, call)(change(x.to(F64)))
