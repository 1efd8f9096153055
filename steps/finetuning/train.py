"""Step: train."""

from typing import Annotated, Any

from zenml import get_step_context, log_metadata, step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage.metadata import job_metadata, training_progress
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.outputs import work_folder
from llm_engineering.registry.promotion import production_to_measure
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.sagemaker.launch import train_in_job
from llm_engineering.sagemaker.launch_order import Launch
from llm_engineering.training import run as training
from llm_engineering.training.order import ORDER, TrainOrder


@step
def train(
    lora: LoraRecipe,
    dataset: PreparedDataset,
    deciding: dict[str, Any],
    seed: int,
    fingerprints: list[str],
    launch: Launch | None = None,
) -> tuple[Annotated[AdapterFolder, "adapter"], Annotated[TrainingRecord, "training_record"]]:
    """Train the adapter here, on several ranks or in a job, with the held-out loss before and after.

    ``deciding`` is for the cache alone; all settings come as the step's extra values.
    """
    context = get_step_context()
    run, order = context.pipeline_run.name, TrainOrder(**context.step_run.config.extra[ORDER])
    settings, work = order.settings, work_folder(order.output_dir)
    if launch is None:
        adapter, record = training.train(
            lora,
            dataset,
            settings,
            order.evaluate,
            seed=seed,
            work=work,
            name=run,
            start=starting_adapter(settings.start_from) if settings.start_from else None,
            resume=order.resume,
            on_progress=training_progress(),
            placement=order.placement,
            production=production_to_measure(order.registered_as, dataset, lora)
            if order.placement.ranks > 1
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
            production=production_to_measure(order.registered_as, dataset, lora),
        )
        log_metadata(metadata=job_metadata(record))
    return adapter, record  # two names: ZenML reads the number of outputs from this line
