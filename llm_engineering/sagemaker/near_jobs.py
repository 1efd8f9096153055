"""Jobs that would be the same training but for their image, code or lock: said before one is paid.

They change without the user's doing: AWS patches an image, a colleague pulls. What such a job has
trained is then another training's, and only its user can say whether to go on from it.
"""

from __future__ import annotations

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.identity import TAG, JobIdentity
from llm_engineering.sagemaker.project_jobs import ProjectJob, project_jobs

_CHANGED_BY_OTHERS = {"image", "code", "lock"}
_LOOKED_AT = 20
"""Newest jobs that are looked at: two calls each."""


def near_jobs(aws: Aws, settings: SagemakerSettings, identity: JobIdentity) -> list[str]:
    """A sentence for each such job that runs, or has trained without completing.

    Empty where jobs may not be listed.

    Raises:
        AwsUnavailableError: They cannot be listed now.
    """
    try:
        jobs = project_jobs(aws, settings, most=_LOOKED_AT)
    except AwsUnavailableError:
        raise
    except LaunchError:  # not permitted: this only tells more
        return []
    return [said for job in jobs if (said := _sentence(job, identity)) is not None]


def _sentence(job: ProjectJob, identity: JobIdentity) -> str | None:
    tag = job.tags.get(TAG)
    if tag is None:
        return None
    differ = identity.differences(tag)
    has_trained = job.is_unfinished and "TrainingStartTime" in job.description
    if not differ or not set(differ) <= _CHANGED_BY_OTHERS or not (job.is_live or has_trained):
        return None
    changed = (
        [f"commit {job.tags.get('commit', 'unknown')}"] if {"code", "lock"} & {*differ} else []
    )
    if "image" in differ:
        image = job.description["AlgorithmSpecification"]["TrainingImage"]
        changed.append(f"sagemaker.image: {image}")
    return (
        f"job {job.name} ({job.state}, {job.billable_seconds:,} s billed) is this training but for its "
        f"{' and '.join(differ)}: a new job begins from the first step. To go on from that one's "
        f"checkpoints instead, stop this command and run it with {' and '.join(changed)}"
    )
