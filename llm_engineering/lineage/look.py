"""What the cache of each step must notice, as the host sees it that the run begins on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage.fingerprints import take_fingerprints
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.benchmark_tasks import is_file, require_benchmarks
from llm_engineering.planning.hardware import device_kind, resolve_dtype
from llm_engineering.scoring.require import require_scorers, scorer_digests


@dataclass(frozen=True)
class StepFingerprints:
    """Digests and names by the steps that they are for."""

    data: list[str]
    """The data step's."""
    model: list[str]
    """The base model's, and the device and type that it is loaded for."""
    code: list[str]
    """Of every step behind those: the code, and the device."""
    training: list[str]
    """The train step's."""
    scoring: list[str]
    """The evaluate step's: functions of the user's own that score answers, files of benchmarks."""


def look_at_inputs(
    config: FinetuningConfig, order: RunOrder, *, trained_elsewhere: bool
) -> StepFingerprints:
    """Look at what lies behind a configuration, once for a run.

    Args:
        config: Names the inputs.
        order: Where it is trained, if in a job.
        trained_elsewhere: Whether the train step has a host of its own, of which no more is known
            here than what the configuration asks for.

    Raises:
        FinetuningError: As ``take_fingerprints``, ``resolve_dtype`` and ``require_scorers``.
    """
    # Here too: a run that a stack or a schedule starts was looked at by no command.
    require_scorers(config.evaluate.answers)
    require_benchmarks(config.evaluate.benchmarks)
    now = take_fingerprints(config)
    device, evaluated = [], []
    if order.launch is not None:
        pass  # a job's name is a digest of all that decides it, its instance and image too
    elif trained_elsewhere:
        device = [f"{config.model.dtype} on {config.zenml.resources.gpu_count} GPUs"]
    else:
        device = [f"{resolve_dtype(config.model)} on {device_kind()}"]
        if order.placement.ranks > 1:  # they evaluate too
            evaluated = [json.dumps(config.evaluate.needing_the_model)]
    code = [now.code, *device]
    return StepFingerprints(
        data=[now.data, now.model, now.code],
        model=[now.model, *code],
        code=code,
        training=[now.start, *code, *evaluated],
        scoring=[*scorer_digests(config.evaluate.answers), *_task_files(config)],
    )


def _task_files(config: FinetuningConfig) -> list[str]:
    names = filter(is_file, config.evaluate.benchmarks)
    return [file_digest(Path(name).expanduser()) for name in names]
