"""Putting a job's inputs into S3: configuration, prepared data, source, and a base model of our own."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llm_engineering.configuration import FinetuningConfig, to_yaml
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.configuration.zenml import ZenmlSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.base_model import (
    TOKENIZER_FILES,
    is_hub_model,
    original_folder,
    weight_files,
)
from llm_engineering.model.chat_template import read_chat_template
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.sagemaker.aws import error_code
from llm_engineering.sagemaker.job import (
    CHAT_TEMPLATE_FILE,
    CONFIG_FILE,
    JOB_FILE,
    START,
    JobOrder,
)

SOURCE_KEPT = timedelta(days=30)
"""Source that was uploaded longer ago is uploaded again, so that no rule removes it under a job."""


def write_config_channel(config: FinetuningConfig, order: JobOrder, folder: Path) -> Path:
    """Write what the job reads first: configuration, order, chat template, adapter to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    # Where it runs is no business of the job, nor is ZenML, which it does not have.
    sent = config.model_copy(update={"sagemaker": None, "zenml": ZenmlSettings()})
    (folder / CONFIG_FILE).write_text(to_yaml(sent), encoding="utf-8")
    (folder / JOB_FILE).write_text(order.model_dump_json(indent=1), encoding="utf-8")
    template = read_chat_template(config.model.chat_template)
    if template is not None:
        (folder / CHAT_TEMPLATE_FILE).write_text(template, encoding="utf-8")
    if config.train.start_from is not None:
        shutil.copytree(
            starting_adapter(config.train.start_from).folder,
            folder / START,
            ignore=shutil.ignore_patterns("tokenizer*", "*.jinja", "*.md"),
        )
    return folder


def upload_folder(s3: Any, folder: Path, settings: SagemakerSettings, key: str) -> str:
    """Upload a folder's files below ``prefix/key``; returns the S3 URI."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _upload(s3, path, settings, f"{key}/{path.relative_to(folder).as_posix()}")
    return f"s3://{settings.bucket}/{settings.prefix}/{key}/"


def upload_dataset(s3: Any, dataset: PreparedDataset, settings: SagemakerSettings) -> str:
    """Upload the prepared data under its digest; returns the S3 URI."""
    return upload_folder(s3, dataset.folder, settings, f"data/{dataset.summary.digest}")


def upload_source(s3: Any, packed: Path, digest: str, settings: SagemakerSettings) -> str:
    """Upload packed source under its digest, unless it is there and young; returns the S3 URI.

    docs/sagemaker/lifecycle.json removes it 90 days after its last upload, and a job may run, and
    start again, for 28 days after this.

    Args:
        s3: The client.
        packed: What ``pack_source`` made.
        digest: Of the source's listing.
        settings: Where to.
    """
    key = f"code/{digest}"
    for path in sorted(packed.iterdir()):
        if not _is_there(s3, path, settings, f"{key}/{path.name}", younger_than=SOURCE_KEPT):
            _upload(s3, path, settings, f"{key}/{path.name}")
    return f"s3://{settings.bucket}/{settings.prefix}/{key}/"


def upload_base_model(
    s3: Any, config: FinetuningConfig, recipe: ModelRecipe, settings: SagemakerSettings
) -> str | None:
    """Upload a local base model under the digest of its recipe.

    Files that are there already, in the same size, are not sent again.

    Returns:
        The S3 URI: of what was uploaded, or ``sagemaker.base_model`` where that has the files
        already; None where the job fetches the model from the Hub.
    """
    if settings.base_model is not None:
        return f"{settings.base_model.rstrip('/')}/"
    if is_hub_model(config.model):
        return None
    folder = original_folder(config.model, weights=True)
    return upload_base_files(s3, folder, settings, f"models/{recipe.digest}")


def upload_base_files(s3: Any, folder: Path, settings: SagemakerSettings, key: str) -> str:
    """Upload a base model's weights and tokenizer, but what is there already; returns the S3 URI."""
    paths = set(weight_files(folder))
    for pattern in TOKENIZER_FILES:
        paths |= {path for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        if not _is_there(s3, path, settings, f"{key}/{path.name}"):
            _upload(s3, path, settings, f"{key}/{path.name}")
    return f"s3://{settings.bucket}/{settings.prefix}/{key}/"


def _upload(s3: Any, path: Path, settings: SagemakerSettings, key: str) -> None:
    extra = (
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key}
        if settings.kms_key
        else {}
    )
    s3.upload_file(str(path), settings.bucket, f"{settings.prefix}/{key}", ExtraArgs=extra)


def _is_there(
    s3: Any,
    path: Path,
    settings: SagemakerSettings,
    key: str,
    *,
    younger_than: timedelta | None = None,
) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=settings.bucket, Key=f"{settings.prefix}/{key}")
    except ClientError as error:
        if error_code(error) in ("404", "NoSuchKey", "NotFound", "403"):
            return False
        raise
    if younger_than is not None and datetime.now(UTC) - head["LastModified"] > younger_than:
        return False
    return bool(head["ContentLength"] == path.stat().st_size)
