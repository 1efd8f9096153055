"""SageMaker's training-job operations, as its API answers them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from sagemaker_service.account import check_account
from sagemaker_service.errors import ServiceError, validation_error
from sagemaker_service.jobs import IN_PROGRESS, Job
from sagemaker_service.lifecycle import JobThread, World
from sagemaker_service.limits import check_parameters, check_rules
from sagemaker_service.quotas import check_quotas
from sagemaker_service.wire import ApiCall

MAX_TAGS = 50
SORT_KEYS = {
    "Name": "TrainingJobName",
    "CreationTime": "CreationTime",
    "Status": "TrainingJobStatus",
}


class TrainingApi:
    """All jobs of the account, by region and name."""

    def __init__(self, world: World, iam: Any) -> None:
        self._world = world
        self._iam = iam
        self._jobs: dict[tuple[str, str], Job] = {}
        self._threads: list[JobThread] = []
        self._lock = Lock()

    def operations(self) -> dict[str, Callable[[ApiCall], dict[str, Any]]]:
        """The operations answered here, by action."""
        return {
            "sagemaker:CreateTrainingJob": self._create,
            "sagemaker:DescribeTrainingJob": lambda call: self._find(call).describe(),
            "sagemaker:ListTrainingJobs": self._list,
            "sagemaker:StopTrainingJob": self._stop,
            "sagemaker:AddTags": self._add_tags,
            "sagemaker:DeleteTags": self._delete_tags,
            "sagemaker:ListTags": self._list_tags,
        }

    def named(self, name: str) -> Job:
        """The job of that name in any region.

        Raises:
            KeyError: there is none.
        """
        return next(job for job in self._all() if job.name == name)

    def clear(self) -> None:
        """Stop every job at once, without grace, and forget all."""
        for job in self._all():
            job.stop_requested.set()
        for thread in self._threads:
            thread.join()
        with self._lock:
            self._jobs.clear()
            self._threads.clear()

    def _create(self, call: ApiCall) -> dict[str, Any]:
        request = call.parameters
        check_parameters("CreateTrainingJob", request)
        check_rules(request, call.region)
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        job = Job(request["TrainingJobName"], call.region, request, tags)
        check_account(request, call.region, self._iam, self._world.s3)
        with self._lock:
            if (job.region, job.name) in self._jobs:
                raise ServiceError(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and region, and a "
                    f"training job with this name already exists ({job.arn})",
                )
            jobs = list(self._jobs.values())
            check_quotas(job, jobs, self._world.faults.now.quotas)
            self._jobs[job.region, job.name] = job
            _take_warm_pool(job, jobs)
            thread = JobThread(job, self._world)
            self._threads.append(thread)
        thread.start()
        return {"TrainingJobArn": job.arn}

    def _stop(self, call: ApiCall) -> dict[str, Any]:
        job = self._find(call)
        with job.lock:
            if job.status not in IN_PROGRESS:
                raise validation_error(
                    f"The request was rejected because the training job is in status {job.status}."
                )
            job.move("Stopping", "Stopping the training job", "Stopping")
        job.stop_requested.set()
        return {}

    def _list(self, call: ApiCall) -> dict[str, Any]:
        asked = call.parameters
        check_parameters("ListTrainingJobs", asked)
        found = [job.summary() for job in self._all() if job.region == call.region]
        for key, matches in {
            "NameContains": lambda each, value: value in each["TrainingJobName"],
            "StatusEquals": lambda each, value: each["TrainingJobStatus"] == value,
            "CreationTimeAfter": lambda each, value: each["CreationTime"] > value,
            "CreationTimeBefore": lambda each, value: each["CreationTime"] < value,
            "LastModifiedTimeAfter": lambda each, value: each["LastModifiedTime"] > value,
            "LastModifiedTimeBefore": lambda each, value: each["LastModifiedTime"] < value,
        }.items():
            if key in asked:
                found = [each for each in found if matches(each, asked[key])]
        sort_key = SORT_KEYS[asked.get("SortBy", "CreationTime")]
        descending = asked.get("SortOrder", "Ascending") == "Descending"
        found.sort(key=lambda each: each[sort_key], reverse=descending)
        start = int(asked.get("NextToken", 0))
        end = start + asked.get("MaxResults", 10)
        more = {"NextToken": str(end)} if end < len(found) else {}
        return {"TrainingJobSummaries": found[start:end], **more}

    def _add_tags(self, call: ApiCall) -> dict[str, Any]:
        check_parameters("AddTags", call.parameters)
        job = self._by_arn(call)
        job.tags |= {tag["Key"]: tag["Value"] for tag in call.parameters["Tags"]}
        return _tags(job)

    def _delete_tags(self, call: ApiCall) -> dict[str, Any]:
        job = self._by_arn(call)
        for key in call.parameters["TagKeys"]:
            job.tags.pop(key, None)
        return {}

    def _list_tags(self, call: ApiCall) -> dict[str, Any]:
        return _tags(self._by_arn(call))

    def _find(self, call: ApiCall) -> Job:
        name = call.parameters.get("TrainingJobName", "")
        check_parameters(call.operation, call.parameters)
        with self._lock:
            job = self._jobs.get((call.region, name))
        if job is None:
            raise validation_error("Requested resource not found.")
        return job

    def _by_arn(self, call: ApiCall) -> Job:
        for job in self._all():
            if job.arn == call.parameters["ResourceArn"]:
                return job
        raise validation_error("Requested resource not found.")

    def _all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())


def _take_warm_pool(job: Job, jobs: list[Job]) -> None:
    """Let the job have the instances that an equal one left, if any."""
    if not job.keep_alive_s:
        return
    ours = job.request["ResourceConfig"]
    for other in jobs:
        theirs = other.request["ResourceConfig"]
        same = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
        if (
            other.warm_pool_status() == "Available"
            and all(ours.get(key) == theirs.get(key) for key in same)
            and job.request["RoleArn"] == other.request["RoleArn"]
        ):
            other.reused_by = job.name
            return


def _tags(job: Job) -> dict[str, Any]:
    return {"Tags": [{"Key": key, "Value": value} for key, value in job.tags.items()]}
