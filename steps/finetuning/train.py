"""Step: train."""

from typing import Annotated

from zenml import get_step_context, step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.schema import EvaluateSettings, TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage.metadata import training_progress
from llm_engineering.model.finetuning import train as training
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.references import LoraReference
from llm_engineering.outputs import work_folder


@step
def train(
    lora: LoraReference,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    seed: int,
    output_dir: str,
    resume: bool,
    fingerprints: list[str],
) -> tuple[Annotated[AdapterFolder, "adapter"], Annotated[TrainingRecord, "training_record"]]:
    """Train the adapter, with the held-out loss before and after."""
    adapter, record = training.train(
        lora,
        dataset,
        settings,
        evaluate,
        seed=seed,
        work=work_folder(output_dir),
        name=get_step_context().pipeline_run.name,
        resume="required" if resume else "never",
        on_progress=training_progress(),
    )
    return adapter, record  # two names: ZenML reads the number of outputs from this line
