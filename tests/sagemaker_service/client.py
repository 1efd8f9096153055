"""Starting the service, and a test's side of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

REGION = "us-east-1"
ACCOUNT = "123456789012"
ROLE_NAME = "FinetuningJobs"
ENDED = ("Completed", "Failed", "Stopped")
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def start(
    folder: Path,
    python: Path | None = None,
    hide: Sequence[Path] = (),
    image_environment: Mapping[str, str] | None = None,
    port: int = 0,
) -> Service:
    """Start the service in a process of its own.

    ``folder``: where jobs have their volumes and the server its log, outside ``hide``.
    ``python``: the interpreter that jobs run with, of a virtual environment; this one by default.
    ``hide``: folders that are empty for a job, such as the checkout that submits it.
    ``image_environment``: variables that the "image" sets.
    ``port``: 0 takes a free one.

    Raises:
        RuntimeError: the server ended before it was ready; the message has its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    options = [f"--hide={each}" for each in hide]
    options += [f"--image-env={name}={value}" for name, value in (image_environment or {}).items()]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sagemaker_service",
                f"--folder={folder / 'jobs'}",
                f"--python={python or sys.executable}",
                f"--port={port}",
                *options,
            ],
            # The server's own clients must not meet the caller's AWS settings.
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    if process.stdout is None:
        raise RuntimeError("the server has no output pipe")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the simulated service did not start:\n{log.read_text()}")
    return Service(json.loads(line)["endpoint"], log, process)


@dataclass
class Service:
    """A running service.

    ``log``: the server's standard error, with the traceback of every defect of the double.
    """

    endpoint: str
    log: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(default_factory=dict)
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)
    bucket: str = "finetuning-jobs"
    role_arn: str = f"arn:aws:iam::{ACCOUNT}:role/{ROLE_NAME}"
    image: str = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/training:1"

    def __post_init__(self) -> None:
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_SESSION_TOKEN": "not-a-token",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, name: str) -> Any:
        """A boto3 client of the caller; kept, since making one takes a tenth of a second."""
        import boto3

        if name not in self._clients:
            session = boto3.Session(
                aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
                region_name=REGION,
            )
            self._clients[name] = session.client(name, endpoint_url=self.endpoint)
        return self._clients[name]

    def reset(self) -> None:
        """Forget everything, then make the bucket and the role."""
        self._control("reset")
        self.client("s3").create_bucket(Bucket=self.bucket)
        iam = self.client("iam")
        iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(
            RoleName=ROLE_NAME, PolicyName="jobs", PolicyDocument=json.dumps(EVERYTHING)
        )

    def set_faults(self, **faults: Any) -> None:
        """Put these faults in force (fields of ``faults.Faults``), and no others."""
        self._control("faults", faults)

    def interrupt(self, job_name: str) -> None:
        """Reclaim the instance of a spot job, now or as soon as it trains."""
        self._control(f"interrupt/{job_name}")

    def describe(self, job_name: str) -> dict[str, Any]:
        """The job as DescribeTrainingJob tells it, whatever the faults of the caller."""
        return dict(self.client("sagemaker").describe_training_job(TrainingJobName=job_name))

    def wait(self, job_name: str, *secondary: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The job's description once it has ended, or is in one of the secondary statuses.

        Raises:
            TimeoutError: it is in none of them after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.describe(job_name)
            if job["SecondaryStatus"] in secondary or job["TrainingJobStatus"] in ENDED:
                return job
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job_name} is {job['SecondaryStatus']} after {timeout_s} s")
            time.sleep(0.1)

    def log_lines(self, job_name: str) -> dict[str, list[str]]:
        """The job's log streams, oldest first, with their lines."""
        group = "/aws/sagemaker/TrainingJobs"
        logs = self.client("logs")
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job_name}/")[
            "logStreams"
        ]
        return {
            name: [
                event["message"]
                for event in logs.get_log_events(
                    logGroupName=group, logStreamName=name, startFromHead=True
                )["events"]
            ]
            for name in sorted(each["logStreamName"] for each in streams)
        }

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the bucket's objects below a prefix."""
        pages = self.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for page in found for each in page.get("Contents", [])]

    def stop(self) -> None:
        """End the jobs and the server."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _control(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        request = Request(
            f"{self.endpoint}/_service/{path}", json.dumps(body or {}).encode(), method="POST"
        )
        try:
            urlopen(request).close()
        except HTTPError as error:
            raise ValueError(f"{path}: {error.read().decode()}") from error
