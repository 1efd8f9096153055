"""What a measured step says of all plans: estimates corrected by what the card really took."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from llm_engineering.planning.batch_plan import BatchPlan

_LEAST = 0.1  # of an estimate of activations: less was never seen, and would let any plan fit


class MeasuredStep(BaseModel):
    """Bytes of GPU memory, as PyTorch counts them: without the context."""

    held: int = Field(description="Allocated before the step: base weights and adapter.")
    peak: int = Field(description="Reserved at its peak.")


def correct(
    plans: Sequence[BatchPlan],
    measured: BatchPlan,
    step: MeasuredStep,
    adapter_bytes: int,
    *,
    may_lower: bool = True,
) -> list[BatchPlan]:
    """The plans, in their order, with estimates that agree with a measured step of one of them.

    Weights become what was held. What is left of the peak, without the adapter's gradients, the
    optimizer's state and the allocator's room, is activations and working memory; these are scaled
    alike in all plans. The held-out evaluation was not measured and stays as estimated.

    Args:
        plans: Fastest first; those without an estimate are left alone.
        measured: The one that was measured.
        step: What it took.
        adapter_bytes: Of the adapter's parameters, which are among what was held.
        may_lower: Whether a step that took less than was estimated lowers the estimates of activations.
    """
    estimate = measured.estimate
    if estimate is None:
        return list(plans)
    weights = float(step.held - adapter_bytes)
    taken = step.peak - weights - estimate.adapter - estimate.spare
    factor = max(taken / (estimate.activations + estimate.working), _LEAST if may_lower else 1.0)
    off_by = step.peak / estimate.training - 1
    corrected = []
    for plan in plans:
        if plan.estimate is not None:
            update = {
                "weights": weights,
                "activations": factor * plan.estimate.activations,
                "working": factor * plan.estimate.working,
            }
            plan = plan.model_copy(
                update={
                    "estimate": plan.estimate.model_copy(update=update),
                    "off_by": off_by if plan.off_by is None else plan.off_by,
                }
            )
        if plan.is_like(measured):
            plan = plan.model_copy(update={"measured_bytes": step.peak})
        corrected.append(plan)
    return corrected
