"""A service of statuses only, in this process: for tests of what a launcher decides and says.

No container, no socket: a test moves the jobs itself, and says which calls fail. The service that
runs jobs is the rest of this package.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.aws import Aws

LIVE = ("InProgress", "Stopping")
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


def client_error(code: str, message: str = "", status: int = 400) -> Exception:
    """What botocore raises for an error answer."""
    from botocore.exceptions import ClientError

    answer = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Operation")


class MemoryService:
    """Jobs, their logs and S3 objects; ``failures`` are raised by the next calls of an operation."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.groups: set[str] = set()
        self.packages: dict[str, dict[str, Any]] = {}  # by client token
        self.logs: dict[str, list[str]] = defaultdict(list)
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        self.always: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self.hidden_from_list: set[str] = set()
        self.on_describe: Callable[[dict[str, Any]], None] = lambda job: None
        self.now = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)

    def move(self, name: str, status: str, secondary: str | None = None, **more: Any) -> None:
        """Put a job into a status, with other members of its description."""
        job = self.jobs[name]
        job |= {"TrainingJobStatus": status, "SecondaryStatus": secondary or status, **more}
        job["LastModifiedTime"] = self.now
        if status not in LIVE:
            job.setdefault("TrainingEndTime", self.now)

    def train(self, name: str) -> None:
        """Let a job's training begin."""
        self.move(name, "InProgress", "Training", TrainingStartTime=self.now)

    def live(self) -> list[dict[str, Any]]:
        """The jobs that have not ended."""
        return [job for job in self.jobs.values() if job["TrainingJobStatus"] in LIVE]

    # --- what a client is asked -----------------------------------------------------------------

    def _called(self, operation: str) -> None:
        self.calls[operation] += 1
        if self.failures[operation]:
            raise self.failures[operation].pop(0)
        if operation in self.always:
            raise self.always[operation]

    def create_training_job(self, **request: Any) -> dict[str, Any]:
        self._called("create_training_job")
        name = request["TrainingJobName"]
        if name in self.jobs:
            raise client_error("ResourceInUse")
        self.tags[name] = {tag["Key"]: tag["Value"] for tag in request.pop("Tags", [])}
        self.jobs[name] = {
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/llm-engineering-finetuning/results"},
            **request,
            "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}",
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "CreationTime": self.now,
            "LastModifiedTime": self.now,
        }
        return {}

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        self._called("describe_training_job")
        if TrainingJobName not in self.jobs:
            raise client_error("ValidationException", "Requested resource not found.")
        job = self.jobs[TrainingJobName]
        self.on_describe(job)
        return dict(job)

    def stop_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        self._called("stop_training_job")
        job = self.jobs.get(TrainingJobName)
        if job is None or job["TrainingJobStatus"] not in LIVE:
            raise client_error("ValidationException", "The job is not in progress.")
        self.move(TrainingJobName, "Stopping")
        return {}

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        self._called("list_tags")
        tags = self.tags.setdefault(ResourceArn.rpartition("/")[2], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def add_tags(self, *, ResourceArn: str, Tags: list[dict[str, str]]) -> dict[str, Any]:
        self._called("add_tags")
        tags = self.tags.setdefault(ResourceArn.rpartition("/")[2], {})
        tags |= {tag["Key"]: tag["Value"] for tag in Tags}
        return {}

    def describe_model_package_group(self, *, ModelPackageGroupName: str) -> dict[str, Any]:
        self._called("describe_model_package_group")
        if ModelPackageGroupName not in self.groups:
            raise client_error("ValidationException", "ModelPackageGroup does not exist.")
        return {}

    def create_model_package_group(self, *, ModelPackageGroupName: str, **_: Any) -> dict[str, Any]:
        self._called("create_model_package_group")
        self.groups.add(ModelPackageGroupName)
        return {}

    def create_model_package(self, **request: Any) -> dict[str, Any]:
        self._called("create_model_package")
        group, token = request["ModelPackageGroupName"], request["ClientToken"]
        arn = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{group}/"
        request["ModelPackageArn"] = f"{arn}{len(self.packages) + 1}"
        return {"ModelPackageArn": self.packages.setdefault(token, request)["ModelPackageArn"]}

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        self._called("describe_log_streams")
        return {"logStreams": [{"logStreamName": name} for name in self.logs]}

    def get_log_events(
        self, *, logStreamName: str, nextToken: str = "0", **_: Any
    ) -> dict[str, Any]:
        self._called("get_log_events")
        lines = self.logs[logStreamName]
        events = [
            {"message": line, "timestamp": number}
            for number, line in list(enumerate(lines))[int(nextToken) :]
        ]
        return {"events": events, "nextForwardToken": str(len(lines))}

    def download_file(self, bucket: str, key: str, path: str) -> None:
        self._called("download_file")
        if key not in self.objects:
            raise client_error("404", "Not Found", 404)
        with open(path, "wb") as file:
            file.write(self.objects[key][0])

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        self._called("delete_objects")
        for each in Delete["Objects"]:
            self.objects.pop(each["Key"], None)
        return {}

    def put(self, key: str, content: bytes = b"x", days_ago: float = 0.0) -> None:
        """Put an object into the bucket."""
        self.objects[key] = (content, self.now - timedelta(days=days_ago))

    def get_paginator(self, operation: str) -> _Pages:
        return _Pages(self, operation)


class _Pages:
    """Pages of two entries each, so that the second page matters."""

    def __init__(self, service: MemoryService, operation: str) -> None:
        self._service = service
        self._operation = operation

    def paginate(self, **asked: Any) -> list[dict[str, Any]]:
        self._service._called(self._operation)
        if self._operation == "list_objects_v2":
            found = [
                {"Key": key, "LastModified": modified, "Size": len(content)}
                for key, (content, modified) in self._service.objects.items()
                if key.startswith(asked["Prefix"])
            ]
            return [{"Contents": found[at : at + 2]} for at in range(0, len(found), 2)] or [{}]
        jobs = [
            job
            for name, job in self._service.jobs.items()
            if asked["NameContains"] in name and name not in self._service.hidden_from_list
        ]
        jobs.reverse()  # the newest first
        names = ("TrainingJobName", "TrainingJobStatus", "CreationTime")
        found = [{name: job[name] for name in names} for job in jobs]
        return [{"TrainingJobSummaries": found[at : at + 2]} for at in range(0, len(found), 2)] or [
            {"TrainingJobSummaries": []}
        ]


class MemoryAws(Aws):
    """A session with that service; what it bears and how it waits is the real one's."""

    def __init__(self, settings: SagemakerSettings, service: MemoryService) -> None:
        super().__init__(settings)
        self.service = service
        self.renewals = 0

    def client(self, service: str) -> Any:
        return self.service

    def renew(self) -> None:
        self.renewals += 1
