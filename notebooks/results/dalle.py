"""Lecture 14's runs: what a small DALL·E draws for captions that it has seen, and for four unseen.

    python notebooks/results/dalle.py               # twelve minutes of one core
    python notebooks/results/dalle.py --only patches --seeds 10
    python notebooks/results/dalle.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/dalle.npz`` after every run, and keeps what the file has. A run's model,
a GPT of 2 layers × 48, has read the training canvases of the 36 seen captions of
``captioned_digits``. The first stages R, all of 64 codes on a grid of 4 × 8:

- ``patches``: k-means of patches of 2 × 2 pixels;
- ``vqvae``: a convolutional VQ-VAE whose codes start on data, and dead ones are restarted;
- ``vqvae without restarts``: the same with codes that start as noise and are left alone.

Of every R, for S seeds (0, 1, …), in the order of ``CAPTIONS`` where there are 40 of them:

- ``R/ceiling``, ``R/ceiling_error`` (S,): the share of all 1420 test canvases that the judge still
  reads right after the way through the first stage and back, and its standard error;
  ``R/perplexity`` (S,): of its codes on them;
- ``R/right`` (S, 3, 40): the share of 20 pictures that are what their caption says, by the judge,
  at the ``temperatures`` (3,); ``R/distinct`` (S, 3): the share of all pictures that are unlike all
  others of their caption;
- ``R/words`` (S, 40, 3): how often brightness, digit and side are right, at temperature 1;
- ``R/bayes`` (S, 2, 40): how often the likeliest caption of a test canvas by Bayes' rule is its
  own, of 10 canvases a caption: with the model's own log p(c), and with equal ones;
- ``R/text`` (S, 40): −log p(c) in nats; ``R/image`` (S, 40): the mean of −log p(z|c) of those
  canvases;
- ``R/curve/text``, ``R/curve/image`` (S, T): both, of those of the 360 canvases whose captions are
  seen, after ``R/curve/step`` (T,) steps.

Of seed 0: ``R/pictures`` (40, 4, 8, 16) uint8, four at temperature 1; ``R/reconstructed``
(10, 8, 16) uint8, of the test canvases ``shown`` (10, 8, 16). ``patches/weights`` float16 are the
GPT's parameters in their order, with which ``patches/codebook`` (64, 4) goes. ``held_out`` (40,) is
true at unseen captions, ``judge_error`` (2,) is how often the judge misreads a real test canvas,
and the standard error of that, and ``steps`` () the runs' length.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from dgm_course.codes import VQVAE, ModelTokens, PatchTokens, VectorQuantizer
from dgm_course.data import (
    CAPTIONS,
    HELD_OUT,
    WORDS,
    CaptionJudge,
    captioned_digits,
    encode_caption,
)
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.probability import Estimate
from dgm_course.sequences import DALLE, GPT
from dgm_course.training import fit, quick, seed_everything

Tokens = PatchTokens | ModelTokens
N_CODES, GRID, BATCH = 64, (4, 8), 64
TEMPERATURES = (0.5, 0.75, 1.0)
N_PICTURES, N_CANVASES, N_POINTS = 20, 10, 20  # of a caption; of a caption; of a curve
EVERY = torch.stack([encode_caption(caption) for caption in CAPTIONS])  # (40, 3)


def new_model(codes: Tokens) -> DALLE:
    """A small DALL·E, before training."""
    n_words, n_text = len(WORDS), EVERY.shape[1]
    gpt = GPT(n_words + N_CODES + 1, n_text + GRID[0] * GRID[1], n_layers=2, n_heads=4, width=48)
    return DALLE(gpt, codes, n_words, n_text, GRID)


def patches(x: Tensor, n_steps: int) -> PatchTokens:
    return PatchTokens(N_CODES).fit(x)


def vqvae(x: Tensor, n_steps: int, restart: float | None = 0.05) -> ModelTokens:
    """Half as many steps as the GPT takes; without restarts the codes also start as noise."""
    quantizer = VectorQuantizer(N_CODES, 8, decay=0.95, restart=restart)
    model = VQVAE(17, quantizer, n_features=32)
    if restart is not None:
        quantizer.initialise(model.features(some(x, 500)))
    train(lambda step: model.terms(some(x, BATCH)).loss, model, max(1, n_steps // 2), 3e-3)
    return ModelTokens(model.eval())


def without_restarts(x: Tensor, n_steps: int) -> ModelTokens:
    return vqvae(x, n_steps, restart=None)


STAGES: dict[str, Callable[[Tensor, int], Tokens]] = {
    "patches": patches,
    "vqvae": vqvae,
    "vqvae without restarts": without_restarts,
}


def some(x: Tensor, n: int) -> Tensor:
    return x[torch.randint(len(x), (n,))]


def train(loss: Callable[[int], Tensor], model: torch.nn.Module, n_steps: int, rate: float) -> None:
    """Adam, its learning rate up and down again."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps)
    fit(loss, optimizer, n_steps, scheduler=scheduler, max_grad_norm=1.0)


def held_out() -> Tensor:
    """Which of the captions no training sees, ``(40,)``."""
    return torch.tensor([caption in HELD_OUT for caption in CAPTIONS])


def test_canvases() -> Tensor:
    """Canvases of each caption, evenly from the test split, ``(40, N_CANVASES, 1, 8, 16)``."""
    images, captions = captioned_digits("test", "all")
    rows = [(captions == caption).all(1).nonzero()[:, 0] for caption in EVERY]
    evenly = [row[torch.linspace(0, len(row) - 1, N_CANVASES).long()] for row in rows]
    return images[torch.stack(evenly)]


def learn(model: DALLE, n_steps: int) -> dict[str, np.ndarray]:
    """Stage 2 on what training may see, and its curve."""
    images, captions = captioned_digits("train", "seen")
    z, seen = model.encode(images), ~held_out()
    watched = model.encode(test_canvases()[seen].flatten(0, 1))
    of_watched = EVERY[seen].repeat_interleave(N_CANVASES, 0)
    curve: dict[str, list[float]] = {"step": [], "text": [], "image": []}

    @torch.no_grad()
    def look(step: int) -> None:
        nats = (-part.mean().item() for part in model.terms(of_watched, watched))
        for values, value in zip(curve.values(), (step, *nats), strict=True):
            values.append(value)

    def loss(step: int) -> Tensor:
        if step % max(1, n_steps // N_POINTS) == 0:
            look(step)
        i = torch.randint(len(z), (BATCH,))
        return model.loss(captions[i], z[i])

    train(loss, model.model, n_steps, 1e-2)
    look(n_steps)
    model.requires_grad_(False)
    return {f"curve/{key}": np.array(values, np.float32) for key, values in curve.items()}


def reconstructed(codes: Tokens, judge: CaptionJudge) -> dict[str, float]:
    """What of the test canvases is left after the way through the first stage and back."""
    images, captions = captioned_digits("test", "all")
    z = codes.encode(images)
    right = judge.right(codes.decode(z), captions).double().view(4, -1)  # four canvases a digit
    ceiling = Estimate.from_samples(right.mean(0))
    perplexity = VectorQuantizer(N_CODES, 1).perplexity(z)
    return {
        "ceiling": ceiling.value, "ceiling_error": ceiling.standard_error, "perplexity": perplexity,
    }  # fmt: skip


def drawn(model: DALLE, judge: CaptionJudge) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """How often pictures are right, and four of each caption."""
    right = np.zeros((len(TEMPERATURES), len(CAPTIONS)))
    words, distinct = np.zeros(EVERY.shape), np.zeros(len(TEMPERATURES))
    pictures = []
    for i, temperature in enumerate(TEMPERATURES):
        for c, caption in enumerate(EVERY):
            images = model.generate(caption, N_PICTURES, temperature=temperature)
            agree = (judge(images) == caption).double()
            right[i, c], words[c] = agree.prod(1).mean(), agree.mean(0)  # the last is at 1
            _, counts = images.flatten(1).unique(dim=0, return_counts=True)
            distinct[i] += (counts == 1).sum() / N_PICTURES / len(CAPTIONS)
            if temperature == 1:
                pictures.append(images[:4, 0])
    found = {"right": right, "words": words, "distinct": distinct}
    return found, torch.stack(pictures).numpy().astype(np.uint8)


@torch.no_grad()
def read(model: DALLE) -> dict[str, np.ndarray]:
    """The captions of test canvases by Bayes' rule, and their nats."""
    images = test_canvases()
    own = torch.arange(len(EVERY)).repeat_interleave(N_CANVASES)
    bayes = [
        (model.caption_log_prob(images.flatten(0, 1), EVERY, log_prior).argmax(1) == own)
        for log_prior in (None, torch.zeros(len(EVERY)))
    ]
    terms = model.terms(EVERY[own], model.encode(images.flatten(0, 1)))
    text, image = (-part.view(-1, N_CANVASES).mean(1) for part in terms)
    shares = torch.stack(bayes).double().view(2, -1, N_CANVASES).mean(2)
    return {"bayes": shares.numpy(), "text": text.numpy(), "image": image.numpy()}


def one_seed(name: str, seed: int, n_steps: int, judge: CaptionJudge) -> dict[str, np.ndarray]:
    """All that is stored of one first stage with one seed."""
    seed_everything(seed)
    codes = STAGES[name](captioned_digits("train", "seen").images, n_steps)
    codes.requires_grad_(False)
    model = new_model(codes)
    found = learn(model, n_steps)
    shares, pictures = drawn(model, judge)
    found |= {key: np.float32(v) for key, v in reconstructed(codes, judge).items()}
    found |= {key: v.astype(np.float32) for key, v in (shares | read(model)).items()}
    if seed == 0:
        back = codes.decode(codes.encode(shown()))[:, 0]
        found |= {"pictures": pictures, "reconstructed": back.numpy().astype(np.uint8)}
        if isinstance(codes, PatchTokens):
            weights = parameters_to_vector(model.model.parameters())
            found |= {"weights": weights.numpy().astype(np.float16)}
            found |= {"codebook": codes.quantizer.codebook.numpy()}
    return found


def shown() -> Tensor:
    """A test canvas of each digit, four captions in turn, ``(10, 1, 8, 16)``."""
    canvases = test_canvases()[:, 0]
    kinds = [(d % 4 // 2, d % 2) for d in range(10)]  # brightness, side
    return canvases[[20 * bright + 2 * d + side for d, (bright, side) in enumerate(kinds)]]


WHOLE = ("curve/step", "pictures", "reconstructed", "weights", "codebook")  # not one row a seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "dalle.npz")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    if quick():
        parser.error("what is stored needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    found: dict[str, np.ndarray] = dict(np.load(options.out)) if options.out.exists() else {}
    if "steps" in found and found["steps"] != options.steps:
        parser.error(f"{options.out} holds runs of {found['steps']} steps; give another --out")
    judge, unseen = CaptionJudge(), held_out().numpy()
    found |= {"steps": np.array(options.steps), "held_out": unseen}
    found |= {"judge_error": np.array(judge.error), "temperatures": np.array(TEMPERATURES)}
    found |= {"shown": shown()[:, 0].numpy().astype(np.uint8)}
    for name in options.only:
        for seed in range(len(found.get(f"{name}/ceiling", ())), options.seeds):
            for key, value in one_seed(name, seed, options.steps, judge).items():
                row = np.asarray(value) if key in WHOLE else np.asarray(value)[None]
                at = f"{name}/{key}"
                found[at] = row if key in WHOLE or seed == 0 else np.concatenate([found[at], row])
            save_results(options.out, found)
            right, bayes = found[f"{name}/right"][-1, -1], found[f"{name}/bayes"][-1]
            print(
                f"{name} {seed}: ceiling {found[f'{name}/ceiling'][-1]:.3f}, "
                f"seen {right[~unseen].mean():.3f}, unseen {right[unseen].mean():.3f}, captions by "
                f"Bayes {bayes[:, ~unseen].mean(1).round(3)}, unseen {bayes[:, unseen].mean(1)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
