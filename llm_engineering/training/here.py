"""Training in this process, alone or as one of several ranks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed import world
from llm_engineering.distributed.trainer import (
    distributed_arguments,
    fill_last_step,
    name_cpu_plainly,
)
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.initialisations.initialisation import Beginning
from llm_engineering.model import live
from llm_engineering.model.base_model import model_folder, weight_files
from llm_engineering.model.finetuning.adapter_folder import load_adapter_weights, save_adapter
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.best_weights import BestWeights
from llm_engineering.model.finetuning.callbacks.adapter_start import AdapterStart
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.callbacks.complete_checkpoint import CompleteCheckpoint
from llm_engineering.model.finetuning.callbacks.course import Course
from llm_engineering.model.finetuning.callbacks.held_out import HeldOut
from llm_engineering.model.finetuning.callbacks.reached import Reached
from llm_engineering.model.finetuning.callbacks.samples import Samples
from llm_engineering.model.finetuning.callbacks.stop_request import StopRequest
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.inject import live_lora_model
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.finetuning.token_count import TokenCount
from llm_engineering.model.finetuning.trainer import make_trainer
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.training.attempt import Attempt
from llm_engineering.training.measured_step import settle_plan

logger = logging.getLogger(__name__)


def train_here(
    attempt: Attempt,
    display: Display,
    on_progress: Callable[[TrainingRecord], None] | None = None,
    stop: threading.Event | None = None,
) -> AdapterFolder:
    """Train in this process, alone or as one of several ranks, and hold the trained model.

    The first rank writes the adapter; all of them return it.
    """
    lora, settings, record, start = attempt.lora, attempt.settings, attempt.record, attempt.start
    dataset = PreparedDataset.read(attempt.dataset)
    live_model = live_lora_model(lora)
    if start is not None:
        load_adapter_weights(live_model.model, start)
    record.objective, record.beta = settings.objective, settings.beta
    record.started_from = start.digest if start else None
    record.plan, record.ranks = attempt.plan, world.ranks()
    rows = dataset.split("train")
    plan = record.plan = settle_plan(attempt, live_model, rows)
    trainer = make_trainer(
        live_model, rows, lora, settings, plan, attempt.seed,
        attempt.checkpoints, distributed_arguments(),
    )  # fmt: skip
    objective = OBJECTIVES[settings.objective]
    fill_last_step(trainer, objective.blank_row)
    name_cpu_plainly(trainer)
    tokens = TokenCount(objective.tokens_read)
    trainer.data_collator = tokens.collating(trainer.data_collator)
    for callback in _callbacks(attempt, dataset, live_model, display, on_progress, stop, tokens):
        trainer.add_callback(callback)
    checkpoint = attempt.checkpoint
    if checkpoint is not None:
        logger.info("resuming %s from step %d", checkpoint.run.name, checkpoint.step)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    finally:
        display.stop()
    _tell_memory(record)
    if on_progress:
        on_progress(record)
    parameters = backend().whole_adapter(live_model.model)
    saved = (
        save_adapter(live_model.model, lora, attempt.adapter, parameters)
        if world.is_first()
        else None
    )
    adapter: AdapterFolder = world.as_the_first_says(saved)
    live.keep(adapter.digest, live_model)
    return adapter


def _callbacks(
    attempt: Attempt,
    dataset: PreparedDataset,
    live_model: live.LiveModel,
    display: Display,
    on_progress: Callable[[TrainingRecord], None] | None,
    stop: threading.Event | None,
    tokens: TokenCount,
) -> list[Callback]:
    """What happens while training goes on, in the order in which each event goes through it."""
    record, settings, evaluate = attempt.record, attempt.settings, attempt.evaluate
    lora, held_out_rows = attempt.lora, dataset.split("held_out")
    initialisation = INITIALISATIONS[lora.settings.init](attempt.folder, world)
    best = BestWeights(attempt.folder, world)
    resumes_from = attempt.checkpoint.folder if attempt.checkpoint else None
    beginning = Beginning(
        seed=lora.settings.random_state,
        checkpoint=resumes_from,
        weight_files=lambda: weight_files(model_folder(lora.model.settings, weights=True)),
    )
    clock = Clock(record.train_seconds)
    course = Course(record, settings, display, world, on_progress, clock=clock, tokens=tokens)
    stop_request = StopRequest(stop, world)
    held_out = HeldOut(
        live_model,
        held_out_rows,
        dataset.validation() if settings.validates else None,
        record,
        settings,
        evaluate,
        best=best,
        resumes_from=resumes_from,
        display=display,
        stop=stop_request,
        peers=world,
        changed_later=initialisation.changes_at_end,
        clock=clock,
    )
    samples = Samples(
        live_model,
        held_out_rows,
        record,
        evaluate,
        stop_ids=frozenset(lora.model.stop_ids),
        display=display,
        stop=stop_request,
        clock=clock,
    )
    start = AdapterStart(live_model.model, initialisation, beginning, held_out, record)
    complete = CompleteCheckpoint(record, best, initialisation, world, settings.keep_checkpoints)
    reached = Reached(live_model.model)
    return [course, stop_request, held_out, samples, start, complete, reached]


def _tell_memory(record: TrainingRecord) -> None:
    planned, measured = record.planned_memory_bytes, record.peak_memory_bytes
    if planned:
        logger.info(
            "GPU memory: planned %.1f GiB, measured %.1f GiB (%+.1f %%)",
            planned / 1024**3,
            measured / 1024**3,
            100 * (measured / planned - 1),
        )
