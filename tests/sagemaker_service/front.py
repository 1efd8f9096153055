"""The server's face: faults first, then the operations simulated here, then moto."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from socket import SHUT_RDWR
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from sagemaker_service.errors import ServiceError, as_json, as_query_xml, as_s3_xml
from sagemaker_service.faults import DroppedConnection, FaultSwitch
from sagemaker_service.wire import ApiCall, WsgiEnvironment, read_call

# Below this path a test talks to the service: see the methods of ``client.Service``.
CONTROL = "/_service/"
SERVICE_ACCESS_KEY = "SERVICEINTERNALACCES"
STATUS_TEXT = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
}

Operation = Callable[[ApiCall], dict[str, Any] | str]
Control = Callable[[str, dict[str, Any]], dict[str, Any]]


class Front:
    """The WSGI application.

    ``operations``: by action; a dict is answered as JSON, a string as XML.
    ``controls``: by the first part of the path below ``CONTROL``; called with the rest of it and
    the request's JSON body.
    ``is_job_key``: whether an access key id belongs to a job's role.
    ``authorize``: refuses a call that the policies of its caller do not allow.
    """

    def __init__(
        self,
        moto: WSGIApplication,
        faults: FaultSwitch,
        operations: Mapping[str, Operation],
        controls: Mapping[str, Control],
        is_job_key: Callable[[str], bool],
        authorize: Callable[[ApiCall], None],
    ) -> None:
        self._moto = moto
        self._faults = faults
        self._operations = operations
        self._controls = controls
        self._is_job_key = is_job_key
        self._authorize = authorize

    def __call__(self, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(path.removeprefix(CONTROL), environ, start)
        call = read_call(environ)
        if call is None:
            return self._moto(environ, start)
        try:
            if call.access_key != SERVICE_ACCESS_KEY:
                self._faults.check(call, self._is_job_key(call.access_key))
                self._authorize(call)
            operation = self._operations.get(call.action)
            if operation is None:
                return self._moto(environ, start)
            answer = operation(call)
        except ServiceError as error:
            return _answer_error(call, error, environ, start)
        except DroppedConnection:
            environ["werkzeug.socket"].shutdown(SHUT_RDWR)
            return []
        if isinstance(answer, str):
            return _answer(start, 200, answer.encode(), "text/xml")
        return _answer(start, 200, json.dumps(answer).encode(), "application/x-amz-json-1.1")

    def _control(
        self, path: str, environ: WsgiEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        name, _, rest = path.partition("/")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            answer = self._controls[name](rest, json.loads(body or b"{}"))
        except (KeyError, StopIteration, TypeError, ValueError) as error:
            return _answer(start, 400, repr(error).encode(), "text/plain")
        return _answer(start, 200, json.dumps(answer).encode(), "application/json")


def _answer_error(
    call: ApiCall, error: ServiceError, environ: WsgiEnvironment, start: StartResponse
) -> Iterable[bytes]:
    if call.is_json:
        return _answer(start, error.status, as_json(error), "application/x-amz-json-1.1")
    body = as_s3_xml(error) if call.service == "s3" else as_query_xml(error)
    if environ["REQUEST_METHOD"] == "HEAD":
        body = b""
    return _answer(start, error.status, body, "text/xml")


def _answer(start: StartResponse, status: int, body: bytes, kind: str) -> Iterable[bytes]:
    start(
        f"{status} {STATUS_TEXT.get(status, 'Error')}",
        [("Content-Type", kind), ("Content-Length", str(len(body)))],
    )
    return [body]
