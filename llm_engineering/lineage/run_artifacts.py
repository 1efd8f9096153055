"""What a run leaves in the artifact store beside its steps' records: its exports."""

from __future__ import annotations

import logging
from pathlib import Path

from zenml import get_step_context, link_artifact_to_model, save_artifact

import llm_engineering.lineage.materializers  # noqa: F401  (registers how exports are stored)
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import FinetuningError
from llm_engineering.export.export_folder import ARTIFACTS, ExportFolder
from llm_engineering.outputs import unproven

logger = logging.getLogger(__name__)

UNPROVEN = "unproven_adapter"
_TRAIN = "train"


def save_exports(folder: Path) -> None:
    """Store the exports of a run's folder as artifacts of the running step, and of its version."""
    for part, name in ARTIFACTS.items():
        if (folder / part).is_dir():
            save_artifact(ExportFolder(folder / part), name=name)


def link_exports() -> None:
    """Make the train step's exports those of the running step's model version."""
    outputs = get_step_context().pipeline_run.steps[_TRAIN].outputs
    for name in ARTIFACTS.values():
        for artifact in outputs.get(name, []):
            link_artifact_to_model(artifact)


def save_unproven(config: FinetuningConfig, run: str, error: Exception) -> None:
    """Store what a failed proof left on a disk that ends with the step, and say so in the error."""
    kept = unproven(Path(config.run.output_dir) / run)
    if not kept.is_dir():
        return
    saved = save_artifact(ExportFolder(kept), name=UNPROVEN)
    where = (
        f"that folder is kept as the artifact {UNPROVEN}:{saved.version}, since this disk is not"
    )
    if isinstance(error, FinetuningError):
        error.args = (f"{error}\n{where}",)
    else:
        logger.error("%s", where)
