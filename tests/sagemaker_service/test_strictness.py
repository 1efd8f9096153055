"""The double refuses what AWS documents it refuses, and brings the troubles that callers meet."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from sagemaker_service.client import Service

pytestmark = pytest.mark.slow

INSTANCE, OTHER, EBS = "ml.g5.2xlarge", "ml.g6.2xlarge", "ml.p3.2xlarge"
PREFIX = "llm-engineering-finetuning"
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"


def request(service: Service, script: str = "true", **changes: Any) -> dict[str, Any]:
    home = f"s3://{service.bucket}/{PREFIX}"
    made: dict[str, Any] = {
        "TrainingJobName": "job",
        "RoleArn": service.role_arn,
        "AlgorithmSpecification": {
            "TrainingImage": service.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-c", script],
        },
        "OutputDataConfig": {"S3OutputPath": f"{home}/results"},
        "CheckpointConfig": {"S3Uri": f"{home}/checkpoints/job"},
        "ResourceConfig": {"InstanceType": INSTANCE, "InstanceCount": 1, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    return made | copy.deepcopy(changes)


def as_launcher(name: str, **config: Any) -> Any:
    """A client with the launcher's keys, whose policies count; it tries once."""
    return boto3.client(name, config=Config(retries={"total_max_attempts": 1}, **config))


def run(service: Service, script: str, **changes: Any) -> dict[str, Any]:
    service.client("sagemaker").create_training_job(**request(service, script, **changes))
    return service.wait("job")


def resources(**changes: Any) -> dict[str, Any]:
    return {
        "ResourceConfig": {
            "InstanceType": INSTANCE, "InstanceCount": 1, "VolumeSizeInGB": 50, **changes,
        }
    }  # fmt: skip


def preferences(*types: str, **changes: Any) -> dict[str, Any]:
    wanted = [{"InstanceType": each} for each in types]
    return {
        "ResourceConfig": {
            "InstancePreferences": wanted, "InstanceCount": 1, "VolumeSizeInGB": 50, **changes,
        }
    }  # fmt: skip


SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (resources(VolumeKmsKeyId=KEY), "VolumeKmsKeyId is not supported for ml.g5.2xlarge"),
        (
            preferences(EBS, INSTANCE, VolumeKmsKeyId=KEY),
            "VolumeKmsKeyId is not supported for ml.g5.2xlarge",
        ),
        (resources(VolumeSizeInGB=451), "is more than the 450 GB of instance storage"),
        (resources(InstanceType="ml.g4dn.xlarge", VolumeSizeInGB=150), "more than the 125 GB"),
        (preferences(INSTANCE, OTHER) | SPOT, "exclusive with EnableManagedSpotTraining"),
        (preferences(INSTANCE, INSTANCE), "can appear only once in InstancePreferences"),
        (preferences(INSTANCE, InstanceType=OTHER), "exactly one of InstanceType"),
        (preferences(INSTANCE, InstanceCount=0), "Set InstanceCount either"),
        (resources(SelectedInstanceType=INSTANCE), "SelectedInstanceType is read-only"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://finetuning-jobs/a//b"}}, "an empty part"),
        ({"CheckpointConfig": {"S3Uri": "s3://finetuning-jobs//b"}}, "an empty part"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 31}}, "less than or equal to 30"),
    ],
)
def test_a_request_that_aws_documents_it_refuses(
    sagemaker_service: Service, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ClientError) as refused:
        sagemaker_service.client("sagemaker").create_training_job(
            **request(sagemaker_service, **changes)
        )
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert expected in refused.value.response["Error"]["Message"]


def test_a_volume_with_a_key_where_there_is_no_local_store(sagemaker_service: Service) -> None:
    changes = resources(InstanceType=EBS, VolumeSizeInGB=2000, VolumeKmsKeyId=KEY)
    assert run(sagemaker_service, "true", **changes)["TrainingJobStatus"] == "Completed"


class TestPermissions:
    def test_the_shipped_policy_creates_a_job_within_the_guard(
        self, sagemaker_service: Service
    ) -> None:
        client = as_launcher("sagemaker")
        client.create_training_job(**request(sagemaker_service))
        sagemaker_service.wait("job")
        for changes in (
            resources(InstanceType=EBS),
            {"StoppingCondition": {"MaxRuntimeInSeconds": 86_401}},
            {"RoleArn": "arn:aws:iam::123456789012:role/Admin"},
        ):
            with pytest.raises(ClientError, match="AccessDeniedException"):
                client.create_training_job(**request(sagemaker_service, **changes))

    def test_a_launcher_reaches_its_prefix_alone(self, sagemaker_service: Service) -> None:
        s3 = as_launcher("s3")
        s3.put_object(Bucket=sagemaker_service.bucket, Key=f"{PREFIX}/x", Body=b"")
        with pytest.raises(ClientError, match=r"AccessDenied.*s3:PutObject"):
            s3.put_object(Bucket=sagemaker_service.bucket, Key="other/x", Body=b"")
        with pytest.raises(ClientError, match="not authorized to perform: iam:CreateRole"):
            as_launcher("iam").create_role(RoleName="x", AssumeRolePolicyDocument="{}")

    def test_a_job_whose_role_may_not_see_its_data_is_refused(
        self, sagemaker_service: Service
    ) -> None:
        nothing = {"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}
        sagemaker_service.set_policies(role=[nothing])
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{sagemaker_service.bucket}/{PREFIX}/"}
        channels = [{"ChannelName": "data", "DataSource": {"S3DataSource": source}}]
        with pytest.raises(ClientError, match="Access Denied"):
            sagemaker_service.client("sagemaker").create_training_job(
                **request(sagemaker_service, InputDataConfig=channels)
            )

    def test_a_job_whose_role_may_not_write_its_model_fails(
        self, sagemaker_service: Service
    ) -> None:
        changes = {"OutputDataConfig": {"S3OutputPath": f"s3://{sagemaker_service.bucket}/other"}}
        job = run(sagemaker_service, "touch /opt/ml/model/x", **changes)
        assert job["TrainingJobStatus"] == "Failed"
        assert "may not s3:PutObject" in job["FailureReason"]


class TestCheckpoints:
    DROPS = "cd /opt/ml/checkpoints && touch old new && sleep 1 && rm old && sleep 1"

    def test_what_a_job_deletes_is_deleted_in_s3(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(checkpoint_sync_s=0.1)
        job = run(sagemaker_service, self.DROPS)
        assert job["TrainingJobStatus"] == "Completed"
        assert sagemaker_service.keys() == [f"{PREFIX}/checkpoints/job/new"]

    def test_a_role_without_the_permission_fails_the_job(self, sagemaker_service: Service) -> None:
        from sagemaker_service.client import PLACEHOLDERS
        from sagemaker_service.policies import shipped

        policy = [
            each
            for each in shipped("job-role-policy.json", PLACEHOLDERS)
            if each["Sid"] != "DropOldCheckpoints"
        ]
        sagemaker_service.set_policies(role=policy)
        sagemaker_service.set_faults(checkpoint_sync_s=0.1)
        job = run(sagemaker_service, self.DROPS)
        assert job["TrainingJobStatus"] == "Failed"
        assert "may not s3:DeleteObject" in job["FailureReason"]


def test_every_instances_results_and_checkpoints_are_kept(sagemaker_service: Service) -> None:
    script = (
        'host=$(python3 -c "import json; print(json.load(open('
        "'/opt/ml/input/config/resourceconfig.json'))['current_host'])\"); "
        "touch /opt/ml/model/$host /opt/ml/checkpoints/$host"
    )
    job = run(sagemaker_service, script, **resources(InstanceCount=2))
    assert job["TrainingJobStatus"] == "Completed"
    client = sagemaker_service.client("s3")
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(
        f"s3://{sagemaker_service.bucket}/"
    )
    body = client.get_object(Bucket=sagemaker_service.bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=BytesIO(body)) as archive:
        assert sorted(archive.getnames()) == ["algo-1", "algo-2"]
    assert sagemaker_service.keys(f"{PREFIX}/checkpoints/") == [
        f"{PREFIX}/checkpoints/job/algo-1", f"{PREFIX}/checkpoints/job/algo-2",
    ]  # fmt: skip


class TestTheServicesOwnWatch:
    def test_a_failure_of_its_own_is_tried_again_as_often_as_asked(
        self, sagemaker_service: Service
    ) -> None:
        sagemaker_service.set_faults(failed_internally=1, checkpoint_sync_s=0.1)
        script = "ls /opt/ml/checkpoints; touch /opt/ml/checkpoints/step"
        job = run(sagemaker_service, script, RetryStrategy={"MaximumRetryAttempts": 1})
        assert job["TrainingJobStatus"] == "Completed"
        lines = [line for each in sagemaker_service.log_lines("job").values() for line in each]
        assert lines == ["step"]  # the second start found the first one's checkpoint

    def test_without_a_strategy_it_fails(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(failed_internally=1)
        job = run(sagemaker_service, "true")
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("InternalServerError")

    def test_it_stops_a_job_that_has_waited_too_long(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(pending_s=60, max_pending_s=0.3)
        limits = {"MaxRuntimeInSeconds": 600, "MaxPendingTimeInSeconds": 7200}
        job = run(sagemaker_service, "true", StoppingCondition=limits)
        assert job["TrainingJobStatus"] == "Stopped"
        assert "TrainingStartTime" not in job

    def test_a_job_that_asks_for_no_such_limit_waits_on(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(pending_s=1, max_pending_s=0.1)
        assert run(sagemaker_service, "true")["TrainingJobStatus"] == "Completed"

    def test_several_instances_of_a_preferred_type(self, sagemaker_service: Service) -> None:
        sagemaker_service.set_faults(no_capacity=[INSTANCE])
        job = run(sagemaker_service, "true", **preferences(INSTANCE, OTHER, InstanceCount=2))
        assert job["ResourceConfig"]["SelectedInstanceType"] == OTHER
        assert job["ResourceConfig"]["SelectedInstanceCount"] == 2
        assert len(sagemaker_service.log_lines("job")) == 2


class TestTheCallersTroubles:
    def test_an_answer_that_is_slow(self, sagemaker_service: Service) -> None:
        client = as_launcher("sagemaker", read_timeout=0.3)
        client.list_training_jobs()
        sagemaker_service.set_faults(slow_s={"sagemaker:ListTrainingJobs": 1.0})
        with pytest.raises(ReadTimeoutError):
            client.list_training_jobs()

    def test_an_answer_that_never_comes(self, sagemaker_service: Service) -> None:
        client = as_launcher("sagemaker")
        sagemaker_service.set_faults(dropped={"*": 1})
        with pytest.raises(ConnectionClosedError):
            client.list_training_jobs()
        client.list_training_jobs()

    def test_a_login_that_ends(self, sagemaker_service: Service, tmp_path: Path) -> None:
        """In a process of its own: botocore finds the home folder when it is imported."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment |= sagemaker_service.sign_in_by_sso(tmp_path)
        program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"

        def ask() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )

        assert ask().stdout.strip() == "123456789012"
        sagemaker_service.set_faults(sso_expired=True)
        assert "UnauthorizedSSOTokenError" in ask().stderr


def test_the_applied_quotas_are_those_that_were_changed(sagemaker_service: Service) -> None:
    name = f"{INSTANCE} for spot training job usage"
    sagemaker_service.set_faults(quotas={name: 7})
    client = sagemaker_service.client("service-quotas")
    applied = client.list_service_quotas(ServiceCode="sagemaker")["Quotas"]
    assert [(each["QuotaName"], each["Value"]) for each in applied] == [(name, 7)]


def test_a_tag_stands_for_a_digest_until_it_is_moved(sagemaker_service: Service) -> None:
    def digest() -> str:
        answer = sagemaker_service.client("ecr").batch_get_image(
            repositoryName="training", imageIds=[{"imageTag": "1"}]
        )
        return str(answer["images"][0]["imageId"]["imageDigest"])

    before = digest()
    assert digest() == before
    sagemaker_service.set_faults(moved_tags={"training:1": "patched"})
    assert digest() != before


def test_a_price_is_listed_as_the_price_list_does(sagemaker_service: Service) -> None:
    answer = sagemaker_service.client("pricing").get_products(
        ServiceCode="AmazonSageMaker",
        Filters=[
            {"Type": "TERM_MATCH", "Field": "instanceName", "Value": INSTANCE},
            {"Type": "TERM_MATCH", "Field": "component", "Value": "Training"},
        ],
    )
    (product,) = (json.loads(each) for each in answer["PriceList"])
    assert product["product"]["attributes"]["instanceName"] == INSTANCE
