"""Bringing a completed job's results home: download, extract, check, and what it cost."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    JobRecord,
    TrainingRecord,
)
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.sagemaker.anchor import hold_against_log
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.cost import billable_seconds, cost_of
from llm_engineering.sagemaker.follow import Pace
from llm_engineering.sagemaker.job import RECORDS
from llm_engineering.sagemaker.job_states import instance_of
from llm_engineering.sagemaker.model_archive import INVENTORY, MAX_BYTES, extract, verify_inventory
from llm_engineering.sagemaker.serving_layout import restore

logger = logging.getLogger(__name__)

_GONE = {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def fetch_results(
    aws: Aws,
    job: dict[str, Any],
    lora: LoraRecipe,
    settings: SagemakerSettings,
    folder: Path,
    *,
    pace: Pace | None = None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Download a job's model.tar.gz and read it as what a local run would have made.

    Args:
        aws: The session.
        job: Description of a completed job.
        lora: The recipe that the launch described; a difference is told, never fatal, since
            the result is paid for.
        settings: For the price.
        folder: Receives ``model.tar.gz``, ``job/`` (all of it) and ``adapter/``.
        pace: How long an expired login or a lost network is borne.

    Raises:
        LaunchError: The model is not in S3 any more or may not be read, the archive is unsafe, a
            file is damaged, or it is not what the job left.
        AwsUnavailableError: AWS cannot be reached now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "model.tar.gz"
    pace = pace or Pace()
    _download(aws, job, archive, pace)
    extracted = folder / "job"
    shutil.rmtree(extracted, ignore_errors=True)
    extracted.mkdir()
    extract(archive, extracted, max_bytes=most_bytes(lora))
    verify_inventory(extracted)
    is_anchored = hold_against_log(aws, job, extracted / INVENTORY, pace)
    serving = restore(extracted)
    made = _read(extracted, "lora", LoraRecipe)
    planned, found = _comparable(lora), _comparable(made)
    if found != planned:
        different = [name for name, value in planned.items() if value != found[name]]
        logger.warning("the job's model differs from what was planned in: %s", ", ".join(different))
    record = _read(extracted, "training_record", TrainingRecord)
    manifest = _read_json(extracted / "manifest.json")
    record.evaluation = _read(extracted, "evaluation", Evaluation)
    record.job = job_record(job, manifest, settings, aws.region)
    record.job.serving, record.job.is_anchored = serving, is_anchored
    adapter = folder / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    adapter.mkdir()
    for name in _ADAPTER_FILES:  # as a local run passes it on; the rest is the save step's
        shutil.copy2(extracted / "adapter" / name, adapter / name)
    digest = file_digest(adapter / "adapter_model.safetensors")
    if digest != manifest["adapter_digest"]:
        raise LaunchError(
            f"job {job['TrainingJobName']}: its adapter has digest {digest}, its manifest says "
            f"{manifest['adapter_digest']}"
        )
    return AdapterFolder(adapter, digest), record


def _download(aws: Aws, job: dict[str, Any], archive: Path, pace: Pace) -> None:
    name = job["TrainingJobName"]
    address = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if not address:
        raise LaunchError(f"job {name} has completed, and AWS names no model of it; see its log")
    uri = urlparse(address)
    try:
        aws.surviving(
            lambda: aws.client("s3").download_file(uri.netloc, uri.path.lstrip("/"), str(archive)),
            patience_s=pace.patience_s,
            pause_s=pace.poll_s,
        )
    except OSError as error:
        raise LaunchError(
            f"job {name}: its model cannot be written to {archive} ({error}); it stays in S3: the "
            "same command fetches it once there is room"
        ) from None
    except Exception as error:
        if error_code(error) in _GONE:
            raise LaunchError(
                f"job {name} has completed, but its model {address} is not there any more: it was "
                "deleted, by hand or by a lifecycle rule; --no-cache trains again, and pays again"
            ) from None
        if is_denied(error):
            raise LaunchError(
                f"job {name}: its model {address} may not be read: allow s3:GetObject on it (and "
                "s3:ListBucket, without which S3 says the same of a model that is gone)"
            ) from None
        raise


def most_bytes(lora: LoraRecipe) -> int:
    """The most that a job's archive may hold uncompressed: the adapter's part and two exports.

    Merged and GGUF have at most 4 bytes for each parameter.
    """
    return MAX_BYTES + 2 * 4 * lora.total_parameters


def job_record(
    job: dict[str, Any],
    manifest: dict[str, Any],
    settings: SagemakerSettings,
    region: str,
) -> JobRecord:
    """What a completed job was and ran on, by its own manifest, and what it cost."""
    transitions = job.get("SecondaryStatusTransitions") or []
    return JobRecord(
        name=job["TrainingJobName"],
        arn=job["TrainingJobArn"],
        console=console_link(job["TrainingJobName"], region),
        region=region,
        instance_type=instance_of(job),
        image=job["AlgorithmSpecification"]["TrainingImage"],
        spot=bool(job.get("EnableManagedSpotTraining")),
        restarts=sum(each["Status"] == "Interrupted" for each in transitions),
        billable_seconds=billable_seconds(job),
        training_seconds=int(job.get("TrainingTimeInSeconds") or 0),
        cost_usd=cost_of(job, settings),
        packages=manifest["packages"],
        python=manifest["python"],
        platform=manifest["platform"],
        parity=manifest.get("parity", []),
        model_artifact=job["ModelArtifacts"]["S3ModelArtifacts"],
    )


def console_link(name: str, region: str) -> str:
    """The job's page in the AWS console."""
    host = f"{region}.console.aws.amazon.com"
    return f"https://{host}/sagemaker/home?region={region}#/jobs/{name}"


def _comparable(lora: LoraRecipe) -> dict[str, Any]:
    """A recipe's values, with what is adapted in an order of its own: files and models differ."""
    return {**lora.model_dump(), "matched": sorted(map(str, lora.matched))}


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _read(folder: Path, name: str, kind: Any) -> Any:
    path = folder / RECORDS / f"{name}.json"
    return kind.model_validate_json(path.read_text(encoding="utf-8"))
