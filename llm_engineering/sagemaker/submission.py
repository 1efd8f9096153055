"""Submitting a job: its inputs into S3, once, then one request for each attempt."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.export.gguf import CONVERTER
from llm_engineering.model.finetuning.trained_shape import known_shape
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning.workload import prepared_workload
from llm_engineering.registry.versions import model_name
from llm_engineering.reporting.manifest import git_commit
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied, passing_trouble
from llm_engineering.sagemaker.checks import check_memory, check_storage
from llm_engineering.sagemaker.identity import CONFIGURATION_TAG, TAG, JobIdentity
from llm_engineering.sagemaker.image import TrainingImage
from llm_engineering.sagemaker.inputs import (
    upload_base_model,
    upload_dataset,
    upload_folder,
    upload_source,
    write_config_channel,
)
from llm_engineering.sagemaker.job import PRODUCTION, JobOrder
from llm_engineering.sagemaker.job_requirements import job_requirements
from llm_engineering.sagemaker.request import JobInputs, build_request
from llm_engineering.sagemaker.serving_layout import ServedFrom
from llm_engineering.sagemaker.source_package import SourceListing, pack_source, stage_source
from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PIPELINE_TAG = {"pipeline": "finetuning"}


class NameTakenError(LaunchError):
    """Another launcher has just submitted the attempt of that name: look again."""


def stage(config: FinetuningConfig, settings: SagemakerSettings, folder: Path) -> SourceListing:
    """Put the source that travels into ``folder``: this package, and what it needs installed.

    llama.cpp's converter too where a GGUF is exported: a job has no other.
    """
    extra = {"requirements.txt": requirements(settings)}
    if config.export.gguf:
        extra |= {
            path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(CONVERTER.parent.rglob("*"))
            if path.is_file() and not {"__pycache__", "quantiser"} & set(path.parts)
        }
    return stage_source(ROOT, folder, extra)


def requirements(settings: SagemakerSettings) -> str:
    """What a job installs, by the lock."""
    return job_requirements(
        ROOT / "poetry.lock", settings.image_python, mlflow=settings.mlflow is not None
    )


def served_name(config: FinetuningConfig) -> str:
    """What requests call the adapter: the registered model's name, of plain characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model_name(config)).strip("-.") or "adapter"


@dataclass
class Submission:
    """One training, ready to be submitted as often as it takes.

    ``folder`` holds what is staged. ``configuration`` is the digest that ``--jobs`` compares.
    """

    aws: Aws
    config: FinetuningConfig
    settings: SagemakerSettings
    lora: LoraRecipe
    dataset: PreparedDataset
    run: str
    folder: Path
    identity: JobIdentity
    configuration: str
    image: TrainingImage
    production: ProductionAdapter | None = None
    _inputs: JobInputs | None = field(default=None, init=False)

    @property
    def is_prepared(self) -> bool:
        """Whether the inputs are in S3."""
        return self._inputs is not None

    def prepare(self) -> None:
        """Check the memory of the GPUs, and put the job's inputs into S3.

        Raises:
            LaunchError: A GPU is too small, or S3 does not take the inputs.
            AwsUnavailableError: S3 cannot be reached now.
        """
        self._check_memory()
        try:
            self._inputs = self._upload()
        except Exception as error:
            where = f"s3://{self.settings.bucket}/{self.settings.prefix}"
            if is_denied(error):
                raise LaunchError(
                    f"{where}: the job's inputs may not be put there ({error_code(error)}); allow "
                    "s3:PutObject and s3:GetObject (docs/sagemaker/launcher-policy.json), and with "
                    "sagemaker.kms_key the use of that key. Nothing was submitted"
                ) from None
            trouble = passing_trouble(error)
            if trouble is None:
                raise
            raise AwsUnavailableError(
                f"{where}: {trouble} ({error_code(error)}); nothing was submitted: run the same "
                "command again"
            ) from None

    def submit(self, name: str, instance_types: list[str], chain: str) -> None:
        """Create a job.

        Args:
            name: Its exact name.
            instance_types: Those of the configured types that the service may choose from.
            chain: Folder of the checkpoints that it goes on from.

        Raises:
            NameTakenError: There is a job of that name.
            LaunchError: AWS refuses it.
            AwsUnavailableError: AWS could not be asked; there may be such a job or not.
        """
        from botocore.exceptions import ParamValidationError

        request = self._request(name, instance_types, chain)
        try:
            self.aws.client("sagemaker").create_training_job(**request)
        except ParamValidationError as error:
            raise LaunchError(f"job {name}: the request is not valid: {error}") from None
        except Exception as error:
            raise self._refusal(error, name, ", ".join(instance_types)) from None

    def _refusal(self, error: Exception, name: str, instance_type: str) -> LaunchError:
        code = error_code(error)
        response = getattr(error, "response", None) or {}
        message = response.get("Error", {}).get("Message") or str(error)
        if code == "ResourceInUse":
            return NameTakenError(f"job {name} is there already")
        trouble = passing_trouble(error)
        if trouble is not None:
            return AwsUnavailableError(
                f"job {name}: {trouble} ({code}), and it is not known whether it was submitted: the "
                "same command again follows it if it was, and submits it if not"
            )
        if code == "ResourceLimitExceeded":
            return LaunchError(
                f"job {name}: AWS refuses another {instance_type}: {message} Raise that quota in "
                "Service Quotas (Amazon SageMaker), or end other jobs; this is not tried again"
            )
        return LaunchError(f"job {name}: AWS refuses it ({code}): {message}")

    def _request(self, name: str, instance_types: list[str], chain: str) -> dict[str, Any]:
        if self._inputs is None:
            raise ValueError("submit() before prepare()")
        return build_request(
            self.settings,
            name=name,
            instance_types=instance_types,
            image=self.image,
            inputs=self._inputs,
            tags={
                **PIPELINE_TAG,
                "run": self.run,
                "commit": git_commit() or "unknown",
                TAG: self.identity.tag,
                CONFIGURATION_TAG: self.configuration,
            },
            checkpoints=chain,
        )

    def _upload(self) -> JobInputs:
        s3 = self.aws.client("s3")
        base_model = upload_base_model(s3, self.config, self.lora.model, self.settings)
        order = JobOrder(
            run=self.run,
            region=self.aws.region,
            secrets=self.settings.secrets,
            has_base_model=base_model is not None,
            served=ServedFrom(
                name=served_name(self.config),
                base=base_model or self.lora.model.id,
                revision=None if base_model else self.lora.model.revision,
            ),
            weights=self.lora.model.weight_digests,
        )
        channel = write_config_channel(self.config, order, self.folder / "config")
        if self.production is not None:
            self.production.write(channel / PRODUCTION)
        listing = stage(self.config, self.settings, self.folder / "source")
        code = pack_source(self.folder / "source", self.folder / "code")
        # Under the digest of what it holds: a later job must not find what an earlier one left.
        key = f"jobs/{self.identity.digest[:12]}/config-{folder_digest(channel)[:12]}"
        return JobInputs(
            config=upload_folder(s3, channel, self.settings, key),
            dataset=upload_dataset(s3, self.dataset, self.settings),
            base_model=base_model,
            code=upload_source(s3, code, listing.digest, self.settings),
        )

    def _check_memory(self) -> None:
        parameters, merged = self.lora.model.parameters, self.config.export.merged_16bit
        for line in check_storage(parameters, self.settings, merged=merged):
            logger.info("storage: %s", line)
        shape = known_shape(self.config.model, self.config.lora)
        if shape is None:
            logger.warning(
                "memory is not planned: it takes PyTorch to know the modules of a %s, and this host has "
                "none; the job plans it before it loads a weight",
                self.lora.model.architecture,
            )
            return
        work = prepared_workload(
            self.lora, shape, self.config.train, self.config.evaluate, self.dataset.summary.train
        )
        for line in check_memory(work, self.settings):
            logger.info("memory: %s", line)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the paths and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
