"""The memory plan as text: what takes how much here, and what would fit other cards."""

from __future__ import annotations

from llm_engineering.planning.batch_plan import BatchPlan, gpu_plans
from llm_engineering.planning.cards import CARDS, FP8_CARDS, GIB
from llm_engineering.planning.workload import Workload

_PARTS = {
    "weights": "base weights",
    "adapter": "adapter, gradients, optimizer",
    "activations": "activations of a micro-batch",
    "working": "one layer's backward, or loss",
    "spare": "allocator, cuBLAS",
    "context": "CUDA context",
}
_ROW_STEP, _LONGEST = 256, 2**22


def plan_table(work: Workload, plan: BatchPlan) -> list[str]:
    """The estimate of a plan, part by part, in GiB."""
    estimate = plan.estimate
    if estimate is None:
        return []
    values = estimate.model_dump()
    lines = [f"  {words:<31}{values[name] / GIB:>7.2f} GiB" for name, words in _PARTS.items()]
    training = estimate.training + estimate.context
    lines.append(f"  {'in training':<31}{training / GIB:>7.2f} GiB")
    evaluation = estimate.evaluating + estimate.context
    words = f"in held-out evaluation ({work.evaluate.batch_size} rows)"
    lines.append(f"  {words:<31}{evaluation / GIB:>7.2f} GiB")
    if estimate.loading:
        loading = (estimate.loading + estimate.context) / GIB
        lines.append(f"  {'while weights are loaded':<31}{loading:>7.2f} GiB")
    return lines


def card_table(work: Workload) -> list[str]:
    """The plan for each named card and the longest row that fits it, or what would be needed."""
    plans = gpu_plans(work)
    lines = []
    for card, gib in CARDS.items():
        said = f"  {card:<12}{gib:>6.1f} GiB  "
        if work.quantisation == "fp8" and card not in FP8_CARDS:
            lines.append(f"{said}{'has no FP8':>24}")
            continue
        chosen = next((plan for plan in plans if plan.fits(gib * GIB)), None)
        longest = longest_row(work, gib * GIB)
        rows = f"; rows of up to {longest:,} tokens" if longest else ""
        lines.append(f"{said}{_outcome(plans, chosen)}{rows}")
    return lines


def longest_row(work: Workload, capacity: float) -> int:
    """The longest row, in steps of 256 tokens, with which some plan fits so many bytes; 0 if none does.

    By memory alone: a model's positions may end before. Evaluations count, with their whole batch.
    """
    fewest, most = 0, _LONGEST // _ROW_STEP
    while fewest < most:
        middle = (fewest + most + 1) // 2
        length = middle * _ROW_STEP
        longer = work.model_copy(update={"longest_row": length, "mean_row": float(length)})
        if any(plan.fits(capacity) for plan in gpu_plans(longer)):
            fewest = middle
        else:
            most = middle - 1
    return fewest * _ROW_STEP


def explain_refusal(work: Workload, card: str, capacity: float) -> str:
    """Why no plan fits, with the table of the smallest one and what would help.

    Args:
        work: What was to be trained.
        card: Name of the GPU.
        capacity: Its bytes.
    """
    smallest = smallest_plan(gpu_plans(work))
    helps = ["a shorter model.max_seq_length"]
    if work.train.gradient_checkpointing not in ("auto", "tiled"):
        helps.insert(0, "train.gradient_checkpointing: auto")
    if work.train.micro_batch != "auto":
        helps.insert(0, "train.micro_batch: auto")
    estimate = smallest.estimate
    if estimate and estimate.reserved > estimate.training:
        helps.append("a lower evaluate.batch_size")
    if work.quantisation != "nf4":
        helps.append("model.quantisation: nf4")
    return "\n".join(
        [
            f"this training does not fit {card} ({capacity / GIB:.1f} GiB); the smallest plan is "
            f"{smallest}, with rows of {work.longest_row} tokens:",
            *plan_table(work, smallest),
            f"try {', '.join(helps)}, or a larger GPU:",
            *card_table(work),
        ]
    )


def smallest_plan(plans: list[BatchPlan]) -> BatchPlan:
    """The plan that needs the least memory."""
    return min(
        plans,
        key=lambda plan: (plan.estimate.total, plan.estimate.training) if plan.estimate else (0, 0),
    )


def _outcome(plans: list[BatchPlan], chosen: BatchPlan | None) -> str:
    plan = chosen or smallest_plan(plans)
    need = plan.estimate.total / GIB if plan.estimate else 0.0
    return f"{need:>6.1f} GiB  {plan}" if chosen else f"{need:>6.1f} GiB  does not fit"
