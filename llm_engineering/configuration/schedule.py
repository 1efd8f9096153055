"""The section ``schedule``: what a scheduled run does beside fine-tuning."""

from __future__ import annotations

from pydantic import Field

from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section


class RetentionSettings(Section):
    """Which old output folders a scheduled run removes; production and the newest always stay."""

    keep_runs: PositiveInt = Field(10, description="Newest finished runs that are kept.")
    keep_days: PositiveInt = Field(
        30, description="Finished runs younger than so many days are kept too."
    )
    keep_interrupted_days: PositiveInt = Field(
        7,
        description="Checkpoints of interrupted runs, and runs whose exports failed their proof "
        "(<run>-unproven), are kept for so many days.",
    )


class ScheduleSettings(Section):
    """What a scheduled run does beside fine-tuning."""

    retries: NonNegativeInt = Field(
        2, description="Further attempts after one that failed for no fault of the input."
    )
    retry_wait_seconds: NonNegativeInt = Field(
        60, description="Wait before the first retry, in seconds; doubled each time."
    )
    alert_command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments run when a scheduled run fails; the message comes on "
        "its standard input. Default: the alerter of the ZenML stack, if it has one.",
    )
    keep_logs: PositiveInt = Field(20, description="Newest logs that are kept.")
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="Which old outputs are removed."
    )
