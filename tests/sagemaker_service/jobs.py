"""One training job: its request, the statuses it went through, and DescribeTrainingJob's answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, RLock
from typing import Any

from sagemaker_service.limits import sagemaker_model

ACCOUNT = "123456789012"
IN_PROGRESS = ("InProgress", "Stopping")
# The share of its training time that a spot job is billed for; real ones vary by the hour.
SPOT_BILLED_SHARE = 0.3
FAILURE_REASON_LENGTH = 1024


@dataclass
class Transition:
    """A secondary status, from when to when (seconds since the epoch)."""

    status: str
    message: str
    start: float
    end: float | None = None

    def as_answer(self) -> dict[str, Any]:
        answer = {"Status": self.status, "StatusMessage": self.message, "StartTime": self.start}
        return answer if self.end is None else answer | {"EndTime": self.end}


@dataclass
class Job:
    """A job as the service knows it; its methods may be called from any thread."""

    name: str
    region: str
    request: Mapping[str, Any]
    tags: dict[str, str]
    status: str = "InProgress"
    secondary: str = "Starting"
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    training_start: float | None = None
    training_end: float | None = None
    training_s: float = 0.0
    failure_reason: str | None = None
    model_artifacts: str | None = None
    selected_instance_type: str | None = None
    reused_by: str | None = None
    transitions: list[Transition] = field(default_factory=list)
    stop_requested: Event = field(default_factory=Event)
    interrupt_requested: Event = field(default_factory=Event)
    lock: RLock = field(default_factory=RLock)

    @property
    def arn(self) -> str:
        return f"arn:aws:sagemaker:{self.region}:{ACCOUNT}:training-job/{self.name}"

    @property
    def is_spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def instance_types(self) -> list[str]:
        """The instance types that the job accepts, in its order of preference."""
        resources = self.request["ResourceConfig"]
        preferences = resources.get("InstancePreferences", [])
        return [each["InstanceType"] for each in preferences] or [resources["InstanceType"]]

    @property
    def hosts(self) -> list[str]:
        """Names of the job's instances."""
        resources = self.request["ResourceConfig"]
        preferences = resources.get("InstancePreferences", [{}])
        count = resources.get("InstanceCount") or preferences[0].get("InstanceCount") or 1
        return [f"algo-{number}" for number in range(1, count + 1)]

    @property
    def keep_alive_s(self) -> int:
        return self.request["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0)

    @property
    def stopping(self) -> Mapping[str, int]:
        return self.request.get("StoppingCondition", {})

    def move(self, secondary: str, message: str, status: str | None = None) -> None:
        """Enter a secondary status (or change its message), and with it a status."""
        with self.lock:
            now = time.time()
            last = self.transitions[-1] if self.transitions else None
            if last is not None and last.status == secondary:
                last.message = message
            else:
                if last is not None:
                    last.end = now
                self.transitions.append(Transition(secondary, message, now))
            self.secondary = secondary
            if status is not None:
                self.status = status
                if status not in IN_PROGRESS:
                    self.transitions[-1].end = now
                    self.training_end = now
            self.modified = now

    def warm_pool_status(self) -> str | None:
        """The state of the instances that were kept for the next job; None without a warm pool."""
        if not self.keep_alive_s:
            return None
        if self.reused_by is not None:
            return "Reused"
        if self.status in IN_PROGRESS:
            return "InUse"
        kept = self.status == "Completed" and self.training_end is not None
        if kept and time.time() < (self.training_end or 0.0) + self.keep_alive_s:
            return "Available"
        return "Terminated"

    def describe(self) -> dict[str, Any]:
        """The answer of DescribeTrainingJob; times are seconds since the epoch."""
        with self.lock:
            shape = sagemaker_model().operation_model("DescribeTrainingJob").output_shape
            members = shape.members if shape is not None else {}
            answer = {name: value for name, value in self.request.items() if name in members}
            answer |= {
                "TrainingJobName": self.name,
                "TrainingJobArn": self.arn,
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary,
                "SecondaryStatusTransitions": [each.as_answer() for each in self.transitions],
                "CreationTime": self.created,
                "LastModifiedTime": self.modified,
            }
            for flag in (
                "EnableNetworkIsolation",
                "EnableInterContainerTrafficEncryption",
                "EnableManagedSpotTraining",
            ):
                answer.setdefault(flag, False)
            answer |= self._outcome()
            return answer

    def summary(self) -> dict[str, Any]:
        """The job's entry in ListTrainingJobs' answer."""
        answer = self.describe()
        names = (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingEndTime",
            "LastModifiedTime",
            "TrainingJobStatus",
            "SecondaryStatus",
            "WarmPoolStatus",
        )
        return {name: answer[name] for name in names if name in answer}

    def _outcome(self) -> dict[str, Any]:
        """The members of the answer that appear as the job goes on."""
        answer: dict[str, Any] = {}
        if self.training_start is not None:
            answer["TrainingStartTime"] = self.training_start
        if self.training_end is not None:
            answer["TrainingEndTime"] = self.training_end
            seconds = math.ceil(self.training_s)
            billed = math.ceil(seconds * SPOT_BILLED_SHARE) if self.is_spot else seconds
            answer |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": billed}
        if self.failure_reason is not None:
            answer["FailureReason"] = self.failure_reason[:FAILURE_REASON_LENGTH]
        if self.model_artifacts is not None:
            answer["ModelArtifacts"] = {"S3ModelArtifacts": self.model_artifacts}
        if self.selected_instance_type and "InstancePreferences" in self.request["ResourceConfig"]:
            answer["ResourceConfig"] = self.request["ResourceConfig"] | {
                "SelectedInstanceType": self.selected_instance_type,
                "SelectedInstanceCount": len(self.hosts),
            }
        warm_pool = self.warm_pool_status()
        if warm_pool is not None:
            reuse = {"ReusedByJob": self.reused_by} if self.reused_by else {}
            answer["WarmPoolStatus"] = {"Status": warm_pool, **reuse}
        return answer
