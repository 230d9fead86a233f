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
    expect_causal,
    expect_close,
    expect_distribution,
    expect_drawn,
    expect_logits,
    expect_number,
    kernel_of,
    log_prob,
    log_softmax,
    prefix_nll,
    random_rule,
    reached,
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


class Module:
    """``call`` of a module with one array of weights; what it is called with goes to ``out``."""

    weights: Any

    def __call__(self, target: Any, *arguments: Any) -> Any:
        if target == "module.parameters":
            return [self.weights]
        if target == "module.set_parameters":
            (self.weights,) = arguments[1]
            return None
        return self.out(arguments[0])

    def out(self, images: Any) -> Any:
        raise NotImplementedError


class Outputs(Module):
    """A "network" of one weight per pixel value and level, and what it makes of its scores."""

    def __init__(self, of_scores: Callable[[Any], Any]) -> None:
        self.of_scores = of_scores
        self.weights = np.zeros((3, 5))

    def out(self, images: Any) -> Any:
        with np.errstate(all="ignore"):
            return self.of_scores(np.moveaxis(self.weights[images], -1, 1))


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


# --- properties of networks: one of each kind, without a network --------------------------------

SIZE = (3, 4)
RULE = random_rule(3, SIZE, 0)


def peek(images: Any) -> Any:
    """What tells a network the pixel that it is asked for."""
    return np.moveaxis(np.eye(3, dtype=np.float32)[images], -1, 1)


def asked(of_images: Callable[[Any], Any], **names: Any) -> None:
    """`expect_causal` of a function of images."""
    expect_causal(lambda _, x: of_images(x), None, 3, SIZE, **names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "of_images",
    [
        RULE,
        lambda x: 50 * RULE(x),
        lambda x: 500 * RULE(x),
        lambda x: RULE(x) + 100,
        lambda x: RULE(x).astype(np.float64) + 1e7,  # of which a float64 still knows nine digits
        lambda x: log_softmax(RULE(x)),
        lambda x: 1e-3 * RULE(x),
        lambda x: RULE(x) + np.float32(1e-5) * peek(x).sum(1, keepdims=True),  # the same for all
        lambda x: RULE(x) + np.float32(20) * x[:, None],  # log p does not move
    ],
)
def test_causal_functions_pass_whatever_their_scale(of_images: Callable[[Any], Any]) -> None:
    asked(of_images)


@pytest.mark.parametrize(
    ("of_images", "said"),
    [
        (lambda x: RULE(x) + peek(x), "change of itself"),
        (lambda x: RULE(x) + 20 * peek(x) + 1e4, "change of itself"),
        (lambda x: (RULE(x) + peek(x)).astype(np.float64) + 1e7, "change of itself"),
        (lambda x: RULE(x) + np.float32(1e-3) * peek(x), "change of itself"),
        (lambda x: 1e-3 * (RULE(x) + peek(x)), "change of itself"),
        (lambda x: RULE(x) + peek(x) * [[[[[1e3]]], [[[1e-3]]], [[[1]]]]], "change of"),
        (lambda x: RULE(x) + peek(np.roll(x, -1, 3)), "change of the later pixel"),
        (lambda x: RULE(x) + peek(x) * (len(x) == 3), "that pixel and all later ones"),
        (lambda x: RULE(x) + peek(x[:1] * 0 + len(x) % 3), "alone and in a batch"),
        (lambda x: RULE(x) + peek(x) + np.float32(1e7), "float32 knows to 1 only"),
        (lambda x: RULE(x) + np.float32(1e7), "told apart to 0.001"),
        (lambda x: RULE(x) - np.float32(1e6) * (np.arange(3) == 0)[:, None, None, None], "apart"),
        (lambda x: (10 * RULE(x)).astype(np.float16), "float16 knows to"),
        (lambda x: np.round(RULE(x)).astype(np.int64), "floating type; got int64"),
        (lambda x: RULE(x) > 0, "floating type; got bool"),
        (lambda x: RULE(x) + 1j * peek(x), "real numbers; got complex"),
        (lambda x: RULE(x).astype(object), "real numbers; got object"),
        (lambda x: RULE(x) * np.nan, "to be finite"),
        (lambda x: np.where(peek(x) > 0, np.inf, RULE(x)), "to be finite"),
        (lambda x: RULE(x) - np.where(np.arange(3) == 0, np.inf, 0)[:, None, None, None], "finite"),
    ],
)
def test_no_scale_offset_or_type_hides_a_leak(of_images: Callable[[Any], Any], said: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(CheckFailed, match=said):
        asked(of_images)


class Network(Module):
    """Weights for all pairs of pixels and levels, of which some are closed; ``call`` of one."""

    def __init__(self, open_: Any, scale: float = 1.0) -> None:
        self.open, self.scale, self.weights = open_, scale, np.ones((25, 3, 25, 3), np.float32)
        self.calls = 0

    def out(self, images: Any) -> Any:
        self.calls += 1
        open_ = self.open(self) if callable(self.open) else self.open
        one_hot = np.eye(3, dtype=np.float32)[images.reshape(-1, 25)]
        weights = self.scale * self.weights * open_[:, None, :, None]
        out = np.einsum("plqm,nqm->nlp", weights, one_hot, optimize=True)
        return out.reshape(-1, 3, 1, 5, 5).astype(np.float32)


EARLIER, ALL = np.tri(25, k=-1), np.ones((25, 25))


def test_what_is_seen_is_what_may_not_leak_by_one_measure() -> None:
    """Whatever the scale, what a network shows of later pixels is no less than of earlier ones."""
    for scale in (1e-2, 1.0, 100.0):
        seen = reached(Network(EARLIER, scale), None, 3, 5, causal=True)  # type: ignore[arg-type]
        assert seen.ravel()[:12].all()
        assert not seen.ravel()[12:].any()
    for scale in 10.0 ** np.arange(-3, 3):
        with pytest.raises(CheckFailed, match="change of"):
            reached(Network(ALL, scale), None, 3, 5, causal=True)  # type: ignore[arg-type]
    for scale in 10.0 ** np.arange(-9, -5):
        seen = reached(Network(ALL, scale), None, 3, 5, causal=True)  # type: ignore[arg-type]
        assert not seen.any(), scale


@pytest.mark.parametrize(
    "open_",
    [
        lambda network: ALL if network.calls == 1 else EARLIER,
        lambda network: EARLIER if network.calls < 3 else ALL,
        lambda network: EARLIER + 1e-2 * (1 - EARLIER),
    ],
)
def test_sight_and_causality_are_asked_of_the_same_calls(open_: Any) -> None:
    reached(Network(open_), None, 3, 5)  # type: ignore[arg-type]
    with pytest.raises(CheckFailed, match="depend on earlier pixels only"):
        reached(Network(open_), None, 3, 5, causal=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of_inputs", "said"),
    [
        (lambda x: 1e7 + x, "told apart to 1e-05"),
        (lambda x: x.astype(np.float16), "told apart"),
        (lambda x: x.astype(np.uint8), "floating type; got uint8"),
        (lambda x: x > 0, "floating type; got bool"),
    ],
)
def test_a_kernel_is_measured_in_numbers_that_tell_it(of_inputs: Any, said: str) -> None:
    with pytest.raises(CheckFailed, match=said):
        kernel_of(lambda _, x: of_inputs(x), None, 1, 3)  # type: ignore[arg-type]


def drawn(images: Any, choose: Callable[[Any], Any]) -> Any:
    """A rule, and images that were drawn pixel by pixel with ``choose``."""
    rule = random_rule(5, (7, 7), 1, scale=0.2)
    for i, j in np.ndindex(7, 7):
        images[:, 0, i, j] = choose(rule(images)[:, :, 0, i, j])
    return rule(images), images, np.ones_like(images, dtype=bool)


def test_right_draws_of_a_few_large_images_pass() -> None:
    for seed in range(15):
        noise = np.random.default_rng(seed).gumbel
        images = np.zeros((7, 1, 7, 7), dtype=int)
        expect_drawn(
            *drawn(images, lambda s, noise=noise: (s + noise(size=s.shape)).argmax(1)), "x"
        )


@pytest.mark.parametrize("sharpness", [0.0, 0.4, 3.0, 1000.0])
def test_draws_that_are_flat_sharp_or_certain_fail(sharpness: float) -> None:
    noise = np.random.default_rng(0).gumbel
    images = np.zeros((7, 1, 7, 7), dtype=int)
    made = drawn(images, lambda s: (sharpness * s + noise(size=s.shape)).argmax(1))
    with pytest.raises(CheckFailed, match="unlikely by"):
        expect_drawn(*made, "x")


@pytest.mark.parametrize("value", [10**400, 1j, np.array(1j), np.array(True)], ids=type)
def test_what_is_no_real_number_is_refused_in_words(value: Any) -> None:
    with pytest.raises(CheckFailed, match="to be a finite number"):
        expect_number(value, "x")
