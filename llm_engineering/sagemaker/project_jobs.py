"""The project's jobs: what there is, what each costs, which answers to a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.attempts import LOOK_UP_PATIENCE_S, describe
from llm_engineering.sagemaker.aws import Aws, is_denied
from llm_engineering.sagemaker.cost import billable_seconds, cost_of
from llm_engineering.sagemaker.follow import stop
from llm_engineering.sagemaker.identity import CONFIGURATION_TAG, configuration_digest
from llm_engineering.sagemaker.image import pin_image
from llm_engineering.sagemaker.job_states import Ending, ending_of, instance_of
from llm_engineering.sagemaker.submission import requirements


@dataclass(frozen=True)
class ProjectJob:
    """A job of this project, and what is known of it."""

    description: dict[str, Any]
    tags: dict[str, str]
    cost_usd: float | None

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.description["TrainingJobName"])

    @property
    def is_live(self) -> bool:
        """Whether it runs, or may."""
        return ending_of(self.description) is None

    @property
    def is_unfinished(self) -> bool:
        """Whether it ended before its training was complete."""
        ending = ending_of(self.description)
        return ending not in (None, Ending.COMPLETED, Ending.DELETED)

    @property
    def state(self) -> str:
        """How it ended, or what it is doing."""
        ending = ending_of(self.description)
        if ending is None:
            job = self.description
            return f"{job['TrainingJobStatus']}: {job['SecondaryStatus']}"
        return ending.value if ending is not Ending.FAILED else "failed"

    @property
    def run(self) -> str:
        """The ZenML run that submitted it."""
        return self.tags.get("run", "")

    @property
    def instance(self) -> str:
        """Its instance type, and how many."""
        count = self.description["ResourceConfig"].get("InstanceCount") or 1
        return instance_of(self.description) + (f" x {count}" if count > 1 else "")

    @property
    def created(self) -> datetime:
        """When it was submitted."""
        created: datetime = self.description["CreationTime"]
        return created

    @property
    def ended(self) -> datetime:
        """When it was last heard of."""
        job = self.description
        ended: datetime = (
            job.get("TrainingEndTime") or job.get("LastModifiedTime") or job["CreationTime"]
        )
        return ended

    @property
    def billable_seconds(self) -> int:
        """Seconds that it is billed for so far."""
        return billable_seconds(self.description)

    def answers_to(self, configuration: str) -> bool:
        """Whether it was launched with a configuration of that digest."""
        return self.tags.get(CONFIGURATION_TAG) == configuration


def configuration_of(
    config: FinetuningConfig,
    settings: SagemakerSettings,
    *,
    data: str,
    model: str,
    start: str,
    code: str,
) -> str:
    """The digest by which a job says which configuration it answers to.

    Args:
        config: The configuration.
        settings: Its ``sagemaker`` section.
        data: Fingerprint of the data's files; ``model`` and ``start`` alike.
        model: As said.
        start: As said.
        code: Digest of the source that computes.
    """
    return configuration_digest(
        config,
        data=data,
        model=model,
        start=start,
        code=code,
        image=pin_image(Aws(settings), settings).identity,
        lock=requirements(settings),
    )


def project_jobs(
    aws: Aws, settings: SagemakerSettings, *, most: int | None = None
) -> list[ProjectJob]:
    """Jobs whose names begin with ``sagemaker.job_prefix`` and whose results lie in our bucket.

    Args:
        aws: The session.
        settings: Prefix, bucket and prices.
        most: The newest so many; None: all.

    Returns:
        The newest first.

    Raises:
        LaunchError: They may not be listed.
        AwsUnavailableError: They cannot be listed now.
    """
    home = f"s3://{settings.bucket}/{settings.prefix.rstrip('/')}/"
    found = []
    for name in _names(aws, settings.job_prefix, most):
        job = describe(aws, name)
        if job is not None and job["OutputDataConfig"]["S3OutputPath"].startswith(home):
            found.append(ProjectJob(job, _tags(aws, job), cost_of(job, settings)))
    return found


def stop_job(aws: Aws, settings: SagemakerSettings, name: str) -> ProjectJob:
    """Ask for a job to be stopped; one that has ended is left as it is.

    Returns:
        The job as it was found.

    Raises:
        LaunchError: There is no such job, or it may not be stopped.
    """
    job = describe(aws, name)
    if job is None:
        raise LaunchError(f"--stop {name}: there is no such job in {aws.region}; --jobs lists them")
    found = ProjectJob(job, {}, cost_of(job, settings))
    if not found.is_live:
        return found
    try:
        aws.surviving(lambda: stop(aws, name), patience_s=LOOK_UP_PATIENCE_S, pause_s=1.0)
    except AwsUnavailableError as error:
        raise AwsUnavailableError(f"job {name} is NOT stopped, and goes on: {error}") from None
    except Exception as error:
        if not is_denied(error):
            raise
        raise LaunchError(
            f"job {name} is NOT stopped, and goes on: allow sagemaker:StopTrainingJob on it"
        ) from None
    return found


def _names(aws: Aws, prefix: str, most: int | None) -> list[str]:
    def listed() -> list[str]:
        pages = (
            aws.client("sagemaker")
            .get_paginator("list_training_jobs")
            .paginate(
                NameContains=f"{prefix}-",
                SortBy="CreationTime",
                SortOrder="Descending",
                PaginationConfig={"PageSize": 100},
            )
        )
        names = (
            each["TrainingJobName"]
            for page in pages
            for each in page["TrainingJobSummaries"]
            if each["TrainingJobName"].startswith(f"{prefix}-")
        )
        return list(islice(names, most))

    try:
        return aws.surviving(listed, patience_s=LOOK_UP_PATIENCE_S, pause_s=1.0)
    except AwsUnavailableError as error:
        raise AwsUnavailableError(f"the jobs cannot be listed: {error}") from None
    except Exception as error:
        if not is_denied(error):
            raise LaunchError(f"the jobs cannot be listed: {error}") from error
        raise LaunchError(
            "the jobs may not be listed: allow sagemaker:ListTrainingJobs, which AWS grants for "
            'all jobs or none (Resource "*")'
        ) from None


def _tags(aws: Aws, job: dict[str, Any]) -> dict[str, str]:
    def ask() -> dict[str, str]:
        answer = aws.client("sagemaker").list_tags(ResourceArn=job["TrainingJobArn"])
        return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}

    try:
        return aws.surviving(ask, patience_s=LOOK_UP_PATIENCE_S, pause_s=1.0)
    except LaunchError:
        raise
    except Exception as error:
        if is_denied(error):
            return {}
        raise LaunchError(f"the tags of {job['TrainingJobName']} cannot be read: {error}") from None
