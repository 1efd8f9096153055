"""Training on a CPU: what it takes of the host's memory, and whether that is there."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.errors import HardwareError
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.planning.batch_plan import unestimated_plans
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.memory import WEIGHT_BYTES, estimate_memory
from llm_engineering.planning.workload import Workload

_PROCESS = 0.7e9
"""Python with PyTorch, unsloth, transformers and ZenML imported, as measured."""


class HostMemory(BaseModel):
    """Bytes of the host's memory that a training takes."""

    weights: float = Field(description="Base weights, in the type that they are trained in.")
    least: float = Field(description="Whatever the rows are, training or proving the exports.")
    most: float = Field(description="With rows as long as model.max_seq_length allows.")

    def __str__(self) -> str:
        return f"{self.least / GIB:.1f} to {self.most / GIB:.1f} GiB of memory, by the rows' length"


def plan_host_memory(work: Workload) -> HostMemory:
    """Estimate the memory of training on a CPU, by the parts that a GPU would hold.

    The proof of the exports takes a second process, with the model read anew, beside the first. On
    two cores training the embedded model was seen to take 2.4 GB, between ``least`` and ``most``;
    within 2.0 GB the run was killed at its proof.
    """
    plan = unestimated_plans(work.train)[0]
    estimate = estimate_memory(work, plan.micro_batch, plan.gradient_checkpointing)
    processes = 2 if work.evaluate.parity_rows else 1
    kept = kept_weight_bytes(work)
    least = estimate.weights + estimate.adapter + kept + processes * _PROCESS
    return HostMemory(
        weights=estimate.weights, least=least, most=max(least, estimate.reserved + kept + _PROCESS)
    )


def kept_weight_bytes(work: Workload) -> float:
    """Bytes of host memory for the adapted weights that a process keeps (lora.init: pissa)."""
    if not INITIALISATIONS[work.lora.init].keeps_weights:
        return 0.0
    return work.adapter.weights * WEIGHT_BYTES[work.dtype]


def require_room_for_kept_weights(work: Workload, processes: int, free: int) -> None:
    """Refuse a training on GPUs whose processes would keep more weights than their host has room for.

    Args:
        work: What is trained.
        processes: How many keep them on one host.
        free: Bytes of its memory that can be had.

    Raises:
        HardwareError: They do not fit.
    """
    need = processes * kept_weight_bytes(work)
    if need > free:
        raise HardwareError(
            f"lora.init: {work.lora.init} keeps the adapted weights in the host's memory: "
            f"{need / GIB:.1f} GiB for {processes} process{'es' * (processes > 1)}, and "
            f"{free / GIB:.1f} GiB are free. Use fewer GPUs, a host with more memory, or "
            "lora.init: default"
        )


def require_host_memory(work: Workload, free: int) -> str | None:
    """Refuse what cannot fit in the host's free memory: the kernel would end it without a word.

    Args:
        work: What is trained.
        free: Bytes that can be had, a container's limit heeded.

    Returns:
        A warning where it fits only if the rows are short enough, else None.

    Raises:
        HardwareError: The weights alone, with what every training needs, do not fit.
    """
    memory = plan_host_memory(work)
    if memory.least > free:
        raise HardwareError(
            f"model.id: training on this host's CPU takes at least {memory.least / GIB:.1f} GiB of "
            f"memory (base weights in {work.dtype}: {memory.weights / GIB:.1f} GiB), and "
            f"{free / GIB:.1f} GiB are free. Take a smaller model, a host with more memory, or a GPU"
        )
    if memory.most <= free:
        return None
    return (
        f"training may need {memory.most / GIB:.1f} GiB of memory, if rows are as long as "
        f"model.max_seq_length ({work.longest_row} tokens) allows, and {free / GIB:.1f} GiB are "
        "free. If the run is killed, lower model.max_seq_length or train.micro_batch"
    )
