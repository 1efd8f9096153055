"""Launching a training job: submit once, follow it, bring its results home."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import LaunchError
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning.shape import read_shape
from llm_engineering.planning.workload import prepared_workload
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.reporting.manifest import git_commit
from llm_engineering.sagemaker import follow as following
from llm_engineering.sagemaker.aws import Aws, error_code
from llm_engineering.sagemaker.checks import check_memory, check_storage, types_with_quota
from llm_engineering.sagemaker.follow import NoCapacityError, Pace, follow
from llm_engineering.sagemaker.image import pin_image
from llm_engineering.sagemaker.inputs import (
    upload_base_model,
    upload_dataset,
    upload_folder,
    upload_source,
    write_config_channel,
)
from llm_engineering.sagemaker.job import PRODUCTION, JobOrder
from llm_engineering.sagemaker.job_requirements import job_requirements
from llm_engineering.sagemaker.request import JobInputs, build_request, instance_of, job_name
from llm_engineering.sagemaker.results import console_link, fetch_results
from llm_engineering.sagemaker.source_package import SourceListing, pack_source, stage_source
from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
_MAX_ATTEMPTS = 20


class Launch(BaseModel):
    """What a remote train step needs beside what a local one does."""

    config: FinetuningConfig
    code: str = Field(description="Digest of the code, part of the job's name.")
    attach: str | None = Field(None, description="Follow this job instead of submitting one.")
    detach: bool = Field(False, description="On Ctrl-C, leave the job running.")
    fresh: bool = Field(False, description="Train again even if an equal job has completed.")
    poll_seconds: float = Field(5.0, gt=0, description="Between two looks at the job.")

    @property
    def settings(self) -> SagemakerSettings:
        """The configuration's ``sagemaker`` section."""
        return sagemaker_settings(self.config)


def sagemaker_settings(config: FinetuningConfig) -> SagemakerSettings:
    """The configuration's ``sagemaker`` section.

    Raises:
        LaunchError: There is none.
    """
    if config.sagemaker is None:
        raise LaunchError(
            "sagemaker: the configuration has no such section; --target sagemaker needs "
            "instance_types, role and bucket (docs/sagemaker/README.md)"
        )
    return config.sagemaker


class SubmittedJob(BaseModel):
    """A job that exists, told before anything is waited for."""

    name: str
    arn: str
    console: str
    instance_type: str
    reattached: bool


def train_in_job(
    launch: Launch,
    lora: LoraRecipe,
    dataset: PreparedDataset,
    *,
    run: str,
    folder: Path,
    on_submitted: Callable[[SubmittedJob], None] | None = None,
    production: ProductionAdapter | None = None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Train in a SageMaker job, as ``train`` does here.

    The job's name is a digest of all that decides the result: an equal job that runs or has
    completed is followed or fetched, not paid for again; after a failed one a new attempt goes on
    from its checkpoints.

    Args:
        launch: Configuration and options.
        lora: The recipe that the launch described on the meta device.
        dataset: The prepared data.
        run: Name of the run, for tags.
        folder: Receives the job's results.
        on_submitted: Called once the job exists, before it is waited for.
        production: Evaluated in the job too, since only that host may be able to.

    Raises:
        LaunchError: Nothing was submitted, or the job did not complete; says which and why.
    """
    aws = Aws(launch.settings)
    digest = training_digest(launch, lora, dataset)
    if launch.attach is not None:
        _require_same_training(launch.attach, digest)
        job = _describe(aws, launch.attach)
        if job is None:
            raise LaunchError(f"--attach {launch.attach}: no such job in {aws.region}")
        return _see_through(aws, launch, job, True, lora, folder, on_submitted)
    attempt = _existing(aws, launch, lora, digest)
    if isinstance(attempt, dict):
        return _see_through(aws, launch, attempt, True, lora, folder, on_submitted)
    _check_memory(launch, lora, dataset)
    with tempfile.TemporaryDirectory(prefix="job-") as temporary:
        return _submit_and_follow(
            aws, launch, lora, dataset, run, folder, Path(temporary), digest, attempt, on_submitted,
            production,
        )  # fmt: skip


def training_digest(launch: Launch, lora: LoraRecipe, dataset: PreparedDataset) -> str:
    """SHA-256 over all that decides a job's result: model, adapter, data, optimisation, code."""
    config = launch.config
    parts = [
        config.run.name or "",
        lora.digest,
        dataset.summary.digest,
        config.train.model_dump_json(),
        config.evaluate.model_dump_json(),
        str(config.run.seed),
        launch.code,
    ]
    if config.train.start_from is not None:
        parts.append(starting_adapter(config.train.start_from).digest)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def stage(config: FinetuningConfig, settings: SagemakerSettings, folder: Path) -> SourceListing:
    """Put the source that travels into ``folder``: this package, and what it needs installed."""
    requirements = job_requirements(ROOT / "poetry.lock", settings.image_python)
    return stage_source(ROOT, folder, {"requirements.txt": requirements})


def name_of(config: FinetuningConfig, digest: str, attempt: int = 1) -> str:
    """The name of a training's job."""
    model = config.run.name or Path(config.model.id).name
    data = "" if config.run.name else Path(config.data.sources[0].source).stem
    return job_name(model, data, digest, attempt)


def _check_memory(launch: Launch, lora: LoraRecipe, dataset: PreparedDataset) -> None:
    config = launch.config
    merged = config.export.merged_16bit
    for line in check_storage(lora.model.parameters, launch.settings, merged=merged):
        logger.info("storage: %s", line)
    shape = read_shape(config.model)
    work = prepared_workload(lora, shape, config.train, config.evaluate, dataset.summary.train)
    if work is None:
        logger.warning("memory is not planned: %s is no plain decoder", lora.model.architecture)
        return
    for line in check_memory(work, launch.settings):
        logger.info("memory: %s", line)


def _submit_and_follow(
    aws: Aws,
    launch: Launch,
    lora: LoraRecipe,
    dataset: PreparedDataset,
    run: str,
    folder: Path,
    temporary: Path,
    digest: str,
    attempt: int,
    on_submitted: Callable[[SubmittedJob], None] | None,
    production: ProductionAdapter | None,
) -> tuple[AdapterFolder, TrainingRecord]:
    settings, config = launch.settings, launch.config
    s3 = aws.client("s3")
    base_model = upload_base_model(s3, config, lora.model, settings)
    order = JobOrder(
        run=run,
        region=aws.region,
        secrets=settings.secrets,
        has_base_model=base_model is not None,
    )
    channel = write_config_channel(config, order, temporary / "config")
    if production is not None:
        production.write(channel / PRODUCTION)
    listing = stage(config, settings, temporary / "source")
    code = pack_source(temporary / "source", temporary / "code")
    inputs = JobInputs(
        config=upload_folder(s3, channel, settings, f"jobs/{name_of(config, digest)}/config"),
        dataset=upload_dataset(s3, dataset, settings),
        base_model=base_model,
        code=upload_source(s3, code, listing.digest, settings),
    )
    image = pin_image(aws, settings)
    if image.warning:
        logger.warning("%s", image.warning)
    tags = {"pipeline": "finetuning", "run": run, "commit": git_commit() or "unknown"}
    types = _allowed_types(aws, settings)
    # On demand the service itself goes down the list; on spot it does not, so it is done here.
    choices = [[each] for each in types] if settings.spot.enabled else [types]
    lost: NoCapacityError | None = None
    for instance_types in choices * (1 + settings.capacity_retries):
        name = name_of(config, digest, attempt)
        request = build_request(
            settings,
            name=name,
            instance_types=instance_types,
            image=image,
            inputs=inputs,
            tags=tags,
            # All attempts at one training share their checkpoints; a fresh one begins anew.
            checkpoints=name if launch.fresh else name_of(config, digest),
        )
        job, reattached = _create(aws, request, settings)
        try:
            return _see_through(aws, launch, job, reattached, lora, folder, on_submitted)
        except NoCapacityError as error:
            logger.warning("%s", error)
            lost = error
            attempt += 1
    raise NoCapacityError(
        f"no capacity for any of {', '.join(settings.instance_types)} in {aws.region}, tried "
        f"{1 + settings.capacity_retries} time(s) (sagemaker.capacity_retries); try later, or add "
        "other types or another region"
    ) from lost


def _allowed_types(aws: Aws, settings: SagemakerSettings) -> list[str]:
    """The configured types without those that the account has no quota for, where it can be seen."""
    from botocore.exceptions import ClientError

    try:
        return types_with_quota(aws, settings)[0]
    except ClientError:  # check_account has told it
        return settings.instance_types


def _create(
    aws: Aws, request: dict[str, Any], settings: SagemakerSettings
) -> tuple[dict[str, Any], bool]:
    """Create the job, or find that another process has just done so."""
    from botocore.exceptions import ClientError, ParamValidationError

    name = request["TrainingJobName"]
    try:
        aws.client("sagemaker").create_training_job(**request)
    except ParamValidationError as error:
        raise LaunchError(f"job {name}: the request is not valid: {error}") from None
    except ClientError as error:
        code, message = error_code(error), error.response["Error"].get("Message", "")
        if code == "ResourceInUse":
            return _describe(aws, name) or {}, True
        if code == "ResourceLimitExceeded":
            raise LaunchError(
                f"job {name}: AWS refuses another {instance_of(request)[0]}: "
                f"{message} Raise that quota in Service Quotas (Amazon SageMaker), or end other "
                "jobs; this is not tried again"
            ) from None
        raise LaunchError(f"job {name}: AWS refuses it ({code}): {message}") from None
    return _describe(aws, name) or {}, False


def _see_through(
    aws: Aws,
    launch: Launch,
    job: dict[str, Any],
    reattached: bool,
    lora: LoraRecipe,
    folder: Path,
    on_submitted: Callable[[SubmittedJob], None] | None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Tell of the job, follow it to its end, and fetch what it made."""
    name = job["TrainingJobName"]
    submitted = SubmittedJob(
        name=name,
        arn=job["TrainingJobArn"],
        console=console_link(name, aws.region),
        instance_type=instance_of(job)[0],
        reattached=reattached,
    )
    logger.info(
        "%s job %s\n%s", "following" if reattached else "submitted", name, submitted.console
    )
    if on_submitted is not None:
        on_submitted(submitted)
    try:
        job = follow(
            aws,
            name,
            pending_timeout_s=launch.settings.pending_timeout_seconds,
            show=lambda line: logger.info("%s", line),
            pace=Pace(poll_s=launch.poll_seconds),
        )
    except KeyboardInterrupt:
        if launch.detach:
            logger.warning("left running: job %s\n%s", name, _how_to(name, stopped=False))
        else:
            following.stop(aws, name)
            logger.warning("stopping: job %s\n%s", name, _how_to(name, stopped=True))
        raise
    return fetch_results(aws, job, lora, launch.settings, folder)


def _how_to(name: str, *, stopped: bool) -> str:
    attach = f"  follow it again:  tools/run.py --finetune --target sagemaker --attach {name}"
    end = f"  stop it:          aws sagemaker stop-training-job --training-job-name {name}"
    resume = "  go on from its checkpoints: the same command again"
    return "\n".join([attach, resume if stopped else end])


def _existing(aws: Aws, launch: Launch, lora: LoraRecipe, digest: str) -> dict[str, Any] | int:
    """An equal job that runs or has completed, else the number of the next attempt."""
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        job = _describe(aws, name_of(launch.config, digest, attempt))
        if job is None:
            return attempt
        status = job["TrainingJobStatus"]
        if status == "InProgress" or (status == "Completed" and not launch.fresh):
            return job
    raise LaunchError(
        f"{_MAX_ATTEMPTS} jobs of this training have failed or been stopped; look into them, and "
        "give the run another name (run.name)"
    )


def _describe(aws: Aws, name: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        return dict(aws.client("sagemaker").describe_training_job(TrainingJobName=name))
    except ClientError as error:
        if error_code(error) in ("ValidationException", "ResourceNotFound"):
            return None
        raise LaunchError(
            f"job {name} cannot be looked up ({error_code(error)}); "
            "allow sagemaker:DescribeTrainingJob"
        ) from error


def _require_same_training(name: str, digest: str) -> None:
    if digest[:12] not in name:
        raise LaunchError(
            f"--attach {name}: that job trains something else than this configuration and data "
            f"(its name would hold {digest[:12]}); use the configuration it was launched with"
        )


def redacted(request: dict[str, Any]) -> str:
    """A request as text, without the values of environment variables."""
    shown = json.loads(json.dumps(request, default=str))
    shown["Environment"] = dict.fromkeys(shown.get("Environment", {}), "...")
    return json.dumps(shown, indent=2)
