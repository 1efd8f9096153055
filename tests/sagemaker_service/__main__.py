"""The server's process: ``python -m sagemaker_service --folder DIR [--port N] [--python EXE]``.

Prints one line of JSON, ``{"endpoint": "http://127.0.0.1:PORT"}``, and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.exceptions import ClientError
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from sagemaker_service.account import role_statements, simulate_principal_policy
from sagemaker_service.container import Image
from sagemaker_service.endpoints import Endpoints
from sagemaker_service.faults import FaultSwitch
from sagemaker_service.front import CONTROL, SERVICE_ACCESS_KEY, Front
from sagemaker_service.images import batch_get_image
from sagemaker_service.jobs import Job
from sagemaker_service.lifecycle import World
from sagemaker_service.mlflow_server import MlflowServer
from sagemaker_service.model_registry import ModelRegistry
from sagemaker_service.permissions import require_permissions, s3_need
from sagemaker_service.policies import EVERYTHING, Statement, allowed
from sagemaker_service.prices import get_products
from sagemaker_service.quotas import get_quota, list_default_quotas, list_quotas
from sagemaker_service.training_api import TrainingApi
from sagemaker_service.wire import MLFLOW_ACTIONS, ApiCall

HOST = "127.0.0.1"
CREDENTIALS_S = 3600
CALLER_KEY = "AKIAIOSFODNN7EXAMPLE"
"""The launcher's, whose policies count; a test's own calls are made with another key."""
SSO_CREDENTIALS_S = 2
"""So short that botocore asks for new ones at each client: an ended login shows at once."""
CALLER_SECRET = "not-a-secret"


class QuietHandler(MotoRequestHandler):
    """Without a line on stderr for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Server(ThreadedMotoServer):
    """moto's server with the training service before it."""

    def __init__(self, port: int, folder: Path, image: Image) -> None:
        super().__init__(ip_address=HOST, port=port, verbose=False)
        self._folder = folder
        self._image = image
        self._faults = FaultSwitch()
        self._job_roles: dict[str, str] = {}
        self._caller: list[Statement] = list(EVERYTHING)
        self._training: TrainingApi | None = None

    @property
    def endpoint(self) -> str:
        return "http://{}:{}".format(*self.get_host_and_port())

    def close(self) -> None:
        """End the jobs and the server."""
        if self._training is not None:
            self._training.clear()
        self.stop()

    def _server_entry(self) -> None:
        moto = DomainDispatcherApplication(create_backend_app)
        late = _LateApplication()
        self._server = make_server(HOST, self._port, late, True, request_handler=QuietHandler)
        clients = {name: self._client(name) for name in ("iam", "s3", "logs", "sts")}
        world = World(
            folder=self._folder,
            image=self._image,
            faults=self._faults,
            s3=clients["s3"],
            logs=clients["logs"],
            endpoint=self.endpoint,
            credentials_uri=lambda job: f"{self.endpoint}{CONTROL}credentials/{job.name}",
            role_statements=lambda role: role_statements(role, clients["iam"]),
        )
        training = TrainingApi(world, clients["iam"])
        self._training = training
        registry, mlflow = ModelRegistry(clients["s3"]), MlflowServer()
        endpoints = Endpoints(
            keys=lambda uri: _keys(uri, clients["s3"]),
            may_read=lambda role, uri: allowed(
                role_statements(role, clients["iam"]), *s3_need("s3:GetObject", f"{uri}x")
            ),
            no_capacity=lambda: self._faults.now.no_capacity,
        )

        def list_tags(call: ApiCall) -> dict[str, Any]:
            of_endpoint = ":endpoint/" in call.parameters.get("ResourceArn", "")
            return endpoints.list_tags(call) if of_endpoint else of_job(call)

        of_job = training.operations()["sagemaker:ListTags"]

        def quotas() -> dict[str, float]:
            return self._faults.now.quotas

        def set_faults(_: str, body: dict[str, Any]) -> dict[str, Any]:
            self._faults.replace(body)
            return {}

        def set_caller(_: str, body: dict[str, Any]) -> dict[str, Any]:
            self._caller = body["statements"]
            return {}

        def authorize(call: ApiCall) -> None:
            if call.access_key == CALLER_KEY:
                asks_a_bucket = call.bucket and call.operation != "CreateBucket"
                if asks_a_bucket and not _bucket_is_there(call.bucket, clients["s3"]):
                    return  # S3 says to anyone that there is none
                require_permissions(self._caller, call, "launcher")
            elif call.access_key in self._job_roles:
                role = self._job_roles[call.access_key]
                require_permissions(role_statements(role, clients["iam"]), call, role)

        def interrupt(name: str, _: dict[str, Any]) -> dict[str, Any]:
            training.named(name).interrupt_requested.set()
            return {}

        def reset(_: str, __: dict[str, Any]) -> dict[str, Any]:
            self._faults.replace({"grace_s": 0.0, "spot_grace_s": 0.0})
            training.clear()
            registry.clear()
            endpoints.clear()
            mlflow.clear()
            self._faults.replace({})
            urlopen(Request(f"{self.endpoint}/moto-api/reset", method="POST")).close()
            return {}

        late.application = Front(
            moto,
            self._faults,
            operations={
                **training.operations(),
                **registry.operations(),
                **endpoints.operations(),
                "sagemaker:ListTags": list_tags,
                **{f"sagemaker-mlflow:{name}": mlflow.answer for name in MLFLOW_ACTIONS.values()},
                "servicequotas:ListServiceQuotas": lambda call: list_quotas(call, quotas()),
                "servicequotas:ListAWSDefaultServiceQuotas": lambda call: list_default_quotas(
                    call, self._faults.now.default_quotas
                ),
                "servicequotas:GetServiceQuota": lambda call: get_quota(call, quotas()),
                "ecr:BatchGetImage": lambda call: batch_get_image(
                    call, self._faults.now.moved_tags
                ),
                "pricing:GetProducts": get_products,
                "sso:GetRoleCredentials": _sso_credentials,
                "iam:SimulatePrincipalPolicy": lambda call: simulate_principal_policy(
                    call, clients["iam"]
                ),
            },
            controls={
                "faults": set_faults,
                "caller": set_caller,
                "interrupt": interrupt,
                "reset": reset,
                "mlflow": lambda *_: {"runs": list(mlflow.runs.values())},
                "credentials": lambda name, _: self._credentials(
                    training.named(name), clients["sts"]
                ),
            },
            is_job_key=self._job_roles.__contains__,
            authorize=authorize,
        )
        self._server_ready_event.set()
        self._server.serve_forever()

    def _client(self, name: str) -> Any:
        """A client of the service itself: no fault meets it."""
        return boto3.client(
            name,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=SERVICE_ACCESS_KEY,
            aws_secret_access_key="none",
        )

    def _credentials(self, job: Job, sts: Any) -> dict[str, Any]:
        """Credentials of the job's role, in the form of the containers' credential endpoint."""
        given = sts.assume_role(RoleArn=job.request["RoleArn"], RoleSessionName="SageMaker")
        credentials = given["Credentials"]
        self._job_roles[credentials["AccessKeyId"]] = job.request["RoleArn"]
        return {
            "RoleArn": job.request["RoleArn"],
            "AccessKeyId": credentials["AccessKeyId"],
            "SecretAccessKey": credentials["SecretAccessKey"],
            "Token": credentials["SessionToken"],
            "Expiration": (datetime.now(UTC) + timedelta(seconds=CREDENTIALS_S)).isoformat(),
        }


def _sso_credentials(_: ApiCall) -> dict[str, Any]:
    """What IAM Identity Center's portal gives for a login that has not ended: the caller's keys."""
    return {
        "roleCredentials": {
            "accessKeyId": CALLER_KEY,
            "secretAccessKey": CALLER_SECRET,
            "sessionToken": "not-a-token",
            "expiration": int((time.time() + SSO_CREDENTIALS_S) * 1000),
        }
    }


def _keys(uri: str, s3: Any) -> list[str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    except ClientError:
        return []
    return [each["Key"] for each in found.get("Contents", [])]


def _bucket_is_there(name: str, s3: Any) -> bool:
    try:
        s3.head_bucket(Bucket=name)
    except ClientError:
        return False
    return True


class _LateApplication:
    """An application given after the server's port is known."""

    application: Front

    def __call__(self, environ: Any, start: Any) -> Any:
        return self.application(environ, start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where jobs have their volumes")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--hide", type=Path, action="append", default=[])
    parser.add_argument("--image-env", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    image = Image(
        options.python,
        options.hide,
        dict(each.split("=", 1) for each in options.image_env),
    )
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    server = Server(options.port, options.folder, image)
    server.start()
    print(json.dumps({"endpoint": server.endpoint}), flush=True)
    parent = os.getppid()
    while not ended.wait(0.5) and os.getppid() == parent:
        pass
    server.close()


if __name__ == "__main__":
    main()
