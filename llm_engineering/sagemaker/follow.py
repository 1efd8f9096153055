"""Following a job: its log as it comes, its status to the end, and what each end means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.job_states import Ending, ending_of, instance_of

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_TAIL_LINES = 20


class JobFailedError(LaunchError):
    """The job's status is Failed."""


class JobStoppedError(LaunchError):
    """The job was stopped, by a user or from the console."""


class JobRanTooLongError(LaunchError):
    """The job was stopped after ``sagemaker.max_run_seconds``."""


class JobWaitedTooLongError(AwsUnavailableError):
    """The job got no capacity in the time it may wait; waiting may cure that."""


class NoCapacityError(AwsUnavailableError):
    """AWS has no instance of this type to give at present."""


class ServiceFailedError(AwsUnavailableError):
    """The job failed by an error of the service itself, not by one of its own."""


@dataclass(frozen=True)
class Pace:
    """How often AWS is asked, and how long failures are borne, in seconds."""

    poll_s: float = 5.0
    patience_s: float = 3600.0


@dataclass
class _Log:
    """The job's log streams: a new one begins each time the job starts."""

    tokens: dict[str, str | None] = field(default_factory=dict)
    tail: list[str] = field(default_factory=list)
    is_denied: bool = False


def follow(
    aws: Aws,
    name: str,
    *,
    show: Callable[[str], None],
    pace: Pace | None = None,
) -> dict[str, Any]:
    """Show a job's log until the job ends; only Completed is success.

    How long it may wait for capacity and train is the service's to mind, by the request's
    StoppingCondition: it does so while this process is not there, too.

    Args:
        aws: The session.
        name: The job.
        show: Called with each line of the log, and with each change of status.
        pace: How often AWS is asked.

    Returns:
        The job's description, as DescribeTrainingJob gives it.

    Raises:
        JobFailedError, JobStoppedError, JobRanTooLongError, JobWaitedTooLongError,
        NoCapacityError, ServiceFailedError: How else it ended, with the end of its log.
        AwsUnavailableError: Nothing can be heard of the job any more; it goes on.
    """
    pace = pace or Pace()
    log = _Log()
    status = ""
    while True:
        job = aws.surviving(
            lambda: aws.client("sagemaker").describe_training_job(TrainingJobName=name),
            patience_s=pace.patience_s,
            pause_s=pace.poll_s,
        )
        if job["SecondaryStatus"] != status:
            status = job["SecondaryStatus"]
            message = _status_message(job)
            show(f"[{name}] {status}{f': {message}' if message else ''}")
        _show_log(aws, name, log, show, pace)
        if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
            _drain_log(aws, name, log, show, pace)
            _raise_unless_completed(job, log.tail)
            return dict(job)
        time.sleep(pace.poll_s)


def wait_for_end(aws: Aws, name: str, *, show: Callable[[str], None], pace: Pace) -> None:
    """Wait until a job that is being stopped has ended, however it does.

    Raises:
        AwsUnavailableError: Nothing can be heard of it any more.
    """
    show(f"[{name}] is being stopped: waiting for its end, since it may yet save a checkpoint")
    while True:
        job = aws.surviving(
            lambda: aws.client("sagemaker").describe_training_job(TrainingJobName=name),
            patience_s=pace.patience_s,
            pause_s=pace.poll_s,
        )
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return
        time.sleep(pace.poll_s)


def stop(aws: Aws, name: str) -> None:
    """Ask the service to stop a job; one that has ended is left as it is."""
    from botocore.exceptions import ClientError

    try:
        aws.client("sagemaker").stop_training_job(TrainingJobName=name)
    except ClientError as error:
        if error_code(error) != "ValidationException":
            raise


def _status_message(job: dict[str, Any]) -> str:
    transitions = job.get("SecondaryStatusTransitions") or []
    return str(transitions[-1].get("StatusMessage", "")) if transitions else ""


def _show_log(aws: Aws, name: str, log: _Log, show: Callable[[str], None], pace: Pace) -> int:
    """Show what is new in all of the job's streams; returns the number of lines.

    A log that may not be read is no reason to lose sight of the job.
    """
    if log.is_denied:
        return 0
    try:
        return _show_new(aws, name, log, show, pace)
    except Exception as error:
        if not is_denied(error):
            raise
        log.is_denied = True
        show(
            f"[{name}] its log may not be read here: allow logs:DescribeLogStreams and "
            "logs:GetLogEvents. The job goes on"
        )
        return 0


def _show_new(aws: Aws, name: str, log: _Log, show: Callable[[str], None], pace: Pace) -> int:
    streams = aws.surviving(
        lambda: log_streams(aws, name), patience_s=pace.patience_s, pause_s=pace.poll_s
    )
    lines = 0
    for stream in streams:
        while True:
            token = log.tokens.get(stream)
            page = aws.surviving(
                lambda stream=stream, token=token: aws.client("logs").get_log_events(  # type: ignore[misc]
                    logGroupName=LOG_GROUP,
                    logStreamName=stream,
                    startFromHead=True,
                    **({"nextToken": token} if token else {}),
                ),
                patience_s=pace.patience_s,
                pause_s=pace.poll_s,
            )
            for event in page["events"]:
                text = event["message"].rstrip("\n")
                show(text)
                log.tail = [*log.tail, text][-_TAIL_LINES:]
                lines += 1
            log.tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token or not page["events"]:
                break
    return lines


def _drain_log(aws: Aws, name: str, log: _Log, show: Callable[[str], None], pace: Pace) -> None:
    """The log's last lines come a little after the job's end."""
    quiet = 0
    while quiet < 2:
        time.sleep(min(pace.poll_s, 2.0))
        quiet = 0 if _show_log(aws, name, log, show, pace) else quiet + 1


def log_streams(aws: Aws, name: str) -> list[str]:
    """Names of a job's log streams, the oldest first: one for each start and instance."""
    from botocore.exceptions import ClientError

    try:
        found = aws.client("logs").describe_log_streams(
            logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/"
        )["logStreams"]
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":  # nothing logged yet
            return []
        raise
    ordered = sorted(found, key=lambda each: (each.get("creationTime", 0), each["logStreamName"]))
    return [each["logStreamName"] for each in ordered]


def _raise_unless_completed(job: dict[str, Any], tail: list[str]) -> None:
    name, limits = job["TrainingJobName"], job.get("StoppingCondition") or {}
    log = "".join(f"\n  | {line}" for line in tail)
    log = f"\nThe end of its log:{log}" if log else ""
    kept = "its checkpoints are kept"
    reason = str(job.get("FailureReason") or "no reason is given")
    match ending_of(job):
        case Ending.COMPLETED:
            return
        case Ending.NO_CAPACITY:
            raise NoCapacityError(f"job {name}: AWS has no {instance_of(job)} to give at present")
        case Ending.SERVICE_FAILED:
            raise ServiceFailedError(
                f"job {name} failed by an error of the service: {reason}; {kept}: run the same "
                f"command again to go on{log}"
            )
        case Ending.RAN_TOO_LONG:
            raise JobRanTooLongError(
                f"job {name} was stopped after sagemaker.max_run_seconds "
                f"({limits.get('MaxRuntimeInSeconds')}); {kept}: raise it and run the same command "
                f"again to go on{log}"
            )
        case Ending.WAITED_TOO_LONG if job.get("EnableManagedSpotTraining"):
            raise JobWaitedTooLongError(
                f"job {name} was stopped after sagemaker.spot.max_wait_seconds "
                f"({limits.get('MaxWaitTimeInSeconds')}); {kept}: raise it and run the same "
                f"command again to go on{log}"
            )
        case Ending.WAITED_TOO_LONG:
            raise JobWaitedTooLongError(
                f"job {name} got no capacity within {limits.get('MaxPendingTimeInSeconds')} s "
                "(sagemaker.pending_timeout_seconds) and was stopped by the service, unpaid; run "
                "the same command again later, or with another instance type or region"
            )
        case Ending.STOPPED:
            raise JobStoppedError(
                f"job {name} was stopped; {kept}: run the same command again to go on{log}"
            )
        case _:
            raise JobFailedError(f"job {name} failed: {reason}{log}")
