"""Step: evaluate."""

from typing import Annotated

from zenml import step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage.metadata import show
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.training import evaluate as evaluation


@step
def evaluate(
    lora: LoraRecipe,
    adapter: AdapterFolder,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
    fingerprints: list[str],
    scorers: list[str],
) -> Annotated[Evaluation, "evaluation"]:
    """Compare the trained adapter with the base model on held-out rows."""
    result = evaluation.evaluate(lora, adapter, dataset, record, settings)
    show(
        "held-out rows",
        {
            "held_out_loss_before": result.before.loss,
            "held_out_loss_after": result.after.loss,
            "held_out_loss_change": result.loss_change,
            "held_out_token_accuracy_before": result.before.token_accuracy,
            "held_out_token_accuracy_after": result.after.token_accuracy,
            **result.reward_figures,
        },
    )
    if result.generic is not None:
        show("general text", result.generic.figures)
    if result.answers is not None:
        show("scores", result.answers.figures)
    if result.benchmarks:
        show("benchmarks", result.benchmark_figures)
    return result
