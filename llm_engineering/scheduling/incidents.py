"""What is wrong with a schedule now: told once a cause, again after a day, and when it is over.

Each kind is a file of its own in ``.schedules/NAME/incidents/``, since a call that finds the run before
it still going on writes beside that run.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.alert import send_alert
from llm_engineering.scheduling.table import span
from llm_engineering.scheduling.whole_file import write_whole

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 86_400.0
# Measurements, digests and times differ from call to call where the cause is the same; the number of a
# line or an exit status does not.
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+\.\d+|\d{4,}")

Kind = Literal["failed", "overlap"]


class Incident(BaseModel):
    """Something that is wrong since a time, and when the user last heard of it."""

    cause: str = Field(description="The reason, without what differs from call to call.")
    since: float = Field(description="Seconds since the epoch.")
    told: float = Field(0.0, description="Seconds since the epoch; 0: nobody heard of it.")
    times: int = Field(1, description="Calls that found it.")


class Incidents:
    """A schedule's open incidents.

    Args:
        folder: The schedule's.
        settings: How to tell the user.
        now: Seconds since the epoch.
    """

    def __init__(
        self, folder: Path, settings: ScheduleSettings, now: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._settings, self._now = folder / "incidents", settings, now

    def open(self, kind: Kind, reason: str, message: str) -> None:
        """Tell of something wrong, unless the user heard of this very cause within a day."""
        now, cause = self._now(), _VARYING.sub("#", reason)
        known = self._read(kind)
        if known is None or known.cause != cause:
            incident = Incident(cause=cause, since=now)
        else:
            incident = known.model_copy(update={"times": known.times + 1})
        # Absolutely: a clock that was put back must not silence it.
        if abs(now - incident.told) < AGAIN_SECONDS:
            logger.info("told already: %s", reason)
        else:
            if incident.times > 1:
                message += (
                    f"\nThis is so since {span(now - incident.since)}, in {incident.times} calls.\n"
                )
            if send_alert(message, self._settings):
                incident.told = now
        self._write(kind, incident)

    def close(self, kind: Kind, message: str) -> None:
        """Say that it is over, if the user was told of it."""
        known = self._read(kind)
        if known is None:
            return
        if known.told:
            lasted = f"It lasted {span(max(0.0, self._now() - known.since))}"
            send_alert(f"{message}\n{lasted}, over {known.times} call(s).\n", self._settings)
        try:
            self._file(kind).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s is over, and cannot be removed: %s", self._file(kind), error)

    def _read(self, kind: Kind) -> Incident | None:
        try:
            return Incident.model_validate_json(self._file(kind).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def _write(self, kind: Kind, incident: Incident) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            write_whole(self._file(kind), incident.model_dump_json())
        except OSError as error:  # a full disk: then it is told at every call
            logger.warning("what was told cannot be noted in %s: %s", self._folder, error)

    def _file(self, kind: Kind) -> Path:
        return self._folder / f"{kind}.json"
