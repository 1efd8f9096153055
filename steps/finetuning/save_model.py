"""Step: save model."""

import time
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


@step(enable_cache=False)
def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraReference,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    started: float,
) -> Annotated[HTMLString, "report"]:
    """Write the run's output folder; never from the cache, since every run leaves its own."""
    folder = save.save_model(
        config,
        dataset,
        lora,
        adapter,
        record,
        evaluation,
        name=get_step_context().pipeline_run.name,
        wall_seconds=time.time() - started,
    )
    log_metadata(metadata={"output_folder": str(folder.resolve())})
    return HTMLString((folder / "report.html").read_text(encoding="utf-8"))
