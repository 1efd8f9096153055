"""What goes wrong, and how fast the service's clock runs: set by a test, read by the service."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, fields
from threading import Lock
from typing import Any

from sagemaker_service.errors import ServiceError
from sagemaker_service.wire import ApiCall


@dataclass
class Faults:
    """Each field is one knob; the defaults are a service that works, with a fast clock.

    Actions are named by API operation, such as ``iam:GetRole`` or ``s3:HeadBucket`` (the
    permission that IAM asks for the latter is called s3:ListBucket).
    """

    # Refusals
    quotas: dict[str, float] = field(default_factory=dict)
    """Service quota by its full name, such as ``ml.g5.2xlarge for training job usage``."""
    default_quotas: dict[str, float | None] = field(default_factory=dict)
    """What AWS gives every account, by full name; None: Service Quotas knows no such quota."""
    no_capacity: list[str] = field(default_factory=list)
    """Instance types that cannot be had: on demand the job fails, on spot it waits."""
    denied: list[str] = field(default_factory=list)
    """Actions that answer AccessDenied to the caller."""
    denied_in_job: list[str] = field(default_factory=list)
    """Actions that answer AccessDenied to the job's own role."""
    throttle: dict[str, int] = field(default_factory=dict)
    """Action to k: every k-th call of it answers ThrottlingException."""
    expired_until: float = 0.0
    """Seconds since the epoch until which every call of the caller answers ExpiredToken."""
    expired_access_keys: list[str] = field(default_factory=list)
    """Access key ids that have expired for good."""
    sso_expired: bool = False
    """Whether the caller's login to IAM Identity Center has ended (``Service.sign_in_by_sso``)."""
    slow_s: dict[str, float] = field(default_factory=dict)
    """Action to the seconds that its answer takes; "*" is every action of the caller."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Action to the number of its next calls whose connection is closed without an answer; "*" is
    every action of the caller."""
    moved_tags: dict[str, str] = field(default_factory=dict)
    """Image tag, ``repository:tag``, to what now lies behind it: another text, another digest."""
    failed_internally: int = 0
    """Attempts of a job that end in InternalServerError; RetryStrategy has the next one begin."""

    # A job's life
    step_s: float = 0.05
    """Seconds of each preparatory status."""
    pending_s: float = 0.0
    """Seconds that a job waits for capacity."""
    interrupt_after_s: list[float] = field(default_factory=list)
    """Spot only: the n-th attempt is interrupted after so many seconds of training."""
    interruption_s: float = 0.2
    """Seconds between an interruption and the new start."""
    grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL on a stop (120 in the real service)."""
    spot_grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL on an interruption; 0 is SIGKILL without notice."""
    spot_last_sync: bool = True
    """Whether checkpoints are copied to S3 once more after an interruption."""
    max_runtime_s: float | None = None
    """Seconds of training after which MaxRuntimeInSeconds counts as exceeded, if sooner."""
    max_pending_s: float | None = None
    """Seconds of waiting after which MaxPendingTimeInSeconds counts as exceeded, if sooner."""
    max_wait_s: float | None = None
    """Seconds since creation after which MaxWaitTimeInSeconds counts as exceeded, if sooner."""
    checkpoint_sync_s: float = 0.5
    """Seconds between two copies of the checkpoint folder to S3."""
    log_delay_s: float = 0.0
    """Seconds that a log line takes to reach CloudWatch."""


class DroppedConnection(Exception):
    """The answer never comes: the connection is closed."""


class FaultSwitch:
    """The faults in force, and the counts that throttling needs; safe to share by threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: Counter[str] = Counter()
        self.now = Faults()

    def replace(self, values: dict[str, Any]) -> None:
        """Put ``values`` in force, and the defaults for the rest.

        Raises:
            ValueError: a name is not a field of ``Faults``.
        """
        unknown = set(values) - {each.name for each in fields(Faults)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        with self._lock:
            self._calls.clear()
            self.now = Faults(**values)

    def check(self, call: ApiCall, of_job: bool) -> None:
        """Raise the fault that this call meets, if any; ``of_job``: by the job's own role."""
        faults = self.now
        with self._lock:
            self._calls[call.action] += 1
            count = self._calls[call.action]
            drops = not of_job and self._take_drop(call.action)
        if not of_job:
            time.sleep(faults.slow_s.get(call.action, faults.slow_s.get("*", 0.0)))
        if drops:
            raise DroppedConnection
        if call.service == "sso":
            if faults.sso_expired:
                raise ServiceError(
                    "UnauthorizedException", "Session token not found or invalid", 401
                )
            return
        expired = call.access_key in faults.expired_access_keys or (
            not of_job and time.time() < faults.expired_until
        )
        if expired:
            code = "ExpiredTokenException" if call.is_json else "ExpiredToken"
            raise ServiceError(
                code,
                "The security token included in the request is expired",
                400 if call.is_json or call.service == "s3" else 403,
            )
        if call.action in (faults.denied_in_job if of_job else faults.denied):
            code = "AccessDeniedException" if call.is_json else "AccessDenied"
            raise ServiceError(
                code,
                f"User: {call.access_key} is not authorized to perform: {call.action} "
                "because no identity-based policy allows the action",
                400 if call.is_json else 403,
            )
        every = faults.throttle.get(call.action)
        if every and not of_job and count % every == 0:
            raise ServiceError("ThrottlingException", "Rate exceeded")

    def _take_drop(self, action: str) -> bool:
        for name in (action, "*"):
            if self.now.dropped.get(name, 0) > 0:
                self.now.dropped[name] -= 1
                return True
        return False
