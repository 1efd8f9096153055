"""The double behaves as the service's documentation and the SDK expect."""

from __future__ import annotations

import copy
import json
import tarfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sagemaker_service.client import REGION, Service
from sagemaker_service.quotas import quota_code, quota_name

pytestmark = pytest.mark.slow

pytest.importorskip("sagemaker.train", reason="the sagemaker group is not installed")

Submit = Callable[..., str]
Request = dict[str, Any]

INSTANCE = "ml.g5.2xlarge"
OTHER_INSTANCE = "ml.g6.2xlarge"
START = "exec python3 train.py"
OPT_OUT = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}
WAITS = """
import signal, sys, time
from pathlib import Path

def on_sigterm(*_):
    print("asked to end", flush=True)
    Path("/opt/ml/model/saved.txt").write_text("saved at SIGTERM")
    sys.exit(0)

signal.signal(signal.SIGTERM, on_sigterm)
print("training", flush=True)
while True:
    time.sleep(0.05)
"""
# Counts in a checkpoint, a step each 20 ms: without end until it begins from a checkpoint.
# The checkpoint is replaced whole: one written in place comes back torn now and then.
COUNTS = """
import time
from pathlib import Path

checkpoint = Path("/opt/ml/checkpoints/step.txt")
begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
print(f"begin at {begin}", flush=True)
end = begin + 5 if begin else 1_000_000
for step in range(begin + 1, end + 1):
    time.sleep(0.02)
    new = Path("/opt/ml/step.new")
    new.write_text(str(step))
    new.replace(checkpoint)
Path("/opt/ml/model/steps.txt").write_text(f"{begin} {step}")
"""


@cache
def sdk_session(bucket: str) -> Any:
    """The SDK's session; kept, since making one takes half a second."""
    import boto3
    from sagemaker.core.helper.session_helper import Session

    return Session(
        boto_session=boto3.Session(region_name=REGION),
        default_bucket=bucket,
        sagemaker_config=OPT_OUT,
    )


@pytest.fixture(autouse=True)
def the_sdk_may_do_what_it_likes(sagemaker_service: Service) -> None:
    """It uploads beside our prefix, and asks IAM; that the shipped policies forbid."""
    sagemaker_service.set_policies()


def model_trainer(
    service: Service, source: Path, base_job_name: str, command: str, **options: Any
) -> Any:
    """The SDK's trainer of a source folder, with one file as the input channel ``config``."""
    from sagemaker.train import ModelTrainer
    from sagemaker.train.configs import (
        Compute,
        InputData,
        OutputDataConfig,
        SourceCode,
        StoppingCondition,
    )

    config = source.with_name(f"{source.name}-config") / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text('{"rank": 32}')
    values: dict[str, Any] = {
        "compute": Compute(instance_type=INSTANCE, instance_count=1, volume_size_in_gb=50),
        "stopping_condition": StoppingCondition(max_runtime_in_seconds=600),
        **options,
    }
    return ModelTrainer(
        sagemaker_session=sdk_session(service.bucket),
        role=service.role_arn,
        base_job_name=base_job_name,
        training_image=service.image,
        source_code=SourceCode(source_dir=str(source), command=command),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{service.bucket}/out"),
        input_data_config=[InputData(channel_name="config", data_source=str(config))],
        **values,
    )


@pytest.fixture
def write_source(tmp_path: Path) -> Callable[[str], Path]:
    """Make a source folder whose train.py is this text."""

    def write(script: str) -> Path:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "train.py").write_text(script)
        return source

    return write


@pytest.fixture
def build(
    sagemaker_service: Service, write_source: Callable[[str], Path]
) -> Callable[..., Request]:
    """The request that the SDK builds for a script, under an exact name; uploads its channels."""

    def make(name: str, script: str, command: str = START, **options: Any) -> Request:
        trainer = model_trainer(sagemaker_service, write_source(script), name, command, **options)
        request: Request = trainer._create_training_job_args(boto3=True)
        return request | {"TrainingJobName": name}

    return make


@pytest.fixture
def submit(sagemaker_service: Service, build: Callable[..., Request]) -> Submit:
    """Build a request as the SDK does and send it; returns the job's name."""

    def send(name: str, script: str, **options: Any) -> str:
        request = build(name, script, **options)
        sagemaker_service.client("sagemaker").create_training_job(**request)
        return name

    return send


def spot(bucket: str) -> dict[str, Any]:
    """ModelTrainer's options for a spot job with checkpoints."""
    from sagemaker.train.configs import CheckpointConfig, Compute, StoppingCondition

    return {
        "compute": Compute(
            instance_type=INSTANCE, instance_count=1, enable_managed_spot_training=True
        ),
        "stopping_condition": StoppingCondition(
            max_runtime_in_seconds=600, max_wait_time_in_seconds=900
        ),
        "checkpoint_config": CheckpointConfig(s3_uri=f"s3://{bucket}/checkpoints/job"),
    }


def minimal(service: Service, **changes: Any) -> Request:
    """A request without channels, for the refusals; ``changes`` replace its members."""
    request: Request = {
        "TrainingJobName": "refused",
        "RoleArn": service.role_arn,
        "AlgorithmSpecification": {
            "TrainingImage": service.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/true"],
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{service.bucket}/out"},
        "ResourceConfig": {"InstanceType": INSTANCE, "InstanceCount": 1, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    return request | copy.deepcopy(changes)


def refusal(service: Service, **changes: Any) -> tuple[str, str]:
    """The code and the message with which the service refuses a request."""
    with pytest.raises(ClientError) as refused:
        service.client("sagemaker").create_training_job(**minimal(service, **changes))
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def archive(service: Service, job: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a job's model.tar.gz."""
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    key = uri.removeprefix(f"s3://{service.bucket}/")
    body = service.client("s3").get_object(Bucket=service.bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=BytesIO(body)) as tar:
        files = {each.name: tar.extractfile(each) for each in tar if each.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def wait_for_line(service: Service, job_name: str, line: str) -> None:
    service.wait(job_name, "Training")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(line in lines for lines in service.log_lines(job_name).values()):
            return
        time.sleep(0.1)
    raise TimeoutError(f"{job_name} did not print {line!r}")


class TestAJobOfTheSdk:
    def test_runs_the_submitted_source_and_brings_back_what_it_wrote(
        self, sagemaker_service: Service, write_source: Callable[[str], Path]
    ) -> None:
        source = write_source(
            "import json, os, sys\n"
            "from pathlib import Path\n"
            "Path('/opt/ml/model/adapter.txt').write_text(os.environ['SM_CHANNEL_CONFIG'])\n"
            "seen = {'cwd': os.getcwd(), 'pid': os.getpid(), 'channels': sorted(os.listdir(\n"
            "    '/opt/ml/input/data')), 'config': Path('/opt/ml/input/data/config/config.json'\n"
            "    ).read_text(), 'secret': os.environ.get('AWS_SECRET_ACCESS_KEY'),\n"
            "    'checkout': sorted(os.listdir(sys.argv[1])), 'job': os.environ[\n"
            "    'TRAINING_JOB_NAME'], 'pythonpath': os.environ.get('PYTHONPATH')}\n"
            "print('SEEN', json.dumps(seen), flush=True)\n"
            "print('to standard error', file=sys.stderr)\n"
        )
        checkout = Path(__file__).resolve().parents[2]
        trainer = model_trainer(sagemaker_service, source, "written", f"{START} {checkout}")

        trainer.train(wait=True, logs=True)

        name = trainer._latest_training_job.training_job_name
        job = sagemaker_service.describe(name)
        assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
        assert [each["Status"] for each in job["SecondaryStatusTransitions"]] == [
            "Starting",
            "Pending",
            "Downloading",
            "Training",
            "Uploading",
            "Completed",
        ]
        assert archive(sagemaker_service, job) == {"adapter.txt": b"/opt/ml/input/data/config"}
        assert job["TrainingStartTime"] < job["TrainingEndTime"]
        assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1

        ((stream, lines),) = sagemaker_service.log_lines(name).items()
        assert stream.startswith(f"{name}/algo-1-")
        assert "to standard error" in lines
        assert "Training Container Execution Completed" not in lines  # exec: bash is gone
        (seen,) = (line for line in lines if line.startswith("SEEN "))
        assert json.loads(seen.removeprefix("SEEN ")) == {
            "cwd": "/opt/ml/input/data/code",
            "pid": 1,
            "channels": ["code", "config", "sm_drivers"],
            "config": '{"rank": 32}',
            "secret": None,
            "checkout": [".venv"],
            "job": name,
            "pythonpath": None,
        }

    def test_gives_the_last_words_of_the_failure_file(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        failing = (
            "from pathlib import Path\n"
            "Path('/opt/ml/output/failure').write_text('OutOfMemoryError: use a smaller batch')\n"
            "raise SystemExit(3)\n"
        )
        told = sagemaker_service.wait(submit("told", failing))
        untold = sagemaker_service.wait(submit("untold", "raise SystemExit(4)"))

        assert told["TrainingJobStatus"] == untold["TrainingJobStatus"] == "Failed"
        assert told["FailureReason"] == (
            "AlgorithmError: OutOfMemoryError: use a smaller batch, exit code: 3"
        )
        # With exec there is no driver left to write a failure file.
        assert untold["FailureReason"] == "AlgorithmError: , exit code: 4"
        assert "ModelArtifacts" not in told

    def test_has_the_credentials_of_its_role(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        secrets = sagemaker_service.client("secretsmanager")
        secrets.create_secret(Name="hub-token", SecretString="for the job's eyes")
        reads = (
            "import os, boto3\n"
            "from pathlib import Path\n"
            "region = os.environ['AWS_REGION']\n"
            "arn = boto3.client('sts', region_name=region).get_caller_identity()['Arn']\n"
            "client = boto3.client('secretsmanager', region_name=region)\n"
            "secret = client.get_secret_value(SecretId='hub-token')['SecretString']\n"
            "Path('/opt/ml/model/who.txt').write_text(f'{arn} {len(secret)}')\n"
        )
        allowed = sagemaker_service.wait(submit("allowed", reads))
        sagemaker_service.set_faults(denied_in_job=["secretsmanager:GetSecretValue"])
        denied = sagemaker_service.wait(submit("denied", reads))

        who = archive(sagemaker_service, allowed)["who.txt"].decode()
        assert who == "arn:aws:sts::123456789012:assumed-role/FinetuningJobs/SageMaker 18"
        assert denied["TrainingJobStatus"] == "Failed"
        (lines,) = sagemaker_service.log_lines("denied").values()
        assert any("AccessDeniedException" in line for line in lines)

    def test_installs_requirements_for_itself_alone(
        self, sagemaker_service: Service, submit: Submit, tmp_path: Path
    ) -> None:
        package = tmp_path / "source" / "wanted"
        package.mkdir(parents=True)
        (package / "pyproject.toml").write_text(
            '[project]\nname = "wanted"\nversion = "1"\n'
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (package / "backend.py").write_text(
            "import zipfile\n"
            "def build_wheel(folder, *_, **__):\n"
            "    name = 'wanted-1-py3-none-any.whl'\n"
            "    info = 'wanted-1.dist-info'\n"
            "    with zipfile.ZipFile(f'{folder}/{name}', 'w') as wheel:\n"
            "        wheel.writestr('wanted.py', 'ANSWER = 42')\n"
            "        wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\\nName: wanted\\n'\n"
            "                       'Version: 1\\n')\n"
            "        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\n'\n"
            "                       'Root-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
            "        wheel.writestr(f'{info}/RECORD', '')\n"
            "    return name\n"
        )
        uses = "import wanted\nopen('/opt/ml/model/answer', 'w').write(str(wanted.ANSWER))\n"
        command = f"pip install --quiet --no-index ./wanted && {START}"
        job = sagemaker_service.wait(submit("installs", uses, command=command))

        assert archive(sagemaker_service, job) == {"answer": b"42"}
        with pytest.raises(ImportError):
            __import__("wanted")

    def test_log_lines_can_come_after_the_end(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(log_delay_s=1.0)
        algorithm = minimal(sagemaker_service)["AlgorithmSpecification"]
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(
                sagemaker_service,
                TrainingJobName="late",
                AlgorithmSpecification=algorithm
                | {"ContainerEntrypoint": ["/bin/echo"], "ContainerArguments": ["the end"]},
            )
        )
        ended = sagemaker_service.wait("late")["TrainingEndTime"].timestamp()
        wait_for_line(sagemaker_service, "late", "the end")
        logs = sagemaker_service.client("logs")
        group = "/aws/sagemaker/TrainingJobs"
        (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="late/")[
            "logStreams"
        ]
        # By the service's own clock: a busy machine may read the log a second after the end.
        assert stream["lastIngestionTime"] / 1000 > ended + 0.5


class TestStopping:
    def test_a_script_started_with_exec_gets_sigterm(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        name = submit("stopped", WAITS)
        wait_for_line(sagemaker_service, name, "training")
        sagemaker = sagemaker_service.client("sagemaker")
        sagemaker.stop_training_job(TrainingJobName=name)
        assert sagemaker_service.describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
        job = sagemaker_service.wait(name)

        assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
        assert "FailureReason" not in job
        # The model of a stopped job is uploaded too: a model.tar.gz is no proof of success.
        assert archive(sagemaker_service, job) == {"saved.txt": b"saved at SIGTERM"}
        with pytest.raises(ClientError, match="is in status Stopped"):
            sagemaker.stop_training_job(TrainingJobName=name)

    def test_a_child_of_the_entry_point_is_killed_without_notice(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        sagemaker_service.set_faults(grace_s=0.3)
        name = submit("killed", WAITS, command="python3 train.py")
        wait_for_line(sagemaker_service, name, "training")
        sagemaker_service.client("sagemaker").stop_training_job(TrainingJobName=name)
        job = sagemaker_service.wait(name)

        assert job["TrainingJobStatus"] == "Stopped"
        assert "ModelArtifacts" not in job

    def test_a_job_beyond_its_runtime_is_stopped(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        sagemaker_service.set_faults(max_runtime_s=0.5)
        job = sagemaker_service.wait(submit("too-long", WAITS))

        assert job["TrainingJobStatus"] == "Stopped"
        assert job["SecondaryStatus"] == "MaxRuntimeExceeded"

    def test_a_job_that_waits_for_capacity_can_be_stopped(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(pending_s=60)
        sagemaker = sagemaker_service.client("sagemaker")
        sagemaker.create_training_job(**minimal(sagemaker_service, TrainingJobName="pending"))
        sagemaker_service.wait("pending", "Pending")
        sagemaker.stop_training_job(TrainingJobName="pending")
        job = sagemaker_service.wait("pending")

        assert job["TrainingJobStatus"] == "Stopped"
        assert "TrainingStartTime" not in job


class TestSpot:
    def test_an_interrupted_job_starts_again_from_its_checkpoint(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        sagemaker_service.set_faults(spot_grace_s=0, checkpoint_sync_s=0.1)
        name = submit("spot", COUNTS, **spot(sagemaker_service.bucket))
        wait_for_line(sagemaker_service, name, "begin at 0")
        deadline = time.monotonic() + 20
        while not sagemaker_service.keys("checkpoints/"):
            assert time.monotonic() < deadline, "no checkpoint came to S3 while the job ran"
            time.sleep(0.05)
        assert sagemaker_service.describe(name)["SecondaryStatus"] == "Training"
        sagemaker_service.interrupt(name)
        job = sagemaker_service.wait(name)

        assert job["TrainingJobStatus"] == "Completed"
        assert [each["Status"] for each in job["SecondaryStatusTransitions"]] == [
            *("Starting", "Pending", "Downloading", "Training", "Interrupted"),
            *("Starting", "Downloading", "Training", "Uploading", "Completed"),
        ]
        begin, end = map(int, archive(sagemaker_service, job)["steps.txt"].split())
        assert begin >= 1
        assert end == begin + 5
        streams = sagemaker_service.log_lines(name)
        assert len(streams) == 2
        assert f"begin at {begin}" in list(streams.values())[1]
        assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]

    def test_each_attempt_has_its_own_time_of_interruption(
        self, sagemaker_service: Service, submit: Submit
    ) -> None:
        sagemaker_service.set_faults(interrupt_after_s=[0, 0], spot_grace_s=0)
        job = sagemaker_service.wait(
            submit("planned", "import time; time.sleep(0.3)", **spot(sagemaker_service.bucket))
        )

        assert job["TrainingJobStatus"] == "Completed"
        statuses = [each["Status"] for each in job["SecondaryStatusTransitions"]]
        assert statuses.count("Interrupted") == 2

    def test_waits_for_capacity_as_long_as_it_may(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(no_capacity=[INSTANCE], max_wait_s=0.5)
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(
                sagemaker_service,
                TrainingJobName="waits",
                EnableManagedSpotTraining=True,
                StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
            )
        )
        job = sagemaker_service.wait("waits")

        assert job["TrainingJobStatus"] == "Stopped"
        assert job["SecondaryStatus"] == "MaxWaitTimeExceeded"


class TestRefusals:
    def test_a_name_is_taken_once(self, sagemaker_service: Service) -> None:
        sagemaker = sagemaker_service.client("sagemaker")
        request = minimal(sagemaker_service, TrainingJobName="once")
        arn = sagemaker.create_training_job(**request)["TrainingJobArn"]
        with pytest.raises(sagemaker.exceptions.ResourceInUse, match=arn):
            sagemaker.create_training_job(**request)
        assert [each["TrainingJobName"] for each in sagemaker.list_training_jobs()[
            "TrainingJobSummaries"]] == ["once"]  # fmt: skip

    def test_a_quota_of_zero(self, sagemaker_service: Service) -> None:
        name = quota_name(INSTANCE, "training job usage")
        sagemaker_service.set_faults(quotas={name: 0})
        code, message = refusal(sagemaker_service)
        assert code == "ResourceLimitExceeded"
        assert f"'{name}' is 0 Instances" in message
        quota = sagemaker_service.client("service-quotas").get_service_quota(
            ServiceCode="sagemaker", QuotaCode=quota_code(name)
        )["Quota"]
        assert (quota["QuotaName"], quota["Value"]) == (name, 0)

    def test_quotas_are_listed_by_pages(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(default_quotas={f"{INSTANCE} for spot training job usage": 7})
        pages = list(
            sagemaker_service.client("service-quotas")
            .get_paginator("list_aws_default_service_quotas")
            .paginate(ServiceCode="sagemaker")
        )
        assert len(pages) > 1
        values = {each["QuotaName"]: each["Value"] for page in pages for each in page["Quotas"]}
        assert values[f"{INSTANCE} for spot training job usage"] == 7
        assert f"{INSTANCE} for training warm pool usage" in values

    def test_no_capacity(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(no_capacity=[INSTANCE])
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(sagemaker_service, TrainingJobName="scarce")
        )
        job = sagemaker_service.wait("scarce")
        assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
        assert job["FailureReason"] == (
            "CapacityError: Unable to provision requested ML compute capacity. Please retry "
            "using a different ML instance type."
        )

    def test_the_next_preferred_instance_has_capacity(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(no_capacity=[INSTANCE])
        preferences = [{"InstanceType": INSTANCE}, {"InstanceType": OTHER_INSTANCE}]
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(
                sagemaker_service,
                TrainingJobName="flexible",
                ResourceConfig={
                    "InstancePreferences": preferences,
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 50,
                },
            )
        )
        job = sagemaker_service.wait("flexible")
        assert job["TrainingJobStatus"] == "Completed"
        assert job["ResourceConfig"]["SelectedInstanceType"] == OTHER_INSTANCE

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            pytest.param(
                {"TrainingJobName": "no_underscore"},
                "'trainingJobName' failed to satisfy constraint: Member must satisfy regular "
                "expression pattern",
                id="name-pattern",
            ),
            pytest.param(
                {"TrainingJobName": "a" * 64},
                "Member must have length less than or equal to 63",
                id="name-length",
            ),
            pytest.param(
                {"Environment": {"TOO_LONG": "x" * 513}},
                "'environment' failed to satisfy constraint: Map value must satisfy constraint: "
                "[Member must have length less than or equal to 512]",
                id="environment-length",
            ),
            pytest.param(
                {"HyperParameters": {f"p{number}": "1" for number in range(101)}},
                "'hyperParameters' failed to satisfy constraint: Member must have length less "
                "than or equal to 100",
                id="too-many-hyperparameters",
            ),
            pytest.param(
                {"HyperParameters": {"config": "two\nlines"}},
                "Map value must satisfy constraint: [Member must satisfy regular expression "
                "pattern: .*]",
                id="hyperparameter-newline",
            ),
            pytest.param(
                {"ResourceConfig": {"InstanceType": "ml.g5.huge", "InstanceCount": 1,
                                    "VolumeSizeInGB": 50}},
                "'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy "
                "enum value set",
                id="instance-type",
            ),
            pytest.param(
                {"ResourceConfig": {"InstanceType": INSTANCE, "InstanceCount": 1,
                                    "VolumeSizeInGB": 50, "KeepAlivePeriodInSeconds": 21601}},
                "Member must have value less than or equal to 21600",
                id="warm-pool",
            ),
            pytest.param(
                {"EnableManagedSpotTraining": True},
                "Invalid MaxWaitTimeInSeconds",
                id="spot-without-max-wait",
            ),
            pytest.param(
                {"RoleArn": "arn:aws:iam::123456789012:role/Stranger"},
                "Could not assume role",
                id="role",
            ),
            pytest.param(
                {"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/out"}},
                "The specified bucket does not exist",
                id="output-bucket",
            ),
            pytest.param(
                {"Tags": [{"Key": "aws:run", "Value": "1"}]}, "reserved", id="reserved-tag"
            ),
        ],
    )  # fmt: skip
    def test_a_request_beyond_the_limits(
        self, sagemaker_service: Service, changes: dict[str, Any], expected: str
    ) -> None:
        code, message = refusal(sagemaker_service, **changes)
        assert code == "ValidationException"
        assert expected in message

    def test_a_channel_without_data(self, sagemaker_service: Service) -> None:
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{sagemaker_service.bucket}/nothing/"}
        channel = {"ChannelName": "train", "DataSource": {"S3DataSource": source}}
        code, message = refusal(sagemaker_service, InputDataConfig=[channel])
        assert code == "ValidationException"
        assert message.startswith("No S3 objects found under S3 URL")


class TestTheCallersTroubles:
    def test_every_third_call_is_throttled(self, sagemaker_service: Service) -> None:
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(sagemaker_service, TrainingJobName="watched")
        )
        sagemaker_service.wait("watched")
        sagemaker_service.set_faults(throttle={"sagemaker:DescribeTrainingJob": 3})
        import boto3

        once = boto3.client("sagemaker", config=Config(retries={"total_max_attempts": 1}))
        codes = []
        for _ in range(6):
            try:
                once.describe_training_job(TrainingJobName="watched")
                codes.append("")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
        assert codes == ["", "", "ThrottlingException"] * 2
        # botocore's own retries get past it.
        for _ in range(3):
            sagemaker_service.describe("watched")

    def test_expired_credentials(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(expired_until=time.time() + 60)
        for name, call, code in (
            ("sagemaker", lambda client: client.list_training_jobs(), "ExpiredTokenException"),
            ("s3", lambda client: client.list_objects_v2(Bucket="any"), "ExpiredToken"),
            ("sts", lambda client: client.get_caller_identity(), "ExpiredToken"),
        ):
            with pytest.raises(ClientError) as expired:
                call(sagemaker_service.client(name))
            assert expired.value.response["Error"]["Code"] == code
        sagemaker_service.set_faults()
        sagemaker_service.client("sagemaker").list_training_jobs()

    def test_denied_actions(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(
            denied=["iam:GetRole", "s3:HeadBucket", "servicequotas:ListServiceQuotas"]
        )
        for name, call, code in (
            ("iam", lambda client: client.get_role(RoleName="FinetuningJobs"), "AccessDenied"),
            ("s3", lambda client: client.head_bucket(Bucket="any"), "403"),
            (
                "service-quotas",
                lambda client: client.list_service_quotas(ServiceCode="sagemaker"),
                "AccessDeniedException",
            ),
        ):
            with pytest.raises(ClientError) as denied:
                call(sagemaker_service.client(name))
            assert denied.value.response["Error"]["Code"] == code
        # The service itself still sees the role: it takes the job.
        sagemaker_service.client("sagemaker").create_training_job(
            **minimal(sagemaker_service, TrainingJobName="taken")
        )
        assert sagemaker_service.wait("taken")["TrainingJobStatus"] == "Completed"

    def test_an_unknown_job(self, sagemaker_service: Service) -> None:
        with pytest.raises(ClientError, match="Requested resource not found"):
            sagemaker_service.describe("never-was")

    def test_an_unknown_fault(self, sagemaker_service: Service) -> None:
        with pytest.raises(ValueError, match="no such fault: quota"):
            sagemaker_service.set_faults(quota={})


def test_a_warm_pool_is_reused_by_the_next_equal_job(sagemaker_service: Service) -> None:
    sagemaker = sagemaker_service.client("sagemaker")
    resources = minimal(sagemaker_service)["ResourceConfig"] | {"KeepAlivePeriodInSeconds": 600}
    for name in ("first", "second"):
        sagemaker.create_training_job(
            **minimal(sagemaker_service, TrainingJobName=name, ResourceConfig=resources)
        )
        assert sagemaker_service.wait(name)["WarmPoolStatus"] == {"Status": "Available"}
    assert sagemaker_service.describe("first")["WarmPoolStatus"] == {
        "Status": "Reused",
        "ReusedByJob": "second",
    }


def test_tags_can_be_added_and_read(sagemaker_service: Service) -> None:
    sagemaker = sagemaker_service.client("sagemaker")
    arn = sagemaker.create_training_job(
        **minimal(sagemaker_service, Tags=[{"Key": "run", "Value": "one"}])
    )["TrainingJobArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "run", "Value": "two"}])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "run", "Value": "two"}]
