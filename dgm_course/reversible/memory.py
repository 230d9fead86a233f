"""What autograd keeps of a forward pass."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from dgm_course.checks import check_instance, check_tensor


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Σ bytes of the storages that model(x) keeps for its backward pass, each counted once.

    Parameters are left out, and x counts if it is kept. The model is as it was: it runs on copies
    of its buffers and of the generators' states.

    Source: `torch.autograd.graph.saved_tensors_hooks`, which sees each tensor as it is kept.

    Args:
        model: any module of one tensor.
        x: its input, which may require a gradient.

    Raises:
        ValueError: for a model that is no module, or x that is no tensor.

    Omits: what a function keeps past the hooks, such as the random states of
    `torch.utils.checkpoint`, and what the memory's allocator adds.

    Example:
        >>> saved_bytes(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), torch.zeros(2, 4))
        96
    """
    check_instance(model, nn.Module, "model")
    check_tensor(x, "x")
    packed: WeakSet[Packed] = WeakSet()  # what graphs that are gone by the end kept is gone too

    def pack(tensor: Tensor) -> Packed:
        packed.add(found := Packed(tensor))
        return found

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [x.device] if x.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        saved_tensors_hooks(pack, Packed.unpack),
    ):
        y = functional_call(model, buffers, (x,))
    storages = {found.storage.data_ptr(): found.storage.nbytes() for found in packed}
    for p in model.parameters():
        storages.pop(p.untyped_storage().data_ptr(), None)
    del y  # until here, for it holds the graph
    return sum(storages.values())


class Packed:
    """A tensor as a graph keeps it, and its storage."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.storage = tensor.detach(), tensor.untyped_storage()

    def unpack(self) -> Tensor:
        return self.tensor
