"""Registering a saved adapter: its artifacts, figures and manifest become a model version's."""

from __future__ import annotations

from typing import Any

from llm_engineering.registry.task import require_same_task, task_figures
from llm_engineering.registry.versions import (
    ADAPTER_DIGEST,
    BASE_WEIGHTS_DIGEST,
    JOB_NAME,
    weights_digest,
)
from llm_engineering.reporting.run_report import RunReport

ARTIFACTS = ("dataset", "lora", "adapter", "record", "evaluation")
"""Inputs of the save step that belong to the version; its outputs are linked by ZenML."""


def register(run: RunReport, metrics: dict[str, float], folder: str | None) -> None:
    """Complete the model version of the running step.

    Args:
        run: What was saved.
        metrics: Its figures, by name.
        folder: Where, as an absolute path; None: only in the artifact store.

    Raises:
        RegistryError: The model is another task's by accident.
    """
    from zenml import get_step_context, link_artifact_to_model, log_metadata

    require_same_task(run.config, run.name)  # another may have begun it meanwhile
    inputs = get_step_context().step_run.inputs
    for name in ARTIFACTS:
        for artifact in inputs[name]:
            link_artifact_to_model(artifact)
    where = {} if folder is None else {"output_folder": folder}
    log_metadata(metadata=_figures(run) | metrics | where, infer_model=True)


def _figures(run: RunReport) -> dict[str, Any]:
    manifest, job = run.manifest, run.record.job
    figures: dict[str, Any] = {
        ADAPTER_DIGEST: manifest.adapter_digest,
        "data_digest": manifest.data_digest,
        "held_out_digest": run.summary.held_out_digest,
        "held_out_rows": run.evaluation.after.rows,
        "base_model": manifest.base_model,
        BASE_WEIGHTS_DIGEST: weights_digest(run.lora.model),
        "git_commit": manifest.git_commit or "",
        JOB_NAME: job.name if job is not None else "",
    }
    if job is not None:
        figures["model_artifact"] = job.model_artifact
        figures["model_artifact_layout"] = job.serving
        figures["model_artifact_anchored"] = job.is_anchored
    if job is not None and job.model_package is not None:
        figures["model_package"] = job.model_package
    if job is not None and job.cost_usd is not None:
        figures["job_cost_usd"] = job.cost_usd
    return figures | task_figures(run.config)
