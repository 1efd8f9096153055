"""Which permissions a call asks for: IAM's action, its resource and the condition keys.

After the Service Authorization Reference; a call that is not listed here needs what it is called.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from typing import Any

from sagemaker_service.errors import ServiceError
from sagemaker_service.policies import Statement, allowed
from sagemaker_service.wire import ApiCall

ACCOUNT = "123456789012"
Need = tuple[str, str, Mapping[str, Any]]

# sts:GetCallerIdentity needs none: AWS answers it even where a policy denies it.
NEEDS_NONE = {"sts:GetCallerIdentity", "sts:AssumeRole"}
S3_ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}


def require_permissions(statements: list[Statement], call: ApiCall, who: str) -> None:
    """Refuse a call that the statements do not allow.

    Raises:
        ServiceError: AccessDenied, naming action and resource as AWS does.
    """
    if call.action in NEEDS_NONE:
        return
    for action, resource, context in needs(call):
        if not allowed(statements, action, resource, context):
            code = "AccessDeniedException" if call.is_json else "AccessDenied"
            raise ServiceError(
                code,
                f"User: {who} is not authorized to perform: {action} on resource: {resource} "
                "because no identity-based policy allows the action",
                400 if call.is_json else 403,
            )


def needs(call: ApiCall) -> Iterator[Need]:
    """The permissions of a call."""
    if call.service == "s3":
        yield from _s3(call)
    elif call.service == "sagemaker":
        yield from _sagemaker(call)
    elif call.service == "logs":
        yield call.action, _log_resource(call), {}
    elif call.service == "iam":
        name = call.parameters.get("RoleName")
        source = call.parameters.get("PolicySourceArn", "*")
        yield call.action, f"arn:aws:iam::{ACCOUNT}:role/{name}" if name else source, {}
    elif call.service == "ecr":
        registry = call.parameters.get("registryId", ACCOUNT)
        repository = call.parameters.get("repositoryName")
        where = f"arn:aws:ecr:{call.region}:{registry}:repository/{repository}"
        yield call.action, where if repository else "*", {}
    elif call.service == "sagemaker-mlflow":
        yield call.action, call.resource, {}
    elif call.service == "secretsmanager":
        name = call.parameters.get("SecretId", "")
        arn = f"arn:aws:secretsmanager:{call.region}:{ACCOUNT}:secret:{name}-AbCdEf"
        yield call.action, name if name.startswith("arn:") else arn, {}
    else:
        yield call.action, "*", {}


def s3_need(action: str, uri: str) -> Need:
    """The permission to do something with an object, or with what lies below a prefix."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if action in ("s3:ListBucket", "s3:GetBucketLocation"):
        return action, f"arn:aws:s3:::{bucket}", {"s3:prefix": key}
    return action, f"arn:aws:s3:::{bucket}/{key}", {}


def _s3(call: ApiCall) -> Iterator[Need]:
    action = S3_ACTIONS.get(call.operation, f"s3:{call.operation}")
    bucket = f"arn:aws:s3:::{call.bucket}"
    if call.operation == "DeleteObjects":
        for key in _deleted_keys(call.body):
            yield "s3:DeleteObject", f"{bucket}/{key}", {}
    elif call.key:
        yield action, f"{bucket}/{call.key}", {}
    elif not call.bucket:
        yield action, "*", {}
    else:
        yield action, bucket, {"s3:prefix": call.query.get("prefix", "")}


def _deleted_keys(body: bytes) -> list[str]:
    return [str(e.text) for e in ElementTree.fromstring(body).iter() if e.tag.endswith("}Key")]


def _sagemaker(call: ApiCall) -> Iterator[Need]:
    asked = call.parameters
    if "ModelPackageGroup" in call.operation or call.operation == "CreateModelPackage":
        yield from _model_registry(call)
        return
    if kinds := [kind for kind in _HOSTING if kind in asked]:
        yield from _hosting(call, kinds)
        return
    name = asked.get("TrainingJobName")
    if name is None and "ResourceArn" not in asked:
        yield call.action, "*", {}
        return
    arn = asked.get("ResourceArn", f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:training-job/{name}")
    if call.operation != "CreateTrainingJob":
        yield call.action, arn, {}
        return
    resources = asked.get("ResourceConfig", {})
    types = [each["InstanceType"] for each in resources.get("InstancePreferences", [])]
    context = {
        "sagemaker:InstanceTypes": types or [resources.get("InstanceType", "")],
        "sagemaker:MaxRuntimeInSeconds": asked.get("StoppingCondition", {}).get(
            "MaxRuntimeInSeconds", 86_400
        ),
        "sagemaker:NetworkIsolation": asked.get("EnableNetworkIsolation", False),
    }
    yield "sagemaker:CreateTrainingJob", arn, context
    if asked.get("Tags"):
        yield "sagemaker:AddTags", arn, {}
    yield "iam:PassRole", asked["RoleArn"], {"iam:PassedToService": "sagemaker.amazonaws.com"}


_HOSTING = {
    "ModelName": "model",
    "EndpointConfigName": "endpoint-config",
    "EndpointName": "endpoint",
}
"""Names of hosting's resources, which are of lower case in ARNs."""


def _hosting(call: ApiCall, kinds: list[str]) -> Iterator[Need]:
    """An endpoint is made and changed with a permission for its configuration too."""
    asked = call.parameters
    base = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}"
    variants = asked.get("ProductionVariants", [])
    types = [each["InstanceType"] for each in variants]
    context = {"sagemaker:InstanceTypes": types} if types else {}
    for kind in kinds:
        arn = f"{base}:{_HOSTING[kind]}/{asked[kind].lower()}"
        yield call.action, arn, context
        if asked.get("Tags") and kind == kinds[0]:
            yield "sagemaker:AddTags", arn, {}
    if call.operation == "CreateModel":
        role = asked["ExecutionRoleArn"]
        yield "iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"}


def _model_registry(call: ApiCall) -> Iterator[Need]:
    """Names in these ARNs are of lower case, whatever the group's name is."""
    group = call.parameters["ModelPackageGroupName"].lower()
    base = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}"
    yield call.action, f"{base}:model-package-group/{group}", {}
    if call.operation == "CreateModelPackage":
        yield call.action, f"{base}:model-package/{group}/*", {}


def _log_resource(call: ApiCall) -> str:
    group = call.parameters.get("logGroupName", "")
    base = f"arn:aws:logs:{call.region}:{ACCOUNT}:log-group:{group}"
    stream = call.parameters.get("logStreamName")
    return f"{base}:log-stream:{stream}" if stream else f"{base}:*"
