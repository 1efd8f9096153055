"""What a launch does with the jobs of its training that there are: every state, one decision.

A job of a training is one *attempt* at it. All attempts that go on from each other share a folder
of checkpoints, their *chain*, which has the name of its first attempt. The rules, in order:

====================================  ==========================================================
the attempts that there are           what is done
====================================  ==========================================================
one in a status unknown to us         refuse: it may be alive
one ``Stopping``                      wait for its end, then decide again
one ``InProgress``                    follow it
one ``Completed``                     fetch the newest such, unless training anew was asked for
the newest did not complete           submit the next, on its chain
``_MOST_FAILURES`` failed by their    refuse; training anew begins another chain
own error on that chain
none                                  submit the first, on the first chain
training anew was asked for           submit the next, on a chain of its own
====================================  ==========================================================

So two attempts on one chain are never alive together, however many launchers there are: an
attempt is submitted only once all before it have ended, under the next number, and the service
takes each name once. And no checkpoint is lost: what did not complete is gone on from. Training
anew, asked for again after an attempt at it that did not complete, goes on from that one.

Pure: nothing here asks AWS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

_MOST_FAILURES = 20
"""Attempts on one chain that failed by their own error, after which somebody should look."""
_CAPACITY = ("CapacityError", "InsufficientCapacity")
_SERVICE = ("InternalServerError", "InternalError", "InternalFailure", "ServiceUnavailable")


class Ending(Enum):
    """How a job ended, by what its description says."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    RAN_TOO_LONG = "stopped after sagemaker.max_run_seconds"
    WAITED_TOO_LONG = "stopped after it had waited too long for capacity"
    NO_CAPACITY = "no capacity"
    SERVICE_FAILED = "failed by an error of the service"
    FAILED = "failed"
    DELETED = "deleted"


def ending_of(job: Mapping[str, Any]) -> Ending | None:
    """How a job ended; None while it has not, or its status is none that is known.

    Args:
        job: As DescribeTrainingJob gives it.
    """
    status, reason = job["TrainingJobStatus"], str(job.get("FailureReason") or "")
    if status == "Failed":
        if reason.startswith(_CAPACITY):
            return Ending.NO_CAPACITY
        return Ending.SERVICE_FAILED if reason.startswith(_SERVICE) else Ending.FAILED
    if status == "Stopped":
        secondary = job.get("SecondaryStatus")
        if secondary == "MaxRuntimeExceeded":
            return Ending.RAN_TOO_LONG
        if secondary == "MaxWaitTimeExceeded" or waited_too_long(job):
            return Ending.WAITED_TOO_LONG
        return Ending.STOPPED
    return {"Completed": Ending.COMPLETED, "Deleting": Ending.DELETED}.get(status)


def waited_too_long(job: Mapping[str, Any]) -> bool:
    """Whether the service stopped a job for its ``MaxPendingTimeInSeconds``.

    It has no status of its own for that: such a job was stopped without having started, no
    sooner than that time after its creation.
    """
    limit = (job.get("StoppingCondition") or {}).get("MaxPendingTimeInSeconds")
    ended = job.get("TrainingEndTime") or job.get("LastModifiedTime")
    if limit is None or ended is None or job.get("TrainingStartTime") is not None:
        return False
    waited = ended - job["CreationTime"]
    seconds = waited.total_seconds() if hasattr(waited, "total_seconds") else float(waited)
    return bool(seconds >= limit)


@dataclass(frozen=True)
class Attempt:
    """A job of a training, as the service reports it."""

    name: str
    number: int
    status: str
    ending: Ending | None
    chain: str

    @property
    def is_unknown(self) -> bool:
        """Whether it may be alive or not, for all we can tell."""
        return self.ending is None and self.status not in ("InProgress", "Stopping")

    @property
    def is_unfinished(self) -> bool:
        """Whether it ended before its training was complete."""
        return self.ending not in (None, Ending.COMPLETED, Ending.DELETED)


@dataclass(frozen=True)
class Submit:
    """Create the attempt of this number, on a chain; None: on one of its own."""

    number: int
    chain: str | None


@dataclass(frozen=True)
class Wait:
    """Wait until that job has ended, then decide again."""

    name: str


@dataclass(frozen=True)
class Follow:
    """Follow that job to its end."""

    name: str


@dataclass(frozen=True)
class Fetch:
    """Fetch what that job made; nothing is paid."""

    name: str


@dataclass(frozen=True)
class Refuse:
    """Do nothing, for this reason."""

    reason: str


Decision = Submit | Wait | Follow | Fetch | Refuse


def decide(attempts: Sequence[Attempt], *, first_chain: str, fresh: bool) -> Decision:
    """What to do next for a training.

    Args:
        attempts: All jobs of this training, in any order.
        first_chain: The chain of those that were not asked to train anew.
        fresh: Train anew even if an attempt has completed.
    """
    newest_first = sorted(attempts, key=lambda attempt: attempt.number, reverse=True)
    for attempt in newest_first:
        if attempt.is_unknown:
            return Refuse(
                f"job {attempt.name} is {attempt.status}, a status that this version does not "
                "know: it may be alive. Look at it in the AWS console, and run the same command "
                "again once it has ended"
            )
    for attempt in newest_first:
        if attempt.status == "Stopping":
            return Wait(attempt.name)
    for attempt in newest_first:
        if attempt.status == "InProgress":
            return Follow(attempt.name)
    following = newest_first[0].number + 1 if newest_first else 1
    ended = [attempt for attempt in newest_first if attempt.ending is not Ending.DELETED]
    completed = next((a for a in ended if a.ending is Ending.COMPLETED), None)
    if completed is not None and not fresh:
        return Fetch(completed.name)
    newest = ended[0] if ended else None
    if newest is None or not newest.is_unfinished:
        return Submit(following, None if fresh else first_chain)
    if fresh and newest.chain == first_chain:
        return Submit(following, None)
    failures = [a for a in ended if a.chain == newest.chain and a.ending is Ending.FAILED]
    if len(failures) < _MOST_FAILURES:
        return Submit(following, newest.chain)
    if fresh:
        return Submit(following, None)
    return Refuse(
        f"{len(failures)} jobs of this training have failed by an error of their own, the last "
        f"one {failures[0].name}: read its log and mend the cause, for equal settings, data and "
        "code fail again; --no-cache tries it from the first step"
    )


def decide_attached(attempt: Attempt | None, name: str) -> Decision:
    """What to do for ``--attach``: never a new job.

    Args:
        attempt: The named job; None: there is none.
        name: Its name.
    """
    if attempt is None:
        return Refuse(f"--attach {name}: there is no such job")
    if attempt.ending is Ending.COMPLETED:
        return Fetch(name)
    if attempt.ending is None and not attempt.is_unknown:
        return Follow(name)
    how = attempt.ending.value if attempt.ending else f"is {attempt.status}"
    return Refuse(
        f"--attach {name}: that job {how}; without --attach, the same command goes on from its "
        "checkpoints"
    )


def instance_of(job: Mapping[str, Any]) -> str:
    """A job's instance type: the one it got, else the one or ones it asked for."""
    resources = job.get("ResourceConfig") or {}
    wanted = [str(each["InstanceType"]) for each in resources.get("InstancePreferences") or []]
    one = resources.get("SelectedInstanceType") or resources.get("InstanceType")
    return str(one or ", ".join(wanted) or "unknown")


def chain_of(job: Mapping[str, Any]) -> str:
    """A job's chain: the last part of the S3 folder of its checkpoints."""
    uri = str((job.get("CheckpointConfig") or {}).get("S3Uri") or "")
    return uri.rstrip("/").rpartition("/")[2] or str(job["TrainingJobName"])
