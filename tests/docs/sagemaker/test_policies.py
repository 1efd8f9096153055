"""The IAM policies are valid, allow what the launcher and the job do, and nothing more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from sagemaker_service.policies import allowed, shipped

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "sagemaker"
LAUNCHER, JOB_ROLE, TRUST = "launcher-policy.json", "job-role-policy.json", "trust-policy.json"
LAUNCHER_OPTIONS, JOB_OPTIONS = "launcher-options.json", "job-role-options.json"

# Actions without resource-level permissions (AWS Service Authorization Reference).
NOTHING_NARROWER = {
    "sts:GetCallerIdentity",
    "servicequotas:ListServiceQuotas",
    "servicequotas:ListAWSDefaultServiceQuotas",
    "sagemaker:ListTrainingJobs",
    "pricing:GetProducts",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "sts:GetServiceBearerToken",
}
# Most of them have none; together they are what SageMaker documents for a VPC.
OF_A_VPC = {
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
}
# What MLflow's client asks of a server while it logs a training.
OF_MLFLOW = {
    "sagemaker-mlflow:CreateExperiment",
    "sagemaker-mlflow:GetExperiment",
    "sagemaker-mlflow:GetExperimentByName",
    "sagemaker-mlflow:CreateRun",
    "sagemaker-mlflow:GetRun",
    "sagemaker-mlflow:UpdateRun",
    "sagemaker-mlflow:LogBatch",
    "sagemaker-mlflow:LogMetric",
    "sagemaker-mlflow:LogParam",
    "sagemaker-mlflow:SetTag",
    "sagemaker:CallMlflowAppApi",
}
ALLOWED = {
    LAUNCHER: {
        "sts:GetCallerIdentity",
        "sagemaker:CreateTrainingJob",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:StopTrainingJob",
        "sagemaker:UpdateTrainingJob",
        "sagemaker:ListTrainingJobs",
        "sagemaker:AddTags",
        "sagemaker:ListTags",
        "iam:GetRole",
        "iam:PassRole",
        "s3:ListBucket",  # what HeadBucket and ListObjectsV2 ask for
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "ecr:BatchGetImage",
        "servicequotas:ListServiceQuotas",
        "servicequotas:ListAWSDefaultServiceQuotas",
        "pricing:GetProducts",
    },
    JOB_ROLE: {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "logs:DescribeLogStreams",
        "cloudwatch:PutMetricData",
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchGetImage",
        "secretsmanager:GetSecretValue",
    },
    TRUST: {"sts:AssumeRole"},
    LAUNCHER_OPTIONS: {
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "kms:DescribeKey",
        "kms:CreateGrant",
        "sagemaker:DescribeModelPackageGroup",
        "sagemaker:CreateModelPackageGroup",
        "sagemaker:CreateModelPackage",
        "sagemaker:CreateEndpointConfig",
        "sagemaker:CreateModel",
        "sagemaker:DeleteModel",
        "sagemaker:DescribeEndpointConfig",
        "sagemaker:DeleteEndpointConfig",
        "sagemaker:CreateEndpoint",
        "sagemaker:UpdateEndpoint",
        "sagemaker:DescribeEndpoint",
        "sagemaker:DeleteEndpoint",
        "sagemaker:AddTags",
        "sagemaker:ListTags",
    },
    JOB_OPTIONS: {
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "kms:DescribeKey",
        "kms:CreateGrant",
        *OF_A_VPC,
        "codeartifact:GetAuthorizationToken",
        "codeartifact:GetRepositoryEndpoint",
        "codeartifact:ReadFromRepository",
        "sts:GetServiceBearerToken",
        "s3:ListBucket",
        "s3:GetObject",
        *OF_MLFLOW,
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchGetImage",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    },
}
VALUES = {
    "ACCOUNT": "123456789012",
    "REGION": "eu-west-1",
    "BUCKET": "my-bucket",
    "PREFIX": "finetuning",
    "JOB_PREFIX": "llm-",
    "JOB_ROLE": "finetuning-job",
    "SECRET": "hugging-face",
    "IMAGE_ACCOUNT": "763104351884",
    "IMAGE_REPOSITORY": "pytorch-training",
    "INSTANCE_TYPES": "ml.g*",
    "MAX_RUN_SECONDS": "86400",
    "KMS_KEY": "1234abcd-12ab-34cd-56ef-1234567890ab",
    "DOMAIN": "packages",
    "REPOSITORY": "python",
    "OTHER_BUCKET": "models",
    "MODEL_GROUP": "finetuned",
    "SERVING_REPOSITORY": "djl-inference",
    "MLFLOW_RESOURCE": "mlflow-tracking-server/team",
}


def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads(text(name))["Statement"]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def filled(name: str) -> str:
    return re.sub(r"<(\w+)>", lambda match: VALUES[match[1]], text(name))


@pytest.mark.parametrize("name", ALLOWED)
def test_the_actions_are_these_each_by_its_name(name: str) -> None:
    actions = [action for part in statements(name) for action in as_list(part["Action"])]
    assert sorted(actions) == sorted(ALLOWED[name])
    assert not [action for action in actions if "*" in action or "?" in action]
    assert {part["Effect"] for part in statements(name)} == {"Allow"}


@pytest.mark.parametrize("name", [LAUNCHER, JOB_ROLE, LAUNCHER_OPTIONS, JOB_OPTIONS])
def test_every_resource_is_as_narrow_as_aws_allows(name: str) -> None:
    for part in statements(name):
        actions = set(as_list(part["Action"]))
        for resource in as_list(part["Resource"]):
            if actions & (NOTHING_NARROWER | OF_A_VPC):
                assert actions <= NOTHING_NARROWER | OF_A_VPC
                assert resource == "*"
            else:
                service = actions.copy().pop().split(":")[0].removesuffix("-mlflow")
                assert resource.startswith(f"arn:aws:{service}:")
                assert re.search(r"<(ACCOUNT|IMAGE_ACCOUNT|BUCKET|OTHER_BUCKET)>", resource)


def test_the_role_is_handed_to_sagemaker_alone() -> None:
    (part,) = [part for part in statements(LAUNCHER) if part["Action"] == "iam:PassRole"]
    assert part["Resource"] == "arn:aws:iam::<ACCOUNT>:role/<JOB_ROLE>"
    assert part["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_only_sagemaker_for_this_account_takes_the_role() -> None:
    (part,) = statements(TRUST)
    assert part["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert part["Condition"]["StringEquals"] == {"aws:SourceAccount": "<ACCOUNT>"}


def test_objects_outside_of_the_prefix_are_out_of_reach() -> None:
    for name in (LAUNCHER, JOB_ROLE):
        for part in statements(name):
            if any(action.endswith("Object") for action in as_list(part["Action"])):
                assert part["Resource"].startswith("arn:aws:s3:::<BUCKET>/<PREFIX>/")
    deleting = {
        name: part["Resource"]
        for name in (LAUNCHER, JOB_ROLE)
        for part in statements(name)
        if "s3:DeleteObject" in as_list(part["Action"])
    }
    assert deleting[JOB_ROLE] == "arn:aws:s3:::<BUCKET>/<PREFIX>/checkpoints/*"


CREATE = "sagemaker:CreateTrainingJob"
JOB = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/llm-x"


@pytest.mark.parametrize(
    ("types", "seconds", "expected"),
    [
        (["ml.g5.2xlarge"], 86_400, True),
        (["ml.g5.2xlarge", "ml.g6.2xlarge"], 60, True),
        (["ml.p5.48xlarge"], 60, False),
        (["ml.g5.2xlarge", "ml.p5.48xlarge"], 60, False),
        (["ml.g5.2xlarge"], 86_401, False),
    ],
)
def test_no_launcher_creates_a_job_beyond_the_guard(types, seconds, expected) -> None:
    policy = shipped(LAUNCHER, VALUES)
    context = {"sagemaker:InstanceTypes": types, "sagemaker:MaxRuntimeInSeconds": seconds}
    assert allowed(policy, CREATE, JOB, context) is expected
    assert not allowed(policy, CREATE, JOB.replace("llm-x", "other-x"), context)


@pytest.mark.parametrize(
    ("types", "expected"), [(["ml.g5.2xlarge"], True), (["ml.p5.48xlarge"], False)]
)
def test_no_endpoint_is_made_beyond_the_guard(types, expected) -> None:
    policy = shipped(LAUNCHER_OPTIONS, VALUES)
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:endpoint-config/llm-x"
    context = {"sagemaker:InstanceTypes": types}
    assert allowed(policy, "sagemaker:CreateEndpointConfig", arn, context) is expected
    other = arn.replace("llm-x", "other-x")
    assert not allowed(policy, "sagemaker:CreateEndpointConfig", other, context)


def test_iam_takes_them() -> None:
    """moto checks a policy's grammar, and its ARNs, as IAM does."""
    with mock_aws():
        iam = boto3.client(
            "iam", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        iam.create_role(RoleName="job", AssumeRolePolicyDocument=filled(TRUST))
        iam.put_role_policy(RoleName="job", PolicyName="job", PolicyDocument=filled(JOB_ROLE))
        for number, name in enumerate((LAUNCHER, LAUNCHER_OPTIONS, JOB_OPTIONS)):
            iam.create_policy(PolicyName=f"policy-{number}", PolicyDocument=filled(name))
        broken = filled(LAUNCHER).replace("arn:aws:iam:", "aws:iam:")
        with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
            iam.create_policy(PolicyName="broken", PolicyDocument=broken)


def test_s3_takes_the_lifecycle_rule_and_it_keeps_results() -> None:
    rules = json.loads(filled("lifecycle.json"))
    with mock_aws():
        s3 = boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        s3.create_bucket(Bucket="bucket")
        s3.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration=rules)
        taken = s3.get_bucket_lifecycle_configuration(Bucket="bucket")["Rules"]
    assert [rule["ID"] for rule in taken] == [rule["ID"] for rule in rules["Rules"]]
    expiring = {r["Filter"]["Prefix"] for r in rules["Rules"] if "Expiration" in r}
    assert expiring == {"finetuning/checkpoints/", "finetuning/code/", "finetuning/jobs/"}


def test_the_readme_explains_every_statement_and_placeholder() -> None:
    readme = text("README.md")
    for name in ALLOWED:
        assert name in readme
        for part in statements(name):
            assert f"`{part['Sid']}`" in readme
        for placeholder in re.findall(r"<\w+>", text(name)):
            assert f"`{placeholder}`" in readme
    for action in NOTHING_NARROWER:
        assert action in readme
