"""Train: trl's trainers on the prepared rows, with checkpoints and a record of the course."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed import world
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.distributed.sharded import sharded_trainer, whole_adapter
from llm_engineering.distributed.share import share_of_step
from llm_engineering.distributed.trainer import (
    distributed_arguments,
    fill_last_step,
    name_cpu_plainly,
)
from llm_engineering.errors import HardwareError, TrainingError, TrainingStoppedError
from llm_engineering.model import live
from llm_engineering.model.base_model import file_digest, model_folder
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.best_weights import BestWeights
from llm_engineering.model.finetuning.checkpoints import (
    Checkpoint,
    checkpoint_to_resume,
    mark_complete,
    newest_checkpoint,
    open_work_folder,
)
from llm_engineering.model.finetuning.gradient_checkpointing import set_gradient_checkpointing
from llm_engineering.model.finetuning.inject import live_lora_model
from llm_engineering.model.finetuning.load import settings_of
from llm_engineering.model.finetuning.loftq import start_from_quantisation_error
from llm_engineering.model.finetuning.objectives import preference_trainer
from llm_engineering.model.finetuning.pissa import PrincipalComponents, widen
from llm_engineering.model.finetuning.progress import Display, ProgressDisplay
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    HeldOutPoint,
    SamplePoint,
    TrainingPoint,
    TrainingRecord,
)
from llm_engineering.model.finetuning.starting_adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    load_adapter_weights,
    starting_adapter,
)
from llm_engineering.model.finetuning.trackers import report_to
from llm_engineering.model.finetuning.varlen_attention import enable_varlen_attention
from llm_engineering.model.references import LoraReference
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import BatchPlan, next_smaller
from llm_engineering.planning.device_plans import device_plans
from llm_engineering.training.attempt import Attempt
from llm_engineering.training_stack import import_unsloth

if TYPE_CHECKING:
    import datasets

    from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

Progress = Callable[[TrainingRecord], None]
Outcome = tuple[AdapterFolder, TrainingRecord]
Resume = Literal["never", "required", "if-possible"]

_RECORD = "training_record.json"
# Settings that change what is kept or shown, not what is learned.
_NOT_IDENTITY = {
    "log_every", "trackers", "evaluate_every", "checkpoint_every", "keep_checkpoints",
    "effective_batch", "micro_batch", "gradient_accumulation", "gradient_checkpointing",
}  # fmt: skip


def _not_identity(settings: TrainSettings) -> set[str]:
    """When held-out rows are looked at decides too, where training ends or is kept by them."""
    by_held_out = settings.keep_best or settings.early_stopping_patience
    return _NOT_IDENTITY - ({"evaluate_every"} if by_held_out else set())


def train(
    lora: LoraReference,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    *,
    seed: int,
    work: Path,
    name: str,
    resume: Resume = "never",
    on_progress: Progress | None = None,
    stop: threading.Event | None = None,
    placement: Placement = HERE,
    production: ProductionAdapter | None = None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Train the adapter and write it to ``work/name/adapter``.

    Args:
        lora: The model with its fresh adapter; built again if this process does not hold it.
        dataset: Train and held-out rows.
        settings: The optimisation.
        evaluate: Batch size of the held-out evaluations.
        seed: Of the data order and of dropout.
        work: Folder of all unfinished runs; an interrupted run is looked for here.
        name: This run's folder in it.
        resume: Whether to continue from the newest complete checkpoint of an equal, interrupted
            run: "never", "required" (there must be one), or "if-possible".
        on_progress: Called with the record so far at every logged step.
        stop: Once set, the step under way is the last: a checkpoint is saved and the run ends.
        placement: The ranks that share each step. Several are processes of their own, which
            evaluate too: the record brings the evaluation.
        production: Evaluated by such ranks, as in ``measure_production``.

    The rows of a step go through the device as the fastest plan says that fits it. Where that runs
    out of memory all the same, training goes on with the next smaller plan, from the newest
    checkpoint or from the start.

    Raises:
        ConfigError: The ranks cannot share a step's rows equally.
        HardwareError: Even the smallest plan does not fit.
        LoraError: The adapter to start from is not there, or does not fit.
        TrainingError: The loss is not finite, or there is nothing to resume from.
        TrainingStoppedError: ``stop`` was set; says where the checkpoint is.
    """
    start = starting_adapter(settings.start_from) if settings.start_from else None
    share = share_of_step(settings, placement.ranks)
    plans = device_plans(lora, dataset, share, evaluate, placement.ranks)
    if settings.objective == "kto":  # its reference point is of a micro-batch
        plans = [plan for plan in plans if plan.micro_batch == plans[0].micro_batch]
    identity = _identity(lora, dataset, settings, start, seed, plans[0])
    checkpoint = _checkpoint(work, identity, resume)
    lock = open_work_folder(work / name, identity)
    attempt = Attempt(
        lora=lora, dataset=dataset.folder, settings=settings, evaluate=evaluate, seed=seed,
        start=start, plan=plans[0], checkpoint=checkpoint, record=_record_at(checkpoint),
        folder=work / name,
    )  # fmt: skip

    def run(attempt: Attempt) -> tuple[AdapterFolder, TrainingRecord]:
        if placement.ranks == 1:
            return train_here(attempt, ProgressDisplay(), on_progress, stop), attempt.record
        from llm_engineering.training.launch import train_on_ranks

        return train_on_ranks(attempt, placement, production, on_progress, stop)

    try:
        logger.info("%d rows a step: %s%s", settings.rows_in_step, plans[0], placement.on_each)
        while (outcome := _unless_out_of_memory(run, attempt)) is None:
            live.release()
            hardware.free_gpu_memory()
            checkpoint = newest_checkpoint(work / name) or checkpoint
            attempt = attempt.model_copy(
                update={
                    "plan": _smaller(plans, attempt.plan),
                    "checkpoint": checkpoint,
                    "record": _record_after_fallback(attempt.record, checkpoint),
                }
            )
    except BaseException:
        live.release()  # half-trained weights answer to no reference
        raise
    finally:
        lock.close()
    return outcome


def train_here(
    attempt: Attempt,
    display: Display,
    on_progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> AdapterFolder:
    """Train in this process, alone or as one of several ranks, and hold the trained model.

    The first rank writes the adapter; all of them return it.
    """
    lora, settings, record, start = attempt.lora, attempt.settings, attempt.record, attempt.start
    dataset = PreparedDataset.read(attempt.dataset)
    held = live_lora_model(lora)
    if start is not None:
        load_adapter_weights(held.model, start)
    record.objective, record.beta = settings.objective, settings.beta
    record.started_from = start.digest if start else None
    record.plan, record.ranks = attempt.plan, world.ranks()
    trainer = make_trainer(
        held, dataset.split("train"), lora, settings, attempt.plan, attempt.seed,
        attempt.checkpoints,
    )  # fmt: skip
    trainer.add_callback(
        _make_recorder(attempt, dataset.split("held_out"), held, display, on_progress, stop)
    )
    checkpoint = attempt.checkpoint
    if checkpoint is not None:
        logger.info("resuming %s from step %d", checkpoint.run.name, checkpoint.step)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    finally:
        display.stop()
    whole = whole_adapter(held.model) if world.is_sharded() else None
    saved = save_adapter(held.model, lora, attempt.adapter, whole) if world.is_first() else None
    adapter: AdapterFolder = world.as_the_first_says(saved)
    live.hold(adapter.digest, held)
    return adapter


def live_trained_model(lora: LoraReference, adapter: AdapterFolder) -> live.LiveModel:
    """The trained model: the one held by this process, else built from base model and adapter."""
    held = live.find(adapter.digest)
    if held is not None:
        return held
    fresh = live_lora_model(lora)
    if lora.settings.init == "pissa":
        widen(fresh.model)
    load_adapter_weights(fresh.model, adapter)
    live.hold(adapter.digest, fresh)
    return fresh


def save_adapter(
    model: Any, lora: LoraReference, folder: Path, parameters: dict[str, Any] | None = None
) -> AdapterFolder:
    """Write a PEFT model's adapter, naming its base model as the configuration does.

    Args:
        model: The model; it knows the adapter's settings.
        lora: What was trained.
        folder: Receives the adapter.
        parameters: The adapter's; default: as they are in the model.
    """
    import json

    model.save_pretrained(str(folder), state_dict=parameters)
    config = folder / ADAPTER_CONFIG
    values = json.loads(config.read_text(encoding="utf-8"))
    # unsloth and PEFT write the folder that the weights were read from, which means nothing
    # on another machine.
    values["base_model_name_or_path"] = lora.model.id
    values["revision"] = lora.model.revision
    config.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; ours comes with the save
    return AdapterFolder(folder, file_digest(folder / ADAPTER_WEIGHTS))


def _identity(
    lora: LoraReference,
    dataset: PreparedDataset,
    settings: TrainSettings,
    start: AdapterFolder | None,
    seed: int,
    plan: BatchPlan,
) -> dict[str, str]:
    text = settings.model_dump_json(exclude=_not_identity(settings)) + str(seed)
    text += f"{settings.rows_in_step} rows"
    if plan.sharded:  # its checkpoints are FSDP's
        text += ", weights shared"
    if settings.objective == "kto":
        text += f", {plan.micro_batch} at a time"
    return {
        "model": lora.model.digest,
        "adapter": lora.digest,
        "data": dataset.summary.digest,
        "training settings": hashlib.sha256(text.encode()).hexdigest(),
        "starting adapter": start.digest if start else "",
    }


def _checkpoint(work: Path, identity: dict[str, str], resume: Resume) -> Checkpoint | None:
    if resume == "never":
        return None
    try:
        return checkpoint_to_resume(work, identity)
    except TrainingError as reason:
        if resume == "required":
            raise
        logger.info("starting from the first step: %s", reason)
        return None


def _record_at(checkpoint: Checkpoint | None) -> TrainingRecord:
    if checkpoint is None:
        return TrainingRecord()
    text = (checkpoint.folder / _RECORD).read_text(encoding="utf-8")
    record = TrainingRecord.model_validate_json(text)
    record.resumed_from_step = checkpoint.step
    record.resumed_from_run = checkpoint.run.name
    return record


def _record_after_fallback(failed: TrainingRecord, checkpoint: Checkpoint | None) -> TrainingRecord:
    """The record to go on with: what is measured of the base model need not be measured again."""
    record = _record_at(checkpoint)
    record.resumed_from_step = failed.resumed_from_step
    record.resumed_from_run = failed.resumed_from_run
    record.held_out = record.held_out or failed.held_out[:1]
    return record


def _unless_out_of_memory(run: Callable[[Attempt], Outcome], attempt: Attempt) -> Outcome | None:
    """What an attempt gives, or None. The exception ends here, and its hold on what was allocated."""
    import torch

    try:
        return run(attempt)
    except torch.OutOfMemoryError as error:
        logger.warning("%s: out of memory (%s)", attempt.plan, str(error).split(". ")[0])
        return None


def _smaller(plans: list[BatchPlan], failed: BatchPlan) -> BatchPlan:
    plan = next_smaller(plans, failed)
    if plan is None:
        raise HardwareError(
            f"out of memory with {failed}, the smallest plan that the settings allow; set "
            "train.micro_batch and train.gradient_checkpointing to auto, lower "
            "model.max_seq_length, or set model.load_in_4bit: true"
        )
    logger.warning("going on with %s; what is learned stays the same", plan)
    return plan


def make_trainer(
    held: live.LiveModel,
    rows: datasets.Dataset,
    lora: LoraReference,
    settings: TrainSettings,
    plan: BatchPlan,
    seed: int,
    folder: Path,
) -> Any:
    """trl's trainer for a plan: ``settings.rows_in_step`` rows a step, however they are split."""
    if import_unsloth() is not None:
        set_gradient_checkpointing(held.model, plan.gradient_checkpointing)
        enable_varlen_attention()
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.gradient_accumulation,
        "learning_rate": settings.learning_rate,
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
        "include_num_input_tokens_seen": "all" if settings.packing else "non_padding",
        "save_strategy": "steps" if settings.checkpoint_every else "no",
        "save_steps": settings.checkpoint_every or 1,
        "save_total_limit": settings.keep_checkpoints,
        "eval_strategy": "no",
        "neftune_noise_alpha": settings.neftune_noise_alpha,
        "report_to": report_to(settings.trackers, folder.parent),
        "run_name": folder.parent.name,
        "disable_tqdm": True,
        **distributed_arguments(),
    }
    if settings.objective == "sft":
        make = sharded_trainer() if world.is_sharded() else SFTTrainer
        trainer = make(
            model=held.model,
            processing_class=held.tokenizer,
            args=SFTConfig(
                **arguments,
                packing=settings.packing,
                max_length=lora.model.max_seq_length,
                # Matrix kernels for lengths that are no multiple of 8 are slower (NOTES.md).
                pad_to_multiple_of=8 if settings.packing else None,
            ),
            train_dataset=rows.select_columns(["input_ids", "labels"]),
        )
        fill_last_step(trainer)
    else:
        trainer = preference_trainer(held, rows, settings, arguments)
    name_cpu_plainly(trainer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _make_recorder(
    attempt: Attempt,
    held_out: datasets.Dataset,
    held: live.LiveModel,
    display: Display,
    on_progress: Progress | None,
    stop: threading.Event | None,
) -> Any:
    """The trainer callback that fills the record; made here, since its base class is imported late."""
    import torch
    from transformers import TrainerCallback

    record, settings, evaluate = attempt.record, attempt.settings, attempt.evaluate
    best = BestWeights(attempt.folder)
    pissa = attempt.lora.settings.init == "pissa"
    components = PrincipalComponents(attempt.folder) if pissa else None
    prompts = (
        choose_prompts(held_out, evaluate.samples, held.tokenizer) if evaluate.samples_every else []
    )

    class Recorder(TrainerCallback):
        def __init__(self) -> None:
            self.step_began = 0.0
            self.stopped = False
            self.logged_tokens = record.train_tokens
            self.logged_seconds = record.train_seconds

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            record.effective_batch = settings.rows_in_step
            record.device = world.on_all(hardware.device_name())
            display.start(state.max_steps, done=state.global_step)
            if attempt.checkpoint is not None and world.is_first():
                best.restore_from(attempt.checkpoint.folder)
            if not record.held_out:
                self.evaluate(0)
            if attempt.checkpoint is None and attempt.lora.settings.init == "loftq":
                base = model_folder(settings_of(attempt.lora.model), weights=True)
                start_from_quantisation_error(
                    held.model, base, seed=attempt.lora.settings.random_state
                )
            if components is not None:
                components.move_into_adapter(
                    held.model,
                    seed=attempt.lora.settings.random_state,
                    checkpoint=attempt.checkpoint.folder if attempt.checkpoint else None,
                )

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.step_began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            record.train_seconds += time.perf_counter() - self.step_began
            record.steps, record.epochs = state.global_step, float(state.epoch or 0.0)
            record.train_tokens = int(state.num_input_tokens_seen)
            record.peak_memory_bytes = max(record.peak_memory_bytes, hardware.peak_memory_bytes())
            display.advance(state.global_step)
            last = state.global_step == state.max_steps
            if stop is not None and world.any_rank(stop.is_set()) and not last:
                control.should_save = control.should_training_stop = self.stopped = True
                return
            every = settings.evaluate_every
            if every and state.global_step % every == 0 and not last:
                self.evaluate(state.global_step)
                record.held_out[-1].metrics.forget_rows()
                patience = settings.early_stopping_patience
                if patience and self.evaluations_since_best() >= patience:
                    logger.info("the held-out loss has not fallen %d times in a row", patience)
                    control.should_training_stop = record.stopped_early = True
            if evaluate.samples_every and state.global_step % evaluate.samples_every == 0:
                self.answer(state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
        ) -> None:
            if "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]):
                raise TrainingError(
                    f"the loss is {logs['loss']} at step {state.global_step}: lower "
                    f"train.learning_rate ({settings.learning_rate}) or raise train.warmup_steps "
                    f"({settings.warmup_steps})"
                )
            seconds = record.train_seconds - self.logged_seconds
            tokens = record.train_tokens - self.logged_tokens
            self.logged_seconds, self.logged_tokens = record.train_seconds, record.train_tokens
            record.points.append(
                TrainingPoint(
                    step=state.global_step,
                    loss=logs["loss"],
                    learning_rate=logs["learning_rate"],
                    grad_norm=logs.get("grad_norm"),
                    tokens_per_second=tokens / seconds if seconds else 0.0,
                    reward_margin=logs.get("rewards/margins"),
                )
            )
            display.show(record)
            if on_progress:
                on_progress(record)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            world.wait_for_all()  # each has written its part
            if not world.is_first():
                return
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (checkpoint / _RECORD).write_text(record.model_dump_json(), encoding="utf-8")
            best.add_to(checkpoint)
            if components is not None:
                components.add_to(checkpoint)
            mark_complete(checkpoint)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            display.stop()
            if self.stopped:
                raise TrainingStoppedError(
                    f"stopped on request after step {state.global_step} of {state.max_steps}; a "
                    f"checkpoint is in {args.output_dir}"
                )
            if settings.keep_best:
                self.evaluate(state.global_step)
                self.take_best()
            if components is not None:  # in 16 bit the same sum rounds otherwise: measured as saved
                components.restore(held.model)
            if components is not None or not settings.keep_best:
                self.evaluate(record.kept_step or state.global_step)
            planned, measured = record.planned_memory_bytes, record.peak_memory_bytes
            if planned:
                logger.info(
                    "GPU memory: planned %.1f GiB, measured %.1f GiB (%+.1f %%)",
                    planned / 1024**3,
                    measured / 1024**3,
                    100 * (measured / planned - 1),
                )
            if on_progress:
                on_progress(record)

        def evaluate(self, step: int) -> None:
            display.announce(f"evaluating {len(held_out)} held-out rows")
            before = record.before.rewards if record.held_out else None
            try:
                metrics = objective_metrics(
                    held.model,
                    held_out,
                    objective=settings.objective,
                    beta=settings.beta,
                    reference=before.log_probabilities if before else None,
                    batch_size=evaluate.batch_size,
                    pad_id=held.tokenizer.pad_token_id,
                )
            except torch.OutOfMemoryError:
                raise HardwareError(
                    f"out of memory in the held-out evaluation: lower evaluate.batch_size "
                    f"({evaluate.batch_size})"
                ) from None
            metrics = world.as_the_first_says(metrics)
            # A step measured in passing is measured again, for the rows' own losses.
            others = [point for point in record.held_out if point.step != step]
            others.append(HeldOutPoint(step=step, metrics=metrics))
            record.held_out = sorted(others, key=lambda point: point.step)
            if settings.keep_best and self.best_point().step == step and world.is_first():
                best.keep(held.model)
            display.show(record)

        def best_point(self) -> HeldOutPoint:
            trained = [point for point in record.held_out if point.step > 0]
            return min(trained or record.held_out, key=lambda point: point.metrics.loss)

        def evaluations_since_best(self) -> int:
            return sum(point.step > self.best_point().step for point in record.held_out)

        def take_best(self) -> None:
            record.kept_step = self.best_point().step
            if record.kept_step == record.held_out[-1].step:
                return
            logger.info("keeping the weights of step %d", record.kept_step)
            world.wait_for_all()  # the first has written them
            best.load_into(held.model)
            record.held_out[-1].metrics.forget_rows()
            self.evaluate(record.kept_step)

        def answer(self, step: int) -> None:
            display.announce(f"answering {len(prompts)} held-out prompts")
            found = answers(
                held.model,
                held.tokenizer,
                prompts,
                max_new_tokens=evaluate.max_new_tokens,
                stop_ids=frozenset(attempt.lora.model.stop_ids),
            )
            record.samples.append(SamplePoint(step=step, answers=found))

    return Recorder()
