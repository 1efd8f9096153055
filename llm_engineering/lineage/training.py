"""The train step's three ways: in this process, on a host of its own, or in a SageMaker job."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

from zenml import get_step_context

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import LoraError
from llm_engineering.lineage.metadata import show, show_job, training_progress
from llm_engineering.lineage.run_artifacts import save_exports, save_unproven
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.lineage.stored_checkpoints import StoredCheckpoints
from llm_engineering.model.finetuning.record import AdapterFolder, HostRecord, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.outputs import work_folder
from llm_engineering.planning.hardware import require_gpus
from llm_engineering.registry.promotion import production_to_measure
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.sagemaker.launch import train_in_job
from llm_engineering.sagemaker.launch_order import Launch
from llm_engineering.training import run as alone
from llm_engineering.training.complete import train_completely
from llm_engineering.training.order import ORDER, TrainOrder

_WORK = ".training"
"""Beside the work folder that a save empties: the trained adapter is stored after it."""

Outcome = tuple[AdapterFolder, TrainingRecord, LoraRecipe]


def train(lora: LoraRecipe, dataset: PreparedDataset, launch: Launch | None) -> Outcome:
    """Train as the running step is told to.

    Args:
        lora: The model with its fresh adapter, or what is known of it.
        dataset: The prepared data.
        launch: The SageMaker job; None: this host trains.

    Returns:
        Adapter, record, and the model as it was loaded.

    Raises:
        FinetuningError: As the function that trains.
    """
    context = get_step_context()
    run, order = context.pipeline_run.name, TrainOrder(**context.step_run.config.extra[ORDER])
    if launch is not None:
        return (*_in_job(lora, dataset, launch, order, run), lora)
    if order.elsewhere:
        return _on_own_host(lora, dataset, order, run)
    return (*_here(lora, dataset, order, run), lora)


def started() -> float:
    """When the run of this step began, in seconds since the epoch."""
    run = get_step_context().pipeline_run
    return (run.start_time or run.created).replace(tzinfo=UTC).timestamp()


def _here(
    lora: LoraRecipe, dataset: PreparedDataset, order: TrainOrder, run: str
) -> tuple[AdapterFolder, TrainingRecord]:
    config, told = order.config, RunOrder.of_this_run()
    placement = told.placement
    with training_progress() as progress:
        return alone.train(
            lora,
            dataset,
            config.train,
            config.evaluate,
            seed=config.run.seed,
            work=work_folder(config.run.output_dir),
            name=run,
            start=_start(order),
            resume=told.resume,
            on_progress=progress,
            placement=placement,
            production=production_to_measure(order.registered_as, dataset, lora)
            if placement.ranks > 1
            else None,
        )


def _on_own_host(
    described: LoraRecipe, dataset: PreparedDataset, order: TrainOrder, run: str
) -> Outcome:
    """All that needs the model, since no other step's host needs to hold it."""
    config = order.config
    require_gpus(config.zenml.resources.gpu_count)

    def require(lora: LoraRecipe) -> None:
        if differ := differences(described, lora):
            raise LoraError(
                f"the model on this host is not the one that the run described: {', '.join(differ)} "
                "differ; give both hosts the same files, or pin model.revision"
            )

    with training_progress() as progress:
        try:
            made = train_completely(
                config,
                dataset,
                run=run,
                started=started(),
                work=Path(config.run.output_dir) / _WORK,
                name=run,
                placement=RunOrder.of_this_run().placement,
                start=_start(order),
                production=production_to_measure(order.registered_as, dataset, described),
                resume=RunOrder.of_this_run().resume,
                require=require,
                on_progress=progress,
                checkpoints=StoredCheckpoints(),
            )
        except Exception as error:
            save_unproven(config, run, error)
            raise
    if made is None:
        raise RuntimeError("a step has one host, which is the first of its training")
    save_exports(made.saved.folder)
    manifest = made.saved.run.manifest
    made.record.evaluation = made.evaluation
    made.record.host = HostRecord(
        packages=manifest.packages,
        python=manifest.python,
        platform=manifest.platform,
        parity=manifest.parity,
    )
    return made.adapter, made.record, made.lora


def differences(described: LoraRecipe, loaded: LoraRecipe) -> list[str]:
    """In what a loaded model is not the described one; its type may have been left open ("auto")."""
    then, now = described.model_dump(), loaded.model_dump()
    base_then, base_now = then.pop("model"), now.pop("model")
    if base_then["dtype"] == "auto":
        base_then["dtype"] = base_now["dtype"]
    differ = [f"model.{key}" for key in base_then if base_then[key] != base_now[key]]
    return differ + [f"lora.{key}" for key in then if then[key] != now[key]]


def _in_job(
    lora: LoraRecipe, dataset: PreparedDataset, launch: Launch, order: TrainOrder, run: str
) -> tuple[AdapterFolder, TrainingRecord]:
    adapter, record = train_in_job(
        launch,
        lora,
        dataset,
        run=run,
        folder=work_folder(order.config.run.output_dir) / run,
        on_submitted=lambda job: show(
            "job", {f"job_{name}": value for name, value in job.model_dump().items()}
        ),
        production=production_to_measure(order.registered_as, dataset, lora),
    )
    show_job(record)
    return adapter, record


def _start(order: TrainOrder) -> AdapterFolder | None:
    start_from = order.config.train.start_from
    return starting_adapter(start_from) if start_from else None
