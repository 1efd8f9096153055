"""The trainer of a plan: the objective's own, with the arguments that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.trackers import report_to
from llm_engineering.model.live import LiveModel
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.objectives.objective import Ingredients
from llm_engineering.planning.batch_plan import BatchPlan

if TYPE_CHECKING:
    import datasets
    from transformers import Trainer


def make_trainer(
    live_model: LiveModel,
    rows: datasets.Dataset,
    lora: LoraRecipe,
    settings: TrainSettings,
    plan: BatchPlan,
    seed: int,
    folder: Path,
    more: Mapping[str, Any] | None = None,
) -> Trainer:
    """trl's trainer for a plan: ``settings.rows_in_step`` rows a step, however they are split.

    Args:
        live_model: Model and tokenizer.
        rows: The train split.
        lora: What is trained.
        settings: The optimisation.
        plan: How the rows go through the device.
        seed: Of the data order and of dropout.
        folder: Receives checkpoints; its parent is the run's work folder.
        more: Arguments that take the place of those made here (``transformers.TrainingArguments``).

    Raises:
        TrainingError: The trainer would compute in another type than ``model.dtype``.
    """
    backend().set_checkpointing(live_model.model, plan.gradient_checkpointing)
    sft_trainer = backend().sft_trainer()
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.gradient_accumulation,
        "learning_rate": settings.peak_learning_rate,
        "lr_scheduler_type": settings.lr_scheduler,
        "warmup_steps": settings.warmup_steps,
        "optim": settings.optimizer,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": plan.gradient_checkpointing != "none",
        "bf16": lora.model.dtype == "bfloat16",
        "fp16": lora.model.dtype == "float16",
        "seed": seed,
        "data_seed": seed,
        "logging_steps": settings.log_every,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "include_num_input_tokens_seen": "no",  # token_count.py counts without waiting
        "save_strategy": "steps" if settings.checkpoint_every else "no",
        "save_steps": settings.checkpoint_every or 1,
        "save_total_limit": None,  # older ones go when the newest is complete
        "eval_strategy": "no",
        "neftune_noise_alpha": settings.neftune_noise_alpha,
        "report_to": report_to(settings.trackers, folder.parent),
        "run_name": folder.parent.name,
        "disable_tqdm": True,
        **(more or {}),
    }
    ingredients = Ingredients(
        model=live_model.model,
        tokenizer=live_model.tokenizer,
        rows=rows,
        arguments=arguments,
        beta=settings.beta,
        packing=settings.packing,
        max_length=lora.model.max_seq_length,
        sft_trainer=sft_trainer,
    )
    with backend().precision(live_model.model, lora.model.dtype):
        trainer = OBJECTIVES[settings.objective].make_trainer(ingredients)
    _require_precision(trainer, lora.model.dtype)
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def _require_precision(trainer: Trainer, dtype: str) -> None:
    """Evaluation and the proofs of exports compute in ``model.dtype``; so must training."""
    autocast = {"bf16": "bfloat16", "fp16": "float16"}.get(trainer.accelerator.mixed_precision)
    if (autocast or "float32") != dtype:
        raise TrainingError(
            f"model.dtype: the trainer would compute in {autocast or 'float32'}, not in {dtype} as "
            f"the frozen weights are; set model.dtype to {autocast or 'float32'}"
        )
