"""Distillation: the divergence against matrices, and a linear student against its closed form."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from dgm_course.data import ArProcess
from dgm_course.probability import gaussian_log_prob
from dgm_course.sequences import WaveNet, distillation_kl, linear_student_optimum
from dgm_course.training import fit, seed_everything
from tests.contracts import strong

TEACHER = [2 * 0.9 * math.cos(0.5), -0.81]  # a resonance of radius 0.9 at half a radian a step
SIGMA = 0.3


def filtered(taps):
    """The student x = h ∗ z: mean Σ_j≥1 h_j z_(t−j), scale h_0."""

    def student(z):
        mean = torch.zeros_like(z)
        for j, tap in enumerate(taps[1:], 1):
            mean[:, j:] += tap * z[:, : z.shape[1] - j]
        return mean, taps[0].log().expand_as(z)

    return student


def impulse_response(a, sigma, length):
    h = [sigma]
    for t in range(1, length):
        h.append(sum(c * h[t - lag] for lag, c in enumerate(a, 1) if lag <= t))
    return torch.tensor(h, dtype=torch.float64)


def at_rest(a, sigma):
    """The same teacher from a start at rest, whose inverse is exactly its impulse response."""

    def teacher(x):
        mean = torch.zeros_like(x)
        for lag, c in enumerate(a, 1):
            mean[:, lag:] += c * x[:, : x.shape[1] - lag]
        return mean, torch.full_like(x, math.log(sigma))

    return teacher


def networks():
    """A student and a teacher of no particular kind."""
    return strong(WaveNet(2, 4), 0, 0.3), strong(WaveNet(2, 5, kernel=3), 1, 0.3)


# --- the divergence -------------------------------------------------------------------------


def test_it_is_never_below_0_and_is_the_difference_of_its_terms():
    student, teacher = networks()
    z = torch.randn(50, 30, dtype=torch.float64)
    terms = distillation_kl(student, teacher, z)
    assert terms.kl.shape == (50, 30)
    assert terms.kl.min() >= -1e-12
    assert terms.kl.max() > 0.1
    torch.testing.assert_close(terms.cross_entropy - terms.entropy, terms.kl)
    _, log_scale = student(z)
    entropy = torch.distributions.Normal(0.0, log_scale.exp()).entropy()
    torch.testing.assert_close(terms.entropy, entropy)


def test_it_is_0_for_the_inverse_of_the_teacher():
    z = torch.randn(20, 40, dtype=torch.float64)
    student = filtered(impulse_response(TEACHER, SIGMA, 40))
    kl = distillation_kl(student, at_rest(TEACHER, SIGMA), z).kl
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_taps", [0, 2, 8])
def test_it_is_the_divergence_of_matrices(n_taps):
    """KL(N(0, H Hᵀ) ‖ N(0, Γ)) at T = 200, H of the taps: student first, teacher second."""
    rate, taps = linear_student_optimum(TEACHER, SIGMA, n_taps)
    process, length = ArProcess(TEACHER, SIGMA), 200
    h = sum(tap * torch.diag(torch.ones(length - j), -j).double() for j, tap in enumerate(taps))
    mean, log_scale = process.conditionals(torch.eye(length, dtype=torch.float64))
    whiten = ((torch.eye(length) - mean) / log_scale.exp()).T  # from x to (x − mean) / scale
    zero = torch.zeros(length, dtype=torch.float64)
    exact = kl_divergence(
        MultivariateNormal(zero, scale_tril=h),
        MultivariateNormal(zero, scale_tril=torch.linalg.inv(whiten).tril()),
    ).item()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, length, generator=generator, dtype=torch.float64)
    kl = distillation_kl(filtered(taps), process.conditionals, z).kl.sum(1)
    assert abs(kl.mean() - exact) < 4 * kl.std() / 4000**0.5
    assert exact / length == pytest.approx(rate, abs=0.005)  # its start is not the teacher's


def test_the_analytic_mean_is_that_of_one_sample():
    student, teacher = networks()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5000, 12, generator=generator, dtype=torch.float64)
    exact = distillation_kl(student, teacher, z)
    sampled = distillation_kl(student, lambda x: gaussian_log_prob(x, *teacher(x)), z)
    assert torch.equal(exact.entropy, sampled.entropy)
    for step in range(12):
        difference = (exact.kl - sampled.kl)[:, step]
        assert abs(difference.mean()) < 4 * difference.std() / 5000**0.5
    assert sampled.kl.var() > 2 * exact.kl.var()


def test_the_gradient_is_that_of_the_whole():
    """Through x into the teacher, too: student and teacher agree with differences."""
    student, teacher = networks()
    z = torch.randn(2, 6, dtype=torch.float64)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def kl(scale):
        def scaled(z):
            mean, log_scale = student(z)
            return scale * mean, scale * log_scale

        return distillation_kl(scaled, teacher, z).kl

    assert torch.autograd.gradcheck(kl, (scale,))


# --- the linear student ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_taps", "kl"), [(0, 0.7117), (2, 0.2244), (4, 0.0686), (8, 0.0343), (16, 0.0047)]
)
def test_the_least_squares_optimum(n_taps, kl):
    rate, taps = linear_student_optimum(TEACHER, SIGMA, n_taps)
    assert rate == pytest.approx(kl, abs=5e-5)
    assert taps.shape == (n_taps + 1,)
    # The rate of these taps by the spectrum, not by A ∗ h: no others near them do better.
    omega = torch.arange(4096, dtype=torch.float64) / 4096
    density = ArProcess(TEACHER, SIGMA).spectrum(omega)

    def rate_of(h):
        response = (h * torch.exp(-2j * math.pi * omega[:, None] * torch.arange(len(h)))).sum(1)
        ratio = response.abs().square() / density
        return 0.5 * (ratio.mean() - 1 - (h[0] ** 2 / SIGMA**2).log()).item()

    assert rate_of(taps) == pytest.approx(rate, abs=1e-9)
    for step in 0.01 * torch.eye(n_taps + 1, dtype=torch.float64):
        assert min(rate_of(taps + step), rate_of(taps - step)) > rate


def test_the_taps_approach_the_impulse_response():
    rate, taps = linear_student_optimum(TEACHER, SIGMA, 150)
    assert rate < 1e-9
    torch.testing.assert_close(taps[:50], impulse_response(TEACHER, SIGMA, 50), atol=1e-6, rtol=0)


def test_a_trained_linear_student_reaches_the_optimum():
    seed_everything(0)
    n_taps, process = 8, ArProcess(TEACHER, SIGMA)
    past = torch.zeros(n_taps, requires_grad=True)
    log_scale = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([past, log_scale], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)

    def loss(step):
        student = filtered([log_scale.exp(), *past])
        return distillation_kl(student, process.conditionals, torch.randn(32, 100)).kl.mean(1)

    fit(loss, optimizer, 400, scheduler=scheduler, progress=False)
    taps = torch.cat([log_scale.exp()[None], past]).detach().double().numpy()
    power = (np.convolve(taps, [1, -TEACHER[0], -TEACHER[1]]) ** 2).sum() / SIGMA**2
    rate = 0.5 * (power - 1 - 2 * math.log(taps[0] / SIGMA))
    optimum, _ = linear_student_optimum(TEACHER, SIGMA, n_taps)
    assert 0 <= rate - optimum <= 0.003  # ten seeds: at most 0.0001


def test_without_its_entropy_a_student_falls_to_a_point():
    """The cross-entropy alone is least, ½ ln(2π σ²), where the student writes zeros."""
    process, z = ArProcess(TEACHER, SIGMA), torch.randn(100, 50)
    log_scale = torch.tensor(-20.0)
    point = distillation_kl(filtered([log_scale.exp()]), process.conditionals, z)
    best = distillation_kl(
        filtered(linear_student_optimum(TEACHER, SIGMA, 16)[1].float()), process.conditionals, z
    )
    assert point.cross_entropy[:, 2:].mean() == pytest.approx(
        0.5 * math.log(2 * math.pi * SIGMA**2), abs=1e-4
    )
    assert point.cross_entropy.mean() < best.cross_entropy.mean()
    assert point.kl.mean() > 10 > best.kl.mean()


# --- bad input ------------------------------------------------------------------------------


def white(z):
    return torch.zeros_like(z), torch.zeros_like(z)


def column(z):
    return torch.zeros_like(z)[..., None], torch.zeros_like(z)[..., None]


Z = torch.randn(3, 4)


@pytest.mark.parametrize(
    ("student", "teacher", "z", "words"),
    [
        (white, white, Z[..., None], r"z must have shape \(N, D\), got shape \(3, 4, 1\)"),
        (white, white, Z[:, :0], "z must hold at least one point"),
        (white, white, Z.long(), "z must hold floating-point numbers"),
        (white, white, Z / 0, "z must be finite"),
        (white, white, Z.tolist(), "z must be a torch.Tensor, got list"),
        (column, white, Z, r"student's output 0 .* \(3, 4\) and \(3, 4, 1\)"),
        (white, column, Z, r"teacher's output 0 .* \(3, 4\) and \(3, 4, 1\)"),
        (white, lambda x: x[:, 1:], Z, r"teacher's output 0 .* \(3, 4\) and \(3, 3\)"),
        (white, lambda x: x.sum(1), Z, r"teacher's output 0 .* \(3, 4\) and \(3,\)"),
        (lambda z: z, white, Z, "student must return mean and log-scale, got 1 output"),
        (white, lambda x: (x, x, x), Z, "teacher must return mean and log-scale, got 3 output"),
        (white, lambda x: (x, None), Z, "teacher's output 1 must be a torch.Tensor, got NoneType"),
        (lambda z: (z, z / 0), white, Z, "student's output 1 must be finite"),
        (white, lambda x: (x / 0, x), Z, "teacher's output 0 must be finite"),
    ],
)
def test_bad_students_and_teachers_are_refused(student, teacher, z, words):
    with pytest.raises(ValueError, match=words):
        distillation_kl(student, teacher, z)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5], 1.0, -1), "n_taps must be an int of at least 0, got -1"),
        (([0.5], 1.0, 2.5), "n_taps must be an int of at least 0, got 2.5"),
        (([1.0], 1.0, 2), "got a root of modulus 1"),
        (([0.5], 0.0, 2), "sigma must be positive and finite, got 0.0"),
    ],
)
def test_bad_arguments_of_the_optimum_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        linear_student_optimum(*arguments)
