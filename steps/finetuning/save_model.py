"""Step: save model."""

import time
from datetime import UTC
from typing import Annotated

from zenml import get_step_context, log_metadata, step
from zenml.types import HTMLString

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.schema import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning import save
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.references import LoraReference
from llm_engineering.registry.register import register
from llm_engineering.reporting.manifest import Manifest


@step(enable_cache=False)
def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraReference,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    started: float | None,
) -> tuple[Annotated[Manifest, "manifest"], Annotated[HTMLString, "report"]]:
    """Write the run's folder and register it; never from the cache, since every run leaves its own."""
    run = get_step_context().pipeline_run
    began = run.start_time or run.created
    saved = save.save_model(
        config,
        dataset,
        lora,
        adapter,
        record,
        evaluation,
        name=run.name,
        wall_seconds=time.time() - (started or began.replace(tzinfo=UTC).timestamp()),
    )
    folder = str(saved.folder.resolve())
    model = get_step_context().model  # the dashboard itself shows no model version
    version = f"{model.name} {model.number}"
    log_metadata(metadata={"output_folder": folder, "model_version": version})
    log_metadata(metadata={**saved.metrics}, run_id_name_or_prefix=run.id)
    register(saved.run, saved.metrics, folder)
    manifest, report = saved.run.manifest, HTMLString(saved.report)
    return manifest, report
