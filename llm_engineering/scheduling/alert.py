"""Telling the user what a schedule came to, by a program of theirs or the stack's alerter."""

from __future__ import annotations

import logging
import subprocess

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.secrets import Secrets

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 120


def send_alert(message: str, settings: ScheduleSettings) -> bool:
    """Give a message to the user's command, else to the ZenML stack's alerter, if there is one.

    An alert that cannot be sent is logged: the failure it tells of must still be recorded.

    Returns:
        Whether somebody took it.
    """
    secrets = Secrets()
    try:
        if settings.alert_command is None:
            return _post(message)
        _run([secrets.fill(word) for word in settings.alert_command], message)
        return True
    except Exception as error:  # whatever a program or an alerter of the user's does
        logger.error("the alert could not be sent: %s", secrets.hide(str(error)))
        return False


def _run(command: list[str], message: str) -> None:
    try:
        done = subprocess.run(
            command, input=message, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:  # whose own message would show the arguments
        raise RuntimeError(f"{command[0]} did not end within {_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or "nothing"
        raise RuntimeError(f"{command[0]} ended with {done.returncode} and said: {said}")


def _post(message: str) -> bool:
    from zenml.client import Client

    alerter = Client().active_stack.alerter
    if alerter is None:
        logger.warning(
            "nobody was alerted: set schedule.alert_command, or give the stack an alerter"
        )
        return False
    if not alerter.post(message):
        raise RuntimeError(f"the alerter {alerter.name} did not take it")
    return True
