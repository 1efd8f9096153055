"""What is launched, how, and under which name; and what is told of the job that it became."""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import BaseModel, Field

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.model.base_model import is_hub_model
from llm_engineering.sagemaker.attempts import numbered
from llm_engineering.sagemaker.follow import Pace
from llm_engineering.sagemaker.request import job_name

_HIGHEST_ATTEMPT = 99_999
"""So many digits a name leaves room for."""


class Launch(BaseModel):
    """What a remote train step needs beside what a local one does."""

    config: FinetuningConfig
    code: str = Field(description="Digest of the source that computes, part of the job's identity.")
    configuration: str = Field("", description="Digest of the configuration, a tag of the job.")
    command: list[str] = Field(
        [], description="The command line up to its flags, for what is to be typed next."
    )
    attach: str | None = Field(None, description="Follow this job instead of submitting one.")
    detach: bool = Field(False, description="On Ctrl-C, leave the job running.")
    fresh: bool = Field(False, description="Train again even if an equal job has completed.")
    poll_seconds: float = Field(5.0, gt=0, description="Between two looks at the job.")
    patience_seconds: float = Field(
        3600.0, gt=0, description="How long an expired login or a lost network is borne."
    )
    capacity_pause_seconds: float = Field(
        60.0, ge=0, description="Before the second round of instance types; doubled after each."
    )

    @property
    def settings(self) -> SagemakerSettings:
        """The configuration's ``sagemaker`` section."""
        return sagemaker_settings(self.config)

    @property
    def pace(self) -> Pace:
        """How often AWS is asked, and how long failures are borne."""
        return Pace(poll_s=self.poll_seconds, patience_s=self.patience_seconds)

    def typed(self, *flags: str) -> str:
        """A command line that does what ``flags`` say with this configuration."""
        return shlex.join([*(self.command or ["tools/run.py"]), *flags])

    @property
    def again(self) -> str:
        """The same command again."""
        fresh = ["--no-cache"] if self.fresh else []
        return self.typed("--finetune", "--target", "sagemaker", *fresh)


class SubmittedJob(BaseModel):
    """A job that exists, told before anything is waited for."""

    name: str
    arn: str
    console: str
    instance_type: str
    reattached: bool


def sagemaker_settings(config: FinetuningConfig) -> SagemakerSettings:
    """The configuration's ``sagemaker`` section.

    Raises:
        LaunchError: There is none.
    """
    if config.sagemaker is None:
        raise LaunchError(
            "sagemaker: the configuration has no such section; --target sagemaker needs "
            "instance_types, role and bucket (docs/sagemaker/README.md)"
        )
    return config.sagemaker


def name_of(config: FinetuningConfig, digest: str, attempt: int = 1) -> str:
    """The name of a training's job: the same for everybody who trains it.

    The run's name and folders are not in it, so that two launchers cannot submit it under two.
    """
    prefix = sagemaker_settings(config).job_prefix
    model = Path(config.model.id).name if is_hub_model(config.model) else ""
    # Cut as the longest name must be, so that all attempts' names begin alike.
    longest = job_name(f"{prefix}-{model}", config.train.objective, digest, _HIGHEST_ATTEMPT)
    return numbered(longest.removesuffix(f"-{_HIGHEST_ATTEMPT}"), attempt)
