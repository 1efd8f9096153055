"""One training from start to end: attempts, and the fallback where one runs out of memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.distributed.share import share_of_step
from llm_engineering.errors import (
    HardwareError,
    LoraError,
    TrainingError,
    TrainingStoppedError,
)
from llm_engineering.model import live
from llm_engineering.model.finetuning.checkpoints import (
    RECORD,
    Checkpoint,
    checkpoint_to_resume,
    newest_checkpoint,
    newest_equal_checkpoint,
    open_work_folder,
)
from llm_engineering.model.finetuning.progress import ProgressDisplay
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import BatchPlan, smaller_plans
from llm_engineering.planning.device_plans import cpu_plans, device_plans
from llm_engineering.planning.step_size import StepSize, step_size, step_warnings
from llm_engineering.signals import StopRequest, stop_after_step
from llm_engineering.training.attempt import Attempt
from llm_engineering.training.here import train_here
from llm_engineering.training.identity import identity_of
from llm_engineering.training.launch import train_on_ranks
from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

Progress = Callable[[TrainingRecord], None]
Outcome = tuple[AdapterFolder, TrainingRecord]
Resume = Literal["never", "required", "if-possible"]


class CheckpointStore(Protocol):
    """Where checkpoints outlive a host whose disk does not."""

    def bring(self, work: Path, run: str, identity: dict[str, str], *, others: bool) -> None:
        """Bring the newest complete checkpoint of an equal training into ``work``: of this run, and
        if ``others`` says so of another that has ended."""

    def keeping(self, run: Path) -> AbstractContextManager[None]:
        """Copy checkpoints as they become complete, until the context is left."""


def train(
    lora: LoraRecipe,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    *,
    seed: int,
    work: Path,
    name: str,
    start: AdapterFolder | None = None,
    resume: Resume = "never",
    on_progress: Progress | None = None,
    stop: threading.Event | None = None,
    placement: Placement = HERE,
    production: ProductionAdapter | None = None,
    checkpoints: CheckpointStore | None = None,
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
        start: The adapter to start from, which ``settings.start_from`` names; None: the fresh one.
        resume: Whether to continue from the newest complete checkpoint of an equal, interrupted
            run: "never", "required" (there must be one), or "if-possible". Whatever it says, a run
            that was begun under this very name goes on.
        on_progress: Called with the record so far at every logged step.
        stop: Once set, the step under way is the last: a checkpoint is saved and the run ends. None:
            the first Ctrl-C, SIGTERM or SIGHUP asks for that.
        placement: The ranks that share each step. Several are processes of their own, which
            evaluate too: the record brings the evaluation.
        production: Evaluated by such ranks, as in ``measure_production``.
        checkpoints: Where they are kept if ``work`` does not outlive this process.

    The rows of a step go through the device as the fastest plan says that fits it. Where that runs
    out of memory all the same, training goes on with the next smaller plan, from the newest
    checkpoint or from the start.

    Raises:
        ConfigError: The ranks cannot share a step's rows equally.
        HardwareError: Even the smallest plan does not fit.
        LoraError: The adapter to start from does not fit, or ranks that share the weights would have
            to adapt a mixture's experts.
        TrainingError: The loss is not finite, or there is nothing to resume from.
        TrainingStoppedError: ``stop`` was set; says where the checkpoint is.
    """
    if (start is None) != (settings.start_from is None):
        raise ValueError(f"train.start_from is {settings.start_from}, and start is {start}")
    share = share_of_step(settings, placement.ranks)
    size = step_size(settings, dataset.summary.train, lora.model.max_seq_length)
    logger.info("%s", size)
    for warning in step_warnings(size.documents, size.steps):
        logger.warning("%s", warning)
    if hardware.has_gpu():
        shape = trained_shape(lora.model.settings, lora.settings)
        plans = device_plans(lora, shape, dataset, share, evaluate, placement.ranks)
    else:
        plans = cpu_plans(share)
    _require_whole_experts(lora, plans.first)
    identity = identity_of(lora, dataset, settings, start, seed, plans.first)
    if checkpoints is not None:
        checkpoints.bring(work, name, identity, others=resume != "never")
    checkpoint = _checkpoint(work, name, identity, resume)
    lock = open_work_folder(work / name, identity)
    attempt = Attempt(
        lora=lora, dataset=dataset.folder, settings=settings, evaluate=evaluate, seed=seed,
        start=start, plan=plans.first, candidates=plans.every, checkpoint=checkpoint,
        record=_record_at(checkpoint, size), folder=work / name,
    )  # fmt: skip

    def run(attempt: Attempt) -> tuple[AdapterFolder, TrainingRecord]:
        if placement.ranks == 1:
            return train_here(attempt, ProgressDisplay(), on_progress, asked), attempt.record
        return train_on_ranks(attempt, placement, production, on_progress, asked)

    try:
        keeping = nullcontext() if checkpoints is None else checkpoints.keeping(work / name)
        with stop_after_step(stop) as asked, keeping:
            logger.info(
                "%d rows a step: %s%s", settings.rows_in_step, plans.first, placement.on_each
            )
            while (outcome := _unless_out_of_memory(run, attempt)) is None:
                live.release()
                hardware.free_gpu_memory()
                checkpoint = newest_checkpoint(work / name) or checkpoint
                failed = attempt.record.plan if placement.ranks == 1 else None
                smaller = _smaller(plans.every, failed or attempt.plan)
                attempt = attempt.model_copy(
                    update={
                        "plan": smaller[0],
                        "candidates": smaller,
                        "checkpoint": checkpoint,
                        "record": _record_after_fallback(attempt.record, checkpoint),
                    }
                )
    except TrainingStoppedError as error:
        live.release()
        if isinstance(asked, StopRequest) and asked.number is not None:
            error.exit_code = 128 + asked.number
        raise
    except BaseException:
        live.release()  # half-trained weights answer to no recipe
        raise
    finally:
        lock.close()
    return outcome


def _require_whole_experts(lora: LoraRecipe, plan: BatchPlan) -> None:
    """PEFT adds to an expert's parameter as a whole, which a rank that holds a part of it cannot."""
    if plan.sharded and lora.targets.parameters:
        raise LoraError(
            f"lora.target_modules: adapters on {lora.targets.parameters[0]} need the whole parameter on "
            "each GPU, and the weights fit no single one, so that the ranks would share them; take a "
            "larger card, or name the attention's projections alone in lora.target_modules"
        )


def _checkpoint(
    work: Path, name: str, identity: dict[str, str], resume: Resume
) -> Checkpoint | None:
    # This step was begun before, and restarted.
    own = newest_equal_checkpoint(work / name, identity)
    if own is not None or resume == "never":
        return own
    try:
        return checkpoint_to_resume(work, identity)
    except TrainingError as reason:
        if resume == "required":
            raise
        said = str(reason).removeprefix("--resume: ").partition("; start without")[0]
        logger.info("starting from the first step: %s", said)
        return None


def _record_at(checkpoint: Checkpoint | None, size: StepSize | None) -> TrainingRecord:
    if checkpoint is None:
        return TrainingRecord(step_size=size)
    text = (checkpoint.folder / RECORD).read_text(encoding="utf-8")
    record = TrainingRecord.model_validate_json(text)
    record.step_size = size
    record.earlier_runs = record.continued_runs
    record.resumed_from_step = checkpoint.step
    record.resumed_from_run = checkpoint.run.name
    return record


def _record_after_fallback(failed: TrainingRecord, checkpoint: Checkpoint | None) -> TrainingRecord:
    """The record to go on with: what is measured of the base model need not be measured again."""
    record = _record_at(checkpoint, failed.step_size)
    record.resumed_from_step = failed.resumed_from_step
    record.resumed_from_run = failed.resumed_from_run
    record.earlier_runs = failed.earlier_runs
    record.held_out = record.held_out or failed.held_out[:1]
    record.validation = record.validation or failed.validation[:1]
    return record


def _unless_out_of_memory(run: Callable[[Attempt], Outcome], attempt: Attempt) -> Outcome | None:
    """What an attempt gives, or None. The exception ends here, and its hold on what was allocated."""
    try:
        return run(attempt)
    except RuntimeError as error:
        if not hardware.is_out_of_memory(error):
            raise
        logger.warning("%s: out of memory (%s)", attempt.plan, str(error).split(". ")[0])
        return None


def _smaller(plans: list[BatchPlan], failed: BatchPlan) -> list[BatchPlan]:
    smaller = smaller_plans(plans, failed)
    if not smaller:
        raise HardwareError(
            f"out of memory with {failed}, the smallest plan that the settings allow; set "
            "train.micro_batch and train.gradient_checkpointing to auto, lower "
            "model.max_seq_length, or set model.quantisation: nf4"
        )
    logger.warning("going on with %s; what is learned stays the same", smaller[0])
    return smaller
