"""The errors that the service answers with, in each of the wire formats its clients read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape


@dataclass
class ServiceError(Exception):
    """An error answer: AWS's code, its message and the HTTP status."""

    code: str
    message: str
    status: int = 400

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def validation_error(message: str) -> ServiceError:
    """What SageMaker answers to a request that breaks a rule."""
    return ServiceError("ValidationException", message)


def not_simulated(what: str) -> ServiceError:
    """A valid request for something that this double does not do: said so, never passed over."""
    return validation_error(f"(test double) {what} is not simulated")


def as_json(error: ServiceError) -> bytes:
    """The body of an error of a JSON service (SageMaker, CloudWatch Logs, Service Quotas), and of MLflow."""
    return json.dumps(
        {"__type": error.code, "error_code": error.code, "message": error.message}
    ).encode()


def as_query_xml(error: ServiceError) -> bytes:
    """The body of an error of a Query service (IAM, STS)."""
    return (
        "<ErrorResponse><Error><Type>Sender</Type>"
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
        "<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"
    ).encode()


def as_s3_xml(error: ServiceError) -> bytes:
    """The body of an error of S3."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    ).encode()
