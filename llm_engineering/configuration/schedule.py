"""The section ``schedule``: what a scheduled run does beside fine-tuning."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from llm_engineering.configuration.section import Name, NonNegativeInt, PositiveInt, Section

_URL = re.compile(r"https?://\S+|\{\{\s*[^{}\s]+\.[^{}\s]+\s*\}\}\S*")


def _is_address(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError(
            "expected an http(s):// address, or a ZenML secret that holds one: {{name.key}}"
        )
    return text


class RetentionSettings(Section):
    """Which old files a scheduled run removes; production and its rollback target always stay."""

    keep_runs: PositiveInt = Field(10, description="Newest finished runs that are kept.")
    keep_days: PositiveInt = Field(
        30, description="Finished runs younger than so many days are kept too."
    )
    keep_interrupted_days: PositiveInt = Field(
        7,
        description="Checkpoints of interrupted runs, whoever started them, and runs whose exports "
        "failed their proof (<run>-unproven), are kept for so many days.",
    )


class ScheduleSettings(Section):
    """What a scheduled run does beside fine-tuning."""

    retries: NonNegativeInt = Field(
        2, description="Further attempts after one that failed for no fault of the input."
    )
    retry_wait_seconds: NonNegativeInt = Field(
        60, description="Wait before the first retry, in seconds; doubled each time."
    )
    max_run_seconds: PositiveInt | None = Field(
        None,
        description="An attempt that takes longer is asked to save a checkpoint and stop, and fails; "
        "the next call goes on from there. Default: no limit, only the alert of alert_after_overlaps.",
    )
    queue: Name | None = Field(
        "host",
        description="Schedules of this host with the same queue, in whatever checkout and of whatever "
        "user, train one after another; give those on different cards different names. null: this one "
        "waits for nobody. A SageMaker job waits for nobody either.",
    )
    alert_command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments run when there is something to tell; the message comes on "
        "its standard input. {{secret.key}} in an argument is that ZenML secret's value. Default: the "
        "alerter of the ZenML stack, if it has one.",
    )
    alert_after_overlaps: PositiveInt = Field(
        3,
        description="Calls in a row that find the run before them still going on, until that is told.",
    )
    heartbeat_url: Annotated[str, AfterValidator(_is_address)] | None = Field(
        None,
        description="Address that is asked for (GET) after each call that succeeded or had nothing to "
        "do: a service there tells you when the calls cease, which a host that is off cannot. "
        "{{secret.key}} as in alert_command.",
    )
    keep_logs: PositiveInt = Field(20, description="Newest logs that are kept.")
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="Which old files are removed."
    )
