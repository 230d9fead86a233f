"""Lecture 8's longer runs: a field that reaches 48 steps, a vowel that is distilled, lost bursts.

    python notebooks/results/autoregressive_flows.py            # some minutes of one core
    python notebooks/results/autoregressive_flows.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/autoregressive_flows.npz``. Values are in nats a step, and those of
trained models on test series are measured against these series' own exact density, so that a test
set's luck is taken out. It holds

- of `LaggedProcess(48)`: ``lag/fields`` (7,), receptive fields 2 … 128, and ``lag/nll`` (7, seeds)
  of a WaveNet of each; ``rnn/nll`` (seeds,) of a plain recurrent network of 64 units, and
  ``rnn/gradient``, ``wavenet/gradient`` (100,), the root mean square of ∂ mean_t / ∂ x_(t−d) at
  distance d = 1 … 100, of the first seed;
- of a whispered vowel, an AR(6) of three formants at 8,000 steps a second: ``vowel/coefficients``
  (6,), ``vowel/sigma``; ``vowel/sounds`` (3, 16000), int8, two seconds of the process itself, of a
  WaveNet that learned it, the teacher, and of its student; ``vowel/frequency`` (129,) in Hz and
  ``vowel/spectra`` (3, 129), estimated from 16 series of each; ``vowel/excess`` of the teacher, its
  KL from the process, and ``vowel/kl`` of the student from the teacher;
- of the process of `bursts`: ``bursts/series`` (3, 4, 500), float16, four series each of the
  process, of the teacher and of the student, of the first seed; ``bursts/sd`` (seeds, 3), of
  the same three; ``bursts/excess`` (seeds,), the teacher's KL from the process, and
  ``bursts/kl`` (seeds, 2), the student's KL from its teacher and from the process, and
  ``bursts/loud`` (seeds, 3), the share of steps at which the process's scale would be above its
  middle, given the past of the same three series;
- of the vowel rounded to 16 bits: ``sixteen/nll`` (2, 2, seeds), nats a sample of 65,536 levels, of
  a mixture of five logistics (first row) and a softmax over 256 μ-law levels (second), with kernels
  2 and 3 (columns), and ``sixteen/exact``, the process's own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dgm_course.data import ArProcess, LaggedProcess
from dgm_course.data.stored import RESULTS
from dgm_course.probability import gaussian_log_prob, logistic_level_log_prob
from dgm_course.sequences import WaveNet, distillation_kl
from dgm_course.training import fit, quick, seed_everything

RATE = 8000  # steps a second
FORMANTS = ((730, 90), (1090, 110), (2440, 170))  # of an open a: frequencies and bandwidths in Hz
LOUDNESS = 28  # of a sound's 127, for a standard deviation of 1
LEVELS = 65_536


def train(parameters: list[Tensor], loss: Callable[[], Tensor], n_steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(parameters, lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    fit(lambda step: loss(), optimizer, n_steps, scheduler=scheduler, max_grad_norm=1.0)


def batches(series: Tensor, n: int) -> Callable[[], Tensor]:
    return lambda: series[torch.randint(len(series), (n,))]


def written_by(student: WaveNet, z: Tensor) -> Tensor:
    mean, log_scale = student(z)
    return mean + log_scale.exp() * z


# --- a lag of 48 steps ----------------------------------------------------------------------


class Recurrent(nn.Module):
    """Mean and log-scale of x_t given x_<t from a plain recurrent network's state."""

    def __init__(self, n_units: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, n_units, batch_first=True)
        self.out = nn.Linear(n_units, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        past = nn.functional.pad(x[:, :-1], (1, 0))
        mean, log_scale = self.out(self.rnn(past[..., None])[0]).unbind(2)
        return mean, log_scale


def fit_lag(model: nn.Module, seed: int, n_steps: int) -> float:
    """NLL in nats a step, of what comes after the first 128 steps."""
    process = LaggedProcess(48)
    batch = batches(process.sample(512, 512, seed), 8)

    def loss() -> Tensor:
        x = batch()
        return -gaussian_log_prob(x, *model(x)).mean(1)

    train([*model.parameters()], loss, n_steps, 5e-3)
    x = process.sample(200, 528, 10_000)
    with torch.no_grad():
        log_ratio = gaussian_log_prob(x, *process.conditionals(x)) - gaussian_log_prob(x, *model(x))
    return process.entropy_rate() + log_ratio[:, 128:].mean().item()


def gradient_against_distance(model: nn.Module) -> np.ndarray:
    x = LaggedProcess(48).sample(50, 200, 10_000).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0][:, -1].sum(), x)
    return gradient.square().mean(0).sqrt().flip(0)[1:101].numpy()


def lag(n_seeds: int, n_steps: int) -> dict[str, np.ndarray]:
    nll, table = [], {}
    for n_layers in range(1, 8):
        nll.append([])
        for seed in range(n_seeds):
            seed_everything(seed)
            model = WaveNet(n_layers)
            nll[-1].append(fit_lag(model, seed, n_steps))
            if n_layers == 6 and seed == 0:
                table["wavenet/gradient"] = gradient_against_distance(model)
    recurrent = []
    for seed in range(n_seeds):
        seed_everything(seed)
        rnn = Recurrent(64)
        recurrent.append(fit_lag(rnn, seed, n_steps))
        if seed == 0:
            table["rnn/gradient"] = gradient_against_distance(rnn)
    fields = np.array([2**n_layers for n_layers in range(1, 8)])
    lags = {"lag/fields": fields, "lag/nll": np.array(nll), "rnn/nll": np.array(recurrent)}
    return table | lags


# --- a whispered vowel ----------------------------------------------------------------------


def vowel() -> ArProcess:
    """White noise through three resonances, of variance 1."""
    filtered = np.ones(1)
    for frequency, bandwidth in FORMANTS:
        radius, angle = math.exp(-math.pi * bandwidth / RATE), 2 * math.pi * frequency / RATE
        filtered = np.convolve(filtered, [1, -2 * radius * math.cos(angle), radius**2])
    gain = ArProcess(-filtered[1:]).spectrum(torch.arange(4096) / 4096).mean().sqrt()
    return ArProcess(-filtered[1:], 1 / gain.item())


def spectrum(x: Tensor) -> Tensor:
    """Welch's estimate ``(129,)`` in windows of 256, of series ``(N, T)``."""
    window = torch.hann_window(256)
    parts = x.unfold(1, 256, 128) * window
    return torch.fft.rfft(parts).abs().square().mean((0, 1)) / window.square().sum()


def distil_vowel(n_steps: int) -> dict[str, np.ndarray]:
    process = vowel()
    batch = batches(process.sample(512, 512, 0), 8)
    seed_everything(0)
    teacher, student = WaveNet(6), WaveNet(7)
    train([*teacher.parameters()], lambda: -teacher.log_prob(batch()) / 512, 3 * n_steps, 5e-3)
    teacher.requires_grad_(False)

    def loss() -> Tensor:
        return distillation_kl(student, teacher, torch.randn(8, 512)).kl.mean(1)

    train([*student.parameters()], loss, 4 * n_steps, 5e-3)
    with torch.no_grad():
        x = process.sample(16, 2 * RATE, 1)
        excess = process.log_prob(x) - teacher.log_prob(x)
        z = torch.randn(16, 2 * RATE)
        kl = distillation_kl(student, teacher, z).kl
        sounds = [x, teacher.sample(16, 2 * RATE, generator=2), written_by(student, z)]
    return {
        "vowel/coefficients": process.coefficients.numpy(),
        "vowel/sigma": np.array(process.sigma),
        "vowel/sounds": torch.stack([sound[0] for sound in sounds])
        .mul(LOUDNESS).round().clamp(-127, 127).to(torch.int8).numpy(),
        "vowel/frequency": np.arange(129) * RATE / 256,
        "vowel/spectra": torch.stack([spectrum(sound) for sound in sounds]).numpy(),
        "vowel/excess": (excess / (2 * RATE)).mean().numpy(),
        "vowel/kl": kl.mean().numpy(),
    }  # fmt: skip


# --- bursts ---------------------------------------------------------------------------------


def bursts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-scale of x_t given x_<t: x_t = ½ x_(t−1) + s_t ε_t.

    s_t goes from 0.15, quiet, to 0.7, loud, as the mean of the last three squares passes 0.1; so a
    burst feeds itself for about a dozen steps.
    """
    past = nn.functional.pad(x, (3, 0))[:, :-1]  # (N, T + 2)
    loud = torch.sigmoid((past.square().unfold(1, 3, 1).mean(2) - 0.1) / 0.02)
    return 0.5 * past[:, 2:], math.log(0.15) + math.log(0.7 / 0.15) * loud


def draw_bursts(n: int, length: int, seed: int) -> Tensor:
    """n series ``(n, length)`` after 200 steps that are not kept."""
    noise = torch.randn(n, length + 200, generator=torch.Generator().manual_seed(seed))
    x = torch.zeros(n, 3)
    for z in noise.unbind(1):
        mean, log_scale = bursts(nn.functional.pad(x[:, -3:], (0, 1)))
        x = torch.cat([x, (mean[:, -1] + log_scale[:, -1].exp() * z)[:, None]], 1)
    return x[:, -length:]


def distil_bursts(n_seeds: int, n_steps: int) -> dict[str, np.ndarray]:
    batch, test = batches(draw_bursts(512, 256, 0), 16), draw_bursts(200, 600, 1)
    table: dict[str, list[list[float]]] = {"sd": [], "excess": [], "kl": [], "loud": []}
    series = []
    for seed in range(n_seeds):
        seed_everything(seed)
        teacher, student = WaveNet(4, 16), WaveNet(5, 16)
        train(
            [*teacher.parameters()], lambda m=teacher: -m.log_prob(batch()) / 256, 2 * n_steps, 5e-3
        )
        teacher.requires_grad_(False)
        with torch.no_grad():
            student.b_out[1] = -1.0  # narrower than the teacher's loud scale from the start

        def loss(student: WaveNet = student, teacher: WaveNet = teacher) -> Tensor:
            return distillation_kl(student, teacher, torch.randn(16, 256)).kl.mean(1)

        train([*student.parameters()], loss, 3 * n_steps, 5e-3)
        with torch.no_grad():
            z, late = torch.randn(200, 600), slice(100, None)
            exact = gaussian_log_prob(test, *bursts(test)) - teacher.log_prob_steps(test)
            from_teacher, from_process = (
                distillation_kl(student, other, z).kl[:, late].mean().item()
                for other in (teacher, bursts)
            )
            three = [test, teacher.sample(200, 600, generator=seed), written_by(student, z)]
        middle = 0.5 * math.log(0.15 * 0.7)
        table["sd"].append([x[:, late].std().item() for x in three])
        table["loud"].append(
            [(bursts(x)[1] > middle)[:, late].float().mean().item() for x in three]
        )
        table["excess"].append(exact[:, late].mean().item())
        table["kl"].append([from_teacher, from_process])
        if seed == 0:
            series = [x[:4, late].half().numpy() for x in three]
    found = {f"bursts/{name}": np.array(values) for name, values in table.items()}
    return found | {"bursts/series": np.stack(series)}


# --- 16 bits --------------------------------------------------------------------------------


def mixture_log_prob(out: Tensor, levels: Tensor) -> Tensor:
    """log p(x_t | x_<t) of levels ``(N, T)`` from a network's 3 K outputs ``(3 K, N, T)``.

    A mixture of K logistics, whose mass between the edges of a level is that level's: weights,
    means and log-scales, K outputs each.
    """
    weights, means, log_scales = out.chunk(3)
    log_mass = logistic_level_log_prob(levels, means, log_scales, n_levels=LEVELS)
    return torch.logsumexp(weights.log_softmax(0) + log_mass, 0)


def mu_law(values: Tensor) -> Tensor:
    """Levels 0 … 255 of numbers from −1 to 1: finer near 0, as ears are."""
    curved = values.sign() * torch.log1p(255 * values.abs()) / math.log(256)
    return ((curved + 1) * 128).long().clamp(0, 255)


def sixteen_bits(n_seeds: int, n_steps: int) -> dict[str, np.ndarray]:
    process, edge = vowel(), 5.0  # ±5 standard deviations are the first level and the last

    def levels_of(x: Tensor) -> Tensor:
        return ((x / edge + 1) / 2 * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1)

    values = torch.arange(LEVELS) * (2 / (LEVELS - 1)) - 1
    mu_levels = mu_law(values)
    log_width = mu_levels.bincount(minlength=256).double().log().float()  # of 16-bit levels in each
    train_series, test = process.sample(512, 512, 0), process.sample(100, 512, 1)
    exact = -process.log_prob(test).mean() / 512 - math.log(2 * edge / (LEVELS - 1))

    def mixture(kernel: int, n_layers: int) -> tuple[WaveNet, Callable[[Tensor], Tensor]]:
        model = WaveNet(n_layers, kernel=kernel)
        channels = len(model.w_out)
        model.w_out = nn.Parameter(torch.zeros(channels, 15))
        spread = torch.linspace(-0.4, 0.4, 5)
        model.b_out = nn.Parameter(torch.cat([torch.zeros(5), spread, torch.full((5,), -2.0)]))
        return model, lambda x: mixture_log_prob(model.outputs(values[x] * edge), x)

    def softmax(kernel: int, n_layers: int) -> tuple[WaveNet, Callable[[Tensor], Tensor]]:
        model = WaveNet(n_layers, kernel=kernel, levels=256)
        return model, lambda x: model.log_prob_steps(mu_levels[x]) - log_width[mu_levels[x]]

    nll = np.zeros((2, 2, n_seeds))
    for row, make in enumerate((mixture, softmax)):
        for column, (kernel, n_layers) in enumerate(((2, 6), (3, 4))):
            for seed in range(n_seeds):
                seed_everything(seed)
                model, log_prob = make(kernel, n_layers)
                batch = batches(levels_of(train_series), 8)
                train(
                    [*model.parameters()],
                    lambda f=log_prob, batch=batch: -f(batch()).mean(1),
                    2 * n_steps,
                    5e-3,
                )
                with torch.no_grad():
                    nll[row, column, seed] = -log_prob(levels_of(test)).mean().item()
    return {"sixteen/nll": nll, "sixteen/exact": exact.numpy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--out", type=Path, default=RESULTS / "autoregressive_flows.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the results need full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    table = (
        lag(options.seeds, options.steps)
        | distil_vowel(options.steps)
        | distil_bursts(options.seeds, options.steps)
        | sixteen_bits(options.seeds, options.steps)
    )
    np.savez_compressed(
        options.out,
        **{name: a.astype(np.float32) if a.dtype == float else a for name, a in table.items()},
    )


if __name__ == "__main__":
    main()
