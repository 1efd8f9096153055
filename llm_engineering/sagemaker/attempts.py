"""Finding the jobs of a training, and describing one."""

from __future__ import annotations

from typing import Any

from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.job_states import Attempt, chain_of, ending_of

LOOK_UP_PATIENCE_S = 60.0
_NOT_THERE = ("ValidationException", "ResourceNotFound")
_MOST_DESCRIBED = 50
"""Newest attempts that failed or were stopped; a decision needs no older ones."""

_GAP_UNLISTED = 10
"""Names in a row that no job has before the search ends, where jobs may not be listed: records of
jobs can be deleted, and a live one may lie behind."""


def attempts_at(aws: Aws, first: str, digest: str) -> list[Attempt]:
    """All jobs of a training, whoever launched them.

    Args:
        aws: The session.
        first: Name of its first attempt.
        digest: The part of the name that tells the training; in every attempt's name.

    Raises:
        LaunchError: They may not be looked at.
        AwsUnavailableError: They cannot be looked at now.
    """
    listed, gap = _listed(aws, digest), 1
    if listed is None:
        listed, gap = {}, _GAP_UNLISTED
    ended = sorted(
        (n for n, status in listed.items() if status in ("Failed", "Stopped")),
        key=lambda name: number_of(name, digest),
    )
    wanted = [n for n in listed if n not in ended] + ended[-_MOST_DESCRIBED:]
    jobs = {name: job for name in wanted if (job := describe(aws, name)) is not None}
    # The list may lag behind, or not be permitted: the names that come next are looked up.
    number, missing = max((number_of(name, digest) for name in listed), default=0), 0
    while missing < gap:
        number += 1
        job = describe(aws, numbered(first, number))
        missing = missing + 1 if job is None else 0
        if job is not None:
            jobs[job["TrainingJobName"]] = job
    return [as_attempt(job, digest) for job in jobs.values()]


def as_attempt(job: dict[str, Any], digest: str) -> Attempt:
    """A job's description, as what a decision needs of it."""
    name = job["TrainingJobName"]
    return Attempt(
        name=name,
        number=number_of(name, digest),
        status=job["TrainingJobStatus"],
        ending=ending_of(job),
        chain=chain_of(job),
    )


def numbered(first: str, number: int) -> str:
    """The name of an attempt, by that of the first."""
    return first if number == 1 else f"{first}-{number}"


def number_of(name: str, digest: str) -> int:
    """The number of an attempt of that name; 1 is the first."""
    number = name.partition(digest)[2].lstrip("-")
    return int(number) if number.isdigit() else 1


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """A job's description; None if there is no such job.

    Raises:
        LaunchError: It may not be looked at.
        AwsUnavailableError: It cannot be looked at now.
    """
    try:
        return dict(
            aws.surviving(
                lambda: aws.client("sagemaker").describe_training_job(TrainingJobName=name),
                patience_s=LOOK_UP_PATIENCE_S,
                pause_s=1.0,
            )
        )
    except AwsUnavailableError as error:
        raise AwsUnavailableError(f"job {name} cannot be looked up: {error}") from None
    except Exception as error:
        if error_code(error) in _NOT_THERE:
            return None
        if is_denied(error):
            raise LaunchError(
                f"job {name} may not be looked at: allow sagemaker:DescribeTrainingJob on it "
                "(docs/sagemaker/launcher-policy.json)"
            ) from None
        raise LaunchError(f"job {name} cannot be looked up: {error}") from error


def _listed(aws: Aws, digest: str) -> dict[str, str] | None:
    """Status by name of the jobs with the digest in their name; None where that is not permitted."""
    try:
        return aws.surviving(
            lambda: {
                each["TrainingJobName"]: each["TrainingJobStatus"]
                for page in aws.client("sagemaker")
                .get_paginator("list_training_jobs")
                .paginate(NameContains=digest, PaginationConfig={"PageSize": 100})
                for each in page["TrainingJobSummaries"]
            },
            patience_s=LOOK_UP_PATIENCE_S,
            pause_s=1.0,
        )
    except AwsUnavailableError as error:
        raise AwsUnavailableError(f"jobs cannot be listed: {error}") from None
    except Exception as error:
        if is_denied(error):
            return None
        raise LaunchError(f"jobs cannot be listed: {error}") from error
