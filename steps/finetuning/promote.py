"""Step: promote."""

from typing import Annotated

from zenml import step
from zenml.types import HTMLString

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage import promoting
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.decision import Decision
from llm_engineering.reporting.manifest import Manifest


@step(enable_cache=False)
def promote(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    manifest: Manifest,
) -> tuple[Annotated[Decision, "promotion"], Annotated[HTMLString, "report"]]:
    """Promote the saved version if it is better; never from the cache, since production changes."""
    decision, report = promoting.promote(
        config, dataset, lora, adapter, record, evaluation, manifest
    )
    return decision, report
