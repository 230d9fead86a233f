"""Backpropagation that rebuilds what it needs: the one autograd function of this family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dgm_course.reversible.blocks import ReversibleBlock, halves, joined, shift

State = list[tuple[int, int | bool]]


class Rebuilding(torch.autograd.Function):
    """The output of a chain of blocks, of which backward keeps the output alone.

    Read as steps, two a block: (a, b) becomes (b, c) with c = a + n(b), where n is f, then g. A
    step back finds a = c − n(b), and with the gradients c̄ and b̄ of the loss, by one more run of n,
    ā = c̄ and b̄ + (∂n/∂b)ᵀ c̄.

    The parameters are arguments, so that their gradients are returned as those of any other
    operation are, to hooks and to `torch.autograd.grad`.
    """

    @staticmethod
    def forward(
        ctx: Any, blocks: Sequence[ReversibleBlock], x: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.networks = steps(blocks)
        ctx.parameters = parameters
        ctx.device, ctx.autocast = x.device, autocast_of(x.device.type)
        ctx.drew, ctx.states, kept = [], [], []
        a, b = halves(x)
        before = random_state(x.device)
        with torch.autocast(**ctx.autocast):
            for name, network in ctx.networks:
                state = state_of(network)
                a, b = b, a + shift(network, b, name)
                if state_of(network) != state:
                    raise ValueError(
                        f"{name} must not change its own weights, buffers or mode as it runs: it "
                        "could not be run again (batch norm's statistics excepted)"
                    )
                ctx.states.append(state)
                after = random_state(x.device)
                ctx.drew.append(not torch.equal(before, after))
                if ctx.drew[-1]:
                    kept.append(before)
                before = after
        y = joined(a, b)
        ctx.save_for_backward(y, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a ReversibleSequence has no second derivatives: create_graph must be False, or "
                "take a ResidualSequence of the same blocks"
            )
        y, *kept = ctx.saved_tensors
        b, c = halves(y)
        b_bar, c_bar = halves(gradients[0])
        found: dict[Tensor, Tensor] = {}
        rebuilt = zip(ctx.networks, ctx.states, ctx.drew, strict=True)
        for (name, network), state, drew in reversed([*rebuilt]):
            if state_of(network) != state:
                raise RuntimeError(
                    f"{name} was changed between forward and backward, in its weights, buffers or "
                    "mode: what it was given then cannot be rebuilt"
                )
            b = b.detach().requires_grad_()
            wanted = [b, *(p for p in network.parameters() if p.requires_grad)]
            with (
                torch.enable_grad(),
                torch.autocast(**ctx.autocast),
                drawn_from(kept.pop() if drew else None, ctx.device),
            ):
                n = shift(network, b, name, again=True)
            found[b] = b_bar
            if n.requires_grad:  # else it is a constant
                grads = torch.autograd.grad(n, wanted, c_bar.to(n.dtype), allow_unused=True)
                for tensor, grad in zip(wanted, grads, strict=True):
                    if grad is not None:
                        found[tensor] = found[tensor] + grad if tensor in found else grad
            b_bar, c_bar = c_bar, found.pop(b)
            b, c = c - n.detach(), b.detach()
        return None, joined(b_bar, c_bar), *(found.get(p) for p in ctx.parameters)


def steps(blocks: Sequence[ReversibleBlock]) -> list[tuple[str, nn.Module]]:
    """f and g of each block in turn, with what messages call them."""
    return [
        (f"blocks[{i}].{name}", network)
        for i, block in enumerate(blocks)
        for name, network in (("f", block.f), ("g", block.g))
    ]


def autocast_of(device_type: str) -> dict[str, Any]:
    """What autocast is set to, for another run of the same computation.

    Without its cache, which would hand a cast weight that was made without gradients to the run
    that needs them.
    """
    return {
        "device_type": device_type,
        "dtype": torch.get_autocast_dtype(device_type),
        "enabled": torch.is_autocast_enabled(device_type),
        "cache_enabled": False,
    }


def state_of(network: nn.Module) -> State:
    """What a second run depends on: which tensors, how often they were written, and the modes."""
    found: State = []
    for module in network.modules():
        found.append((id(module), module.training))
        tensors: list[Tensor | None] = [*module._parameters.values()]
        if not (isinstance(module, _NormBase) and module.training):
            tensors += module._buffers.values()
        found += [(id(tensor), tensor._version) for tensor in tensors if tensor is not None]
    return found


def random_state(device: torch.device) -> Tensor:
    """Where torch's generators of the CPU and of a CUDA device stand, as bytes."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


@contextmanager
def drawn_from(state: Tensor | None, device: torch.device) -> Iterator[None]:
    """Random numbers come from the state of another time; afterwards they go on from today's."""
    if state is None:
        yield
        return
    n = len(torch.get_rng_state())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[:n])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[n:], device)
        yield
