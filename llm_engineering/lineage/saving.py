"""The save step: a run's exports and figures become artifacts, those of a new model version."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from zenml import get_step_context, log_metadata

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.export.hub import push
from llm_engineering.lineage.metadata import show
from llm_engineering.lineage.run_artifacts import link_exports, save_exports
from llm_engineering.lineage.stored_checkpoints import StoredCheckpoints
from llm_engineering.lineage.training import started
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.register import register
from llm_engineering.registry.version_files import write_exports
from llm_engineering.registry.versions import find_version, model_name, name_after_run
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.training import save


def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
) -> tuple[Manifest, dict[str, float]]:
    """Save and register a run; on the host of its trainer, whose folder it writes, or on another.

    Raises:
        ExportError: As ``save.save_model``.
        HubError: What the configuration names cannot be pushed; all else is done by then.
    """
    name = name_after_run()
    folder: Path | None = None
    if record.host is None:
        saved = save.save_model(
            config, dataset, lora, adapter, record, evaluation, name=name, started=started()
        )
        run, metrics, folder = saved.run, saved.metrics, saved.folder.resolve()
        save_exports(folder)
    else:  # made, proven and stored by the train step
        run, metrics = save.describe_run(
            config, dataset, lora, adapter, record, evaluation, record.host.parity,
            name=name, started=started(),
        )  # fmt: skip
        link_exports()
        StoredCheckpoints().remove(name, *record.continued_runs)
    _show(run, metrics, folder)
    register(run, metrics, None if folder is None else str(folder))
    _push(config, folder)
    return run.manifest, metrics


def _show(run: RunReport, metrics: dict[str, float], folder: Path | None) -> None:
    context = get_step_context()
    model = context.model  # the dashboard itself shows no model version
    where: dict[str, Any] = {"model_version": f"{model.name} {model.number}"}
    if folder is not None:
        where["output_folder"] = str(folder)
    show("saved", where)
    for title, figures in by_subject(metrics).items():
        show(title, figures, run_id_name_or_prefix=context.pipeline_run.id)


def by_subject(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """A run's figures by what they are about, as its page in the dashboard shows them."""
    subjects: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        subject = next(
            (title for start, title in _SUBJECTS.items() if name.startswith(start)), None
        )
        subjects.setdefault(subject or "cost", {})[name] = value
    return subjects


_SUBJECTS = {
    "held_out_": "held-out rows",
    "reward_": "held-out rows",
    "generic_": "general text",
    "score_": "scores",
    "benchmark_": "benchmarks",
    "train_": "training",
    "trainable_": "adapter",
    "total_": "adapter",
    "parity_": "proof of the exports",
}


def _push(config: FinetuningConfig, folder: Path | None) -> None:
    """Push to the Hub, last: all else is done if that is out of reach."""
    if not (config.export.hub_repo or config.export.hub_merged_repo):
        return
    context = get_step_context()
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary, context.pipeline_run.name)
            write_exports(find_version(model_name(config), folder.name), folder)
        links = push(config.export, folder)
    pushed = {f"hub_{part}": link for part, link in links.items()}
    show("Hub", pushed)
    log_metadata(metadata=dict(pushed), infer_model=True)
