"""Distillation: a student that writes in one pass is trained to write what a teacher would."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_points, check_same_shape
from dgm_course.data.series import ArProcess, Numbers
from dgm_course.probability import gaussian_log_prob

Gaussians = Callable[[Tensor], tuple[Tensor, Tensor]]


class DistillationTerms(NamedTuple):
    """KL(p_s ‖ p_t) = H(p_s, p_t) − H(p_s), as its two terms at every step, in nats."""

    cross_entropy: Tensor  # (N, T)
    entropy: Tensor  # (N, T)

    @property
    def kl(self) -> Tensor:
        """cross_entropy − entropy, ``(N, T)``: its sum over T is a series' KL, in expectation."""
        return self.cross_entropy - self.entropy


def distillation_kl(
    student: Gaussians, teacher: Gaussians | Callable[[Tensor], Tensor], z: Tensor
) -> DistillationTerms:
    """KL(p_s ‖ p_t) at each step, of the series x_t = μ_s(z_<t) + σ_s(z_<t) z_t that noise makes.

    Given z_<t, and so x_<t, both factors at t are known: that of the student is Gaussian, and
    H(p_s) = ½ ln(2πe σ_s²). With a Gaussian teacher the cross-entropy is exact too, ½ ln(2π σ_t²) +
    ((μ_s − μ_t)² + σ_s²) / 2σ_t²; what is averaged over draws is the past only. Of any other
    teacher one sample is taken, −log p_t(x_t | x_<t): right on average, but noisier.

    Source: van den Oord et al. 2018, equations 6 to 11, https://arxiv.org/abs/1711.10433; a step's
    KL in closed form: Ping, Peng & Chen 2019, section 3.3, https://arxiv.org/abs/1807.07281.

    Args:
        student: z to mean and log-scale of x_t given z_<t, as a `WaveNet` of real samples.
        teacher: x to mean and log-scale of x_t given x_<t, as a `WaveNet` or an
            `ArProcess.conditionals`; or x to log p(x_t | x_<t).
        z: noise from N(0, 1), ``(N, T)``.

    Shapes: student and teacher return ``(N, T)``, and so do both terms.

    Raises:
        ValueError: for z that is not ``(N, T)``, or what student or teacher return if it is of
            another shape, as ``(N, T, 1)``, or not finite.

    Example:
        >>> process, z = ArProcess([0.5]), torch.randn(100, 50)
        >>> white = lambda z: (torch.zeros_like(z), torch.zeros_like(z))
        >>> terms = distillation_kl(white, process.conditionals, z)
        >>> bool(terms.kl[:, 1:].mean() > 0)
        True
    """
    check_points(z, None, None, "z")
    mean, log_scale = _checked(student(z), z, "student", n_outputs=(2,))
    x = mean + log_scale.exp() * z
    entropy = log_scale + 0.5 * math.log(2 * math.pi * math.e)
    of_teacher = _checked(teacher(x), z, "teacher", n_outputs=(1, 2))
    if len(of_teacher) == 1:
        return DistillationTerms(-of_teacher[0], entropy)
    its_mean, its_log_scale = of_teacher
    at_mean = gaussian_log_prob(mean, its_mean, its_log_scale)
    return DistillationTerms(0.5 * (2 * (log_scale - its_log_scale)).exp() - at_mean, entropy)


def linear_student_optimum(a: Numbers, sigma: float, n_taps: int) -> tuple[float, Tensor]:
    """The least KL in nats a step, and the taps h_0 … h_q that reach it, ``(q + 1,)``, float64.

    The teacher is x_t = Σ aᵢ x_(t−i) + σ ε_t, in short A(L) x = σ ε; the student x = h ∗ z sees q
    past numbers of noise. Then ε = A ∗ h ∗ z / σ, the KL a step is ½ (‖A ∗ h‖² / σ² − 1 −
    ln h_0² / σ²), and its least value ½ ln min ‖A ∗ h / h_0‖²: a least-squares problem. It falls
    to 0 as the taps approach the teacher's impulse response, σ / A(L), which never ends.

    Args:
        a: the teacher's coefficients a₁ … a_p.
        sigma: its σ.
        n_taps: how many past numbers of noise the student sees, q; 0 is allowed.

    Raises:
        ValueError: for a teacher that `ArProcess` refuses, or a negative n_taps.

    Example:
        >>> round(linear_student_optimum([1.5, -0.8], 1.0, n_taps=8)[0], 3)
        0.027
    """
    n_taps, teacher = check_count(n_taps, "n_taps", 0), ArProcess(a, sigma)
    p = len(teacher.coefficients)
    columns = torch.zeros(n_taps + 1 + p, n_taps + 1, dtype=torch.float64)  # h to A ∗ h
    for tap in range(n_taps + 1):
        columns[tap, tap] = 1
        columns[tap + 1 : tap + 1 + p, tap] = -teacher.coefficients
    first, rest = columns[:, :1], columns[:, 1:]
    others = torch.linalg.lstsq(rest, -first).solution
    power = (first + rest @ others).square().sum()  # ‖A ∗ h / h_0‖²
    taps = torch.cat([torch.ones(1, 1, dtype=torch.float64), others])[:, 0]
    return 0.5 * power.log().item(), teacher.sigma * power.rsqrt() * taps


def _checked(out: object, z: Tensor, name: str, n_outputs: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The outputs; a ValueError unless they are as many as they may be, and like z, and finite."""
    outputs = out if isinstance(out, tuple) else (out,)
    if len(outputs) not in n_outputs:
        raise ValueError(f"{name} must return mean and log-scale, got {len(outputs)} outputs")
    for number, values in enumerate(outputs):
        check_same_shape("z", z, f"{name}'s output {number}", values)
        check_points(values, None, None, f"{name}'s output {number}")
    return outputs
