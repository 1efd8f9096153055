"""SageMaker's hosting: models, endpoint configurations, endpoints; nothing is served.

After the API reference of each operation. An endpoint moves at each look at it, as many looks as
``faults`` of a test say; a test without the server drives the same class (``memory_endpoints``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sagemaker_service.errors import ServiceError, validation_error
from sagemaker_service.limits import check_parameters
from sagemaker_service.wire import ApiCall

ACCOUNT = "123456789012"
_MOVING = ("Creating", "Updating", "Deleting", "RollingBack", "SystemUpdating")
_NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
)
_NO_PING = (
    "The primary container for production variant AllTraffic did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@dataclass
class Endpoints:
    """All of the account."""

    keys: Callable[[str], list[str]]
    """Keys of the objects below an S3 URI."""
    may_read: Callable[[str, str], bool] = lambda role, uri: True
    """Whether a role may read an S3 URI."""
    no_capacity: Callable[[], list[str]] = list
    """Instance types that cannot be had."""
    looks: int = 1
    """Looks at an endpoint that it takes to get from one state to the next."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)

    def operations(self) -> dict[str, Callable[[ApiCall], dict[str, Any]]]:
        """The operations answered here, by action."""
        return {
            "sagemaker:CreateModel": self._create_model,
            "sagemaker:DeleteModel": self._delete_model,
            "sagemaker:CreateEndpointConfig": self._create_config,
            "sagemaker:DescribeEndpointConfig": self._describe_config,
            "sagemaker:DeleteEndpointConfig": self._delete_config,
            "sagemaker:CreateEndpoint": self._create,
            "sagemaker:UpdateEndpoint": self._update,
            "sagemaker:DescribeEndpoint": self._describe,
            "sagemaker:DeleteEndpoint": self._delete,
        }

    def list_tags(self, call: ApiCall) -> dict[str, Any]:
        """ListTags of an ARN of these kinds."""
        tags = self.tags.get(call.parameters["ResourceArn"], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def clear(self) -> None:
        """Forget all."""
        for kept in (self.models, self.configs, self.endpoints, self.tags, self._left):
            kept.clear()

    def _create_model(self, call: ApiCall) -> dict[str, Any]:
        asked = _checked("CreateModel", call)
        name = asked["ModelName"]
        if name in self.models:
            raise validation_error(
                f'Cannot create already existing model "{_arn(call, "model", name)}".'
            )
        source = asked["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
        if source["S3DataType"] == "S3Prefix" and not source["S3Uri"].endswith("/"):
            raise validation_error(f"S3Uri {source['S3Uri']} of an S3Prefix must end with a slash.")
        if not self.keys(source["S3Uri"]):
            raise validation_error(f"Could not find model data at {source['S3Uri']}.")
        if not self.may_read(asked["ExecutionRoleArn"], source["S3Uri"]):
            raise validation_error(f"Could not access model data at {source['S3Uri']}.")
        self.models[name] = asked
        return {"ModelArn": self._tag(call, "model", name, asked)}

    def _delete_model(self, call: ApiCall) -> dict[str, Any]:
        name = _checked("DeleteModel", call)["ModelName"]
        if self.models.pop(name, None) is None:
            raise validation_error(f'Could not find model "{_arn(call, "model", name)}".')
        return {}

    def _create_config(self, call: ApiCall) -> dict[str, Any]:
        asked = _checked("CreateEndpointConfig", call)
        name = asked["EndpointConfigName"]
        arn = _arn(call, "endpoint-config", name)
        if name in self.configs:
            raise validation_error(
                f'Cannot create already existing endpoint configuration "{arn}".'
            )
        for variant in asked["ProductionVariants"]:
            if variant["ModelName"] not in self.models:
                missing = _arn(call, "model", variant["ModelName"])
                raise validation_error(f'Could not find model "{missing}".')
        self.configs[name] = asked
        return {"EndpointConfigArn": self._tag(call, "endpoint-config", name, asked)}

    def _describe_config(self, call: ApiCall) -> dict[str, Any]:
        name = _checked("DescribeEndpointConfig", call)["EndpointConfigName"]
        found = self._config(call, name)
        arn = _arn(call, "endpoint-config", name)
        return {
            "EndpointConfigName": name,
            "EndpointConfigArn": arn,
            "ProductionVariants": found["ProductionVariants"],
            "CreationTime": time.time(),
        }

    def _delete_config(self, call: ApiCall) -> dict[str, Any]:
        name = _checked("DeleteEndpointConfig", call)["EndpointConfigName"]
        self._config(call, name)
        del self.configs[name]
        return {}

    def _create(self, call: ApiCall) -> dict[str, Any]:
        asked = _checked("CreateEndpoint", call)
        name, arn = asked["EndpointName"], _arn(call, "endpoint", asked["EndpointName"])
        if name in self.endpoints:
            raise validation_error(f'Cannot create already existing endpoint "{arn}".')
        self._config(call, asked["EndpointConfigName"])
        self.endpoints[name] = {
            "EndpointName": name,
            "EndpointArn": self._tag(call, "endpoint", name, asked),
            "EndpointConfigName": asked["EndpointConfigName"],
            "EndpointStatus": "Creating",
            "CreationTime": time.time(),
            "LastModifiedTime": time.time(),
        }
        self._left[name] = self.looks
        return {"EndpointArn": arn}

    def _update(self, call: ApiCall) -> dict[str, Any]:
        asked = _checked("UpdateEndpoint", call)
        found = self._endpoint(call, asked["EndpointName"])
        if found["EndpointStatus"] in _MOVING:
            raise validation_error(f'Cannot update in-progress endpoint "{found["EndpointArn"]}".')
        if found["EndpointStatus"] != "InService":
            raise validation_error("Cannot update endpoint that is not InService.")
        self._config(call, asked["EndpointConfigName"])
        found["EndpointStatus"] = "Updating"
        found["_to"] = asked["EndpointConfigName"]
        self._left[asked["EndpointName"]] = self.looks
        return {"EndpointArn": found["EndpointArn"]}

    def _delete(self, call: ApiCall) -> dict[str, Any]:
        found = self._endpoint(call, _checked("DeleteEndpoint", call)["EndpointName"])
        if found["EndpointStatus"] in _MOVING:
            raise validation_error(f'Cannot update in-progress endpoint "{found["EndpointArn"]}".')
        found["EndpointStatus"] = "Deleting"
        self._left[found["EndpointName"]] = self.looks
        return {}

    def _describe(self, call: ApiCall) -> dict[str, Any]:
        name = _checked("DescribeEndpoint", call)["EndpointName"]
        found = self._endpoint(call, name)
        if found["EndpointStatus"] in _MOVING:
            self._left[name] -= 1
            if self._left[name] < 0:
                self._move(found)
                found = self._endpoint(call, name)
        return {key: value for key, value in found.items() if not key.startswith("_")}

    def _move(self, found: dict[str, Any]) -> None:
        """To the state that follows."""
        status, name = found["EndpointStatus"], found["EndpointName"]
        self._left[name] = self.looks
        found["LastModifiedTime"] = time.time()
        if status == "Deleting":
            del self.endpoints[name]
            return
        if status == "RollingBack":
            found["EndpointStatus"] = "InService"
            return
        wanted = found.pop("_to", found["EndpointConfigName"])
        problem = self._problem(self.configs[wanted])
        if problem is None:
            found["EndpointConfigName"] = wanted
            found["EndpointStatus"] = "InService"
            found.pop("FailureReason", None)
        else:
            found["FailureReason"] = problem
            found["EndpointStatus"] = "Failed" if status == "Creating" else "RollingBack"

    def _problem(self, config: Mapping[str, Any]) -> str | None:
        """Why no instance would serve; LMI's container starts with a model to be found only."""
        for variant in config["ProductionVariants"]:
            if variant["InstanceType"] in self.no_capacity():
                return _NO_CAPACITY
            model = self.models.get(variant["ModelName"])
            if model is None:
                return f"Could not find model {variant['ModelName']}."
            uri = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
            names = [key.rpartition("/")[2] for key in self.keys(uri)]
            if "serving.properties" not in names:
                return _NO_PING
        return None

    def _config(self, call: ApiCall, name: str) -> dict[str, Any]:
        if name not in self.configs:
            arn = _arn(call, "endpoint-config", name)
            raise validation_error(f'Could not find endpoint configuration "{arn}".')
        return self.configs[name]

    def _endpoint(self, call: ApiCall, name: str) -> dict[str, Any]:
        if name not in self.endpoints:
            raise validation_error(f'Could not find endpoint "{_arn(call, "endpoint", name)}".')
        return self.endpoints[name]

    def _tag(self, call: ApiCall, kind: str, name: str, asked: Mapping[str, Any]) -> str:
        arn = _arn(call, kind, name)
        self.tags[arn] = {tag["Key"]: tag["Value"] for tag in asked.get("Tags", [])}
        return arn


class MemoryEndpoints:
    """A client of the same class in this process; ``failures`` are raised by the next calls."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.failures: dict[str, list[Exception]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        operation = "".join(part.capitalize() for part in name.split("_"))

        def call(**parameters: Any) -> dict[str, Any]:
            from botocore.exceptions import ClientError

            self.calls.append(operation)
            if self.failures.get(operation):
                raise self.failures[operation].pop(0)
            asked = ApiCall(
                "sagemaker", operation, "us-east-1", "key", json.dumps(parameters).encode()
            )
            answers = {
                **self.endpoints.operations(),
                "sagemaker:ListTags": self.endpoints.list_tags,
            }
            try:
                return answers[asked.action](asked)
            except ServiceError as error:
                told = {"Error": {"Code": error.code, "Message": error.message}}
                raise ClientError(told, operation) from None

        return call


def _checked(operation: str, call: ApiCall) -> dict[str, Any]:
    check_parameters(operation, call.parameters)
    return call.parameters


def _arn(call: ApiCall, kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:{kind}/{name.lower()}"
