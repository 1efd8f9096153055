"""The ranks of a training, seen from one of them; a process that trains alone is rank 0 of 1."""

from __future__ import annotations

import os
from typing import Any

SHARDED = "LLM_ENGINEERING_SHARDED"
"""Environment variable, set for ranks that share the weights."""


def rank() -> int:
    """This process's number."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the rank that writes what all of them learned."""
    return rank() == 0


def is_sharded() -> bool:
    """Whether each rank holds a part of the weights; otherwise each holds all of them."""
    return SHARDED in os.environ


def wait_for_all() -> None:
    """Return once every rank is here."""
    if ranks() > 1:
        import torch.distributed as dist

        dist.barrier()


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; all of them must ask."""
    if ranks() == 1:
        return flag
    import torch
    import torch.distributed as dist

    value = torch.tensor(int(flag))  # on the CPU: the process group has a backend for it
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def as_the_first_says(value: Any) -> Any:
    """The first rank's value, so that all decide alike; all of them must ask."""
    if ranks() == 1:
        return value
    import torch.distributed as dist

    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def all_values(value: Any) -> list[Any]:
    """Every rank's value, in the order of ranks; all of them must ask."""
    if ranks() == 1:
        return [value]
    import torch.distributed as dist

    told: list[Any] = [None] * ranks()
    dist.all_gather_object(told, value)
    return told


def on_all(device: str) -> str:
    """A device's name with the number of ranks on such devices."""
    return device if ranks() == 1 else f"{ranks()} x {device}"
