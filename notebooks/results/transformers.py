"""Lecture 14's longer runs: digits as sequences of pixels, bytes, brackets, and what they cost.

    python notebooks/results/transformers.py            # about half an hour of one core
    python notebooks/results/transformers.py --only bytes costs
    python notebooks/results/transformers.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/transformers.npz`` after every training. What stands in the file is not
made again, unless ``--only`` asks for it.

Digits: NAME is one of `PIXELS`, trained and stopped as lecture 12's models are (pixel_models.py).

- ``NAME/parameters`` (); ``NAME/stopped`` (seeds,): the step whose weights were kept;
- ``NAME/nats`` (seeds, 355): −log p(x) in nats of each test image, float32;
- ``NAME/pixels`` (seeds, 64): the same, by pixel, averaged over the test images, float32;
- ``NAME/samples`` (8, 8, 8): drawn by the first seed's model, uint8.

Bytes: a GPT of `BYTES` on `pydoc_text`, batches of 32.

- ``bytes/checked`` (C,), steps, and ``bytes/nats`` (seeds, C): nats a byte of the test text, in
  windows of 64 of which the last 32 bytes count, so that each has at least 32 before it;
- ``bytes/samples`` (C, 160): bytes that the first seed's model has drawn by then, uint8.

Brackets: GPTs of one, two and three layers on words of 32 brackets of two kinds.

- ``brackets L/kl`` (seeds, C): mean KL in nats a token from the exact conditionals, and
  ``brackets L/valid`` (seeds, C): the share of 500 drawn words that are words, after
  ``brackets/checked`` (C,) steps, for L = 1, 2, 3 layers.

Costs, in seconds of one core, medians:

- ``attention/lengths`` (5,) and ``attention/seconds`` (3, 5): attention of 4 heads of 16 numbers,
  forward and backward: dense, strided and fixed;
- ``sampling/seconds`` (2, 512): for each token, with the cache and by full passes, of a GPT with 4
  layers 128 wide that writes one sequence, the least of three runs.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pixel_models import EVERY, STEPS, split
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from dgm_course.data import Brackets, digits, pydoc_text, windows
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.probability import categorical_kl
from dgm_course.sequences import (
    GPT,
    KeyValueCache,
    SparseTransformer,
    Transformer,
    causal_attention,
    sparse_attention,
)
from dgm_course.training import quick, seed_everything, training_steps

Arrays = dict[str, np.ndarray]


def dense_on_a_grid() -> Transformer:
    """Dense attention, and places told by row and column: what the sparse models differ from."""
    model = SparseTransformer(17, 64, 2, 4, 32, stride=8)
    for block in model.blocks:
        block.attention = causal_attention
    return model


PIXELS: dict[str, Callable[[], Transformer]] = {
    "GPT": lambda: GPT(17, 64, n_layers=2, n_heads=4, width=32),
    "strided": lambda: SparseTransformer(17, 64, 2, 4, 32, pattern="strided", stride=8),
    "fixed": lambda: SparseTransformer(17, 64, 2, 4, 32, pattern="fixed", stride=8),
    "rows and columns": dense_on_a_grid,
    "no positions": lambda: GPT(17, 64, n_layers=2, n_heads=4, width=32, positions=False),
}
BYTES, BYTE_STEPS = {"n_layers": 2, "n_heads": 4, "width": 64}, 4000
BRACKET_STEPS, LENGTH = 1500, 32
PIXEL_RATE = 1e-2
LENGTHS = (256, 512, 1024, 2048, 4096)


def descend(
    model: Transformer, batch: Callable[[], Tensor], n_steps: int, rate: float, every: int
) -> Iterator[int]:
    """Adam with one cycle of its rate, a batch a step; yields a step every few, and the last."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = OneCycleLR(optimizer, rate, total_steps=n_steps)
    steps = training_steps(
        lambda step: -model.log_prob(batch()), optimizer, n_steps, scheduler, max_grad_norm=1.0
    )
    for step, _ in enumerate(tqdm(steps, total=n_steps, unit="step", leave=False), 1):
        if step % every == 0 or step == n_steps:
            yield step


@torch.no_grad()
def nats_of(model: Transformer, tokens: Tensor) -> Tensor:
    """−log p(x_t | x_<t) of every token, ``(N, T)``."""
    return -torch.cat([model.log_prob_steps(rows) for rows in tokens.split(256)])


def drawn_from(rows: Tensor, n: int) -> Callable[[], Tensor]:
    return lambda: rows[torch.randint(len(rows), (n,))]


def train_pixels(name: str, seed: int, n_steps: int = STEPS) -> tuple[Transformer, int]:
    """As lecture 12's models: batches of 64, the weights with the fewest nats on 200 images."""
    seed_everything(seed)
    to_train, to_stop = (images.flatten(1) for images in split())
    model = PIXELS[name]()
    best, kept, stopped = float("inf"), model.state_dict(), 0
    for step in descend(model, drawn_from(to_train, 64), n_steps, PIXEL_RATE, EVERY):
        nats = nats_of(model, to_stop).sum(1).mean().item()
        if nats < best:
            best, kept, stopped = nats, copy.deepcopy(model.state_dict()), step
    model.load_state_dict(kept)
    return model.requires_grad_(False).eval(), stopped


def pixels(name: str, seed: int, n_steps: int) -> Arrays:
    model, stopped = train_pixels(name, seed, n_steps)
    nats = nats_of(model, digits("test").images.flatten(1))
    new = {"nats": nats.sum(1), "pixels": nats.mean(0), "stopped": np.array(stopped)}
    if seed == 0:
        new["parameters"] = np.array(sum(p.numel() for p in model.parameters()))
        samples = model.sample(8, 64, generator=0).view(8, 8, 8)
        new["samples"] = samples.numpy().astype(np.uint8)
    return {f"{name}/{key}": np.asarray(value) for key, value in new.items()}


def bytes_of_text(seed: int, n_steps: int) -> Arrays:
    seed_everything(seed)
    model = GPT(256, 64, **BYTES)
    rows, held_out = windows(pydoc_text(), 64, 1), windows(pydoc_text("test"), 64, 32)
    checked, nats, samples = [], [], []
    every = max(n_steps // 20, 1)
    for step in descend(model, drawn_from(rows, 32), n_steps, 5e-3, every):
        checked.append(step)
        nats.append(nats_of(model, held_out)[:, 32:].mean().item())
        samples.append(written(model).numpy().astype(np.uint8))
    new = {"bytes/nats": np.array(nats)}
    if seed == 0:
        new |= {"bytes/checked": np.array(checked), "bytes/samples": np.array(samples)}
    return new


def written(model: GPT) -> Tensor:
    """160 bytes ``(160,)``, each from as many before it as the context holds."""
    text = model.sample(1, 64, generator=0)
    for i in range(3):
        text = torch.cat([text, model.sample(1, 64, text[:, -32:], generator=i + 1)[:, 32:]], 1)
    return text[0]


def brackets(n_layers: int, seed: int, n_steps: int) -> Arrays:
    seed_everything(seed)
    source = Brackets(n_kinds=2)
    words = source.sample(20_000, LENGTH, generator=seed)
    held_out = source.sample(500, LENGTH, generator=10_000 + seed)
    exact = source.conditionals(held_out)
    model = GPT(4, LENGTH, n_layers=n_layers, n_heads=4, width=32)
    checked, kls, valid = [], [], []
    every = max(n_steps // 15, 1)
    for step in descend(model, drawn_from(words, 64), n_steps, 5e-3, every):
        checked.append(step)
        with torch.no_grad():
            kls.append(categorical_kl(exact, model(held_out).double()).mean().item())
        valid.append(source.is_valid(model.sample(500, LENGTH, generator=0)).double().mean())
    new = {"kl": np.array(kls), "valid": np.array(valid)}
    return {f"brackets {n_layers}/{key}": value for key, value in new.items()} | (
        {"brackets/checked": np.array(checked)} if seed == 0 else {}
    )


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The median time on one core."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def attention_seconds() -> Arrays:
    found = []
    for length in LENGTHS:
        qkv = torch.randn(3, 1, 4, length, 16).requires_grad_()
        stride = math.isqrt(length - 1) + 1
        ways = [causal_attention]
        ways += [partial(sparse_attention, stride=stride, pattern=p) for p in ("strided", "fixed")]
        found.append([seconds(partial(there_and_back, way, qkv), 7) for way in ways])
    arrays = {"lengths": np.array(LENGTHS), "seconds": np.array(found).T}
    return {f"attention/{key}": value for key, value in arrays.items()}


def there_and_back(attention: Callable[..., Tensor], qkv: Tensor) -> None:
    attention(*qkv).sum().backward()


@torch.no_grad()
def sampling_seconds() -> Arrays:
    model = GPT(256, 512, n_layers=4, n_heads=4, width=128)
    read = torch.randint(256, (1, 512))
    runs = []
    for _ in range(3):
        past, times = KeyValueCache(model, 1, 512), np.zeros((2, 512))
        for t in range(512):
            ways = partial(past, read[:, t : t + 1]), partial(model.logits_of, read[:, : t + 1])
            times[:, t] = [seconds(way, 1) for way in ways]
        runs.append(times)
    return {"sampling/seconds": np.min(runs, 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="fewer, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS / "transformers.npz")
    trained: dict[str, tuple[int, Callable[[int, int], Arrays]]] = {
        name: (STEPS, partial(pixels, name)) for name in PIXELS
    }
    trained["bytes"] = (BYTE_STEPS, bytes_of_text)
    trained |= {f"brackets {n}": (BRACKET_STEPS, partial(brackets, n)) for n in (1, 2, 3)}
    costs = {"attention": attention_seconds, "sampling": sampling_seconds}
    parser.add_argument("--only", nargs="+", choices=[*trained, *costs], metavar="NAME")
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    found: Arrays = {}
    if options.out.exists():
        with np.load(options.out) as file:
            found = dict(file)
    wanted = options.only or [*trained, *costs]
    if options.only:
        found = {key: v for key, v in found.items() if key.split("/")[0] not in wanted}
    for name in [n for n in trained if n in wanted]:
        n_steps, train = trained[name]
        rows = found.get(f"{name}/kl", found.get(f"{name}/nats", ()))
        for seed in range(len(rows), options.seeds):
            for key, value in train(seed, options.steps or n_steps).items():
                found[key] = joined(found.get(key), value, key)
            save_results(options.out, found)
            measure = found.get(f"{name}/kl", found.get(f"{name}/nats"))[-1]
            print(name, seed, measure.mean().round(3), measure[-1].round(4), flush=True)
    for name in [n for n in costs if n in wanted and f"{n}/seconds" not in found]:
        found |= costs[name]()
        save_results(options.out, found)
        print(name, found[f"{name}/seconds"].round(4), flush=True)


def joined(before: np.ndarray | None, value: np.ndarray, key: str) -> np.ndarray:
    """A seed's row below those of the seeds before it; what is no seed's stays as it is."""
    if key.endswith(("/parameters", "/samples", "/checked")):
        return value
    row = np.asarray(value, np.float32 if value.dtype.kind == "f" else None)[None]
    return row if before is None else np.concatenate([before, row])


if __name__ == "__main__":
    main()
