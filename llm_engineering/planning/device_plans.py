"""The plans for the device that this process trains on, or the refusal that none fits."""

from __future__ import annotations

import logging

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed.share import share_of_step
from llm_engineering.errors import HardwareError
from llm_engineering.model.references import LoraReference
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import BatchPlan, cpu_plans, gpu_plans
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.memory_table import refusal
from llm_engineering.planning.shape import read_shape
from llm_engineering.planning.sharded_plan import host_bytes, refused, sharded_plans, told
from llm_engineering.planning.workload import Workload, configured_workload, prepared_workload

logger = logging.getLogger(__name__)


def device_plans(
    lora: LoraReference,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    ranks: int = 1,
) -> list[BatchPlan]:
    """The plans that fit this process's device, fastest first, for the rows as they are.

    Args:
        lora: Model and adapter.
        dataset: The rows.
        settings: One rank's share of a step.
        evaluate: Batch size of the held-out evaluations.
        ranks: Ranks with such a device; where the weights do not fit one, they share them.

    Raises:
        HardwareError: None fits.
    """
    from llm_engineering.model.finetuning.load import settings_of

    if not hardware.has_gpu():
        return cpu_plans(settings)
    shape = read_shape(settings_of(lora.model))
    work = prepared_workload(lora, shape, settings, evaluate, dataset.summary.train)
    if work is None:
        logger.warning("memory is not planned: %s is no plain decoder", lora.model.architecture)
        return cpu_plans(settings)
    return _fitting(work, ranks)


def require_memory(config: FinetuningConfig, ranks: int = 1) -> None:
    """Refuse a training that does not fit this host's GPUs, before any weight is loaded.

    Rows count as long as ``model.max_seq_length`` allows, since the data may be not yet read.

    Raises:
        HardwareError: Not even the smallest plan fits; shows what takes how much.
        ModelError: The model's config.json cannot be had.
    """
    if not hardware.has_gpu():
        return
    work = configured_workload(config, hardware.resolve_dtype(config.model))
    if work is not None:
        share = work.model_copy(update={"train": share_of_step(work.train, ranks)})
        if _fitting(share, ranks)[0].sharded:
            logger.info("%s", told(share, ranks, hardware.gpu_capacity_bytes()))


def _fitting(work: Workload, ranks: int) -> list[BatchPlan]:
    capacity = hardware.gpu_capacity_bytes()
    plans = [plan for plan in gpu_plans(work) if plan.fits(capacity)]
    if plans:
        return plans
    plans = [plan for plan in sharded_plans(work, ranks) if plan.fits(capacity)]
    if not plans:
        text = refusal(work, hardware.device_name(), capacity)
        raise HardwareError(text + refused(work, ranks))
    need, free = host_bytes(work), hardware.free_host_bytes()
    if need > free:
        raise HardwareError(
            f"the GPUs share the weights (FSDP), which each host first reads into its own memory: "
            f"that takes {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free. Use a host with more "
            "memory, or model.load_in_4bit: true"
        )
    return plans
