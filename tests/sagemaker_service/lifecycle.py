"""A job from its creation to its end, in a thread of its own."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Thread
from typing import Any

from sagemaker_service.container import Container, Image
from sagemaker_service.faults import FaultSwitch
from sagemaker_service.jobs import FAILURE_REASON_LENGTH, Job
from sagemaker_service.logs import LogStream
from sagemaker_service.permissions import s3_need
from sagemaker_service.policies import Statement, allowed
from sagemaker_service.storage import (
    CheckpointSync,
    RoleDenied,
    download,
    upload_archive,
    upload_folder,
)

POLL_S = 0.03
OUT_OF_MEMORY = 137
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a "
    "different ML instance type."
)


class Ending(Enum):
    """Why an attempt is over."""

    EXITED = "the container exited"
    STOPPED = "StopTrainingJob was called"
    INTERRUPTED = "the spot instance was reclaimed"
    MAX_RUNTIME = "MaxRuntimeInSeconds passed"
    MAX_WAIT = "MaxWaitTimeInSeconds passed"
    MAX_PENDING = "MaxPendingTimeInSeconds passed"
    BROKEN = "the service itself failed"


@dataclass
class World:
    """What a job needs of its service.

    ``credentials_uri`` makes the address at which a job fetches its role's credentials.
    """

    folder: Path
    image: Image
    faults: FaultSwitch
    s3: Any
    logs: Any
    endpoint: str
    credentials_uri: Callable[[Job], str]
    role_statements: Callable[[str], list[Statement]]

    def require_of_role(self, job: Job, action: str, uri: str) -> None:
        """Check that the job's role may do this with an S3 place.

        Raises:
            RoleDenied: It may not.
        """
        role = job.request["RoleArn"]
        if not allowed(self.role_statements(role), *s3_need(action, uri)):
            raise RoleDenied(
                f"ClientError: the role {role} may not {action} on {uri}. Please ensure that it has "
                "that permission"
            )


class JobFailed(Exception):
    """The job ends as Failed; the message is its FailureReason."""


class JobThread(Thread):
    """Runs one job."""

    def __init__(self, job: Job, world: World) -> None:
        super().__init__(name=job.name, daemon=True)
        self._job = job
        self._world = world
        self._attempts = 0
        self._training_s = 0.0
        self._retries = 0
        self._pending_since: float | None = None

    def run(self) -> None:
        job = self._job
        try:
            self._run()
        except (JobFailed, RoleDenied) as failure:
            job.failure_reason = str(failure)
            job.move("Failed", "Training job failed", "Failed")
        except Exception as error:
            # A defect of the double: told apart from every answer of the real service.
            traceback.print_exc(file=sys.stderr)
            job.failure_reason = f"InternalServerError: (test double) {error!r}"
            job.move("Failed", "Training job failed", "Failed")

    def _run(self) -> None:
        job, faults = self._job, self._world.faults.now
        job.move("Starting", "Starting the training job")
        ending = self._wait(faults.step_s) or self._provision()
        while ending is None:
            ending = self._attempt()
            if ending is Ending.BROKEN:
                if self._retries >= job.request.get("RetryStrategy", {}).get(
                    "MaximumRetryAttempts", 0
                ):
                    raise JobFailed("InternalServerError: We encountered an internal error.")
                self._retries += 1
                job.move("Restarting", "Restarting the training job")
                job.move("Starting", "Preparing the instances for training")
                ending = self._wait(faults.step_s)
                continue
            if ending is Ending.INTERRUPTED:
                job.interrupt_requested.clear()
                job.move("Interrupted", "Training job interrupted")
                ending = self._wait(self._world.faults.now.interruption_s)
                if ending is None:
                    job.move("Starting", "Preparing the instances for training")
                    ending = self._wait(faults.step_s)
        status = "Completed" if ending is Ending.EXITED else "Stopped"
        secondary, message = {
            Ending.EXITED: ("Completed", "Training job completed"),
            Ending.STOPPED: ("Stopped", "Training job stopped"),
            Ending.MAX_RUNTIME: (
                "MaxRuntimeExceeded",
                "Training job runtime exceeded MaxRuntimeInSeconds provided",
            ),
            Ending.MAX_WAIT: (
                "MaxWaitTimeExceeded",
                "Training job exceeded MaxWaitTimeInSeconds provided",
            ),
            # The API has no secondary status for it; that it reads so is a guess.
            Ending.MAX_PENDING: (
                "Stopped",
                "Training job exceeded MaxPendingTimeInSeconds provided",
            ),
        }[ending]
        job.move(secondary, message, status)

    def _provision(self) -> Ending | None:
        """Wait for an instance of the first type that has capacity."""
        job = self._job
        faults = self._world.faults.now
        self._pending_since = time.time()
        if faults.pending_s:
            job.move("Pending", "Training job waiting for capacity")
            ending = self._wait(faults.pending_s)
            if ending is not None:
                return ending
        while True:
            closed = self._world.faults.now.no_capacity
            available = [each for each in job.instance_types if each not in closed]
            if available:
                job.selected_instance_type = available[0]
                self._pending_since = None
                job.move("Pending", "Preparing the instances for training")
                return self._wait(faults.step_s)
            if not job.is_spot:
                raise JobFailed(NO_CAPACITY)
            job.move("Pending", "Training job waiting for capacity")
            ending = self._wait(POLL_S)
            if ending is not None:
                return ending

    def _attempt(self) -> Ending:
        """Run the container once, on a fresh volume."""
        job, world = self._job, self._world
        self._attempts += 1
        started = time.time()
        if job.training_start is None:
            job.training_start = started
        job.move("Downloading", "Downloading input data")
        folder = world.folder / job.name / str(self._attempts)
        containers = {host: Container(folder / host, world.image, job.hosts) for host in job.hosts}
        try:
            for host, container in containers.items():
                _write_input(job, host, container, world)
            checkpoints = [self._checkpoints(each) for each in containers.values()]
            job.move("Downloading", "Downloading the training image")
            ending = self._wait(world.faults.now.step_s)
            if ending is None:
                ending = self._train(containers, [each for each in checkpoints if each])
            if self._attempts <= world.faults.now.failed_internally:
                return Ending.BROKEN
            if ending is Ending.EXITED:
                for container in _failed_first(containers):
                    _check_exit(container)
                job.move("Uploading", "Uploading generated training model")
            if ending is not Ending.INTERRUPTED:
                _upload_results(job, list(containers.values()), world)
            return ending
        finally:
            for container in containers.values():
                container.kill()
                container.remove()
            job.training_s += time.time() - started

    def _train(
        self, containers: Mapping[str, Container], checkpoints: list[CheckpointSync]
    ) -> Ending:
        job, world = self._job, self._world
        algorithm = job.request["AlgorithmSpecification"]
        delay_s = world.faults.now.log_delay_s
        logs = {host: LogStream(job.name, host, world.logs, delay_s) for host in containers}
        message = "Training image download completed. Training in progress."
        job.move("Training", message)
        for host, container in containers.items():
            logs[host].follow(
                container.start(
                    [*algorithm["ContainerEntrypoint"], *algorithm.get("ContainerArguments", [])],
                    _environment(job, world),
                    bool(job.request.get("EnableNetworkIsolation")),
                )
            )
        for sync in checkpoints:
            sync.start()
        ending = self._supervise(containers)
        faults = world.faults.now
        grace_s = faults.spot_grace_s if ending is Ending.INTERRUPTED else faults.grace_s
        if ending not in (Ending.INTERRUPTED, Ending.EXITED):
            job.move("Stopping", "Stopping the training job", "Stopping")
        _stop_all(containers.values(), 0.0 if ending is Ending.EXITED else grace_s)
        for log in logs.values():
            log.close()
        for sync in checkpoints:
            sync.stop(ending is not Ending.INTERRUPTED or faults.spot_last_sync)
            if sync.problem is not None:
                raise sync.problem
        return ending

    def _supervise(self, containers: Mapping[str, Container]) -> Ending:
        """Watch the containers until all have exited, one has failed, or something ends them."""
        job = self._job
        started = time.time()
        before = self._training_s
        while True:
            codes = [container.exit_code() for container in containers.values()]
            if any(codes) or None not in codes:
                return Ending.EXITED
            self._training_s = before + time.time() - started
            faults = self._world.faults.now
            planned = faults.interrupt_after_s[self._attempts - 1 : self._attempts]
            due = bool(planned) and time.time() - started >= planned[0]
            if job.is_spot and (due or job.interrupt_requested.is_set()):
                return Ending.INTERRUPTED
            limit = _sooner(job.stopping.get("MaxRuntimeInSeconds"), faults.max_runtime_s)
            if limit is not None and self._training_s >= limit:
                return Ending.MAX_RUNTIME
            ending = self._wait(POLL_S)
            if ending is not None:
                return ending

    def _wait(self, seconds: float) -> Ending | None:
        """Wait, unless the job is stopped or its waiting time is over."""
        job = self._job
        deadline = time.time() + seconds
        while True:
            if job.stop_requested.is_set():
                return Ending.STOPPED
            faults = self._world.faults.now
            limit = _sooner(job.stopping.get("MaxWaitTimeInSeconds"), faults.max_wait_s)
            if limit is not None and time.time() - job.created >= limit:
                return Ending.MAX_WAIT
            # A fault brings it forward only where the request asks for it.
            limit = job.stopping.get("MaxPendingTimeInSeconds")
            if limit is not None and self._pending_since is not None:
                limit = _sooner(limit, faults.max_pending_s)
                if limit is not None and time.time() - self._pending_since >= limit:
                    # Told as if the whole time had passed, however fast this clock runs.
                    job.created = time.time() - job.stopping["MaxPendingTimeInSeconds"]
                    return Ending.MAX_PENDING
            left = deadline - time.time()
            if left <= 0:
                return None
            job.stop_requested.wait(min(left, POLL_S))

    def _checkpoints(self, container: Container) -> CheckpointSync | None:
        config = self._job.request.get("CheckpointConfig")
        if config is None:
            return None
        folder = container.inside(config.get("LocalPath", "/opt/ml/checkpoints"))
        every_s = self._world.faults.now.checkpoint_sync_s

        def require(action: str, uri: str) -> None:
            self._world.require_of_role(self._job, action, uri)

        require("s3:ListBucket", config["S3Uri"])
        sync = CheckpointSync(folder, config["S3Uri"], self._world.s3, every_s, require)
        sync.restore()
        return sync


def _stop_all(containers: Iterable[Container], grace_s: float) -> None:
    """Stop all at once, as the instances of a cluster are."""
    threads = [Thread(target=container.stop, args=(grace_s,)) for container in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _failed_first(containers: Mapping[str, Container]) -> list[Container]:
    """The containers, those that say why they failed before those that were stopped for it."""
    return sorted(
        containers.values(), key=lambda each: not each.inside("/opt/ml/output/failure").is_file()
    )


def _write_input(job: Job, host: str, container: Container, world: World) -> None:
    """Fill /opt/ml/input: the configuration files and the channels."""
    channels = job.request.get("InputDataConfig", [])
    instance_type = job.selected_instance_type
    hosts = job.hosts
    config: Mapping[str, Any] = {
        "hyperparameters": job.request.get("HyperParameters", {}),
        "resourceconfig": {
            "current_group_name": "homogeneousCluster",
            "current_host": host,
            "current_instance_type": instance_type,
            "hosts": hosts,
            "instance_groups": [
                {
                    "hosts": hosts,
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": instance_type,
                }
            ],
            "network_interface_name": "eth0",
        },
        "inputdataconfig": {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in channels
        },
    }
    for name, content in config.items():
        path = container.inside(f"/opt/ml/input/config/{name}.json")
        path.write_text(json.dumps(content), encoding="utf-8")
    for channel in channels:
        folder = container.inside(f"/opt/ml/input/data/{channel['ChannelName']}")
        folder.mkdir()
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        world.require_of_role(job, "s3:ListBucket", uri)
        world.require_of_role(job, "s3:GetObject", uri)
        download(uri, folder, world.s3)


def _environment(job: Job, world: World) -> dict[str, str]:
    """The variables of the job: the request's, the service's, and two that lead to the double."""
    return {
        **job.request.get("Environment", {}),
        "TRAINING_JOB_NAME": job.name,
        "TRAINING_JOB_ARN": job.arn,
        "AWS_REGION": job.region,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": world.credentials_uri(job),
        "AWS_ENDPOINT_URL": world.endpoint,
    }


def _check_exit(container: Container) -> None:
    """Raise JobFailed with what the failure file says, unless the exit code is 0."""
    code = container.exit_code()
    if code == 0:
        return
    failure = container.inside("/opt/ml/output/failure")
    reason = failure.read_text(encoding="utf-8", errors="replace") if failure.is_file() else ""
    if not reason and code == OUT_OF_MEMORY:
        reason = (
            "Please use an instance type with more memory, or reduce the size of training data "
            "processed on an instance."
        )
    suffix = f", exit code: {code}"
    raise JobFailed(f"AlgorithmError: {reason}"[: FAILURE_REASON_LENGTH - len(suffix)] + suffix)


def _upload_results(job: Job, containers: list[Container], world: World) -> None:
    """Copy every instance's /opt/ml/model and /opt/ml/output/data to the output path.

    Also of a stopped job. Of files of one name that several instances wrote, the last one's stays.
    """
    output = job.request["OutputDataConfig"]
    base = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
    kms_key = output.get("KmsKeyId") or None
    for name, inside in {"model": "/opt/ml/model", "output": "/opt/ml/output/data"}.items():
        folders = [each.inside(inside) for each in containers]
        if not any(path for folder in folders for path in folder.iterdir()):
            continue
        if output.get("CompressionType", "GZIP") == "NONE":
            uri = f"{base}/{name}/"
            world.require_of_role(job, "s3:PutObject", uri)
            for folder in folders:
                upload_folder(folder, uri.rstrip("/"), world.s3, kms_key)
        else:
            uri = f"{base}/{name}.tar.gz"
            world.require_of_role(job, "s3:PutObject", uri)
            upload_archive(folders, uri, world.s3, kms_key)
        if name == "model":
            job.model_artifacts = uri


def _sooner(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
