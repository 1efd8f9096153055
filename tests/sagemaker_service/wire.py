"""Reading a request as the API call that it is."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote

WsgiEnvironment = dict[str, Any]

# Credential=KEY/20250101/us-east-1/sagemaker/aws4_request
CREDENTIAL = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
JSON_TARGETS = {
    "SageMaker": "sagemaker",
    "Logs_20140328": "logs",
    "secretsmanager": "secretsmanager",
    "ServiceQuotasV20190624": "servicequotas",
    "AmazonEC2ContainerRegistry_V20150921": "ecr",
    "AWSPriceListService": "pricing",
}
QUERY_SERVICES = {"iam", "sts"}
MLFLOW = "/api/2.0/mlflow/"
# Path below /api/2.0/mlflow/ -> the action that IAM is asked for (Service Authorization Reference).
MLFLOW_ACTIONS = {
    "experiments/get-by-name": "GetExperimentByName",
    "experiments/get": "GetExperiment",
    "experiments/create": "CreateExperiment",
    "runs/create": "CreateRun",
    "runs/get": "GetRun",
    "runs/update": "UpdateRun",
    "runs/log-batch": "LogBatch",
    "runs/log-metric": "LogMetric",
    "runs/log-parameter": "LogParam",
    "runs/set-tag": "SetTag",
}
# The portal of IAM Identity Center, whose one call here carries no signature.
SSO_CREDENTIALS = "/federation/credentials"


@dataclass
class ApiCall:
    """One call: ``action`` is ``service:Operation``, as in ``sagemaker:CreateTrainingJob``."""

    service: str
    operation: str
    region: str
    access_key: str
    body: bytes
    bucket: str = ""
    key: str = ""
    query: dict[str, str] = field(default_factory=dict)
    resource: str = ""
    """ARN of the MLflow server that is meant."""

    @property
    def action(self) -> str:
        return f"{self.service}:{self.operation}"

    @property
    def is_json(self) -> bool:
        return self.service in JSON_TARGETS.values() or self.service in ("sso", "sagemaker-mlflow")

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a JSON call as they are; of a Query call by their flat names."""
        if self.is_json:
            return json.loads(self.body or b"{}")
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


def read_call(environ: WsgiEnvironment) -> ApiCall | None:
    """The call that a WSGI request makes; None when it is not one of a service simulated here.

    The body of a JSON or Query call is read, and put back for the next application.
    """
    credential = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    access_key, region, service = credential.groups() if credential else ("", "us-east-1", "")
    target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
    if target:
        service = JSON_TARGETS.get(target, service)
        return ApiCall(service, operation, region, access_key, _read_body(environ))
    if service in QUERY_SERVICES:
        body = _read_body(environ)
        operation = parse_qs(body.decode()).get("Action", [""])[0]
        return ApiCall(service, operation, region, access_key, body)
    if environ["PATH_INFO"] == SSO_CREDENTIALS:
        return ApiCall("sso", "GetRoleCredentials", region, access_key, b"")
    if environ["PATH_INFO"].startswith(MLFLOW):
        path = environ["PATH_INFO"].removeprefix(MLFLOW)
        operation = MLFLOW_ACTIONS.get(path, path)
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        arn = environ.get("HTTP_X_MLFLOW_SM_TRACKING_SERVER_ARN", "")
        body = _read_body(environ)
        return ApiCall(service, operation, region, access_key, body, query=query, resource=arn)
    if service == "s3":
        return _read_s3(environ, region, access_key)
    return None


def _read_body(environ: WsgiEnvironment) -> bytes:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _read_s3(environ: WsgiEnvironment, region: str, access_key: str) -> ApiCall:
    """An S3 call, from method, path and query (path-style URLs)."""
    bucket, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
    parsed = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    query = {name: values[0] for name, values in parsed.items()}
    operation = _s3_operation(environ["REQUEST_METHOD"], key, query) if bucket else "ListBuckets"
    # An object's content is left for the next application to stream.
    body = _read_body(environ) if operation == "DeleteObjects" else b""
    return ApiCall("s3", operation, region, access_key, body, bucket, key, query)


def _s3_operation(method: str, key: str, query: dict[str, str]) -> str:
    """The operations that a launcher, the SDK and a job use; another is named by its method."""
    if key and "uploads" in query and method == "POST":
        return "CreateMultipartUpload"
    if key and "uploadId" in query:
        return {
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }.get(method, method)
    if key:
        return {
            "HEAD": "HeadObject",
            "GET": "GetObject",
            "PUT": "PutObject",
            "DELETE": "DeleteObject",
        }.get(method, method)
    if method == "POST" and "delete" in query:
        return "DeleteObjects"
    if method == "GET" and "location" in query:
        return "GetBucketLocation"
    if method == "GET":
        return "ListObjectsV2" if "list-type" in query else "ListObjects"
    return {"HEAD": "HeadBucket", "PUT": "CreateBucket"}.get(method, method)
