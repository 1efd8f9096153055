"""The IAM policies are valid, allow what the launcher and the job do, and nothing more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "sagemaker"
LAUNCHER, JOB_ROLE, TRUST = "launcher-policy.json", "job-role-policy.json", "trust-policy.json"

# Actions without resource-level permissions (AWS Service Authorization Reference).
NOTHING_NARROWER = {
    "sts:GetCallerIdentity",
    "servicequotas:ListServiceQuotas",
    "servicequotas:GetServiceQuota",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
}
ALLOWED = {
    LAUNCHER: {
        "sts:GetCallerIdentity",
        "sagemaker:CreateTrainingJob",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:StopTrainingJob",
        "sagemaker:AddTags",
        "sagemaker:ListTags",
        "iam:GetRole",
        "iam:PassRole",
        "s3:ListBucket",  # what HeadBucket and ListObjectsV2 ask for
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "servicequotas:ListServiceQuotas",
        "servicequotas:GetServiceQuota",
    },
    JOB_ROLE: {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
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
    "IMAGE_REPOSITORY": "huggingface-pytorch-training",
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


@pytest.mark.parametrize("name", [LAUNCHER, JOB_ROLE])
def test_every_resource_is_as_narrow_as_aws_allows(name: str) -> None:
    for part in statements(name):
        actions = set(as_list(part["Action"]))
        (resource,) = as_list(part["Resource"])
        if actions & NOTHING_NARROWER:
            assert actions <= NOTHING_NARROWER
            assert resource == "*"
        else:
            service = actions.copy().pop().split(":")[0]
            assert resource.startswith(f"arn:aws:{service}:")
            assert re.search(r"<(ACCOUNT|IMAGE_ACCOUNT|BUCKET)>", resource)


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
                assert part["Resource"] == "arn:aws:s3:::<BUCKET>/<PREFIX>/*"


def test_iam_takes_them() -> None:
    """moto checks a policy's grammar, and its ARNs, as IAM does."""
    with mock_aws():
        iam = boto3.client(
            "iam", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        iam.create_role(RoleName="job", AssumeRolePolicyDocument=filled(TRUST))
        iam.put_role_policy(RoleName="job", PolicyName="job", PolicyDocument=filled(JOB_ROLE))
        iam.create_policy(PolicyName="launch", PolicyDocument=filled(LAUNCHER))
        broken = filled(LAUNCHER).replace("arn:aws:iam:", "aws:iam:")
        with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
            iam.create_policy(PolicyName="broken", PolicyDocument=broken)


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
