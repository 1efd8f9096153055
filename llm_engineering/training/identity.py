"""What decides a training: only an equal one may go on from its checkpoints."""

from __future__ import annotations

import hashlib

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.batch_plan import BatchPlan

# Settings that change what is kept or shown, not what is learned.
_NOT_IDENTITY = {
    "log_every", "trackers", "evaluate_every", "checkpoint_every", "keep_checkpoints",
    "effective_batch", "micro_batch", "gradient_accumulation", "gradient_checkpointing",
}  # fmt: skip


def identity_of(
    lora: LoraRecipe,
    dataset: PreparedDataset,
    settings: TrainSettings,
    start: AdapterFolder | None,
    seed: int,
    plan: BatchPlan,
) -> dict[str, str]:
    """Digests by what they are of, in words that a message can list.

    Args:
        lora: The model with its fresh adapter.
        dataset: The rows.
        settings: The optimisation; what is only kept or shown of it does not count.
        start: The adapter that training starts from, if not the fresh one.
        seed: Of the data order and of dropout.
        plan: How the rows go through the device, where that decides too.
    """
    text = settings.model_dump_json(exclude=_not_identity(settings)) + str(seed)
    text += f"{settings.rows_in_step} rows"
    if plan.sharded:  # its checkpoints are FSDP's
        text += ", weights shared"
    if OBJECTIVES[settings.objective].least_micro_batch > 1:
        text += f", {plan.micro_batch} at a time"
    return {
        "model": lora.model.digest,
        "adapter": lora.digest,
        "data": dataset.summary.digest,
        "training settings": hashlib.sha256(text.encode()).hexdigest(),
        "starting adapter": start.digest if start else "",
    }


def _not_identity(settings: TrainSettings) -> set[str]:
    """When held-out rows are looked at decides too, where training ends or is kept by them."""
    by_held_out = settings.keep_best or settings.early_stopping_patience
    return _NOT_IDENTITY - ({"evaluate_every"} if by_held_out else set())
