"""Step: save model."""

from datetime import UTC
from typing import Annotated, Any

from zenml import get_step_context, log_metadata, step
from zenml.types import HTMLString

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.export.hub import push
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.register import register
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.training import save


@step(enable_cache=False)
def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
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
        started=started or began.replace(tzinfo=UTC).timestamp(),
    )
    folder = str(saved.folder.resolve())
    model = get_step_context().model  # the dashboard itself shows no model version
    version = f"{model.name} {model.number}"
    log_metadata(metadata={"output_folder": folder, "model_version": version})
    log_metadata(metadata={**saved.metrics}, run_id_name_or_prefix=run.id)
    register(saved.run, saved.metrics, folder)
    links = push(config.export, saved.folder)  # last: all else is done if the Hub is not there
    if links:
        pushed: dict[str, Any] = {f"hub_{part}": link for part, link in links.items()}
        log_metadata(metadata=pushed)
        log_metadata(metadata=pushed, infer_model=True)
    manifest, report = saved.run.manifest, HTMLString(saved.report)
    return manifest, report
