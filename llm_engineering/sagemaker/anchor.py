"""The digest of a job's results, kept where who may write the results may not: in the job's log.

model.tar.gz holds an inventory of itself. Who may write that object in S3 can alter weights and
inventory alike. So the job prints the inventory's SHA-256 as its last line, and the launcher holds the
inventory against that. CloudWatch keeps lines as they came: nobody can alter one, and new ones come
under the time they were put.

It does not stand against who may put lines into the job's log, or change what the job runs and reads
before it starts (the bucket's ``code/``, ``jobs/``, ``data/``, ``models/``; the job's role).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.aws import Aws, is_denied
from llm_engineering.sagemaker.follow import LOG_GROUP, Pace, log_streams

logger = logging.getLogger(__name__)

_PREFIX = "results: the inventory's sha256 is "
_LINE = re.compile(rf"{re.escape(_PREFIX)}([0-9a-f]{{64}})")
_STILL_COMING = timedelta(minutes=5)
"""So long after a job's end its last lines may yet come."""
_LOOKS = 4


def anchor_line(inventory: Path) -> str:
    """The last line of a job's log."""
    return f"{_PREFIX}{_digest(inventory)}"


def hold_against_log(aws: Aws, job: dict[str, Any], inventory: Path, pace: Pace) -> bool:
    """Check an inventory against the digest in its job's log.

    Args:
        aws: The session.
        job: The description of the completed job.
        inventory: As it came out of the archive.
        pace: How often AWS is asked.

    Returns:
        Whether the log has a digest; where it has not, or may not be read, that is told.

    Raises:
        LaunchError: It is another.
        AwsUnavailableError: The log cannot be asked for now.
    """
    name = job["TrainingJobName"]
    try:
        stated = _stated(aws, job, pace)
    except Exception as error:
        if not is_denied(error):
            raise
        stated, why = None, "its log may not be read here (logs:GetLogEvents)"
    else:
        why = "its log has no digest of them, or is gone"
    if stated is None:
        logger.warning("job %s: its results are checked for damage, not for forgery: %s", name, why)
        return False
    found = _digest(inventory)
    if found != stated:
        raise LaunchError(
            f"job {name}: its results are not those that it left: the inventory in its model has the "
            f"sha256 {found}, the job's log says {stated}. Somebody has replaced the model in S3: do "
            "not use it; --no-cache trains again, and pays again"
        )
    return True


def _stated(aws: Aws, job: dict[str, Any], pace: Pace) -> str | None:
    """The digest that the job's log ends with; None where it has none."""
    ended = job.get("TrainingEndTime")
    may_come = ended is not None and datetime.now(UTC) - ended < _STILL_COMING
    for look in range(_LOOKS if may_come else 1):
        if look:
            time.sleep(pace.poll_s)
        found = aws.surviving(
            lambda: _last_stated(aws, job["TrainingJobName"]),
            patience_s=pace.patience_s,
            pause_s=pace.poll_s,
        )
        if found is not None:
            return found
    return None


def _last_stated(aws: Aws, name: str) -> str | None:
    """The last digest in the newest part of the job's streams: one for each start and instance."""
    stated: list[tuple[int, str]] = []
    for stream in log_streams(aws, name):
        page = aws.client("logs").get_log_events(
            logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=False
        )
        for event in page["events"]:
            if found := _LINE.fullmatch(event["message"].strip()):
                stated.append((event.get("timestamp", 0), found[1]))
    return max(stated, key=lambda each: each[0])[1] if stated else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
