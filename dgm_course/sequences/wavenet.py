"""WaveNet: causal dilated convolutions, for real samples or for levels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, pad

from dgm_course.checks import MOST, check_count, check_integers, check_points, check_sequences
from dgm_course.data.toy import Seed
from dgm_course.probability import gaussian_log_prob
from dgm_course.sequences.sampling import (
    check_request,
    check_sharpness,
    draw_tokens,
)

Method = Literal["cached", "window", "full"]


class WaveNet(nn.Module):
    """p(x) = Π p(x_t | x_<t), each factor made of the R samples before t by L gated layers.

    Layer l adds to its input h the output of a gate, W_l g_l, where g_l = tanh(a_l) σ(b_l) and
    (a_l, b_l) = Σ_i V_li h_(t − i d_l) over k taps i, at a distance d_l = 1, k, k², …, from 1 again
    in the next cycle. All g_l go through two more layers to mean and log-scale of a Gaussian, or
    logits. Before the first sample all is 0. The field R is 1 + (k − 1) Σ d_l: k^L in one cycle.

    Source: van den Oord et al. 2016, sections 2.1 to 2.4, https://arxiv.org/abs/1609.03499; the
    memory of `sample`: Paine et al. 2016, https://arxiv.org/abs/1611.09482.

    Args:
        n_layers: layers of a cycle.
        n_channels: channels C of every layer.
        kernel: taps k of a layer, at least 2.
        levels: None for real samples; else V, for integers 0 … V − 1.
        n_cycles: how many times the dilations 1 … k^(n_layers − 1) are gone through.

    Shapes: x ``(N, T)``, real, to mean and log-scale ``(N, T)``; or integers ``(N, T)`` to logits
    ``(N, V, T)``. Those at t are of x_t given the samples before t.

    Raises:
        ValueError: for arguments outside these bounds; for x that is not ``(N, T)``, is empty, of
            another dtype than the weights', not finite, or outside the levels.

    Omits: conditioning on a speaker or a text, and μ-law companding of sound.

    Example:
        >>> model = WaveNet(n_layers=6)
        >>> model.receptive_field
        64
        >>> model(torch.zeros(2, 100))[0].shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        n_layers: int,
        n_channels: int = 24,
        kernel: int = 2,
        levels: int | None = None,
        n_cycles: int = 1,
    ) -> None:
        super().__init__()
        n_layers = check_count(n_layers, "n_layers", most=30)
        c = check_count(n_channels, "n_channels")
        self.kernel = k = check_count(kernel, "kernel", 2)
        self.levels = None if levels is None else check_count(levels, "levels", 2)
        if k**n_layers > MOST:
            raise ValueError(f"kernel ** n_layers must be at most {MOST}, got {k} ** {n_layers}")
        self.dilations = [k**i for i in range(n_layers)] * check_count(n_cycles, "n_cycles")
        n = len(self.dilations)
        # A few stacks of weights, which the optimiser walks faster than a few tensors a layer.
        self.w_in = nn.Parameter(torch.randn(self.levels or 1, c))
        self.v = nn.Parameter(torch.empty(n, k * c, 2 * c))  # the oldest tap's rows first
        self.b = nn.Parameter(torch.zeros(n, 2 * c))
        self.w = nn.Parameter(torch.empty(n - 1, c, c))
        self.w_skip = nn.Parameter(torch.empty(n * c, c))
        self.b_skip = nn.Parameter(torch.zeros(c))
        self.w_head = nn.Parameter(torch.empty(c, c))
        self.b_head = nn.Parameter(torch.zeros(c))
        self.w_out = nn.Parameter(torch.zeros(c, self.levels or 2))  # starts as N(0, 1), or uniform
        self.b_out = nn.Parameter(torch.zeros(self.levels or 2))
        with torch.no_grad():
            for weight in (self.v, self.w, self.w_skip, self.w_head):
                weight.normal_(std=weight.shape[-2] ** -0.5)
            # A gate that is half open halves what passes, and a signal passes through L of them.
            self.b[:, c:], self.w[:] = 1.0, 2 * self.w

    @property
    def receptive_field(self) -> int:
        """How many past samples an output sees: those from t − 1 back to t − R."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def extra_repr(self) -> str:
        settings = f"kernel={self.kernel}, levels={self.levels}, dilations={self.dilations}"
        return f"{settings}, receptive_field={self.receptive_field}"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """(mean, log-scale), each ``(N, T)``, or logits ``(N, V, T)``, of x_t given x_<t."""
        out = self.outputs(x)
        return (out[0], out[1]) if self.levels is None else out.transpose(0, 1)

    def outputs(self, x: Tensor) -> Tensor:
        """What the last layer says of x_t given x_<t, ``(n_outputs, N, T)``: a law's parameters."""
        self.check(x, "x")
        return self._outputs(self._inputs(x[:, :-1]))

    def log_prob_steps(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t) in nats, ``(N, T)``."""
        out = self(x)
        if isinstance(out, Tensor):
            return -cross_entropy(out, x.long(), reduction="none")
        return gaussian_log_prob(x, *out)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``."""
        return self.log_prob_steps(x).sum(1)

    def check(self, x: Tensor, name: str) -> None:
        """Raise a ValueError unless x is a batch ``(N, T)`` of what the model is of."""
        check_sequences(x, name)
        if self.levels is None:
            check_points(x, None, self.w_in.dtype, name)
        else:
            check_integers(x, 0, self.levels - 1, name)

    def _inputs(self, past: Tensor) -> Tensor:
        """What the first layer reads, ``(C, N, T + 1)``, of T past samples; a 0 comes first."""
        if self.levels is None:
            return pad(self.w_in[0, :, None, None] * past, (1, 0))
        return pad(embedding(past.long(), self.w_in).permute(2, 0, 1), (1, 0))

    def _outputs(self, h: Tensor) -> Tensor:
        """``(C, N, T)`` to ``(n_outputs, N, T)``; channels first, so a layer is one product."""
        c, n, length = h.shape
        biases, mixes, gates = self.b.unbind(), self.w.unbind(), list[Tensor]()
        for i, (v, d) in enumerate(zip(self.v.unbind(), self.dilations, strict=True)):
            padded = pad(h, ((self.kernel - 1) * d, 0))
            taps = torch.cat([padded[..., j * d : j * d + length] for j in range(self.kernel)])
            a = torch.addmm(biases[i][:, None], v.T, taps.flatten(1))  # (2C, N T)
            gates.append(a[:c].tanh() * a[c:].sigmoid())
            if i < len(mixes):
                h = torch.addmm(h.flatten(1), mixes[i].T, gates[i]).view(c, n, length)
        y = torch.addmm(self.b_skip[:, None], self.w_skip.T, torch.cat(gates)).relu()
        y = torch.addmm(self.b_head[:, None], self.w_head.T, y).relu()
        return torch.addmm(self.b_out[:, None], self.w_out.T, y).view(-1, n, length)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        length: int,
        given: Tensor | None = None,
        *,
        method: Method = "cached",
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Seed | None = None,
    ) -> Tensor:
        """n draws from p(x), ``(n, length)``, one sample after the other.

        Args:
            n: number of sequences.
            length: their length T, the given samples included.
            given: their first samples ``(n, P)``, P ≤ T, if they are to be gone on with.
            method: "cached" keeps what each layer has read and computes one column a sample;
                "window" runs the network over the receptive field for every sample, "full" over
                all that there is so far. Random numbers are the same, and so are the samples.
            temperature: logits are divided by it, scales of real samples multiplied; below 1
                favours the likely.
            top_k: draw from the k likeliest levels alone, and those as likely as the k-th.
            generator: a seed or a generator; None takes torch's own.

        Raises:
            ValueError: for n or length below 1, an unknown method, or given of another n, longer
                than length, or not what the model is of; for a temperature that is not positive,
                or top_k outside 1 … V, or of real samples.
        """
        if given is not None:
            self.check(given, "given")
        n, length, generator = check_request(n, length, given, method, get_args(Method), generator)
        check_sharpness(temperature, top_k, self.levels)
        x = self.w_in.new_zeros(length, n, dtype=torch.long if self.levels else None)
        n_given = 0 if given is None else given.shape[1]
        if given is not None:
            x[:n_given] = given.T
        memory = Memory(self, n) if method == "cached" else None
        field = self.receptive_field if method == "window" else MOST
        for t in range(0 if memory else n_given, length):
            if memory:
                out = memory.step(x[t - 1] if t else None)  # (n, n_outputs)
            else:
                out = self._outputs(self._inputs(x[:t].T)[..., -field:])[..., -1].T
            if t >= n_given and self.levels:
                x[t] = draw_tokens(out, temperature, top_k, generator)
            elif t >= n_given:
                mean, log_scale = out.unbind(1)
                z = torch.randn(n, generator=generator, dtype=out.dtype).to(out.device)
                x[t] = mean + temperature * log_scale.exp() * z
        return x.T


class Memory:
    """The outputs of a `WaveNet` for one sample after the other, from ring buffers.

    A layer at a distance d keeps the last k d columns it has read: for each of the d remainders of
    t, the k taps side by side. A new column takes the place of the oldest, and instead of moving
    the others, the product takes the weights' blocks in the order in which the taps then lie.
    """

    def __init__(self, model: WaveNet, n: int) -> None:
        self.model, self.t, k, c = model, 0, model.kernel, model.w_in.shape[1]
        self.v = [[v.roll(c * (j + 1), 0) for j in range(k)] for v in model.v]
        self.taps = [model.w_in.new_zeros(d, n, k * c).unbind() for d in model.dilations]
        self.places = [[slot.split(c, 1) for slot in layer] for layer in self.taps]
        self.gates = model.w_in.new_empty(n, len(model.v) * c)
        self.a = model.w_in.new_empty(n, 2 * c)
        self.value, self.opening = self.a.split(c, 1)
        self.gate = self.gates.split(c, 1)
        self.b, self.w = model.b.unbind(), model.w.unbind()

    def step(self, last: Tensor | None) -> Tensor:
        """The outputs ``(n, n_outputs)`` at the next t, from x at t − 1 ``(n,)``; None at t = 0."""
        model, t = self.model, self.t
        self.t += 1
        where = [(t % d, t // d % model.kernel) for d in model.dilations]
        slot, turn = where[0]
        h = self.places[0][slot][turn]
        if last is None:
            h.zero_()
        elif model.levels is None:
            torch.mul(last[:, None], model.w_in, out=h)
        else:
            h.copy_(model.w_in[last])
        for i, (slot, turn) in enumerate(where):
            torch.addmm(self.b[i], self.taps[i][slot], self.v[i][turn], out=self.a)
            torch.mul(self.value.tanh_(), self.opening.sigmoid_(), out=self.gate[i])
            if i < len(self.w):
                slot, turn = where[i + 1]
                above = self.places[i + 1][slot][turn]
                h = torch.addmm(h, self.gate[i], self.w[i], out=above)
        y = torch.addmm(model.b_skip, self.gates, model.w_skip).relu_()
        y = torch.addmm(model.b_head, y, model.w_head).relu_()
        return torch.addmm(model.b_out, y, model.w_out)
