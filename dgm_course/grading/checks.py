"""What the assignments' tests are made of: expectations, and properties of image models.

Every property is measured through ``call`` (`dgm_course.grading.answers`) on plain arrays, so a
test that is built of these runs wherever ``call`` leads. Images are integers ``(N, 1, H, W)``,
logits ``(N, levels, 1, H, W)``; pixels come in raster order, row by row from the top left.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from dgm_course.grading.answers import CheckFailed, Handle

Call = Callable[..., Any]
Array = np.ndarray[Any, np.dtype[Any]]
Size = tuple[int, int]

TOLERANCE = 1e-5  # of weights and losses of order 1 in float32
# A pixel has influence where a change of it moves a log-probability by more than this, in nats:
# one bound for what must be seen and for what must not, so that no scale of a network's outputs
# lies between the two. It does not grow with the outputs. What leaks below it is worth at most
# 2e-5 nats for each pair of pixels, or 0.08 nats in an image of 64, with the weights as they are;
# other weights may amplify it, and so trained ones are measured again. Float32 rounds log p of
# logits about 10 to 2e-6, and the same computation for two images of a batch to the same.
INFLUENCE = 2e-5
SAME = 1e-3  # nats, of the same image in two batches, which may be summed in another order
MOST_LOGITS = 1_000_000  # numbers in what a function of a test returns

# --- expectations ---------------------------------------------------------------------------


def expect(ok: Any, expected: str, came: Any) -> None:
    """Raise CheckFailed with both halves unless ``ok``."""
    if not ok:
        raise CheckFailed(f"expected {expected}; got {str(came)[:500]}")


def expect_array(value: Any, shape: Sequence[int | None], what: str) -> Array:
    """``value`` if it is an array of finite real numbers of this shape; None is any length."""
    lengths = ", ".join("any" if n is None else str(n) for n in shape)
    wanted = f"({lengths},)" if len(shape) == 1 else f"({lengths})"
    if not isinstance(value, np.ndarray):
        raise CheckFailed(f"expected {what} to be a tensor of shape {wanted}; got {_short(value)}")
    fits = value.ndim == len(shape) and all(
        n in (None, m) for n, m in zip(shape, value.shape, strict=True)
    )
    expect(fits, f"{what} of shape {wanted}", f"shape {value.shape}")
    expect(value.dtype.kind in "biuf", f"{what} to be real numbers", value.dtype)
    finite = np.isfinite(value)
    expect(finite.all(), f"{what} to be finite", f"{value[~finite].ravel()[:1]} in it")
    return value


def expect_fine(value: Array, what: str, step: float) -> Array:
    """``value`` if its numbers are so small, and of so many digits, that ``step`` counts.

    Beside 10⁷ a float32 has no room for a difference of 0.1: it would be rounded away unseen.
    """
    expect(value.dtype.kind == "f", f"{what} to be of a floating type", value.dtype)
    largest = np.abs(value).max(initial=0)
    between = float(np.spacing(largest))
    expect(
        between <= step,
        f"{what} to be told apart to {step:g}",
        f"numbers of about {largest:.2g}, which {value.dtype} knows to {between:.2g} only",
    )
    return value


def expect_number(value: Any, what: str) -> float:
    """``value`` as a float if it is one finite number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    ok = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
    expect(ok, f"{what} to be a finite number", _short(value))
    return float(value)


def expect_close(value: Any, expected: Array, what: str, atol: float = TOLERANCE) -> None:
    """Elementwise, |value − expected| ≤ atol (1 + |expected|)."""
    value = expect_array(value, expected.shape, what)
    wrong = np.argwhere(np.abs(value - expected) > atol * (1 + np.abs(expected)))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        where = f" at {list(at)}" if at else ""
        raise CheckFailed(f"expected {what}{where} to be {expected[at]:.6g}; got {value[at]:.6g}")


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {value.shape}"
    return str(value) if isinstance(value, Handle) else reprlib.repr(value)[:60]


# --- weights --------------------------------------------------------------------------------


def randomise(call: Call, module: Handle, seed: int, scale: float = 1.0) -> None:
    """Give a module other weights: of random sign, none of them near 0, outputs of order 1; or
    all of them ``scale`` times as large."""
    rng = np.random.default_rng(seed)
    values = []
    for old in call("module.parameters", module):
        size = scale * rng.uniform(0.5, 1.5, old.shape) / math.sqrt(math.prod(old.shape[1:]))
        values.append((size * rng.choice([-1.0, 1.0], old.shape)).astype(old.dtype))
    call("module.set_parameters", module, values)


def kernel_of(call: Call, conv: Handle, n_in: int, kernel_size: int) -> Array:
    """The weights that a convolution really applies, ``(n_out, n_in, k, k)``, by impulses.

    Raises CheckFailed if an impulse has an effect outside the kernel's window.
    """
    k, r = kernel_size, kernel_size // 2
    images = np.zeros((n_in + 1, n_in, 2 * k + 1, 2 * k + 1), dtype=np.float32)
    for channel in range(n_in):
        images[channel, channel, k, k] = 1
    shape = (n_in + 1, None, 2 * k + 1, 2 * k + 1)
    out = expect_array(call(conv, images), shape, "the convolution's output")
    expect_fine(out, "the convolution's output", TOLERANCE)
    response = out[:n_in] - out[n_in:]  # (n_in, n_out, H, W)
    window = (..., slice(k - r, k + r + 1), slice(k - r, k + r + 1))
    inside = response[window].copy()
    response[window] = 0
    reach = f"an input pixel to reach outputs at most {r} rows and columns away"
    expect(np.abs(response).max() <= TOLERANCE, reach, "an effect farther away")
    return inside[..., ::-1, ::-1].transpose(1, 0, 2, 3)  # out[p] = Σ weight[o] in[p + o]


# --- models from images to logits -----------------------------------------------------------


def logits_of(call: Call, model: Handle, images: Array, n_levels: int) -> Array:
    """``model``'s logits of ``images``, checked for their shape, and fine enough to tell
    probabilities apart."""
    n, channels, height, width = images.shape
    shape = (n, n_levels, channels, height, width)
    what = f"the logits of images {images.shape}"
    return expect_fine(expect_array(call(model, images), shape, what), what, SAME)


def influence(call: Call, model: Handle, n_levels: int, size: Size, seed: int) -> Array:
    """Which pixel moves the probabilities of which, ``(H·W, H·W)``: entry [p, q] is true if
    changing pixel q changes log p at p by more than `INFLUENCE`, with the weights as they are."""
    n = size[0] * size[1]
    rng = np.random.default_rng(seed)
    images = np.repeat(rng.integers(0, n_levels, (1, n)), n + 1, 0)  # (1 + H·W, H·W)
    other = rng.integers(1, n_levels, n)
    images[1 + np.arange(n), np.arange(n)] = (images[0] + other) % n_levels
    log_p = log_softmax(logits_of(call, model, images.reshape(-1, 1, *size), n_levels))
    log_p = log_p.reshape(n + 1, n_levels, n)
    change = np.abs(log_p[1:] - log_p[:1]).max(1)  # (q, p)
    return (change > INFLUENCE).T


def reached(call: Call, model: Handle, n_levels: int, side: int, causal: bool = False) -> Array:
    """The pixels that the middle of a square image sees, ``(side, side)``, whatever the weights.

    Under one choice of weights a path may end in a closed ReLU; hardly under each of four.

    Args:
        causal: whether the same measurements must show no pixel that sees itself or a later one.
    """
    seen = np.zeros(side * side, dtype=bool)
    for seed in range(4):
        randomise(call, model, seed)
        moved = influence(call, model, n_levels, (side, side), seed)
        if causal:
            _expect_earlier(moved, side)
        seen |= moved[side * side // 2]
    return seen.reshape(side, side)


def _expect_earlier(moved: Array, width: int) -> None:
    """An `influence` of earlier pixels only."""
    leaks = np.argwhere(np.triu(moved))
    if len(leaks):
        p, q = (divmod(int(i), width) for i in leaks[0])
        later = "itself" if p == q else f"the later pixel {q}"
        raise CheckFailed(
            f"expected the logits of pixel {p} to depend on earlier pixels only; "
            f"got others after a change of {later}"
        )


def expect_causal(
    call: Call, model: Handle, n_levels: int, size: Size, seeds: Sequence[int] = (0, 1, 2)
) -> None:
    """No pixel's probabilities move with that pixel or a later one, with the weights as they are,
    whether one pixel changes or all from one on; and an image's do not depend on the other images
    of its batch."""
    n = size[0] * size[1]
    for seed in seeds:
        _expect_earlier(influence(call, model, n_levels, size, seed), size[1])
        rng = np.random.default_rng(seed)
        images = rng.integers(0, n_levels, (3, 1, *size))
        start = rng.integers(n)
        images.reshape(3, n)[1, :start] = images.reshape(3, n)[0, :start]
        together = log_softmax(logits_of(call, model, images, n_levels))
        before = together.reshape(3, n_levels, n)[:2, :, : start + 1]
        expect(
            np.abs(before[0] - before[1]).max() <= INFLUENCE,
            f"the logits up to pixel {divmod(int(start), size[1])} to depend on earlier ones only",
            "others after a change of that pixel and all later ones",
        )
        alone = log_softmax(logits_of(call, model, images[:1], n_levels))
        same = np.abs(together[:1] - alone).max() <= SAME
        expect(same, "an image's logits to be the same alone and in a batch", "others")


def expect_logits(call: Call, model: Handle, n_levels: int, size: Size) -> None:
    """A network returns logits, log-probabilities among them; neither probabilities nor other
    outputs that stay close together.

    Logits of a pixel that lie at most d apart leave the best of 17 levels a probability of at
    most 1/(1 + 16 exp(−d)): with d = 1.6 an image of 64 pixels costs at least 92 nats, with
    d = 1, as for probabilities, 123. Weights ever farther from 0 show how far they can come.
    """
    images = np.random.default_rng(0).integers(0, n_levels, (8, 1, *size))
    apart = 0.0
    for scale in (1, 4, 20):  # one is enough: with the larger ones, log p may be −∞
        randomise(call, model, seed=0, scale=scale)
        came = call(model, images)
        fits = isinstance(came, np.ndarray) and (*came.shape[:1], *came.shape[2:]) == images.shape
        expect(fits, f"the logits of images {images.shape}", _short(came))
        out = np.asarray(came, dtype=np.float64)
        sums_to_one = np.abs(out.sum(1) - 1) < 1e-3
        expect(
            not sums_to_one.all(),
            "logits, which the loss normalises",
            "probabilities: the outputs at each pixel sum to 1. Is there a softmax at the end?",
        )
        with np.errstate(invalid="ignore"):  # −∞ at all levels
            apart = max(apart, float((out.max(1) - out.min(1)).max()))
    expect(
        apart > 1.6,
        "logits, so far apart under large weights that one level is nearly certain",
        f"outputs at most {apart:.2g} apart. Is there a sigmoid at the end?",
    )


def log_softmax(logits: Array) -> Array:
    """log p over the levels, the second axis, in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def log_prob(logits: Array, images: Array, where: Any = True) -> Array:
    """Σ of log p(pixel) over the pixels where ``where`` is true, ``(N,)`` nats."""
    chosen = np.take_along_axis(log_softmax(logits), images[:, None], 1)[:, 0]  # (N, C, H, W)
    return np.where(where, chosen, 0).reshape(len(images), -1).sum(1)


def all_images(n_levels: int, size: Size) -> Array:
    """Every image of a tiny size, ``(levels^(H·W), 1, H, W)``."""
    height, width = size
    pixels = list(product(range(n_levels), repeat=height * width))
    return np.array(pixels).reshape(-1, 1, height, width)


def prefix_nll(call: Call, model: Handle, images: Array, n_levels: int) -> float:
    """Nats per image, pixel by pixel: before pixel t the image, from t on noise.

    A model that looks at the pixel it predicts, at a later one, or at another image of the batch
    finds noise there.
    """
    n, _, height, width = images.shape
    rng = np.random.default_rng(0)
    truth = images.reshape(n, -1)
    total = 0.0
    for t in range(height * width):
        x = rng.integers(0, n_levels, truth.shape)
        x[:, :t] = truth[:, :t]
        logits = logits_of(call, model, x.reshape(images.shape), n_levels)
        at_t = log_softmax(logits.reshape(n, n_levels, -1)[:, :, t])  # (N, levels)
        total -= np.take_along_axis(at_t, truth[:, t : t + 1], 1).sum()
    return total / n


# --- samplers -------------------------------------------------------------------------------


class Watched:
    """A function from images to logits that looks at what it is given.

    Args:
        rule: maps pixels ``(N, H·W)`` to logits ``(N, levels, H·W)``.
        size: height and width of the images; it takes no others.
    """

    def __init__(self, rule: Callable[[Array], Array], n_levels: int, size: Size) -> None:
        self.rule, self.n_levels, self.size = rule, n_levels, tuple(size)

    def __call__(self, images: Any) -> Array:
        images = expect_array(images, (None, 1, None, None), "the images given to logits_of")
        height, width = images.shape[2:]
        whole = "logits_of to be given whole images, {} rows of {} pixels".format(*self.size)
        expect((height, width) == self.size, whole, f"{height} rows of {width}")
        most = MOST_LOGITS // (self.n_levels * height * width)
        expect(len(images) <= most, f"logits_of to be given at most {most} images", len(images))
        levels = (images >= 0) & (images < self.n_levels) & (images == np.round(images))
        expected = f"the images given to logits_of to hold levels 0 to {self.n_levels - 1}"
        expect(levels.all(), expected, f"{images[~levels].ravel()[:1]} in them")
        n = len(images)
        logits = self.rule(images.reshape(n, -1).astype(np.int64))
        return logits.reshape(n, self.n_levels, 1, height, width).astype(np.float32)


def random_rule(n_levels: int, size: Size, seed: int, scale: float = 0.6) -> Watched:
    """A causal distribution drawn at random: each pixel's logits are linear in those before, with
    weights of this size."""
    n = size[0] * size[1]
    rng = np.random.default_rng(seed)
    weights = scale * rng.normal(size=(n, n_levels, n, n_levels))
    weights *= np.tri(n, k=-1)[:, None, :, None]
    biases = 0.6 * rng.normal(size=(n, n_levels))

    def rule(pixels: Array) -> Array:
        one_hot = np.eye(n_levels)[pixels]  # (N, q, levels)
        scores = np.einsum("plqm,nqm->npl", weights, one_hot, optimize=True) + biases
        return scores.transpose(0, 2, 1)

    return Watched(rule, n_levels, size)


def counting_rule(n_levels: int, size: Size) -> Watched:
    """A distribution without chance: each pixel is (its number + the sum of those before) mod
    levels."""

    def rule(pixels: Array) -> Array:
        before = np.cumsum(pixels, 1) - pixels + np.arange(1, pixels.shape[1] + 1)
        return 60.0 * np.eye(n_levels)[before % n_levels].transpose(0, 2, 1)

    return Watched(rule, n_levels, size)


def expect_distribution(samples: Array, outcomes: Array, probabilities: Array, what: str) -> None:
    """Samples follow a distribution over a few outcomes: a χ² test that right ones pass.

    With E = N p the expected counts and n − 1 degrees of freedom, χ² = Σ (count − E)²/E has mean
    n − 1 and variance 2 (n − 1); six and a half standard deviations above is the limit.
    """
    samples, outcomes = samples.reshape(len(samples), -1), outcomes.reshape(len(outcomes), -1)
    number = {tuple(row): i for i, row in enumerate(outcomes.tolist())}
    found = [number.get(tuple(row)) for row in samples.astype(int).tolist()]
    expect(None not in found, f"{what} of probability above 0", "one of probability 0")
    counts = np.bincount(np.array(found), minlength=len(outcomes))
    expected = len(samples) * probabilities
    distance = ((counts - expected) ** 2 / expected).sum()
    limit = len(outcomes) - 1 + 6.5 * math.sqrt(2 * (len(outcomes) - 1))
    worst = int(np.argmax((counts - expected) ** 2 / expected))
    expect(
        distance < limit,
        f"{outcomes[worst].tolist()} about {expected[worst]:.0f} times among {len(samples)} {what}",
        f"{counts[worst]} times (χ² {distance:.0f}, the limit is {limit:.0f})",
    )


def expect_drawn(logits: Array, images: Array, drawn: Array, what: str) -> None:
    """The pixels where ``drawn`` is true were drawn with these logits, of the images themselves.

    A pixel of level x is −log p(x) nats unlikely, on average its entropy H, whatever stands before
    it. So the sum of −log p(x) − H over all drawn pixels has mean 0, and for its variance the sum
    of Σ p (log p)² − H². Six and a half standard deviations are the limit, which the mode, another
    temperature or another order are far beyond.
    """
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    entropy = -(p * log_p).sum(1)
    variance = (p * log_p**2).sum(1) - entropy**2
    nats, mean = -log_prob(logits, images.astype(int), drawn).sum(), entropy[drawn].sum()
    limit = 6.5 * math.sqrt(variance[drawn].sum()) + 1e-3
    expect(
        abs(nats - mean) < limit,
        f"{what} to be unlikely by {mean:.1f} ± {limit:.1f} nats",
        f"{nats:.1f}",
    )
