"""digits: a fixed, even split of scikit-learn's images. binarise: by name, by the levels."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dgm_course.checks import unchecked_values
from dgm_course.data import Images, binarise, digits

# --- digits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "n"), [("train", 1442), ("test", 355)])
def test_digits_have_the_documented_shapes_and_levels(split: str, n: int) -> None:
    data = digits(split)
    assert isinstance(data, Images)
    assert data.images.shape == (n, 1, 8, 8)
    assert data.labels.shape == (n,)
    assert data.images.dtype == data.labels.dtype == torch.int64
    assert data.images.unique().tolist() == list(range(17))
    assert data.labels.unique().tolist() == list(range(10))


def test_the_two_parts_are_scikit_learns_images_each_once() -> None:
    """Put back in place by the rule of the docstring, counted here in plain Python."""
    bunch = load_digits()
    parts = {split: zip(*digits(split), strict=True) for split in ("train", "test")}
    seen = [0] * 10
    for image, label in zip(bunch.images, bunch.target, strict=True):
        seen[label] += 1
        ours, our_label = next(parts["test" if seen[label] % 5 == 0 else "train"])
        assert our_label == label
        np.testing.assert_array_equal(ours[0], image)
    assert all(next(rest, None) is None for rest in parts.values())


def test_digits_splits_every_class_alike() -> None:
    train, test = (digits(split).labels.bincount() for split in ("train", "test"))
    share = test / (train + test)
    assert ((share > 0.19) & (share <= 0.2)).all()
    assert test.min() == 34
    assert test.max() == 36


def test_digits_are_the_same_whatever_the_global_random_state() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first = digits()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    second = digits()
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_digits_rejects_another_split() -> None:
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        digits("valid")


# --- binarise -------------------------------------------------------------------------------


def test_the_method_and_the_levels_have_no_default() -> None:
    parameters = inspect.signature(binarise).parameters
    assert parameters["method"].default is inspect.Parameter.empty
    assert parameters["levels"].default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("levels", "first_one"), [(256, 128), (17, 9), (2, 1), (3, 2), (1000, 500)]
)
def test_threshold_cuts_at_half_of_the_levels(levels: int, first_one: int) -> None:
    x = torch.arange(levels)
    expected = torch.tensor([2 * int(v) >= levels for v in x]).long()
    assert expected.sum() == levels - first_one
    assert torch.equal(binarise(x, "threshold", levels=levels), expected)


def test_threshold_is_right_in_bytes() -> None:
    x = torch.arange(256, dtype=torch.uint8)
    assert binarise(x, "threshold", levels=256).tolist() == [0] * 128 + [1] * 128
    assert not binarise(x, "threshold", levels=600).any()


@pytest.mark.parametrize(
    ("levels", "dtype"),
    [
        (17, torch.int64),
        (17, torch.uint8),
        (256, torch.uint8),
        (256, torch.int16),
        (1000, torch.int16),
    ],
)
def test_stochastic_ones_have_probability_x_over_the_highest_level(
    levels: int, dtype: torch.dtype
) -> None:
    n = 4000
    x = torch.arange(levels).to(dtype)[:, None].expand(levels, n)
    ones = binarise(x, "stochastic", levels=levels, generator=0)
    assert ones.dtype == dtype
    p = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    error = (p * (1 - p) / n).sqrt()
    frequency = ones.double().mean(1)
    # Five standard errors, over at most 1000 levels; none at the two ends.
    assert ((frequency - p).abs() <= 5 * error).all()
    # χ² over the levels between, within five of its own standard deviations.
    chi2 = ((frequency - p)[1:-1] / error[1:-1]).square().sum()
    assert abs(chi2 - (levels - 2)) < 5 * (2 * (levels - 2)) ** 0.5


def test_stochastic_pixels_are_independent() -> None:
    x = torch.full((20_000, 2), 8)
    a, b = binarise(x, "stochastic", levels=17, generator=1).double().unbind(1)
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / 20_000**0.5


def test_a_seed_repeats_the_draw_and_a_generator_moves_on() -> None:
    x = digits("test").images
    first = binarise(x, "stochastic", levels=17, generator=3)
    assert torch.equal(first, binarise(x, "stochastic", levels=17, generator=3))
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(first, binarise(x, "stochastic", levels=17, generator=generator))
    assert not torch.equal(first, binarise(x, "stochastic", levels=17, generator=generator))


def test_stochastic_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    binarise(digits("test").images, "stochastic", levels=17, generator=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("method", ["threshold", "stochastic"])
def test_binarise_keeps_shape_dtype_and_input(method: str) -> None:
    x = digits("test").images.to(torch.uint8)
    before = x.clone()
    y = binarise(x, method, levels=17, generator=0)
    assert y.shape == x.shape
    assert y.dtype == torch.uint8
    assert y.unique().tolist() == [0, 1]
    assert torch.equal(x, before)


LEVELS = torch.tensor([0, 3, 16])


@pytest.mark.parametrize(
    ("images", "method", "options", "message"),
    [
        (
            LEVELS / 16,
            "threshold",
            {"levels": 17},
            r"images .* integers .*, got dtype torch.fl",
        ),
        (
            LEVELS > 3,
            "threshold",
            {"levels": 17},
            r"images .* integers .*, got dtype torch.bo",
        ),
        (LEVELS, "threshold", {"levels": 16}, "integers 0 to 15, got values from 0 to 16"),
        (LEVELS - 1, "threshold", {"levels": 17}, "integers 0 to 16, got values from -1 to 15"),
        (
            LEVELS,
            "stochastic",
            {"levels": 2, "generator": 0},
            "integers 0 to 1, got values",
        ),
        (LEVELS[:0], "threshold", {"levels": 17}, r"images must hold pixels, got shape \(0,\)"),
        (LEVELS, "median", {"levels": 17}, "method must be 'threshold' or 'stochastic', got 'med"),
        (LEVELS, "stochastic", {"levels": 17}, "generator must be a seed or .*, got None"),
        (LEVELS, "stochastic", {"levels": 17, "generator": 0.5}, "seed must be .*, got float"),
        (LEVELS, "stochastic", {"levels": 17, "generator": True}, "seed must be .*, got bool"),
        (LEVELS, "threshold", {"levels": 1}, "levels must be an int of at least 2, got 1"),
        (LEVELS, "threshold", {"levels": 17.0}, "levels must be an int of at least 2, got 17.0"),
        (LEVELS, "threshold", {"levels": True}, "levels must be an int of at least 2, got True"),
    ],
)
def test_binarise_rejects(
    images: torch.Tensor, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        binarise(images, method, **options)  # type: ignore[arg-type]


def test_the_range_is_not_read_where_checks_of_values_are_off() -> None:
    with unchecked_values():
        assert binarise(LEVELS, "threshold", levels=4).tolist() == [0, 1, 1]
