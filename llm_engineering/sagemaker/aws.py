"""The AWS session: one region, retried calls, credentials that may be renewed on the way."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError, SetupError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# "400" is what is left of an expired token where S3 answers a HEAD, which has no body.
_EXPIRED = {
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "400",
    # botocore's own, where the login itself has to be renewed
    "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError",
    "CredentialRetrievalError", "NoCredentialsError", "PartialCredentialsError", "LoginError",
    "LoginRefreshRequired", "LoginTokenLoadError",
}  # fmt: skip
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "SlowDown"}
_BROKEN = {
    "InternalFailure", "InternalError", "InternalServerError", "ServiceUnavailable",
    "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException",
    "500", "502", "503", "504",
    # s3transfer's, after its own retries of a download
    "RetriesExceededError",
}  # fmt: skip
_LONGEST_PAUSE_S = 30.0
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


def require_sagemaker_group() -> None:
    """Check that boto3 is installed; the SDK is wanted by ``image.py`` alone.

    Raises:
        SetupError: It is not; says what to run.
    """
    if importlib.util.find_spec("boto3") is None:
        raise SetupError(
            "the SageMaker packages are not installed (boto3): run `make setup-launcher`, or "
            "`make setup-sagemaker` beside the training packages"
        )


class Aws:
    """Clients of one region."""

    def __init__(self, settings: SagemakerSettings) -> None:
        """Open a session with the user's own AWS configuration.

        Raises:
            LaunchError: No region is configured.
        """
        require_sagemaker_group()
        import boto3

        self._region = settings.region
        self.session = boto3.Session(region_name=settings.region)
        if self.session.region_name is None:
            raise LaunchError(
                "sagemaker.region: no region here nor in the AWS configuration; set it, "
                "for example us-east-1"
            )
        self.region: str = self.session.region_name
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A client that retries throttled calls on its own, up to ten times."""
        from botocore.config import Config

        if service not in self._clients:
            retries = Config(retries={"mode": "adaptive", "total_max_attempts": 10})
            self._clients[service] = self.session.client(service, config=retries)
        return self._clients[service]

    def renew(self) -> None:
        """Read the user's credentials anew."""
        import boto3

        self.session = boto3.Session(region_name=self._region)
        self._clients.clear()

    def surviving(self, call: Callable[[], T], *, patience_s: float, pause_s: float) -> T:
        """Repeat a call over throttling, an expired login, and a network that is not there.

        Args:
            call: Makes its clients anew each time.
            patience_s: Longest time to go on trying, in seconds.
            pause_s: Before the second try, in seconds; doubled up to half a minute.

        Raises:
            AwsUnavailableError: None of it has passed after that time.
        """
        deadline = time.monotonic() + patience_s
        told: set[str] = set()
        while True:
            try:
                return call()
            except Exception as error:
                trouble = passing_trouble(error)
                if trouble is None:
                    raise
                if time.monotonic() > deadline:
                    raise AwsUnavailableError(
                        f"{trouble} for {patience_s:.0f} s ({error_code(error)})"
                    ) from None
                if trouble not in told:
                    told.add(trouble)
                    if trouble is not BUSY:
                        logger.warning("%s; nothing is lost, and it is tried again", trouble)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self.renew()


EXPIRED = "AWS credentials have expired: renew them (for example `aws sso login`)"
OUT_OF_REACH = "AWS cannot be reached"
BUSY = "AWS asks for fewer requests"
BROKEN = "AWS answers with errors of its own"


def passing_trouble(error: Exception) -> str | None:
    """What is the matter, in words, where the same call may succeed later; else None."""
    from botocore.exceptions import ConnectionError as NotConnectedError
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    broken_off = (HTTPClientError, NotConnectedError, IncompleteReadError, ConnectionError)
    error = _cause(error)
    code = error_code(error)
    if code in _EXPIRED:
        return EXPIRED
    if code in _THROTTLED:
        return BUSY
    if isinstance(error, (*broken_off, TimeoutError)):
        return OUT_OF_REACH
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return BROKEN if code in _BROKEN or status >= 500 else None


def _cause(error: Exception) -> Exception:
    """The service's error within boto3's own of a transfer, which tells it in words only."""
    inner = error.__cause__ or error.__context__
    is_wrapped = type(error).__name__ == "S3UploadFailedError"
    return inner if is_wrapped and isinstance(inner, Exception) else error


def error_code(error: Exception) -> str:
    """The service's code of a client error; the class's name of any other."""
    error = _cause(error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", type(error).__name__))
    return type(error).__name__


def is_denied(error: Exception) -> bool:
    """Whether the caller was not permitted to ask, which says nothing of the answer."""
    return error_code(error) in _DENIED
