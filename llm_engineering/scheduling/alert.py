"""Telling the user that a scheduled run failed."""

from __future__ import annotations

import logging
import subprocess

from llm_engineering.configuration.schedule import ScheduleSettings

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 120


def send_alert(message: str, settings: ScheduleSettings) -> None:
    """Give a message to the user's command, else to the ZenML stack's alerter, if there is one.

    An alert that cannot be sent is logged: the failure it tells of must still be recorded.
    """
    try:
        if settings.alert_command is not None:
            _run(settings.alert_command, message)
        else:
            _post(message)
    except Exception as error:  # whatever a program or an alerter of the user's does
        logger.error("the alert could not be sent: %s", error)


def _run(command: list[str], message: str) -> None:
    done = subprocess.run(
        command, input=message, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
    )
    if done.returncode != 0:
        said = done.stderr.strip() or "nothing"
        raise RuntimeError(f"{command[0]} ended with {done.returncode} and said: {said}")


def _post(message: str) -> None:
    from zenml.client import Client

    alerter = Client().active_stack.alerter
    if alerter is None:
        logger.warning(
            "nobody was alerted: set schedule.alert_command, or give the stack an alerter"
        )
    elif not alerter.post(message):
        raise RuntimeError(f"the alerter {alerter.name} did not take it")
