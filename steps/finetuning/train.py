"""Step: train."""

from typing import Annotated

from zenml import get_step_context, log_metadata, step
from zenml.config.cache_policy import CachePolicy

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.lineage.metadata import job_metadata, training_progress
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.outputs import work_folder
from llm_engineering.registry.promotion import production_to_measure
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.sagemaker.launch import Launch, train_in_job
from llm_engineering.training import run as training


# A resumed run learns the same, and so do ranks, however many they are.
@step(cache_policy=CachePolicy(ignored_inputs=["resume", "placement", "registered_as"]))
def train(
    lora: LoraRecipe,
    dataset: PreparedDataset,
    settings: TrainSettings,
    evaluate: EvaluateSettings,
    seed: int,
    output_dir: str,
    resume: training.Resume,
    fingerprints: list[str],
    registered_as: str,
    launch: Launch | None = None,
    placement: Placement = HERE,
) -> tuple[Annotated[AdapterFolder, "adapter"], Annotated[TrainingRecord, "training_record"]]:
    """Train the adapter here, on several ranks or in a job, with the held-out loss before and after."""
    run = get_step_context().pipeline_run.name
    work = work_folder(output_dir)
    if launch is None:
        adapter, record = training.train(
            lora,
            dataset,
            settings,
            evaluate,
            seed=seed,
            work=work,
            name=run,
            start=starting_adapter(settings.start_from) if settings.start_from else None,
            resume=resume,
            on_progress=training_progress(),
            placement=placement,
            production=production_to_measure(registered_as, dataset, lora)
            if placement.ranks > 1
            else None,
        )
    else:
        adapter, record = train_in_job(
            launch,
            lora,
            dataset,
            run=run,
            folder=work / run,
            on_submitted=lambda job: log_metadata(metadata=job.model_dump()),
            production=production_to_measure(registered_as, dataset, lora),
        )
        log_metadata(metadata=job_metadata(record))
    return adapter, record  # two names: ZenML reads the number of outputs from this line
