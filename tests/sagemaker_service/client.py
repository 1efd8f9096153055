"""Starting the service, and a test's side of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sagemaker_service.policies import EVERYTHING, Statement, shipped

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
# What the shipped policies have for their placeholders, in this account.
PLACEHOLDERS = {
    "ACCOUNT": ACCOUNT,
    "REGION": REGION,
    "BUCKET": "finetuning-jobs",
    "PREFIX": "llm-engineering-finetuning",
    "JOB_PREFIX": "",
    "JOB_ROLE": ROLE_NAME,
    "SECRET": "hub-token",
    "IMAGE_ACCOUNT": ACCOUNT,
    "IMAGE_REPOSITORY": "training",
    "INSTANCE_TYPES": "ml.g*",
    "MAX_RUN_SECONDS": "86400",
    "KMS_KEY": "0123abcd",
    "DOMAIN": "own",
    "REPOSITORY": "python",
    "OTHER_BUCKET": "other",
    "MODEL_GROUP": "finetuned",
    "SERVING_REPOSITORY": "djl-inference",
    "MLFLOW_RESOURCE": "mlflow-tracking-server/team",
}
ADMIN_KEY = "AKIAADMINISTREXAMPLE"
"""A test's own calls: no policy counts for them."""


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
        """A boto3 client of an administrator; kept, since making one takes a tenth of a second."""
        import boto3

        if name not in self._clients:
            session = boto3.Session(
                aws_access_key_id=ADMIN_KEY,
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
        self.use_shipped_policies()

    def use_shipped_policies(self, options: Sequence[str] = (), **placeholders: str) -> None:
        """Give the caller and the job's role what docs/sagemaker/ ships, and nothing more.

        ``options``: statements of the two files of options that they have too, by their Sid.
        """
        values = PLACEHOLDERS | placeholders

        def policy(name: str, optional: str) -> list[Statement]:
            more = [each for each in shipped(optional, values) if each["Sid"] in options]
            return [*shipped(name, values), *more]

        self.set_policies(
            caller=policy("launcher-policy.json", "launcher-options.json"),
            role=policy("job-role-policy.json", "job-role-options.json"),
        )

    def set_policies(
        self, caller: Sequence[Statement] = EVERYTHING, role: Sequence[Statement] = EVERYTHING
    ) -> None:
        """Give the caller and the job's role other permissions; by default all there are."""
        self._control("caller", {"statements": list(caller)})
        self.client("iam").put_role_policy(
            RoleName=ROLE_NAME,
            PolicyName="jobs",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(role)}),
        )

    def sign_in_by_sso(self, home: Path) -> dict[str, str]:
        """The environment of a caller who has logged in by `aws sso login`, his home being ``home``.

        The fault ``sso_expired`` ends that login. Instead of the variables with keys: those must
        be unset.
        """
        cache = home / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True)
        start_url = "https://example.awsapps.com/start"
        (home / ".aws" / "config").write_text(
            "[profile work]\nsso_session = own\nsso_account_id = "
            f"{ACCOUNT}\nsso_role_name = Engineer\nregion = {REGION}\n\n[sso-session own]\n"
            f"sso_start_url = {start_url}\nsso_region = {REGION}\n"
            "sso_registration_scopes = sso:account:access\n"
        )
        token = {
            "startUrl": start_url,
            "region": REGION,
            "accessToken": "not-a-token",
            "expiresAt": (datetime.now(UTC) + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        (cache / f"{hashlib.sha1(b'own').hexdigest()}.json").write_text(json.dumps(token))
        without = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
        without |= {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
        kept = {name: value for name, value in self.environment.items() if name not in without}
        return kept | {"AWS_PROFILE": "work", "HOME": str(home)}

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

    def mlflow_runs(self) -> list[dict[str, Any]]:
        """The runs that the managed MLflow server was told of, each with its data."""
        return list(self._control("mlflow")["runs"])

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

    def _control(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = Request(
            f"{self.endpoint}/_service/{path}", json.dumps(body or {}).encode(), method="POST"
        )
        try:
            with urlopen(request) as answer:
                return dict(json.load(answer))
        except HTTPError as error:
            raise ValueError(f"{path}: {error.read().decode()}") from error
