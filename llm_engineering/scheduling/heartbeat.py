"""A sign of life after each call that went well: its absence tells of a host or a clock that is dead."""

from __future__ import annotations

import logging
import urllib.request

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.secrets import Secrets

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 15


def send_heartbeat(settings: ScheduleSettings) -> None:
    """Ask for ``schedule.heartbeat_url``, if there is one; what goes wrong is only logged."""
    if settings.heartbeat_url is None:
        return
    secrets = Secrets()
    try:
        # The scheme is checked in the configuration; a secret may hold the whole address.
        request = urllib.request.Request(secrets.fill(settings.heartbeat_url))  # noqa: S310
        if request.type not in ("http", "https"):
            raise ValueError(f"its scheme is {request.type}, not http or https")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            answer.read(1024)
    except Exception as error:  # a run that went well is not to fail for it
        logger.warning("no heartbeat was sent: %s", secrets.hide(str(error)))
