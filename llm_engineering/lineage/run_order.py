"""What a command adds to a run beside its configuration; a run without it is one with the defaults."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.distributed.placement import Placement
from llm_engineering.distributed.share import choose_ranks
from llm_engineering.sagemaker.checks import job_dtype
from llm_engineering.sagemaker.launch_order import Launch
from llm_engineering.training.run import Resume

_NAME = "order"
"""Its name among a run's extra values, which the cache passes over."""


class RunOrder(BaseModel):
    """How a run comes about; nothing of it changes what is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resume: Resume = Field("never", description="Whether to go on from an equal, interrupted run.")
    gpus: str = Field("auto", description="GPUs of the training host: a number, or all of them.")
    launch: Launch | None = Field(None, description="The SageMaker job that trains.")

    @classmethod
    def among(cls, extra: dict[str, Any]) -> RunOrder:
        """The order among the extra values of a pipeline or of its run."""
        return cls.model_validate(extra.get(_NAME, {}))

    @classmethod
    def of_this_run(cls) -> RunOrder:
        """The order of the run whose step this is."""
        from zenml import get_step_context

        return cls.among(get_step_context().pipeline_run.config.extra)

    @property
    def extra(self) -> dict[str, Any]:
        """As a pipeline takes it: ``finetuning.with_options(extra=...)``."""
        return {_NAME: self.model_dump(mode="json")}

    @property
    def placement(self) -> Placement:
        """The ranks that train on the host that asks."""
        return Placement(ranks_per_host=choose_ranks(self.gpus))

    def described_dtype(self, config: FinetuningConfig, *, elsewhere: bool) -> str | None:
        """Type of the frozen weights on a host that only the train step sees; None: trained here.

        Of a job it is known from its instance type; elsewhere "auto" is resolved by that host.
        """
        if self.launch is not None:
            return job_dtype(self.launch.config, self.launch.settings)
        return config.model.dtype if elsewhere else None
