"""The small simulator of IAM decides as IAM's documentation says."""

from __future__ import annotations

import pytest

from sagemaker_service.permissions import needs
from sagemaker_service.policies import allowed, shipped
from sagemaker_service.wire import ApiCall

READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/team/*"}


def call(service: str, operation: str, body: str = "{}", **s3) -> ApiCall:
    return ApiCall(service, operation, "us-east-1", "key", body.encode(), **s3)


@pytest.mark.parametrize(
    ("statements", "action", "resource", "expected"),
    [
        ([], "s3:GetObject", "arn:aws:s3:::b/team/x", False),
        ([READ], "s3:GetObject", "arn:aws:s3:::b/team/x", True),
        ([READ], "S3:getobject", "arn:aws:s3:::b/team/x", True),  # actions have no case
        ([READ], "s3:GetObject", "arn:aws:s3:::b/Team/x", False),  # resources have
        ([READ], "s3:PutObject", "arn:aws:s3:::b/team/x", False),
        ([READ], "s3:GetObject", "arn:aws:s3:::b/other/x", False),
        (
            [READ, READ | {"Effect": "Deny", "Resource": "*"}],
            "s3:GetObject",
            "arn:aws:s3:::b/team/x",
            False,
        ),
        (
            [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}],
            "iam:PassRole",
            "*",
            False,
        ),
        ([READ | {"Resource": "arn:aws:s3:::b/tea?/*"}], "s3:GetObject", "arn:aws:s3:::b/team/x", True),
        ([READ | {"Resource": "arn:aws:s3:::b/[t]eam/*"}], "s3:GetObject", "arn:aws:s3:::b/team/x", False),
    ],
)  # fmt: skip
def test_effect_action_and_resource(statements, action, resource, expected):
    assert allowed(statements, action, resource) is expected


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"k": "v"}}, {"k": "v"}, True),
        ({"StringEquals": {"k": "v"}}, {}, False),
        ({"StringEqualsIfExists": {"k": "v"}}, {}, True),
        ({"ForAllValues:StringLike": {"k": ["ml.g5.*", "ml.g6.*"]}}, {"k": ["ml.g5.x"]}, True),
        ({"ForAllValues:StringLike": {"k": ["ml.g5.*"]}}, {"k": ["ml.g5.x", "ml.p5.x"]}, False),
        ({"ForAllValues:StringLike": {"k": ["ml.g5.*"]}}, {}, True),
        ({"NumericLessThanEquals": {"k": "3600"}}, {"k": 3600}, True),
        ({"NumericLessThanEquals": {"k": "3600"}}, {"k": 3601}, False),
        ({"Bool": {"k": "true"}}, {"k": True}, True),
    ],
)
def test_conditions(condition, context, expected):
    statement = READ | {"Condition": condition}
    assert allowed([statement], "s3:GetObject", "arn:aws:s3:::b/team/x", context) is expected


def test_an_operator_that_is_not_simulated_is_an_error():
    with pytest.raises(NotImplementedError, match="IpAddress"):
        allowed([READ | {"Condition": {"IpAddress": {"k": "v"}}}], "s3:GetObject", READ["Resource"])


def test_a_placeholder_without_a_value_is_an_error():
    with pytest.raises(KeyError, match="ACCOUNT"):
        shipped("job-role-policy.json", {"BUCKET": "b", "PREFIX": "p", "REGION": "r"})


def test_what_calls_need():
    create = (
        '{"TrainingJobName": "j", "RoleArn": "arn:aws:iam::1:role/r", "Tags": [{}], '
        '"ResourceConfig": {"InstancePreferences": [{"InstanceType": "a"}, {"InstanceType": "b"}]},'
        '"StoppingCondition": {"MaxRuntimeInSeconds": 60}}'
    )
    job = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"
    first, tags, role = needs(call("sagemaker", "CreateTrainingJob", create))
    assert first[:2] == ("sagemaker:CreateTrainingJob", job)
    assert first[2]["sagemaker:InstanceTypes"] == ["a", "b"]
    assert first[2]["sagemaker:MaxRuntimeInSeconds"] == 60
    assert tags[:2] == ("sagemaker:AddTags", job)
    assert role == (
        "iam:PassRole", "arn:aws:iam::1:role/r", {"iam:PassedToService": "sagemaker.amazonaws.com"},
    )  # fmt: skip
    assert [each[:2] for each in needs(call("s3", "HeadBucket", bucket="b"))] == [
        ("s3:ListBucket", "arn:aws:s3:::b")
    ]
    deleted = (
        '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>x</Key></Object>'
        "<Object><Key>y/z</Key></Object></Delete>"
    )
    assert [each[:2] for each in needs(call("s3", "DeleteObjects", deleted, bucket="b"))] == [
        ("s3:DeleteObject", "arn:aws:s3:::b/x"),
        ("s3:DeleteObject", "arn:aws:s3:::b/y/z"),
    ]
