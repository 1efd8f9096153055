"""The files that an endpoint's container gets: a finished run in the layout that LMI takes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.model.base_model import is_hub_model, weight_digests
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.endpoint_request import model_key
from llm_engineering.sagemaker.inputs import upload_base_files, upload_folder
from llm_engineering.sagemaker.serving_layout import (
    ADAPTER,
    ADAPTERS,
    LAYOUT,
    MERGED,
    PROPERTIES,
    Layout,
    ServedFrom,
    arrange,
    unservable,
)
from llm_engineering.sagemaker.submission import folder_digest
from llm_engineering.talk.finished_run import FinishedRun


def stage_files(
    run: FinishedRun, trained: FinetuningConfig, settings: SagemakerSettings, name: str, to: Path
) -> tuple[str, str]:
    """Write the container's folder.

    Args:
        run: What shall serve.
        trained: Its own configuration, out of its manifest.
        settings: Where a base model of one's own would lie in S3.
        name: The adapter's name in requests.
        to: A new folder.

    Returns:
        SHA-256 over the folder's files, and what a container makes of them, in words.

    Raises:
        LaunchError: No container could serve it.
    """
    merged = run.folder.parent / MERGED
    has_merged = (merged / "config.json").is_file()
    problem = unservable(trained)
    if problem is None and trained.export.merged_16bit and not has_merged:
        # Its adapter may do without: the merged model was not kept.
        trained = trained.model_copy(
            update={"export": trained.export.model_copy(update={"merged_16bit": False})}
        )
        problem = unservable(trained)
    if problem is not None:
        raise LaunchError(f"{run.name}: {problem}")
    part = MERGED if trained.export.merged_16bit else ADAPTER
    (to / "records").mkdir(parents=True)
    shutil.copytree(run.folder.parent / part, to / part)
    base = base_uri(run, settings)
    revision = None if base.startswith("s3://") else run.base.revision
    layout: Layout = arrange(to, ServedFrom(name=name, base=base, revision=revision), trained)
    (to / LAYOUT).unlink()  # a note for a job's archive
    (to / "records").rmdir()
    if not (to / PROPERTIES).is_file() or not (part == MERGED or (to / ADAPTERS / name).is_dir()):
        raise LaunchError(f"{run.name}: {layout.text}")
    return folder_digest(to), layout.text


def base_uri(run: FinishedRun, settings: SagemakerSettings) -> str:
    """Base model for the container: its Hub id, the configured S3 folder, or where it is put."""
    if settings.base_model is not None:
        return f"{settings.base_model.rstrip('/')}/"
    if is_hub_model(run.base):
        return run.base.id
    return f"s3://{settings.bucket}/{settings.prefix}/{_base_key(run)}/"


def upload_files(aws: Aws, run: FinishedRun, settings: SagemakerSettings, staged: Path) -> None:
    """Put the staged files into S3, and a base model of this host that the adapter needs."""
    s3 = aws.client("s3")
    own = settings.base_model is None and not is_hub_model(run.base) and run.kind == "adapter"
    if own and (staged / ADAPTERS).is_dir():
        upload_base_files(s3, Path(run.base.id), settings, _base_key(run))
    upload_folder(s3, staged, settings, model_key(folder_digest(staged)))


def _base_key(run: FinishedRun) -> str:
    text = json.dumps(weight_digests(run.base), sort_keys=True)
    return f"models/{hashlib.sha256(text.encode()).hexdigest()}"
