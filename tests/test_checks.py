"""The checks' own limits: right answers pass at every seed, wrong ones fail, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dgm_course.grading.answers import CheckFailed
from dgm_course.grading.checks import (
    all_images,
    counting_rule,
    expect,
    expect_array,
    expect_close,
    expect_distribution,
    expect_logits,
    expect_number,
    log_prob,
    log_softmax,
    prefix_nll,
    random_rule,
)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, r"tensor of shape \(2, any\); got 3"),
        ([1, 2], "tensor of shape"),
        (np.zeros(2), r"of shape \(2, any\); got shape \(2,\)"),
        (np.zeros((3, 2)), r"got shape \(3, 2\)"),
        (np.array([[1.0, np.nan], [0, 0]]), "to be finite; got"),
    ],
)
def test_an_array_of_another_kind_is_refused(value: Any, said: str) -> None:
    assert expect_array(np.zeros((2, 5)), (2, None), "x").shape == (2, 5)
    with pytest.raises(CheckFailed, match=said):
        expect_array(value, (2, None), "x")


@pytest.mark.parametrize("value", [np.zeros(2), "3", None, True, float("nan"), float("inf")])
def test_only_one_finite_number_is_a_number(value: Any) -> None:
    assert expect_number(np.array(2.0), "x") == expect_number(2, "x") == 2
    with pytest.raises(CheckFailed, match="to be a finite number"):
        expect_number(value, "x")


def test_a_difference_is_told_with_its_place() -> None:
    expect_close(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-6]), "x")
    with pytest.raises(CheckFailed, match=r"expected x at \[1\] to be 2\.1; got 2$"):
        expect_close(np.array([1.0, 2.0]), np.array([1.0, 2.1]), "x")
    with pytest.raises(CheckFailed, match=r"expected light; got dark"):
        expect(False, "light", "dark")


def exact_samples(n: int, seed: int, sharpness: float = 1.0) -> tuple[Any, Any, Any]:
    """Samples of a rule's distribution over all 81 tiny images, made sharper or flatter."""
    outcomes = all_images(3, (2, 2))
    p = np.exp(log_prob(random_rule(3, (2, 2), 0)(outcomes), outcomes))
    drawn = p**sharpness / (p**sharpness).sum()
    rng = np.random.default_rng(seed)
    return outcomes[rng.choice(81, n, p=drawn)], outcomes, p


def test_a_rules_probabilities_sum_to_one() -> None:
    _, _, p = exact_samples(1, 0)
    assert p.sum() == pytest.approx(1, abs=1e-6)
    # Small expected counts make χ² heavy-tailed: the limit is set with this in view.
    assert 6000 * p.min() > 0.5


def test_right_samples_pass_at_every_seed() -> None:
    for seed in range(150):
        expect_distribution(*exact_samples(6000, seed), "samples")


def test_samples_that_are_a_little_too_sharp_or_flat_fail() -> None:
    for sharpness in (0.85, 1.2):
        with pytest.raises(CheckFailed, match="times among 6000 samples"):
            expect_distribution(*exact_samples(6000, 0, sharpness), "samples")


def test_impossible_samples_fail() -> None:
    samples, outcomes, p = exact_samples(10, 0)
    with pytest.raises(CheckFailed, match="probability above 0"):
        expect_distribution(samples + 3, outcomes, p, "samples")


def test_the_counting_rule_leaves_one_image() -> None:
    rule = counting_rule(3, (2, 2))
    images = all_images(3, (2, 2))
    certain = np.exp(log_prob(rule(images), images))
    assert np.sort(certain)[-2:] == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("rule", [random_rule(3, (2, 4), 0), counting_rule(3, (2, 4))])
def test_a_rule_takes_whole_images_only(rule: Any) -> None:
    images = np.zeros((5, 1, 2, 4), dtype=int)
    assert rule(images).shape == (5, 3, 1, 2, 4)
    for part in (images[:, :, :1], images[..., :3]):
        with pytest.raises(CheckFailed, match=r"whole images, 2 rows of 4 pixels; got \d rows of"):
            rule(part)


class Outputs:
    """A "network" of one weight per pixel value and level, and what it makes of its scores."""

    def __init__(self, of_scores: Callable[[Any], Any]) -> None:
        self.of_scores = of_scores
        self.weights = np.zeros((3, 5))

    def __call__(self, target: Any, *arguments: Any) -> Any:
        if target == "module.parameters":
            return [self.weights]
        if target == "module.set_parameters":
            (self.weights,) = arguments[1]
            return None
        with np.errstate(all="ignore"):
            return self.of_scores(np.moveaxis(self.weights[arguments[0]], -1, 1))


def softmax(scores: Any) -> Any:
    return np.exp(log_softmax(scores))


@pytest.mark.parametrize(
    ("of_scores", "said"),
    [
        (softmax, "sum to 1. Is there a softmax"),
        (lambda s: 1 / (1 + np.exp(-s)), "at most 1 apart. Is there a sigmoid"),
        (lambda s: 0.01 * s, "apart. Is there"),
        (lambda s: s * np.nan, "at most 0 apart"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(of_scores: Any, said: str) -> None:
    with pytest.raises(CheckFailed, match=f"expected logits.*{said}"):
        expect_logits(Outputs(of_scores), None, 3, (2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "of_scores",
    [
        lambda s: s,
        lambda s: s + 1e4,
        log_softmax,
        lambda s: np.log(softmax(s)),
        lambda s: np.log(softmax(100 * s)),  # log 0 = −∞
        lambda s: (
            s - np.log(np.exp(200 * s).sum(1, keepdims=True)) / 200
        ),  # overflows if s is large
        lambda s: 10 * np.tanh(s / 10),
        np.abs,
    ],
)
def test_all_forms_of_logits_are_logits(of_scores: Any) -> None:
    expect_logits(Outputs(of_scores), None, 3, (2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1, 3, 0.5])
def test_a_rule_refuses_what_is_no_level(bad: float) -> None:
    images = np.full((1, 1, 2, 2), bad)
    with pytest.raises(CheckFailed, match=r"to hold levels 0 to 2; got"):
        random_rule(3, (2, 2), 0)(images)


def test_the_prefix_likelihood_of_a_causal_model_is_its_likelihood() -> None:
    rule = random_rule(3, (2, 3), 1)
    images = np.random.default_rng(0).integers(0, 3, (5, 1, 2, 3))

    def call(target: Any, *arguments: Any) -> Any:
        return rule(*arguments)

    nll = prefix_nll(call, None, images, 3)  # type: ignore[arg-type]
    assert nll == pytest.approx(-log_prob(rule(images), images).mean(), abs=1e-5)


def test_the_prefix_likelihood_gives_a_model_that_peeks_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 3, (200, 1, 2, 3))

    def call(target: Any, x: Any) -> Any:
        return 3.0 * np.moveaxis(np.eye(3)[x], -1, 1)

    assert -log_prob(call(None, images), images).mean() < 1
    assert prefix_nll(call, None, images, 3) > 6 * np.log(3)  # type: ignore[arg-type]
