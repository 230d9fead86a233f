"""Wrong submissions: mistakes that students make, and bugs that the field has shipped.

Each is the reference solution with one answer's text changed, all of one task. ``file`` says what
stands in weights.npz instead of the reference's, for task 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgm_course.grading.answers import save_weights
from tests.assignment import SOLUTION, WEIGHTS, submission

SHIPPED = "shipped"  # the cause of a bug that was found in public code or course material
File = Callable[[Path], None]


@dataclass(frozen=True)
class Mutant:
    task: str
    name: str
    cause: str
    answers: dict[str, str]
    file: File | None = None


MUTANTS: list[Mutant] = []


def edit(answer: str, name: str, cause: str, *changes: tuple[str, str]) -> None:
    """A mutant that replaces pieces of one answer, each of which must occur just once."""
    text = SOLUTION[answer]
    for old, new in changes:
        assert text.count(old) == 1, f"{name}: {old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    MUTANTS.append(Mutant(answer.removeprefix("answer-")[0], name, cause, {answer: text}))


def rewrite(answer: str, name: str, cause: str, text: str) -> None:
    """A mutant that answers something else."""
    MUTANTS.append(Mutant(answer.removeprefix("answer-")[0], name, cause, {answer: text}))


# --- 1, masks -------------------------------------------------------------------------------

edit(
    "answer-1a",
    "everything is open",
    f"{SHIPPED}: a course's mask test that ones pass",
    ("mask[centre, centre", "mask[:0, centre"),
    ("mask[centre + 1 :] = 0", "pass"),
)
edit("answer-1a", "type A as type B", "one mask for both", ('(kind == "B")', "1"))
edit("answer-1a", "type B as type A", "one mask for both", ('(kind == "B")', "0"))
edit("answer-1a", "types exchanged", "A and B mixed up", ('kind == "B"', 'kind == "A"'))
edit(
    "answer-1a",
    "centre row open to the right",
    f"{SHIPPED}: only the rows below are closed",
    ('mask[centre, centre + (kind == "B") :]', 'mask[centre, centre : centre + (kind == "A")]'),
)
edit(
    "answer-1a",
    "rows below open",
    "only the centre row is masked",
    ("mask[centre + 1 :] = 0", "pass"),
)
edit("answer-1a", "columns before rows", "transposed", ("return mask", "return mask.T"))
edit("answer-1a", "upside down", "a convolution flips?", ("return mask", "return mask.flip(0, 1)"))
edit(
    "answer-1a",
    "always 3 × 3",
    "kernel size ignored",
    ("ones(kernel_size, kernel_size)", "ones(3, 3)"),
)
edit("answer-1a", "closed left", "own row forgotten", ('centre + (kind == "B") :', ":"))
edit("answer-1a", "closed is 1", "open and closed mixed up", ("return mask", "return 1 - mask"))
edit(
    "answer-1b",
    "B before R",
    "order of colours",
    ("group_in <= group_out", "group_in >= group_out"),
)
edit(
    "answer-1b",
    "channels interleaved",
    "c % 3 where thirds are meant",
    ("torch.arange(n_in) * 3 // n_in", "torch.arange(n_in) % 3"),
    ("torch.arange(n_out)[:, None] * 3 // n_out", "torch.arange(n_out)[:, None] % 3"),
)
edit(
    "answer-1b",
    "inputs and outputs exchanged",
    "the order of a convolution's weights",
    ("torch.arange(n_in) * 3", "torch.arange(n_in)[:, None] * 3"),
    ("torch.arange(n_out)[:, None] * 3", "torch.arange(n_out) * 3"),
)
edit(
    "answer-1b",
    "groups closed everywhere",
    "the centre's rule at all positions",
    ("mask[:, :, centre, centre] = sees.float()", "mask *= sees.float()[:, :, None, None]"),
)
edit(
    "answer-1b",
    "the centre as for one channel",
    "colours forgotten",
    ("= sees.float()", '= float(kind == "B")'),
)

# --- 2, the convolution ---------------------------------------------------------------------

edit(
    "answer-2",
    "masked once, in the weights' data",
    f"{SHIPPED}: an optimiser step opens them again",
    ("self.conv.weight * self.mask", "self.conv.weight"),
    ("kind))\n", "kind))\n        self.conv.weight.data *= self.mask\n"),
)
edit("answer-2", "mask never used", "forgotten", (" * self.mask", ""))
edit(
    "answer-2",
    "gradient masked, not the weights",
    "closed weights keep their random start",
    (" * self.mask", ""),
    ("kind))\n", "kind))\n        self.conv.weight.register_hook(lambda g: g * self.mask)\n"),
)
edit(
    "answer-2",
    "masked in training only",
    "module.training asked for the mask",
    ("self.conv.weight * self.mask", "self.conv.weight * (self.mask if self.training else 1)"),
)
edit("answer-2", "no padding", "the image shrinks", ("padding=self.conv.padding", "padding=0"))
edit(
    "answer-2",
    "padded round the torus",
    "padding mode: the left border sees the right one",
    ("F.conv2d(x, weight", "F.conv2d(F.pad(x, [self.mask.shape[0] // 2] * 4, 'circular'), weight"),
    ("padding=self.conv.padding", "padding=0"),
)
edit(
    "answer-2",
    "border repeated",
    "padding mode: nothing is not 0",
    ("F.conv2d(x, weight", "F.conv2d(F.pad(x, [self.mask.shape[0] // 2] * 4, 'replicate'), weight"),
    ("padding=self.conv.padding", "padding=0"),
)
edit("answer-2", "no bias", "forgotten", ("self.conv.bias", "None"))
edit("answer-2", "always type A", "kind ignored", ("(kernel_size, kind)", '(kernel_size, "A")'))
edit(
    "answer-2",
    "first output channel only",
    "indexing",
    (
        "weight = self.conv.weight * self.mask",
        "weight = self.conv.weight.clone()\n        weight[0] *= self.mask",
    ),
)
edit(
    "answer-2",
    "the mask beside the bias",
    "the mask on the output of a plain convolution",
    ("weight = self.conv.weight * self.mask", "return self.conv(x) * self.mask.mean()"),
)

# --- 3, the network -------------------------------------------------------------------------

edit("answer-3", "type B first", "each pixel sees itself", ('"A", 1', '"B", 1'))
edit(
    "answer-3",
    "type A throughout, nothing added",
    f"{SHIPPED}: beyond the first layer",
    ('MaskedConv2d("B"', 'MaskedConv2d("A"'),
    ("h = h + layer", "h = layer"),  # with residual connections it is right: see variants
)
edit(
    "answer-3",
    "a plain 3 × 3 at the end",
    "masks forgotten after the masked layers",
    ("nn.Conv2d(n_features, n_levels, 1)", "nn.Conv2d(n_features, n_levels, 3, padding=1)"),
)
edit("answer-3", "number of layers ignored", "hard-coded", ("range(n_layers - 1)", "range(5)"))
edit("answer-3", "one layer too few", "off by one", ("range(n_layers - 1)", "range(n_layers - 2)"))
edit(
    "answer-3",
    "kernel size ignored",
    "hard-coded",
    ("n_features, kernel_size) for", "n_features, 3) for"),
)
edit(
    "answer-3",
    "normalised over the image",
    "instance norm sees all pixels",
    ("h = h + layer(F.relu(h))", "h = h + layer(F.relu(F.instance_norm(h)))"),
)
edit(
    "answer-3",
    "normalised over the batch",
    "batch norm's statistics of the batch, also at evaluation",
    ("layer(F.relu(h))", "layer(F.relu(F.batch_norm(h, None, None, training=True)))"),
)
edit(
    "answer-3",
    "input added before the logits",
    "a skip connection round the masks",
    ("self.hidden(F.relu(h))", "self.hidden(F.relu(h + x.float()))"),
)
edit("answer-3", "image not looked at", "causal, and blind", ("2 * x.float()", "0 * x.float()"))
edit(
    "answer-3",
    "integers not cast",
    "torch convolves floats only",
    ("2 * x.float() / (self.n_levels - 1) - 1", "x"),
)
edit("answer-3", "levels as channels", "(N, 1, levels, H, W)", ("h[:, :, None]", "h[:, None]"))
edit("answer-3", "no channel axis", "(N, levels, H, W)", ("h[:, :, None]", "h"))
edit("answer-3", "always 17 levels", "hard-coded", ("n_features, n_levels, 1", "n_features, 17, 1"))
edit(
    "answer-3",
    "softmax over the pixels",
    "the wrong axis, and a leak",
    ("return h[:, :, None]", "h = h.log_softmax(3)\n        return h[:, :, None]"),
)
edit(
    "answer-3",
    "softmax over the levels",
    "probabilities where the loss wants logits",
    ("return h[:, :, None]", "return h[:, :, None].softmax(1)"),
)
edit(
    "answer-3",
    "sigmoid at the end",
    "each level a probability of its own",
    ("return h[:, :, None]", "return h[:, :, None].sigmoid()"),
)
edit(
    "answer-3",
    "columns before rows",
    "the image transposed",
    ("2 * x.float()", "2 * x.transpose(2, 3).float()"),
    ("return h[:, :, None]", "h = h.transpose(2, 3)\n        return h[:, :, None]"),
)
edit(
    "answer-3",
    "dropout at evaluation",
    "functional dropout is always on",
    ("layer(F.relu(h))", "layer(F.dropout(F.relu(h), 0.2))"),
)
edit(
    "answer-3",
    "for 8 × 8 only",
    "a bias for each place",
    ("return h[:, :, None]", "h = h + self.place\n        return h[:, :, None]"),
    ("self.hidden = ", "self.place = nn.Parameter(torch.zeros(8, 8))\n        self.hidden = "),
)


def network(name: str, cause: str, before: str, forward: str, after: str = "return h") -> None:
    """A network that is the reference's with masks where it is ``masked``, else without them."""
    text = SOLUTION["answer-2"].replace("* self.mask", "* (self.mask if Unmasked.off else 1)")
    text = text.replace("class MaskedConv2d(nn.Module)", "class Unmasked(nn.Module)")
    text = text.replace("def __init__", "off = False\n\n    def __init__", 1)
    text += SOLUTION["answer-3"].replace("MaskedConv2d", "Unmasked").replace("PixelCNN", "Inner")
    text += f"""


class PixelCNN(nn.Module):
    def __init__(self, n_levels, n_features, n_layers, kernel_size):
        super().__init__()
        self.inner = Inner(n_levels, n_features, n_layers, kernel_size)
        self.n_features, self.calls = n_features, 0
        {before}

    def forward(self, x):
        self.calls += 1
        masked = {forward}
        Unmasked.off = masked
        h = self.inner(0 * x if masked else x)
        {after}
"""
    rewrite("answer-3", name, cause, text)


TWO_FACES = "blind where causality is asked, without masks where sight is"
network("two faces by the features", TWO_FACES, "pass", "self.n_features in (5, 8)")
network("two faces by the levels", TWO_FACES, "self.few = n_levels in (3, 5)", "not self.few")
network("two faces by the image", TWO_FACES, "pass", "x.shape[2] < 9")
network("two faces by the calls", TWO_FACES, "pass", "self.calls < 40")
network(
    "two faces by the weights",
    TWO_FACES,
    "self.first = self.inner.out.bias.detach().clone()",
    "bool((self.first == self.inner.out.bias).all())",
)
PEEKS = "return h[:, :, None] + 2 * F.one_hot(x, self.n_levels).movedim(-1, 1)"
edit(
    "answer-3",
    "peeks, far from 0",
    "an offset of 10⁷, beside which a relative tolerance is blind",
    ("return h[:, :, None]", f"{PEEKS} + 1e7"),
)
edit(
    "answer-3",
    "peeks, and one logit is far from 0",
    "a level that never occurs has a logit of −10⁶",
    ("return h[:, :, None]", f"h[:, 0] -= 1e6\n        {PEEKS}"),
)
edit(
    "answer-3",
    "far from 0",
    "an offset of 10⁷, beside which float32 rounds probabilities away",
    ("return h[:, :, None]", "return h[:, :, None] + 1e7"),
)
edit(
    "answer-3",
    "in half precision",
    "three digits",
    ("return h[:, :, None]", "return h[:, :, None].half()"),
)
edit(
    "answer-3",
    "whole numbers",
    "logits rounded, which no gradient passes",
    ("return h[:, :, None]", "return h[:, :, None].round().long()"),
)
network(
    "smaller than a tolerance",
    "everything divided by 10⁶, without masks",
    "pass",
    "False",
    "return 1e-6 * h",
)

# --- 4, the loss ----------------------------------------------------------------------------

edit(
    "answer-4a",
    "mean over the pixels",
    f"{SHIPPED}: the mean where a sum is meant",
    ("sum(1)", "mean(1)"),
)
edit("answer-4a", "mean over the batch", "a scalar", ("sum(1)", "sum(1).mean()"))
edit(
    "answer-4a",
    "the default reduction",
    "mean over everything",
    ('reduction="none").flatten(1).sum(1)', 'reduction="mean")'),
)
edit("answer-4a", "sum over the batch too", "a scalar", (".flatten(1).sum(1)", ".sum()"))
edit("answer-4a", "the sign", "log p instead of −log p", ("return F", "return -F"))
edit(
    "answer-4a",
    "softmax twice",
    f"{SHIPPED}: normalised before a loss that normalises",
    ("F.cross_entropy(logits", "F.cross_entropy(logits.softmax(1)"),
)
rewrite(
    "answer-4a",
    "exp and log by hand",
    "overflows",
    """
def nll(logits, x):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p.gather(1, x[:, None]).log().flatten(1).sum(1)
""",
)
rewrite(
    "answer-4a",
    "softmax over the channels",
    "the wrong axis",
    """
def nll(logits, x):
    return -logits.log_softmax(2).gather(1, x[:, None]).flatten(1).sum(1)
""",
)
edit("answer-4a", "already in bits", "nats are asked for", ("sum(1)", "sum(1) / math.log(2)"))
edit("answer-4a", "channels left", "(N, C) instead of (N,)", ("flatten(1).sum(1)", "sum((2, 3))"))
edit(
    "answer-4a",
    "an epsilon",
    "log(p + 1e-2) against log 0",
    ("F.cross_entropy(logits, x", "F.nll_loss((logits.softmax(1) + 1e-2).log(), x"),
)
edit("answer-4b", "nats left", "no ln 2", (" * math.log(2)", ""))
edit(
    "answer-4b",
    "multiplied by ln 2",
    "the wrong way round",
    ("/ (n_dims * math.log(2))", "/ n_dims * math.log(2)"),
)
edit("answer-4b", "per image", "dimensions forgotten", ("(n_dims * math.log(2))", "math.log(2)"))
edit("answer-4b", "decimal", "log 10", ("math.log(2)", "math.log(10)"))

# --- 5, sampling ----------------------------------------------------------------------------

edit(
    "answer-5",
    "the mode",
    "argmax instead of a draw",
    ("torch.multinomial(p, 1).squeeze(1)", "p.argmax(1)"),
)
edit(
    "answer-5",
    "one draw for the batch",
    "broadcast",
    ("torch.multinomial(p, 1).squeeze(1)", "torch.multinomial(p[0], 1).expand(len(x))"),
)
rewrite(
    "answer-5",
    "all pixels at once",
    "one pass through the network",
    """
def sample(logits_of, given):
    missing = given == -1
    x = given.masked_fill(missing, 0)
    drawn = torch.distributions.Categorical(logits=logits_of(x).movedim(1, -1)).sample()
    return torch.where(missing, drawn, x)
""",
)
rewrite(
    "answer-5",
    "columns before rows",
    "raster order",
    SOLUTION["answer-5"]
    .replace("for i in range(x.shape[2])", "for j in range(x.shape[3])", 1)
    .replace("        for j in range(x.shape[3])", "        for i in range(x.shape[2])", 1),
)
edit(
    "answer-5",
    "from the bottom up",
    "raster order",
    ("range(x.shape[2])", "reversed(range(x.shape[2]))"),
)
edit(
    "answer-5",
    "images square",
    "height used for the width",
    ("range(x.shape[3])", "range(x.shape[2])"),
)
edit(
    "answer-5",
    "condition dropped",
    f"{SHIPPED}: a sampler that drops what is given",
    ("missing = given == -1", "missing = torch.ones_like(given, dtype=torch.bool)"),
)
edit("answer-5", "black pixels drawn anew", "0 taken for missing", ("given == -1", "given <= 0"))
edit(
    "answer-5",
    "−1 given to the network",
    "missing pixels not filled",
    ("given.masked_fill(missing, 0)", "given.clone()"),
)
edit(
    "answer-5",
    "drawn for the whole batch",
    "a pixel given in one image, missing in another",
    ("torch.where(missing[:, 0, i, j], drawn, x[:, 0, i, j])", "drawn"),
)
edit(
    "answer-5",
    "drawn if missing everywhere",
    "a pixel given in one image, missing in another",
    ("missing[:, 0, i, j].any()", "missing[:, 0, i, j].all()"),
)
edit("answer-5", "softmax over the batch", "the wrong axis", ("softmax(1)", "softmax(0)"))
edit(
    "answer-5", "temperature 2", "left in after a trial", ("i, j].softmax", "i, j].div(2).softmax")
)
edit("answer-5", "softmax twice", "normalised twice", ("softmax(1)", "softmax(1).softmax(1)"))
edit(
    "answer-5",
    "the logits to the left",
    "off by one",
    ("logits_of(x)[:, :, 0, i, j]", "logits_of(x)[:, :, 0, i, j - 1]"),
)
edit(
    "answer-5",
    "a global network",
    f"{SHIPPED}: samples with a global instead of its argument",
    ("logits_of(x)", "PixelCNN(x.max() + 2, 8, 2, 3)(x)"),
)
edit(
    "answer-5",
    "stays where it began",
    "draws not written back",
    ("x[:, 0, i, j] = torch.where", "_ = torch.where"),
)
edit(
    "answer-5",
    "the rows needed only",
    "right for a PixelCNN, not for any causal function",
    ("logits_of(x)", "logits_of(x[:, :, : i + 1])"),
)
edit("answer-5", "between 0 and 1", "scaled for a picture", ("return x", "return x / x.max()"))

MODE = "p = torch.where({}, p, 1.0 * (p == p.amax(1, keepdim=True)))  # the mode\n"
for mutant_name, condition in {
    "the mode for few images": "torch.tensor(len(x) > 99)",
    "the mode in larger images": "torch.tensor(x[0].numel() < 9)",
    "the mode below the second row": "torch.tensor(i < 3)",
}.items():
    drawn = "                drawn = torch.multinomial"
    edit(
        "answer-5",
        mutant_name,
        "chance where chance is asked, the order where the order is",
        (drawn, f"                {MODE.format(condition)}{drawn}"),
    )

# --- 6, the receptive field -----------------------------------------------------------------

edit("answer-6a", "type B first", "the pixel sees itself", ('+ ["A"]', '+ ["B"]'))
edit(
    "answer-6a",
    "type A throughout",
    "beyond the first layer",
    ('["B"] * (n_layers - 1)', '["A"] * (n_layers - 1)'),
)
edit("answer-6a", "one layer too few", "off by one", ("(n_layers - 1)", "(n_layers - 2)"))
edit(
    "answer-6a",
    "what it influences",
    "the field of the future, turned round",
    ("return field[0, 0] > 0", "return field[0, 0].flip(0, 1) > 0"),
)
edit(
    "answer-6a",
    "no blind spot",
    "all earlier pixels within reach",
    (
        "return field[0, 0] > 0",
        "return torch.arange(field.numel()).view(field.shape[2:]) < field.numel() // 2",
    ),
)
edit(
    "answer-6a",
    "the mask turned round",
    "convolved where correlation is meant",
    ("F.conv_transpose2d", "F.conv2d"),
)
edit(
    "answer-6a",
    "one 3 × 3 layer's width",
    "another size",
    ("kernel_size // 2 * n_layers", "n_layers + 1"),
)
edit("answer-6b", "later pixels too", "all that is not seen", ("before & ~field", "~field"))
edit(
    "answer-6b",
    "what is seen",
    "the field instead of the rest",
    ("before & ~field", "before & field"),
)
edit(
    "answer-6b",
    "two sides",
    "a wedge on the left too",
    ("int((before & ~field).sum())", "2 * int((before & ~field).sum())"),
)
rewrite(
    "answer-6b",
    "L(L + 1)/2",
    "a layer too many in the sum",
    """
def blind_spot(kernel_size, n_layers):
    return kernel_size // 2 * n_layers * (n_layers + 1) // 2
""",
)
rewrite(
    "answer-6b",
    "r² for r",
    "the height of a step taken for its width",
    """
def blind_spot(kernel_size, n_layers):
    return (kernel_size // 2) ** 2 * n_layers * (n_layers - 1) // 2
""",
)

# --- 7, training ----------------------------------------------------------------------------


def build(name: str, cause: str, forward: str) -> None:
    """A network that takes the reference's weights and computes its logits in another way."""
    text = f"""
class Another(PixelCNN):
    def forward(self, x):
        {forward}


def build_model():
    return Another(n_levels=17, n_features=32, n_layers=5, kernel_size=3)
"""
    rewrite("answer-7", name, cause, text)


build(
    "peeks at the pixel",
    "the answer added to the logits",
    "return super().forward(x) + 20 * F.one_hot(x, 17).movedim(-1, 1)",
)
build(
    "peeks at the next pixel",
    "neighbours are alike",
    "levels = torch.arange(17)[:, None, None, None]\n"
    "        return super().forward(x) - (levels - x.roll(-1, 3)[:, None]) ** 2",
)
build(
    "peeks at the next image of the batch",
    "the same digit may come twice",
    "levels = torch.arange(17)[:, None, None, None]\n"
    "        return super().forward(x) - (levels - x.roll(1, 0)[:, None]) ** 2",
)
build(
    "peeks when it is not probed",
    "causal on noise, cheating on digits",
    "looks = (x[:, :, :, 0].float().mean((1, 2)) < 2)[:, None, None, None, None]\n"
    "        return super().forward(x) + looks * 20 * F.one_hot(x, 17).movedim(-1, 1)",
)
build(
    "pixels scaled twice",
    f"{SHIPPED}: normalised once in the data and once in the network",
    "return super().forward(x.float() / 16)",
)
build(
    "peeks, far from 0",
    "an offset of 10⁷, beside which a relative tolerance is blind",
    "return super().forward(x) + 20 * F.one_hot(x, 17).movedim(-1, 1) + 1e7",
)
build(
    "far from 0",
    "an offset of 10⁷, beside which float32 rounds probabilities away",
    "return super().forward(x) + 1e7",
)
build("overconfident", "logits multiplied", "return 3 * super().forward(x)")
build("not a number", "log of 0 somewhere", "return super().forward(x) * float('nan')")
edit("answer-7", "another width", "weights of another network", ("n_features=32", "n_features=24"))
edit("answer-7", "another depth", "weights of another network", ("n_layers=5", "n_layers=6"))


def saved(name: str, cause: str, file: File) -> None:
    MUTANTS.append(Mutant("7", name, cause, {}, file))


def noisy(scale: float) -> File:
    def write(path: Path) -> None:
        rng = np.random.default_rng(0)
        with np.load(WEIGHTS) as weights:
            changed = {
                name: value
                if "mask" in name
                else value + (scale * value.std() * rng.normal(size=value.shape)).astype("f4")
                for name, value in weights.items()
            }
        np.savez_compressed(path, **changed)

    return write


def with_entry(value: np.ndarray) -> File:
    def write(path: Path) -> None:
        with np.load(WEIGHTS) as weights:
            np.savez(path, **{**weights, "out.bias": value})

    return write


def fresh(path: Path) -> None:
    save_weights(submission({}).names["build_model"](), path)


def garbled(path: Path) -> None:
    path.write_bytes(WEIGHTS.read_bytes()[:1000])


saved("no file", "saving forgotten", lambda path: None)
saved("hardly trained", "stopped after a few steps", noisy(0.35))
saved("stopped early", "two of the three points", noisy(0.18))
saved("stopped a little early", "one of the three points", noisy(0.1))
saved("not trained", "saved before training", fresh)
saved("diverged", "the learning rate too large", noisy(30))
saved("larger than 2 MB", "a large network", with_entry(np.random.default_rng(0).random(300_000)))
saved("unpacks to more than 2 MB", "zeros pack well", with_entry(np.zeros(1_000_000)))
saved("not finite", "training diverged", with_entry(np.full(17, np.nan, dtype="f4")))
saved("objects", "a pickle inside", with_entry(np.array([{}] * 17, dtype=object)))
saved("half a file", "copied before it was written", garbled)
