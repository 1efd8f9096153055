"""Step: promote."""

from typing import Annotated, Any

from zenml import get_step_context, log_metadata, step
from zenml.types import HTMLString

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry import promotion
from llm_engineering.registry.decision import Decision
from llm_engineering.registry.versions import model_name
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.training.save import save_decision


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
    decision = promotion.promote(
        model_name(config),
        get_step_context().pipeline_run.name,
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
    log_metadata(metadata=outcome | {check.name: check.detail for check in decision.checks})
    log_metadata(metadata=outcome, infer_model=True)
    run = RunReport(
        manifest.run, config, dataset.summary, lora, record, evaluation, manifest, decision
    )
    report = HTMLString(save_decision(run))
    return decision, report
