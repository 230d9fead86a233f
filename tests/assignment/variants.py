"""Right submissions that look different from the reference: each must get every point.

The points for a model better than most are another matter: a variant with a network of its own
says which of them it does not reach.

A variant replaces some of the reference's answers. Where its network has the reference's weights
under other names or shapes, ``weights`` turns the one state into the other; where it is another
network, its weights were trained by ``python -m tests.assignment weights``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.assignment import SOLUTION, WEIGHTS

State = dict[str, np.ndarray]


def reference(answer: str, old: str, new: str) -> str:
    """The reference's answer with one piece replaced."""
    assert SOLUTION[answer].count(old) == 1
    return SOLUTION[answer].replace(old, new)


def same(state: State) -> State:
    return state


@dataclass(frozen=True)
class Variant:
    name: str
    answers: dict[str, str]
    weights: Callable[[State], State] = same
    trained: str = "weights.npz"  # which of the files here
    misses: tuple[str, ...] = ()  # tests of the likelihood that its network does not reach
    seconds: float = field(default=0, compare=False)

    def write(self, path: Path) -> None:
        with np.load(WEIGHTS.with_name(self.trained)) as file:
            np.savez_compressed(path, **self.weights(dict(file)))


def renamed(*changes: tuple[str, str]) -> Callable[[State], State]:
    def weights(state: State) -> State:
        out = {}
        for name, value in state.items():
            for old, new in changes:
                name = name.replace(old, new)
            if "no mask" not in name:
                out[name] = value
        return out

    return weights


NO_MASKS = ("mask", "no mask")

# Masks by comparing coordinates; a convolution that is written out as unfold and einsum.
EINSUM = Variant(
    "einsum",
    {
        "answer-1a": """
def causal_mask(kernel_size, kind):
    i, j = np.indices((kernel_size, kernel_size)) - kernel_size // 2
    return torch.tensor((i < 0) | (i == 0) & ((j < 0) | (kind == "B") & (j == 0)))
""",
        "answer-1b": """
def colour_mask(kernel_size, kind, n_in, n_out):
    before, centre = causal_mask(kernel_size, "A"), causal_mask(kernel_size, "B")
    centre = centre & ~before
    colours = torch.ones(3, 3, dtype=torch.bool).tril(0 if kind == "B" else -1)
    colours = colours.repeat_interleave(n_out // 3, 0).repeat_interleave(n_in // 3, 1)
    return before | colours[:, :, None, None] & centre
""",
        "answer-2": """
class MaskedConv2d(nn.Module):
    def __init__(self, kind, n_in, n_out, kernel_size):
        super().__init__()
        self.k, self.mask = kernel_size, causal_mask(kernel_size, kind)
        self.weight = nn.Parameter(0.1 * torch.randn(n_out, n_in, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        n, c, h, w = x.shape
        patches = F.unfold(x, self.k, padding=self.k // 2)  # (n, c k k, h w)
        weight = torch.where(self.mask, self.weight, 0.0).flatten(1)
        out = torch.einsum("op,npq->noq", weight, patches) + self.bias[:, None]
        return out.view(n, -1, h, w)
""",
        "answer-4a": """
def nll(logits, x):
    log_p = logits - logits.logsumexp(1, keepdim=True)
    chosen = F.one_hot(x, logits.shape[1]).movedim(-1, 1).to(log_p)
    return -torch.einsum("nlchw,nlchw->n", log_p, chosen)
""",
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    one, other = (causal_mask(kernel_size, kind).double()[None, None] for kind in "AB")
    field = one.flip(2, 3)
    for _ in range(n_layers - 1):
        field = F.conv2d(field, other, padding=kernel_size - 1)
    return field[0, 0].flip(0, 1) > 0
""",
    },
    renamed(NO_MASKS, (".conv.", ".")),
)

# The usual course solution: a subclass of nn.Conv2d that edits its weights before each use.
SUBCLASS = Variant(
    "subclass of Conv2d",
    {
        "answer-1a": """
def causal_mask(kernel_size, kind):
    mask = torch.zeros(kernel_size, kernel_size, dtype=torch.int64)
    mask.view(-1)[: kernel_size**2 // 2 + (1 if kind == "B" else 0)] = 1
    return mask
""",
        "answer-2": """
class MaskedConv2d(nn.Conv2d):
    def __init__(self, kind, n_in, n_out, kernel_size):
        super().__init__(n_in, n_out, kernel_size, padding="same")
        self.register_buffer("mask", causal_mask(kernel_size, kind))

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)
""",
        "answer-5": """
def sample(logits_of, given):
    x = given.clone()
    x[given < 0] = 0
    for row in range(given.size(2)):
        for column in range(given.size(3)):
            empty = given[:, 0, row, column] < 0
            law = torch.distributions.Categorical(logits=logits_of(x)[:, :, 0, row, column])
            x[empty, 0, row, column] = law.sample()[empty]
    return x
""",
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    r = kernel_size // 2
    n = r * n_layers
    seen = {(0, 0)}
    for kind in ["A"] + ["B"] * (n_layers - 1):
        mask = causal_mask(kernel_size, kind)
        seen = {
            (i + a - r, j + b - r) for i, j in seen for a, b in mask.nonzero().tolist()
        }
    return torch.tensor([[(i, j) in seen for j in range(-n, n + 1)] for i in range(-n, n + 1)])
""",
        "answer-6b": """
def blind_spot(kernel_size, n_layers):
    return sum(kernel_size // 2 * (n_layers - row) for row in range(1, n_layers + 1))
""",
    },
    renamed((".conv.", ".")),
)

# Only the rows down to the centre are convolved, and padding is above and at the sides.
CROPPED = Variant(
    "cropped kernel, padding by hand",
    {
        "answer-2": """
class MaskedConv2d(nn.Module):
    def __init__(self, kind, n_in, n_out, kernel_size):
        super().__init__()
        self.r, self.kind = kernel_size // 2, kind
        self.conv = nn.Conv2d(n_in, n_out, (self.r + 1, kernel_size))

    def forward(self, x):
        open_ = torch.ones_like(self.conv.weight)
        open_[:, :, -1, self.r + (self.kind == "B") :] = 0
        x = F.pad(x, (self.r, self.r, self.r, 0))
        return F.conv2d(x, self.conv.weight * open_, self.conv.bias)
""",
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    n = kernel_size // 2 * n_layers
    net = nn.Sequential(
        MaskedConv2d("A", 1, 1, kernel_size),
        *[MaskedConv2d("B", 1, 1, kernel_size) for _ in range(n_layers - 1)],
    ).double()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    with torch.enable_grad():
        x = torch.ones(1, 1, 2 * n + 1, 2 * n + 1, dtype=torch.float64, requires_grad=True)
        net(x)[0, 0, n, n].backward()
    return x.grad[0, 0] != 0
""",
    },
    lambda state: {
        name: value[:, :, : value.shape[-1] // 2 + 1] if value.shape[-1:] == (3,) else value
        for name, value in state.items()
        if "mask" not in name
    },
)

# A vertical and a horizontal kernel of their own.
TWO_PARTS = Variant(
    "rows above and own row apart",
    {
        "answer-2": """
class MaskedConv2d(nn.Module):
    def __init__(self, kind, n_in, n_out, kernel_size):
        super().__init__()
        r = self.r = kernel_size // 2
        self.n_row = r + (kind == "B")
        self.above = nn.Conv2d(n_in, n_out, (r, kernel_size)) if r else None
        self.row = nn.Conv2d(n_in, n_out, (1, self.n_row), bias=r == 0) if self.n_row else None

    def forward(self, x):
        h, w = x.shape[2:]
        out = 0
        if self.above is not None:
            out = self.above(F.pad(x, (self.r, self.r, self.r, 0)))[:, :, :h]
        if self.row is not None:
            out = out + self.row(F.pad(x, (self.r, 0)))[..., :w]
        return out
""",
    },
    lambda state: {
        new: part
        for name, value in state.items()
        if "mask" not in name
        for new, part in _in_two(name, value).items()
    },
)


def _in_two(name: str, value: np.ndarray) -> State:
    if ".conv." not in name:
        return {name: value}
    if name.endswith("bias"):
        return {name.replace("conv", "above"): value}
    n_row = 1 if name.startswith("first") else 2
    return {
        name.replace("conv", "above"): value[:, :, :1],
        name.replace("conv", "row"): value[:, :, 1:2, :n_row],
    }


# Gumbel noise, NumPy and plain Python where the reference has PyTorch.
PLAIN = Variant(
    "NumPy and loops",
    {
        "answer-1a": """
def causal_mask(kernel_size, kind):
    rows = []
    for i in range(kernel_size):
        row = []
        for j in range(kernel_size):
            number, centre = i * kernel_size + j, (kernel_size**2 - 1) // 2
            row.append(1.0 if number < centre or (kind != "A" and number == centre) else 0.0)
        rows.append(row)
    return torch.tensor(rows)
""",
        "answer-1b": """
def colour_mask(kernel_size, kind, n_in, n_out):
    mask = np.zeros((n_out, n_in, kernel_size, kernel_size))
    for o in range(n_out):
        for i in range(n_in):
            own = "B" if i // (n_in // 3) < o // (n_out // 3) else "A"
            if kind == "B" and i // (n_in // 3) == o // (n_out // 3):
                own = "B"
            mask[o, i] = causal_mask(kernel_size, own)
    return mask
""",
        "answer-4a": """
def nll(logits, x):
    total = torch.zeros(len(x), dtype=logits.dtype)
    log_p = torch.log_softmax(logits, dim=1)
    for level in range(logits.shape[1]):
        total -= (log_p[:, level] * (x == level)).sum(dim=(1, 2, 3))
    return total
""",
        "answer-4b": """
def bits_per_dim(nats, n_dims):
    return np.log2(np.e) * nats / n_dims
""",
        "answer-5": """
def sample(logits_of, given):
    x = given.numpy().copy()
    for i, j in np.ndindex(x.shape[2:]):
        seen = torch.tensor(np.maximum(x, 0))
        scores = logits_of(seen)[:, :, 0, i, j].detach().numpy()
        drawn = (scores + np.random.gumbel(size=scores.shape)).argmax(1)
        x[:, 0, i, j] = np.where(x[:, 0, i, j] == -1, drawn, x[:, 0, i, j])
    return x
""",
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    r, n = kernel_size // 2, kernel_size // 2 * n_layers
    up, right = np.mgrid[n : -n - 1 : -1, -n : n + 1]
    above = (up > 0) & (right <= r * np.minimum(up, n_layers))
    return torch.from_numpy(above | (up == 0) & (right < 0))
""",
    },
)

# Parametrised weights, other names, a Sequential.
PARAMETRISED = Variant(
    "parametrised weights",
    {
        "answer-2": """
from torch.nn.utils import parametrize


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("open", mask, persistent=False)

    def forward(self, weight):
        return weight * self.open


def MaskedConv2d(kind, n_in, n_out, kernel_size):
    conv = nn.Conv2d(n_in, n_out, kernel_size, padding=(kernel_size - 1) // 2)
    parametrize.register_parametrization(conv, "weight", Masked(causal_mask(kernel_size, kind)))
    return conv
""",
        "answer-6b": """
def blind_spot(kernel_size, n_layers):
    seen = int(receptive_field(kernel_size, n_layers).sum())
    side = 2 * (kernel_size // 2) * n_layers + 1
    return (side * side - 1) // 2 - seen
""",
    },
    lambda state: {
        name.replace(".conv.weight", ".parametrizations.weight.original").replace(".conv.", "."): v
        for name, v in state.items()
        if "mask" not in name
    },
)

# Another network: levels one-hot, no residual connections, one 1 × 1 layer, four masked ones.
SHALLOW = Variant(
    "one-hot input, other depth",
    {
        "answer-3": """
class PixelCNN(nn.Module):
    def __init__(self, n_levels, n_features, n_layers, kernel_size):
        super().__init__()
        self.n_levels = n_levels
        widths = [n_levels] + n_layers * [n_features]
        layers = []
        for number in range(n_layers):
            sizes = widths[number], widths[number + 1], kernel_size
            layers += [MaskedConv2d("B" if number else "A", *sizes), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(n_features, n_levels, 1))

    def forward(self, x):
        one_hot = F.one_hot(x.long().squeeze(1), self.n_levels).float().permute(0, 3, 1, 2)
        return self.net(one_hot).unsqueeze(2)
""",
        "answer-7": """
def build_model():
    return PixelCNN(17, 40, 4, 3)


def train(model, images):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for epoch in range(24):
        if epoch == 16:
            optimizer.param_groups[0]["lr"] = 5e-4
        for batch in images[torch.randperm(len(images))].split(48):
            optimizer.zero_grad()
            nll(model(batch), batch).mean().backward()
            optimizer.step()
""",
    },
    trained="shallow.npz",
    misses=("test-7b", "test-7c"),
)

# Another one: an embedding, normalised over the channels, SiLU, 5 × 5 kernels, dropout.
SMOOTH = Variant(
    "embedding, layer norm, dropout, 5 × 5",
    {
        "answer-3": """
class Block(nn.Module):
    def __init__(self, width, kernel_size):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv = MaskedConv2d("B", width, width, kernel_size)
        self.drop = nn.Dropout(0.1)

    def forward(self, h):
        scale = (h**2).mean(1, keepdim=True).add(1e-3).rsqrt()  # over the channels only
        return h + self.drop(self.conv(F.silu(h * scale * self.norm.weight[:, None, None])))


class PixelCNN(nn.Module):
    def __init__(self, n_levels, n_features, n_layers, kernel_size):
        super().__init__()
        self.embed = nn.Embedding(n_levels, 8)
        self.start = MaskedConv2d("A", 8, n_features, kernel_size)
        self.blocks = nn.ModuleList([Block(n_features, kernel_size) for _ in range(1, n_layers)])
        self.end = nn.Conv2d(n_features, n_levels, kernel_size=1)

    def forward(self, x):
        h = self.start(self.embed(x[:, 0]).movedim(-1, 1))
        for block in self.blocks:
            h = block(h)
        logits = self.end(F.silu(h))
        return logits.log_softmax(1).reshape(len(x), -1, *x.shape[1:])
""",
        "answer-7": """
def build_model():
    return PixelCNN(n_levels=17, n_features=24, n_layers=3, kernel_size=5)


def train(model, images):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for epoch in range(18):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * 0.85**epoch
        for batch in torch.utils.data.DataLoader(images, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nll(model(batch), batch).mean().backward()
            optimizer.step()
    model.eval()
""",
    },
    trained="smooth.npz",
    misses=("test-7b", "test-7c"),
)

# The field by gradients, as one writes it in a cell of one's own; outputs that are log p.
BACKWARD = Variant(
    "gradients by backward, log-probabilities",
    {
        "answer-3": reference("answer-3", "h[:, :, None]", "h[:, :, None].log_softmax(1)"),
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    side = kernel_size // 2 * n_layers * 2 + 1
    net = PixelCNN(n_levels=4, n_features=64, n_layers=n_layers, kernel_size=kernel_size)
    x = torch.rand(16, 1, side, side, requires_grad=True)
    logits = net(x)
    logits[:, 0, 0, side // 2, side // 2].sum().backward()
    return x.grad.abs().sum(0)[0] > 0
""",
    },
)

GRAD = Variant(
    "gradients by autograd.grad, log of a softmax, floats drawn",
    {
        "answer-3": reference("answer-3", "h[:, :, None]", "h[:, :, None].softmax(1).log()"),
        "answer-5": reference("answer-5", "return x", "return x.float()"),
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    n = kernel_size // 2 * n_layers
    layers = [MaskedConv2d("B" if i else "A", 1, 1, kernel_size) for i in range(n_layers)]
    with torch.no_grad():
        for layer in layers:
            for weights in layer.parameters():
                weights.fill_(1)
    image = torch.zeros(1, 1, 2 * n + 1, 2 * n + 1).requires_grad_()
    h = image
    for layer in layers:
        h = layer(h) / kernel_size**2
    (slope,) = torch.autograd.grad(h[0, 0, n, n], image)
    return slope.squeeze().bool()
""",
    },
)

# Task 6d proves that it sees the same. It costs some nats.
ALL_A = Variant(
    "gradients by jacobian, type A throughout with residual connections",
    {
        "answer-3": reference("answer-3", 'MaskedConv2d("B"', 'MaskedConv2d("A"'),
        "answer-6a": """
def receptive_field(kernel_size, n_layers):
    n = kernel_size // 2 * n_layers
    layers = [MaskedConv2d("A", 1, 8, kernel_size)]
    layers += [MaskedConv2d("B", 8, 8, kernel_size) for _ in range(n_layers - 1)]

    def middle(image):
        h = image
        for layer in layers:
            h = layer(h)
        return h[0, :, n, n]

    zero = torch.zeros(1, 1, 2 * n + 1, 2 * n + 1)
    return torch.autograd.functional.jacobian(middle, zero).abs().amax((0, 1, 2)) > 0
""",
        "answer-7": reference("answer-7", "n_features=32", "n_features=24"),
    },
    trained="all_a.npz",
    misses=("test-7b", "test-7c"),
)

VARIANTS = [EINSUM, SUBCLASS, CROPPED, TWO_PARTS, PLAIN, PARAMETRISED, SHALLOW, SMOOTH]
VARIANTS += [BACKWARD, GRAD, ALL_A]
