"""The promote step: the gate decides on the run's version, and the report says so."""

from __future__ import annotations

from typing import Any

from zenml import get_step_context, log_metadata
from zenml.types import HTMLString

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.lineage.metadata import show
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry import promotion
from llm_engineering.registry.decision import Decision
from llm_engineering.registry.production_answers import answers_of_production
from llm_engineering.registry.versions import model_name
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.reporting.previous_run import previous_run
from llm_engineering.reporting.row_changes import row_changes
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.training.save import metrics, save_decision


def promote(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    manifest: Manifest,
) -> tuple[Decision, HTMLString]:
    """Decide on the version of the running step.

    Returns:
        The decision, and the run's report with it.
    """
    context = get_step_context()
    decision = promotion.promote(
        model_name(config),
        str(context.model.version),
        config.registry,
        config.evaluate,
        dataset=dataset,
        lora=lora,
        adapter=adapter,
        record=record,
        evaluation=evaluation,
        parity=manifest.parity,
    )
    outcome: dict[str, Any] = {"promoted": decision.promoted, "promotion_reason": decision.reason}
    show("decision", outcome)
    show("checks", {check.name: check.text for check in decision.checks})
    log_metadata(metadata=outcome, infer_model=True)
    link = _link()
    figures = metrics(lora, record, evaluation, manifest.parity, manifest.wall_seconds)
    run = RunReport(
        manifest.run,
        config,
        dataset.summary,
        lora,
        record,
        evaluation,
        manifest,
        decision,
        link,
        row_changes(dataset, evaluation),
        previous_run(
            config.run.output_dir, manifest.run, manifest.model_dump(mode="json"), figures
        ),
        answers_of_production(decision, lora, record, evaluation),
    )
    return decision, HTMLString(save_decision(run))


def _link() -> str | None:
    """The run's page, on the server that ZenML is connected to; None without one."""
    from zenml.utils.dashboard_utils import get_run_url

    return get_run_url(get_step_context().pipeline_run)
