"""One process among those of a run: who it is, what is random in it, and what all agree on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def seed_of(*names: object) -> int:
    """A seed that is a function of the names alone, such as (seed, step, shard)."""
    digest = hashlib.sha256(" ".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # what a signed integer holds


class Ranks:
    """Rank ``rank`` of ``n``; without torchrun, the only one.

    Args:
        rank, n: this process, from 0, and how many there are.
        device: where its model lives.
    """

    def __init__(self, rank: int, n: int, device: torch.device) -> None:
        self.rank, self.n, self.device = rank, n, device

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def seed(self, *names: object) -> None:
        """Seed torch's own generator, on the CPU and on the device."""
        torch.default_generator.manual_seed(seed := seed_of(*names))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """The sum of each number over all ranks, the same on all."""
        if self.n == 1:
            return [*numbers]
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gathered(self, part: T) -> list[T]:
        """What each rank has, in the order of ranks."""
        if self.n == 1:
            return [part]
        parts: list[Any] = [None] * self.n
        dist.all_gather_object(parts, part)
        return parts

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes; where it raises, all ranks do."""
        made: T | Exception | None = None
        if self.is_first:
            try:
                made = make()
            except (OSError, ValueError) as error:
                made = error
        if self.n > 1:
            box = [made]
            dist.broadcast_object_list(box, src=0)
            made = box[0]
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[return-value]

    def share(self, objective: nn.Module) -> nn.Module:
        """The module as one whose gradients are averages over the ranks.

        It is the objective that is wrapped, not the model: gradients are averaged only for what
        goes through the wrapper's own ``forward``.
        """
        if self.n == 1:
            return objective
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)

    def accumulating(self, objective: nn.Module, more: bool) -> AbstractContextManager[Any]:
        """While more shards follow, ranks keep their gradients to themselves."""
        if more and isinstance(objective, DistributedDataParallel):
            return objective.no_sync()
        return nullcontext()


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """This process among those that torchrun has started, or alone.

    Raises:
        ValueError: for more processes on this machine than GPUs.
    """
    local, n_local = (
        int(os.environ.get(f"LOCAL_{x}", y)) for x, y in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and n_local > (n_gpus := torch.cuda.device_count()):
        raise ValueError(
            f"{n_local} processes on this machine need as many GPUs, and there are {n_gpus}; "
            f"start {max(n_gpus, 1)}, or give --device cpu"
        )
    if "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1, torch.device(device))
        return
    place = torch.device(device, local) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
