"""What the session bears, and that renewed credentials are really read."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from sagemaker_service.memory import client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError
from llm_engineering.sagemaker import aws as session
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied, passing_trouble

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
)


def wrapped(inner):
    try:
        try:
            raise inner
        except Exception as error:
            raise S3UploadFailedError(f"Failed to upload: {error}") from error
    except S3UploadFailedError as error:
        return error


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (client_error("ExpiredToken"), session.EXPIRED),
        (client_error("ExpiredTokenException"), session.EXPIRED),
        (client_error("400", "Bad Request"), session.EXPIRED),
        (UnauthorizedSSOTokenError(), session.EXPIRED),
        (SSOTokenLoadError(error_msg="x"), session.EXPIRED),
        (TokenRetrievalError(provider="sso", error_msg="x"), session.EXPIRED),
        (NoCredentialsError(), session.EXPIRED),
        (EndpointConnectionError(endpoint_url="u"), session.OUT_OF_REACH),
        (ConnectionClosedError(endpoint_url="u"), session.OUT_OF_REACH),
        (ReadTimeoutError(endpoint_url="u"), session.OUT_OF_REACH),
        (ConnectionResetError("reset"), session.OUT_OF_REACH),
        (client_error("ThrottlingException"), session.BUSY),
        (client_error("InternalFailure", status=500), session.BROKEN),
        (client_error("WhatEver", status=503), session.BROKEN),
        (wrapped(client_error("ExpiredToken")), session.EXPIRED),
        (wrapped(EndpointConnectionError(endpoint_url="u")), session.OUT_OF_REACH),
        (client_error("AccessDeniedException"), None),
        (wrapped(client_error("AccessDenied", status=403)), None),
        (client_error("ValidationException"), None),
        (OSError("disk full"), None),
        (ValueError("a mistake of ours"), None),
    ],
)
def test_what_passes_is_told_from_what_does_not(error, trouble):
    assert passing_trouble(error) == trouble


def test_a_denied_upload_is_known_as_denied_within_boto3s_own_error():
    error = wrapped(client_error("AccessDenied", status=403))
    assert is_denied(error)
    assert error_code(error) == "AccessDenied"


def test_a_mistake_of_ours_is_not_repeated():
    calls = []

    def mistake():
        calls.append(1)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        Aws(SETTINGS).surviving(mistake, patience_s=10, pause_s=0.01)
    assert len(calls) == 1


def test_renewed_credentials_are_read_while_it_waits(tmp_path, monkeypatch):
    """As `aws sso login` and its like do: the file changes while the launcher runs."""
    file = tmp_path / "credentials"

    def log_in(key):
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    log_in("OLD")
    aws, seen = Aws(SETTINGS), []

    def call():
        key = aws.client("sagemaker")._request_signer._credentials.access_key
        seen.append(key)
        if key == "OLD":
            log_in("NEW")
            raise client_error("ExpiredTokenException")
        return key

    assert aws.surviving(call, patience_s=5, pause_s=0.01) == "NEW"
    assert seen == ["OLD", "NEW"]


def test_pauses_grow_and_patience_ends(monkeypatch):
    clock, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(session.time, "sleep", sleep)
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def broken():
        raise client_error("InternalFailure", status=500)

    with pytest.raises(AwsUnavailableError, match="AWS answers with errors of its own for 100 s"):
        Aws(SETTINGS).surviving(broken, patience_s=100, pause_s=5)
    assert pauses[:4] == [5, 10, 20, 30]
    assert sum(pauses) < 160
