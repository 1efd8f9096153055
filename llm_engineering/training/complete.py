"""A whole training on the one host that holds the model: from loading it to exports that are proven."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed.placement import Placement
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.inject import describe_lora, inject_lora
from llm_engineering.model.finetuning.load import describe_model, load_model
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning.device_plans import require_memory
from llm_engineering.planning.hardware import require_hardware, resolve_dtype
from llm_engineering.training.evaluate import evaluate
from llm_engineering.training.production import ProductionAdapter, measure_production
from llm_engineering.training.run import CheckpointStore, Resume, train
from llm_engineering.training.save import SavedRun, save_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompleteTraining:
    """What one host made of a configuration and prepared data."""

    lora: LoraRecipe
    adapter: AdapterFolder
    record: TrainingRecord
    evaluation: Evaluation
    saved: SavedRun
    """The run's folder, its exports proven."""


def train_completely(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    *,
    run: str,
    started: float,
    work: Path,
    name: str,
    placement: Placement,
    start: AdapterFolder | None,
    production: ProductionAdapter | None,
    resume: Resume,
    require: Callable[[LoraRecipe], None],
    stop: threading.Event | None = None,
    on_progress: Callable[[TrainingRecord], None] | None = None,
    checkpoints: CheckpointStore | None = None,
) -> CompleteTraining | None:
    """Load, inject, train, evaluate, measure production, export and prove, on this host alone.

    Args:
        config: The run's configuration; the folder of the saved run is in its output folder.
        dataset: The prepared data.
        run: The run's name.
        started: When it started, in seconds since the epoch.
        work: Folder of unfinished runs, and
        name: the name of this one's in it; as in ``train``.
        placement: The ranks that train.
        start: As in ``train``.
        production: The production version, if its losses on the held-out rows are wanted.
        resume: As in ``train``.
        require: Called with what was loaded, to refuse it before it is trained.
        stop: As in ``train``.
        on_progress: As in ``train``.
        checkpoints: As in ``train``.

    Returns:
        All of it; None on another host than the first.

    Raises:
        FinetuningError: As the functions that it calls.
    """
    require_hardware(config)
    require_memory(config, trained_shape(config.model, config.lora), placement.ranks)
    tokens = config.lora.trainable_tokens
    if placement.ranks == 1:
        lora = inject_lora(load_model(config.model, tokens), config.lora)
    else:  # each rank loads it; this process starts and watches them
        dtype = resolve_dtype(config.model)
        described = describe_model(config.model, dtype=dtype, tokens=tokens)
        lora = describe_lora(described, config.lora)
    require(lora)
    adapter, record = train(
        lora,
        dataset,
        config.train,
        config.evaluate,
        seed=config.run.seed,
        work=work,
        name=name,
        start=start,
        resume=resume,
        on_progress=on_progress,
        stop=stop,
        placement=placement,
        production=production,
        checkpoints=checkpoints,
    )
    if not placement.is_first_host:
        return None
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate, elsewhere=True)
    if production is not None and placement.ranks == 1:  # else the ranks have measured it
        logger.info("evaluating the production version %s on this run's rows", production.version)
        record.production = measure_production(
            lora, adapter, production, dataset, record, config.evaluate
        )
    saved = save_model(
        config, dataset, lora, adapter, record, evaluation, name=run, started=started
    )
    return CompleteTraining(lora, adapter, record, evaluation, saved)
