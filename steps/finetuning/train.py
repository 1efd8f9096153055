"""Step: train."""

from typing import Annotated, Any

from zenml import step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage import training
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.sagemaker.launch_order import Launch


@step
def train(
    lora: LoraRecipe,
    dataset: PreparedDataset,
    deciding: dict[str, Any],
    seed: int,
    fingerprints: list[str],
    launch: Launch | None = None,
) -> tuple[
    Annotated[AdapterFolder, "adapter"],
    Annotated[TrainingRecord, "training_record"],
    Annotated[LoraRecipe, "trained_model"],
]:
    """Train the adapter here, on several ranks or in a job, with the held-out loss before and after.

    ``deciding`` and ``seed`` are for the cache alone; the order comes as the step's extra values.
    """
    adapter, record, trained = training.train(lora, dataset, launch)
    return adapter, record, trained  # three names: ZenML reads the number of outputs from this line
