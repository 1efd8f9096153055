"""The section ``zenml``: what a run asks of the ZenML stack that it runs on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section

Count = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ResourcesSettings(Section):
    """What the train step gets; ZenML's ResourceSettings."""

    gpu_count: NonNegativeInt = Field(
        0,
        description="GPUs of its host. They train together: an optimizer step is shared by them.",
    )
    cpu_count: Count | None = Field(None, description="CPU cores, parts of one too.")
    memory: str | None = Field(None, description="With its unit: 32GB, 32GiB.")


class RetrySettings(Section):
    """How a failed step is tried again; ZenML's StepRetryConfig."""

    max_retries: PositiveInt = Field(1, description="Further attempts.")
    delay: NonNegativeInt = Field(0, description="Wait before the first of them, in seconds.")
    backoff: NonNegativeInt = Field(0, description="Factor on the wait after each; 0: none.")


class ZenmlSettings(Section):
    """What a run asks of its ZenML stack; on the local orchestrator, only secrets and retries count.

    ZenML's own classes check each part when the configuration is read.
    """

    resources: ResourcesSettings = Field(
        default_factory=ResourcesSettings, description="Of the train step; others need no GPU."
    )
    docker: dict[str, Any] = Field(
        {},
        description="How the steps' image is made, as ZenML's DockerSettings: parent_image, "
        "dockerfile, environment ... It must hold the train group's packages.",
    )
    step_operator: str | None = Field(
        None, description="Name of the stack's step operator that runs the train step."
    )
    experiment_tracker: str | None = Field(
        None,
        description="Name of the stack's experiment tracker; it gets the train step's figures.",
    )
    retries: RetrySettings | None = Field(
        None, description="Of every step. A train step goes on from its newest checkpoint."
    )
    secrets: list[str] = Field(
        [], description="ZenML secrets whose values become environment variables of every step."
    )
    settings: dict[str, dict[str, Any]] = Field(
        {},
        description="Settings of stack components for every step, by `type.flavor`, in ZenML's own "
        "form: orchestrator.kubernetes: {...}.",
    )
    train_settings: dict[str, dict[str, Any]] = Field(
        {}, description="The same for the train step alone: node pools with GPUs, tolerations."
    )

    @field_validator("docker")
    @classmethod
    def _docker_is_zenmls(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            from zenml.config import DockerSettings

            checked(DockerSettings, value)
        return value

    @field_validator("settings", "train_settings")
    @classmethod
    def _settings_are_of_components(
        cls, value: dict[str, dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        if value:
            from zenml.utils import settings_utils

            for key in value:
                if not settings_utils.is_stack_component_setting_key(key):
                    raise ValueError(
                        f"{key!r} names no stack component; write its type and flavor, for example "
                        "orchestrator.kubernetes (resources and docker have keys of their own)"
                    )
        return value

    @model_validator(mode="after")
    def _resources_are_zenmls(self) -> ZenmlSettings:
        if self.resources.memory is not None:
            from zenml.config import ResourceSettings

            checked(ResourceSettings, self.resources.model_dump(), "resources")
        return self


def checked(kind: Any, values: Mapping[str, Any], where: str = "") -> Any:
    """The values as one of ZenML's settings classes, which by itself lets unknown keys pass.

    Args:
        kind: The class.
        values: What is said of it.
        where: What a message puts before a key.

    Raises:
        ValueError: A key is unknown, or ZenML refuses a value.
    """
    prefix = f"{where}." if where else ""
    try:
        settings = kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{prefix}{key}: {first['msg']} (ZenML's {kind.__name__}; it is {first['input']!r})"
        ) from None
    dropped = [(key, kind) for key in values if key not in kind.model_fields]
    is_open = kind.model_config.get("extra") == "allow"  # then all that is unknown is kept
    for key, owner in [*_unknown(settings), *([] if is_open else dropped)]:
        known = difflib.get_close_matches(key.rpartition(".")[2], owner.model_fields, n=1)
        hint = f"; did you mean {known[0]}?" if known else f": {', '.join(owner.model_fields)}"
        raise ValueError(f"{prefix}{key} is no key of ZenML's {owner.__name__}{hint}")
    return settings


def _unknown(settings: BaseModel, where: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Keys that no field takes, at any depth, and the class that lets each pass."""
    for key in settings.model_extra or {}:
        yield f"{where}{key}", type(settings)
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _unknown(value, f"{where}{name}.")
