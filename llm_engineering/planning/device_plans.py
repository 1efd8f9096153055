"""The plans for the device that this process trains on, or the refusal that none fits it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed.share import share_of_step
from llm_engineering.model.base_model import require_positions
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import (
    BatchPlan,
    gpu_plans,
    unestimated_plans,
    what_keeps_it_waiting,
)
from llm_engineering.planning.choice import choose_plans
from llm_engineering.planning.host_plan import (
    require_host_memory,
    require_room_for_kept_weights,
)
from llm_engineering.planning.shape import TrainedShape
from llm_engineering.planning.sharded_plan import explain_sharing
from llm_engineering.planning.workload import Workload, configured_workload, prepared_workload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DevicePlans:
    """The ways to make a step on a device."""

    first: BatchPlan
    """The fastest that fits by its estimate."""
    every: list[BatchPlan]
    """Fastest first, those too that do not fit by their estimate, which a measurement may correct."""


def cpu_plans(settings: TrainSettings) -> DevicePlans:
    """The plans for a CPU.

    Args:
        settings: One rank's share of a step.
    """
    plans = unestimated_plans(settings)
    return DevicePlans(plans[0], plans)


def device_plans(
    lora: LoraRecipe,
    shape: TrainedShape,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    ranks: int = 1,
) -> DevicePlans:
    """The plans for this process's GPU, for the rows as they are.

    Args:
        lora: Model and adapter.
        shape: Their shapes.
        dataset: The rows.
        settings: One rank's share of a step.
        evaluate: Batch size of the held-out evaluations.
        ranks: Ranks with such a device; where the weights do not fit one, they share them.

    Raises:
        HardwareError: None fits.
    """
    work = prepared_workload(lora, shape, settings, evaluate, dataset.summary.train)
    fitting = _choose(work, ranks)
    waiting = what_keeps_it_waiting(work, fitting[0])
    if waiting:
        logger.info("%s", waiting)
    return DevicePlans(fitting[0], fitting if fitting[0].sharded else gpu_plans(work))


def require_memory(config: FinetuningConfig, shape: TrainedShape, ranks: int = 1) -> None:
    """Refuse a training that does not fit this host's GPUs or memory, before any weight is loaded.

    Rows count as long as ``model.max_seq_length`` allows, since the data may be not yet read.

    Args:
        config: What is asked for.
        shape: Of its model and adapter.
        ranks: Ranks with such a device.

    Raises:
        HardwareError: Not even the smallest plan fits; shows what takes how much.
        ModelError: The model's config.json cannot be had, or it was made for shorter rows.
    """
    require_positions(config.model)
    work = configured_workload(config, shape, hardware.resolve_dtype(config.model))
    if not hardware.has_gpu():
        warning = require_host_memory(work, hardware.free_host_bytes())
        if warning:
            logger.warning("%s", warning)
    else:
        share = work.model_copy(update={"train": share_of_step(work.train, ranks)})
        if _choose(share, ranks)[0].sharded:
            logger.info("%s", explain_sharing(share, ranks, hardware.gpu_capacity_bytes()))


def _choose(work: Workload, ranks: int) -> list[BatchPlan]:
    here = min(ranks, hardware.visible_gpus())  # others are on other hosts
    require_room_for_kept_weights(work, here, hardware.free_host_bytes())
    return choose_plans(
        work,
        ranks,
        card=hardware.device_name(),
        capacity=hardware.gpu_capacity_bytes(),
        free_host_bytes=hardware.free_host_bytes(),
    )
