"""The AWS session: one region, retried calls, credentials that may be renewed on the way."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError, SetupError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "SlowDown"}
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
        """Repeat a call over throttling and expired credentials.

        Args:
            call: Makes its clients anew each time.
            patience_s: Longest time to go on trying, in seconds.
            pause_s: Between two tries, in seconds.

        Raises:
            LaunchError: Credentials stayed expired for longer than that.
        """
        from botocore.exceptions import ClientError

        deadline = time.monotonic() + patience_s
        told = False
        while True:
            try:
                return call()
            except ClientError as error:
                code = error_code(error)
                if code not in _EXPIRED | _THROTTLED:
                    raise
                if time.monotonic() > deadline:
                    raise LaunchError(
                        f"AWS has answered {code} for {patience_s:.0f} s; the job goes on. Renew "
                        "your credentials and follow it with --attach"
                    ) from None
                if code in _EXPIRED and not told:
                    told = True
                    logger.warning(
                        "AWS credentials have expired; the job goes on. Renew them (for example "
                        "`aws sso login`) and following goes on too"
                    )
                time.sleep(pause_s)
                self.renew()


def error_code(error: Exception) -> str:
    """The service's code of a client error; the class's name of any other."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", type(error).__name__))
    return type(error).__name__


def is_denied(error: Exception) -> bool:
    """Whether the caller was not permitted to ask, which says nothing of the answer."""
    return error_code(error) in _DENIED
