"""Lecture 2: an EM iteration beside scikit-learn's, its memory, and its cost over N."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture

from dgm_course.mixtures import GaussianMixture
from tests.benchmarks.harness import Row, in_turn

# N, K, D, and the most that an iteration may cost, of scikit-learn's.
SIZES = ((100_000, 8, 2, 0.3), (20_000, 10, 16, 0.6))
ITERATIONS = 10


def problem(n: int, k: int, d: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Data of a random mixture of K full Gaussians, and a start near it."""
    rng = np.random.default_rng(seed)
    means = 3 * rng.normal(size=(k, d))
    roots = 0.5 * rng.normal(size=(k, d, d)) + np.eye(d)
    x, z = rng.normal(size=(n, d)), rng.integers(k, size=n)
    for j in range(k):
        x[z == j] = x[z == j] @ roots[j].T + means[j]
    start = {
        "weights_init": np.full(k, 1 / k),
        "means_init": means + 0.3 * rng.normal(size=(k, d)),
        "precisions_init": np.stack([np.eye(d)] * k),
    }
    return x, start


def iterations(
    model: type, x: np.ndarray, start: dict[str, np.ndarray], n: int
) -> GaussianMixture | SklearnMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        k = len(start["weights_init"])
        return model(k, tol=0, max_iter=n, **start).fit(x)


def em_iterations() -> list[Row]:
    """Seconds of an iteration: what more iterations add to a fit, so that starts do not count."""
    rows = []
    for n, k, d, limit in SIZES:
        x, start = problem(n, k, d)
        models = {"ours": GaussianMixture, "scikit-learn": SklearnMixture}
        ours, theirs = (iterations(m, x, start, ITERATIONS) for m in models.values())
        for name in ("weights_", "means_", "covariances_", "lower_bound_"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert np.abs(a - b).max() <= 1e-6 * np.abs(b).max(), f"{name} differs"

        def run(model: type, count: int, x: np.ndarray, start: dict) -> Callable[[], object]:
            return lambda: iterations(model, x, start, count)

        runs = {
            (name, count): run(model, count, x, start)
            for name, model in models.items()
            for count in (1, 1 + ITERATIONS)
        }
        times = in_turn(runs, rounds=5)
        each = {m: (times[m, 1 + ITERATIONS] - times[m, 1]) / ITERATIONS for m in models}
        what = f"EM iteration, full covariances, N = {n:,}, K = {k}, D = {d}"
        rows.append(Row(what, each["ours"], each["scikit-learn"], "scikit-learn", limit))
    return rows


MEMORY = """
import resource
from tests.benchmarks.mixtures import GaussianMixture, SklearnMixture, iterations, problem
iterations({model}, *problem(1000, {k}, {d}), 3)  # what a library's first call allocates
x, start = problem({n}, {k}, {d})
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * resource.getpagesize() / 1024  # now, in kB
iterations({model}, x, start, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory() -> list[Row]:
    """What a fit adds to a process at its peak, each in a process of its own; Linux."""
    rows = []
    for n, k, d, _ in SIZES:
        n *= 10
        peaks = {}
        for model in ("GaussianMixture", "SklearnMixture"):
            code = MEMORY.format(n=n, k=k, d=d, model=model)
            run = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            )
            peaks[model] = float(run.stdout) / 1024  # MB
        what = f"memory of a fit, MB, N = {n:,}, K = {k}, D = {d}"
        ours, theirs = (peak / 1e3 for peak in peaks.values())  # the table multiplies by 1000
        rows.append(Row(what, ours, theirs, "scikit-learn", 1.5))
    return rows


def growth() -> list[Row]:
    """Cost over N, at most linear: ten times the points beside ten times the cost; drawn."""
    ns = (3_000, 10_000, 30_000, 100_000, 300_000)
    seconds = {}
    for n in ns:
        x, start = problem(n, 8, 2)
        runs = []
        for _ in range(5):
            fits = []
            for count in (1, 1 + ITERATIONS):
                begin = time.perf_counter()
                iterations(GaussianMixture, x, start, count)
                fits.append(time.perf_counter() - begin)
            runs.append((fits[1] - fits[0]) / ITERATIONS)
        seconds[n] = sorted(runs)[2]
    draw(np.array(ns), np.array([seconds[n] for n in ns]))
    what = "EM iteration, N = 300,000, K = 8, D = 2"
    return [Row(what, seconds[300_000], 10 * seconds[30_000], "ten times N = 30,000", 1.3)]


def draw(ns: np.ndarray, seconds: np.ndarray) -> None:
    """Keep the curve under out/, where nothing is committed."""
    from dgm_course import plots

    fig = plots.figure(6.4, 3.6)
    (ax,) = plots.axes(fig)
    plots.line(ax, ns, 1e3 * seconds, label="an EM iteration, K = 8, D = 2", marker="o")
    linear = 1e3 * seconds[-1] * ns / ns[-1]
    plots.line(ax, ns, linear, label="slope of N", color=plots.BLACK, style="--")
    ax.set(xscale="log", yscale="log", xlabel="points N", ylabel="milliseconds")
    plots.legend(ax)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "mixtures_growth.png").write_bytes(plots.to_png(fig))


SECTIONS = (em_iterations, memory, growth)
