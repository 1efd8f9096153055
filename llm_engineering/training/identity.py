"""What decides a training: only an equal one may go on from its checkpoints."""

from __future__ import annotations

import hashlib
from typing import Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.export import ExportSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.batch_plan import BatchPlan

# Settings that change neither what a training gives nor what its record holds, but its log's density.
_NOT_GIVEN = {"log_every", "checkpoint_every", "keep_checkpoints"}
# Where exports go beside the run's own artifacts.
_PUSHED = {"hub_repo", "hub_merged_repo", "hub_private"}
# Settings of evaluation that training heeds.
_WHILE_TRAINING = {"samples_every", "samples", "max_new_tokens"}
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
        plan: How the rows go through the device; it decides the form of the checkpoints.
    """
    text = settings.model_dump_json(exclude=_not_identity(settings)) + str(seed)
    text += f"{settings.rows_in_step} rows"
    if plan.sharded:  # its checkpoints are FSDP's
        text += ", weights shared"
    if (definition := OBJECTIVES[settings.objective].definition) > 1:
        text += f", definition {definition} of its loss"
    return {
        "model": lora.model.digest,
        "adapter": lora.digest,
        "data": dataset.summary.digest,
        "training settings": hashlib.sha256(text.encode()).hexdigest(),
        "starting adapter": start.digest if start else "",
    }


def deciding_settings(
    train: TrainSettings,
    evaluate: EvaluateSettings,
    *,
    evaluated_there: bool,
    exported_there: ExportSettings | None = None,
) -> dict[str, Any]:
    """The settings that the result of the train step hangs on: one that is not here trains nothing again.

    What is asked for and only training can give is here too: held-out evaluations in passing, sample
    answers on the way, trackers.

    Args:
        train: The optimisation.
        evaluate: What is measured beside the training loss.
        evaluated_there: Whether the ranks or the host that train also make the evaluation.
        exported_there: What that host exports too, if it does.
    """
    asked: dict[str, Any] = {}
    if evaluated_there:
        asked = evaluate.needing_the_model
    elif evaluate.samples_every:
        asked = evaluate.model_dump(include=_WHILE_TRAINING)
    deciding = {"train": train.model_dump(exclude=_NOT_GIVEN), "evaluate": asked}
    if exported_there is not None:
        deciding["export"] = exported_there.model_dump(exclude=_PUSHED)
    return deciding


def _not_identity(settings: TrainSettings) -> set[str]:
    """When held-out rows are looked at decides too, where training ends or is kept by them."""
    return _NOT_IDENTITY - ({"evaluate_every"} if settings.validates else set())
