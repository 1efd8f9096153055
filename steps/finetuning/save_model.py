"""Step: save model."""

from typing import Annotated

from zenml import step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage import saving
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.reporting.manifest import Manifest


@step(enable_cache=False)
def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
) -> tuple[Annotated[Manifest, "manifest"], Annotated[dict[str, float], "metrics"]]:
    """Write the run's folder and register it; never from the cache, since every run leaves its own."""
    manifest, metrics = saving.save_model(config, dataset, lora, adapter, record, evaluation)
    return manifest, metrics
