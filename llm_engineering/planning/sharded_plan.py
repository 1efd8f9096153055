"""Plans for a base model that no single GPU holds: its weights shared by the ranks (FSDP)."""

from __future__ import annotations

from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.batch_plan import BatchPlan, gpu_plans, micro_batches
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.memory import WEIGHT_BYTES, estimate_memory
from llm_engineering.planning.workload import Workload

_GATHERED_LAYERS = 3  # in use, fetched ahead, and not yet given back
_BYTES_A_LOGIT = 12.0  # 16 bit, widened, and its gradient: all rows' at once
_MOST_TOKENS = 8192
# The host's memory by the size of the weights, as read while 86.3 GB were loaded.
_HOST_ROOM = 1.07


def sharded_plans(work: Workload, ranks: int) -> list[BatchPlan]:
    """The ways to make a rank's share of a step when each rank holds a part of the weights.

    Each layer is gathered when it is needed, so a GPU holds its share, a few whole layers and an
    embedding; activations are recomputed. Measured on two H100 with 43.2e9 parameters: 57.7 GB
    planned and 59.0 GB reserved at one row of 2,048 tokens, 63.1 and 62.8 GB at two.

    Returns:
        Fastest first; empty where ``what_prevents_sharing`` names a reason.
    """
    if ranks == 1 or what_prevents_sharing(work):
        return []
    shape, width = work.shape, WEIGHT_BYTES[work.dtype]
    layer = max(each.parameters for each in shape.layers)
    gathered = width * (_GATHERED_LAYERS * layer + shape.vocabulary * shape.hidden)
    plans: list[BatchPlan] = []
    for size in micro_batches(work.train):
        whole = estimate_memory(work, size, "plain")
        tokens = size * work.longest_row
        if plans and tokens > _MOST_TOKENS:
            break
        estimate = whole.model_copy(
            update={
                "weights": whole.weights / ranks + gathered,
                "adapter": whole.adapter / ranks,
                "working": max(whole.working, tokens * shape.vocabulary * _BYTES_A_LOGIT),
            }
        )
        plans.insert(
            0,
            BatchPlan(
                micro_batch=size,
                gradient_accumulation=work.train.rows_in_step // size,
                gradient_checkpointing="plain",
                sharded=True,
                estimate=estimate,
            ),
        )
    return plans


def what_prevents_sharing(work: Workload) -> str | None:
    """The setting that keeps the ranks from sharing the weights, and what to set instead."""
    if not OBJECTIVES[work.train.objective].can_be_sharded:
        return f"train.objective: {work.train.objective} does not; sft does"
    if work.quantisation != "none":
        return f"model.quantisation: {work.quantisation} does not; none does"
    if not INITIALISATIONS[work.lora.init].can_be_sharded:
        return f"lora.init: {work.lora.init} does not; default does"
    if work.lora.trainable_tokens:
        return "lora.trainable_tokens does not (PEFT puts its rows into whole matrices); [] does"
    if work.train.keep_best:
        return "train.keep_best does not; false does"
    if work.train.optimizer != "adamw_torch":
        return f"train.optimizer: {work.train.optimizer} does not; adamw_torch does"
    return None


def host_bytes(work: Workload) -> float:
    """Memory of each host that the weights go through before the GPUs have their parts."""
    return _HOST_ROOM * WEIGHT_BYTES[work.dtype] * work.shape.parameters


def explain_sharing(work: Workload, ranks: int, capacity: float) -> str:
    """Say that the weights are shared, why, and what the alternative is.

    Args:
        work: A rank's share of the training.
        ranks: How many share the weights.
        capacity: Bytes of each GPU.
    """
    text = (
        f"the weights do not fit one GPU ({capacity / GIB:.1f} GiB): the {ranks} GPUs share them "
        f"(FSDP, plain PEFT), after {host_bytes(work) / GIB:.0f} GiB of the host's memory"
    )
    quantised = gpu_plans(work.model_copy(update={"quantisation": "nf4"}))
    if any(plan.fits(capacity) for plan in quantised):
        text += "; model.quantisation: nf4 (QLoRA) would fit each, and train by unsloth"
    return text


def explain_no_sharing(work: Workload, ranks: int) -> str:
    """Add to a refusal, where several GPUs are there, what sharing would need."""
    if ranks == 1:
        return ""
    reason = what_prevents_sharing(work)
    if reason:
        return f"\nshared by {ranks} GPUs (FSDP) it might fit, but {reason}"
    estimate = sharded_plans(work, ranks)[-1].estimate
    need = estimate.total / GIB if estimate else 0.0
    return f"\nshared by {ranks} GPUs (FSDP) it would need {need:.1f} GiB on each"
