"""How an optimizer step's rows go through a device: micro-batch, accumulation, checkpointing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning.memory import MemoryEstimate, estimate_memory, needs_mask
from llm_engineering.planning.workload import Workload

USABLE_SHARE = 0.92
"""Share of a GPU's memory that a plan may take: estimates are up to 10 % off, mostly 3 %."""

_CPU_MICRO_BATCH = 2
_SMALLER = 0.95
# A forward pass of 8,192 tokens keeps an H100 busy with 8e9 parameters; fewer parameters need more
# tokens for as much work, up to a point. Recomputing saves memory that more tokens can use.
_BUSY = 8192 * 8.0e9
# A model of 0.1e9 waits for the host, which starts as many kernels for half as many tokens: 1.74 times as fast
# with 65,536 as with 32,768 (benchmarks/NOTES.md). More was not measured.
_MOST_TOKENS = 65536
# Attention is over all of a micro-batch: at 16,384 tokens a third of the work of Gemma-3-4b's layer.
_MOST_MASKED = 8192
_ENOUGH_TOKENS = 16000  # in a forward pass, or what keeps the GPU busy where that is less


class BatchPlan(BaseModel):
    """One way to make an optimizer step; all ways learn the same."""

    micro_batch: int = Field(description="Rows in one forward pass.")
    gradient_accumulation: int = Field(description="Forward passes in one optimizer step.")
    gradient_checkpointing: str = Field(description='"none", "plain", "unsloth" or "tiled".')
    sharded: bool = Field(False, description="Whether the ranks share the weights (FSDP).")
    estimate: MemoryEstimate | None = Field(None, description="None on a CPU.")
    measured_bytes: int | None = Field(
        None, description="Reserved at the peak of a step that was measured before training."
    )
    off_by: float | None = Field(
        None,
        description="How much more the first measured step took than was estimated, as a share; the "
        "estimate is corrected by it.",
    )

    def __str__(self) -> str:
        recompute = {
            "none": "no checkpointing",
            "plain": "plain checkpointing",
            "unsloth": "unsloth's checkpointing",
            "tiled": "unsloth's checkpointing, feed-forward in tiles",
        }[self.gradient_checkpointing]
        shared = ", weights shared" if self.sharded else ""
        return f"micro-batch {self.micro_batch} x {self.gradient_accumulation}, {recompute}{shared}"

    def is_like(self, other: BatchPlan) -> bool:
        """Whether rows go through the device in the same way, whatever is thought of its memory."""
        memory = {"estimate": None, "measured_bytes": None, "off_by": None}
        return self.model_copy(update=memory) == other.model_copy(update=memory)

    def fits(self, capacity: float) -> bool:
        """Whether the plan fits a card of so many bytes, with a margin."""
        return self.estimate is None or self.estimate.total <= USABLE_SHARE * capacity


def gpu_plans(work: Workload) -> list[BatchPlan]:
    """The ways to make a step on a GPU that the settings allow, fastest first.

    The order is measured (benchmarks/NOTES.md): not recomputing beats recomputing, plain
    checkpointing beats unsloth's at a like micro-batch, which beats tiles, and a forward pass should hold enough
    tokens to keep the GPU busy (16,000, or 8,192 of a large model), but not many more.

    Raises:
        HardwareError: Tiles are asked for, and the model has no dense block that could go in them.
    """
    train = work.train
    chosen = train.gradient_checkpointing
    if chosen == "tiled" and not work.shape.has_tiles:
        raise HardwareError(
            "train.gradient_checkpointing: tiled goes through each layer's dense feed-forward block in "
            f"tiles, and a layer of {work.shape.family} has none; use auto or unsloth"
        )
    plans = []
    sizes, row = micro_batches(train), _tokens_a_row(work)
    useful = [size for size in sizes if size * row <= _busy_tokens(work)]
    if not useful or useful[-1] * row < _enough_tokens(work):
        useful = sizes[: len(useful) + 1]
    kinds = ("none", "plain", "unsloth", *["tiled"] * work.shape.has_tiles)
    for checkpointing in kinds if chosen == "auto" else (chosen,):
        plans += [
            BatchPlan(
                micro_batch=size,
                gradient_accumulation=train.rows_in_step // size,
                gradient_checkpointing=checkpointing,
                estimate=estimate_memory(work, size, checkpointing),
            )
            for size in reversed(useful)
        ]
    return plans


def what_keeps_it_waiting(work: Workload, plan: BatchPlan) -> str | None:
    """Why a forward pass has too few tokens to keep the GPU busy, where the settings are the reason."""
    row = _tokens_a_row(work)
    if plan.micro_batch * row >= _enough_tokens(work) or plan.gradient_accumulation > 1:
        return None
    return (
        f"a forward pass has {plan.micro_batch * row:,.0f} tokens, and {_enough_tokens(work):,.0f} would "
        f"keep the GPU busy: train.effective_batch ({work.train.rows_in_step} rows of {row:,.0f} tokens) "
        "is the limit" + ("" if work.train.packing else "; train.packing: true would fill the rows")
    )


def _tokens_a_row(work: Workload) -> float:
    return work.mean_row * work.sequences_per_row


def _busy_tokens(work: Workload) -> float:
    masked = needs_mask(work.shape.family, work.train.packing)
    most = _MOST_MASKED if masked else _MOST_TOKENS
    return min(most, max(8192.0, _BUSY / work.shape.active_parameters))


def _enough_tokens(work: Workload) -> float:
    return min(_ENOUGH_TOKENS, _busy_tokens(work))


def unestimated_plans(train: TrainSettings) -> list[BatchPlan]:
    """The ways to make a step on a CPU, where no memory is estimated.

    Micro-batches are small: on a CPU padding costs more than starting kernels. There, whatever is
    recomputed is so plainly: states are in host memory as they are.
    """
    sizes = micro_batches(train)
    small = [size for size in sizes if size <= _CPU_MICRO_BATCH] or sizes
    chosen = train.gradient_checkpointing
    return [
        BatchPlan(
            micro_batch=size,
            gradient_accumulation=train.rows_in_step // size,
            gradient_checkpointing="none" if chosen in ("auto", "none") else "plain",
        )
        for size in reversed(small)
    ]


def micro_batches(train: TrainSettings) -> list[int]:
    """The micro-batches that give exactly the configured rows a step, ascending."""
    if train.micro_batch != "auto":
        return [train.micro_batch]
    rows = train.rows_in_step
    if train.gradient_accumulation is not None:
        return [rows // train.gradient_accumulation]
    return [size for size in range(1, rows + 1) if rows % size == 0]


def smaller_plans(plans: Sequence[BatchPlan], failed: BatchPlan) -> list[BatchPlan]:
    """The plans after ``failed`` that need clearly less memory, fastest first."""
    place = next(number for number, plan in enumerate(plans) if plan.is_like(failed))
    least = plans[place].estimate
    return [
        plan
        for plan in plans[place + 1 :]
        if least is None or plan.estimate is None or plan.estimate.total < _SMALLER * least.total
    ]
