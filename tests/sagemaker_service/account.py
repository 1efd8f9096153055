"""What the service looks at in the account before it takes a job: the role, the buckets, the data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlparse
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from sagemaker_service.errors import ServiceError, validation_error
from sagemaker_service.permissions import s3_need
from sagemaker_service.policies import allowed
from sagemaker_service.wire import ApiCall

SERVICE_PRINCIPAL = "sagemaker.amazonaws.com"


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an ``s3://`` URI."""
    parsed = urlparse(uri)
    return parsed.netloc, parsed.path.lstrip("/")


def check_account(request: Mapping[str, Any], region: str, iam: Any, s3: Any) -> None:
    """Check the role's trust, each bucket's region, and that each channel has an object.

    Raises:
        ServiceError: ValidationException, as the real service answers at once.
    """
    role = request["RoleArn"]
    if not _trusts_the_service(role, iam):
        raise validation_error(
            f"Could not assume role {role}. Please ensure that the role exists and allows "
            f"principal '{SERVICE_PRINCIPAL}' to assume the role."
        )
    statements = role_statements(role, iam)
    for channel in request.get("InputDataConfig", []):
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        _check_data(
            uri, role, region, s3, may_list=allowed(statements, *s3_need("s3:ListBucket", uri))
        )
    places = [request["OutputDataConfig"]["S3OutputPath"]]
    if "CheckpointConfig" in request:
        places.append(request["CheckpointConfig"]["S3Uri"])
    for place in places:
        problem = _bucket_problem(split_uri(place)[0], region, s3)
        if problem:
            raise validation_error(f"The S3 location {place} cannot be used: {problem}")


def simulate_principal_policy(call: ApiCall, iam: Any) -> str:
    """IAM's SimulatePrincipalPolicy over the role's own policies."""
    parameters = call.parameters
    arn = parameters["PolicySourceArn"]
    actions = _members(parameters, "ActionNames")
    resources = _members(parameters, "ResourceArns") or ["*"]
    try:
        statements = list(_statements(arn.rsplit("/", 1)[-1], iam))
    except ClientError as error:
        details = error.response["Error"]
        raise ServiceError(details["Code"], details["Message"], 404) from error
    results = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{'allowed' if allowed(statements, action, resource) else 'implicitDeny'}</EvalDecision></member>"
        for action in actions
        for resource in resources
    )
    return (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        f"<EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
        "<ResponseMetadata><RequestId>00000000-0000-0000-0000-000000000000</RequestId>"
        "</ResponseMetadata></SimulatePrincipalPolicyResponse>"
    )


def _trusts_the_service(role_arn: str, iam: Any) -> bool:
    try:
        role = iam.get_role(RoleName=role_arn.rsplit("/", 1)[-1])["Role"]
    except ClientError:
        return False
    document = role["AssumeRolePolicyDocument"]
    for statement in _as_list(document.get("Statement", [])):
        principal = statement.get("Principal", {})
        services = _as_list(principal.get("Service", [])) if isinstance(principal, dict) else []
        actions = _as_list(statement.get("Action", []))
        if (
            statement.get("Effect") == "Allow"
            and SERVICE_PRINCIPAL in services
            and {"sts:AssumeRole", "sts:*", "*"} & set(actions)
        ):
            return role["Arn"] == role_arn
    return False


def _check_data(uri: str, role: str, region: str, s3: Any, *, may_list: bool) -> None:
    bucket, prefix = split_uri(uri)
    problem = _bucket_problem(bucket, region, s3) if may_list else "Access Denied"
    if problem is None:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]
        problem = None if found else "no object has that prefix."
    if problem is not None:
        raise validation_error(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure '
            f"that the bucket exists in the selected region ({region}), that objects exist under "
            f'that S3 prefix, and that the role "{role}" has "s3:ListBucket" permissions on '
            f'bucket "{bucket}". Error message from S3: {problem}'
        )


def _bucket_problem(bucket: str, region: str, s3: Any) -> str | None:
    try:
        location = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
    except ClientError as error:
        return str(error.response["Error"]["Message"])
    return None if location == region else f"The bucket is in this region: {location}."


def role_statements(role_arn: str, iam: Any) -> list[Mapping[str, Any]]:
    """The statements of all policies of a role; none of a role that is not there."""
    try:
        return list(_statements(role_arn.rsplit("/", 1)[-1], iam))
    except ClientError:
        return []


def _statements(role_name: str, iam: Any) -> Iterator[Mapping[str, Any]]:
    for name in iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role_name, PolicyName=name)["PolicyDocument"]
        yield from _as_list(document["Statement"])
    for policy in iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"]:
        arn = policy["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        answer = iam.get_policy_version(PolicyArn=arn, VersionId=version)
        document = answer["PolicyVersion"]["Document"]
        if isinstance(document, str):
            document = json.loads(document)
        yield from _as_list(document["Statement"])


def _members(parameters: Mapping[str, str], name: str) -> list[str]:
    found = {
        int(key.rsplit(".", 1)[1]): value
        for key, value in parameters.items()
        if key.startswith(f"{name}.member.")
    }
    return [found[position] for position in sorted(found)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
