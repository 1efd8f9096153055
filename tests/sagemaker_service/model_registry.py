"""SageMaker's Model Registry: groups, and the packages in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_service.account import split_uri
from sagemaker_service.errors import validation_error
from sagemaker_service.limits import check_parameters
from sagemaker_service.wire import ApiCall

ACCOUNT = "123456789012"


class ModelRegistry:
    """All groups and packages of the account."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._groups: dict[str, str] = {}
        self._packages: dict[str, dict[str, Any]] = {}
        self._by_token: dict[str, str] = {}

    def operations(self) -> dict[str, Callable[[ApiCall], dict[str, Any]]]:
        """The operations answered here, by action."""
        return {
            "sagemaker:CreateModelPackageGroup": self._create_group,
            "sagemaker:DescribeModelPackageGroup": self._describe_group,
            "sagemaker:CreateModelPackage": self._create,
            "sagemaker:DescribeModelPackage": self._describe,
            "sagemaker:ListModelPackages": self._list,
        }

    def clear(self) -> None:
        """Forget all."""
        for kept in (self._groups, self._packages, self._by_token):
            kept.clear()

    def _create_group(self, call: ApiCall) -> dict[str, Any]:
        check_parameters("CreateModelPackageGroup", call.parameters)
        name = call.parameters["ModelPackageGroupName"]
        if name in self._groups:
            raise validation_error(f"Model Package Group already exists: {self._groups[name]}")
        self._groups[name] = _arn(call, f"model-package-group/{name.lower()}")
        return {"ModelPackageGroupArn": self._groups[name]}

    def _describe_group(self, call: ApiCall) -> dict[str, Any]:
        check_parameters("DescribeModelPackageGroup", call.parameters)
        name = call.parameters["ModelPackageGroupName"]
        return {
            "ModelPackageGroupName": name,
            "ModelPackageGroupArn": self._group(call, name),
            "CreationTime": time.time(),
            "ModelPackageGroupStatus": "Completed",
        }

    def _create(self, call: ApiCall) -> dict[str, Any]:
        asked = call.parameters
        check_parameters("CreateModelPackage", asked)
        group = asked["ModelPackageGroupName"]
        self._group(call, group)
        token = asked.get("ClientToken")
        if token in self._by_token:
            return {"ModelPackageArn": self._by_token[token]}
        for container in asked["InferenceSpecification"]["Containers"]:
            self._check_data(container)
        number = 1 + sum(each["ModelPackageGroupName"] == group for each in self._packages.values())
        arn = _arn(call, f"model-package/{group.lower()}/{number}")
        self._packages[arn] = {
            **{k: v for k, v in asked.items() if k != "ClientToken"},
            "ModelPackageArn": arn,
            "ModelPackageVersion": number,
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": []},
            "CreationTime": time.time(),
        }
        if token is not None:
            self._by_token[token] = arn
        return {"ModelPackageArn": arn}

    def _describe(self, call: ApiCall) -> dict[str, Any]:
        found = self._packages.get(call.parameters["ModelPackageName"])
        if found is None:
            raise validation_error("ModelPackage does not exist.")
        return found

    def _list(self, call: ApiCall) -> dict[str, Any]:
        group = call.parameters["ModelPackageGroupName"]
        names = ("ModelPackageArn", "ModelPackageGroupName", "ModelPackageStatus", "CreationTime")
        return {
            "ModelPackageSummaryList": [
                {name: each[name] for name in names}
                for each in self._packages.values()
                if each["ModelPackageGroupName"] == group
            ]
        }

    def _group(self, call: ApiCall, name: str) -> str:
        if name not in self._groups:
            where = _arn(call, f"model-package-group/{name.lower()}")
            raise validation_error(f"ModelPackageGroup {where} does not exist.")
        return self._groups[name]

    def _check_data(self, container: Mapping[str, Any]) -> None:
        uri = container.get("ModelDataUrl", "")
        if not uri.endswith(".tar.gz"):
            raise validation_error(f"ModelDataUrl {uri} must be the address of a .tar.gz file.")
        bucket, key = split_uri(uri)
        try:
            self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError:
            raise validation_error(f"Could not find model data at {uri}.") from None


def _arn(call: ApiCall, resource: str) -> str:
    return f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:{resource}"
