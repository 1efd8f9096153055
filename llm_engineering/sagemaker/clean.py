"""Removing from S3 what old jobs left: never what a live, a young or a production job needs.

Driven by the jobs, not by what lies in the bucket: only what an old job of ours names as its own
is looked at, and none of it that another job names too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlparse

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.project_jobs import ProjectJob

_OF_A_JOB = ("jobs", "checkpoints", "results")
_BY_DIGEST = ("data", "models", "code")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Leftover:
    """A folder of S3 that nobody needs any more."""

    uri: str
    jobs: tuple[str, ...]
    keys: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Leftovers:
    """What may be removed, and which old jobs keep what they have, by the reason."""

    folders: tuple[Leftover, ...]
    kept: dict[str, str]


def find_leftovers(
    aws: Aws,
    settings: SagemakerSettings,
    jobs: Sequence[ProjectJob],
    *,
    days: int,
    production: AbstractSet[str],
    own_runs: AbstractSet[str],
    now: datetime | None = None,
) -> Leftovers:
    """What old jobs left in S3.

    Args:
        aws: The session.
        settings: Bucket and prefix; nothing outside of them is touched.
        jobs: All jobs of the project.
        days: Jobs that ended fewer days ago keep everything.
        production: Names of the jobs that production versions came from.
        own_runs: Runs of this ZenML store. Another store's jobs keep everything: what is in
            production there is not known here.
        now: Default: now.

    Raises:
        LaunchError: The bucket may not be listed.
    """
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    old, kept = list[ProjectJob](), dict[str, str]()
    needed: set[str] = set()
    for job in jobs:
        reason = _reason_to_keep(job, before, production, own_runs)
        if reason is None:
            old.append(job)
            continue
        needed |= folders_of(job.description)
        if job.ended < before or job.is_live:
            kept[job.name] = reason
    home = f"s3://{settings.bucket}/{settings.prefix.rstrip('/')}/"
    named: dict[str, list[str]] = {}
    for job in old:
        for uri in folders_of(job.description):
            if _is_ours(uri, home) and not _overlaps(uri, needed):
                named.setdefault(uri, []).append(job.name)
    folders = []
    for uri, names in sorted(named.items()):
        objects = _objects(aws, uri)
        # Something young in it: another launch has just put it there for its own job.
        if objects and all(each["LastModified"] < before for each in objects):
            keys = tuple(str(each["Key"]) for each in objects)
            size = sum(int(each["Size"]) for each in objects)
            folders.append(Leftover(uri, tuple(names), keys, size))
    return Leftovers(tuple(folders), kept)


def remove(aws: Aws, folder: Leftover) -> None:
    """Delete a folder's objects.

    Raises:
        LaunchError: They may not be deleted; says what was and was not.
    """
    bucket = urlparse(folder.uri).netloc
    for start in range(0, len(folder.keys), 1000):
        part = folder.keys[start : start + 1000]
        try:
            answer = aws.client("s3").delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in part], "Quiet": True}
            )
        except Exception as error:
            if not is_denied(error):
                raise LaunchError(
                    f"{folder.uri}: cannot be removed ({error_code(error)}: {error}); what came "
                    "before it is removed, and --clean goes on from here"
                ) from None
            raise _not_allowed(folder) from None
        if answer.get("Errors"):
            raise _not_allowed(folder)


def folders_of(job: dict[str, Any]) -> set[str]:
    """The S3 folders that a job names: inputs, checkpoints, and its own results; each ends in /."""
    uris = [
        channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in job.get("InputDataConfig") or []
        if "S3DataSource" in channel.get("DataSource", {})
    ]
    checkpoints = (job.get("CheckpointConfig") or {}).get("S3Uri")
    uris += [checkpoints] if checkpoints else []
    output = job["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    uris.append(f"{output}/{job['TrainingJobName']}")
    return {f"{uri.rstrip('/')}/" for uri in uris}


def _reason_to_keep(
    job: ProjectJob, before: datetime, production: AbstractSet[str], own_runs: AbstractSet[str]
) -> str | None:
    if job.is_live:
        return "it has not ended"
    if job.ended >= before:
        return "it is young"
    if job.name in production:
        return "production came from it"
    if job.run not in own_runs:
        return "another ZenML store launched it, and knows what is in production"
    return None


def _is_ours(uri: str, home: str) -> bool:
    """Whether a launch made that folder: not a base model or another's that lies below the prefix."""
    kind, _, rest = uri.removeprefix(home).rstrip("/").partition("/")
    if not uri.startswith(home) or not rest:
        return False
    return kind in _OF_A_JOB or (kind in _BY_DIGEST and _DIGEST.fullmatch(rest) is not None)


def _overlaps(uri: str, needed: AbstractSet[str]) -> bool:
    return any(uri.startswith(other) or other.startswith(uri) for other in needed)


def _objects(aws: Aws, uri: str) -> list[dict[str, Any]]:
    place = urlparse(uri)
    pages = aws.client("s3").get_paginator("list_objects_v2")
    try:
        return [
            each
            for page in pages.paginate(Bucket=place.netloc, Prefix=place.path.lstrip("/"))
            for each in page.get("Contents", [])
        ]
    except Exception as error:
        if not is_denied(error):
            raise
        raise LaunchError(
            f"{uri}: may not be listed: allow s3:ListBucket on {place.netloc}"
        ) from None


def _not_allowed(folder: Leftover) -> LaunchError:
    return LaunchError(
        f"{folder.uri}: may not be removed: --clean needs s3:DeleteObject below sagemaker.prefix "
        "(RemoveWhatIsOld in docs/sagemaker/launcher-policy.json)"
    )
