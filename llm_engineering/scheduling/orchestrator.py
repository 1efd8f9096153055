"""Schedules of a ZenML stack whose orchestrator keeps them itself: Kubernetes, Airflow, SageMaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import SetupError
from llm_engineering.scheduling.cron_expression import to_aws_cron
from llm_engineering.scheduling.schedules import ROOT, Schedule

if TYPE_CHECKING:
    from zenml.config.schedule import Schedule as ZenmlSchedule

_WITH_AWS_CRON = "sagemaker"


def is_available() -> bool:
    """Whether the active stack's orchestrator can keep schedules; the local one cannot.

    Raises:
        SetupError: The packages of the active stack are not installed.
    """
    from zenml.client import Client

    try:
        return Client().active_stack.orchestrator.config.is_schedulable
    except ImportError as error:
        name = Client().active_stack_model.name
        raise SetupError(
            f"ZenML's active stack {name} needs packages that are not installed ({error}); install "
            "them (zenml integration install), or set another stack: zenml stack set default"
        ) from None


def install(schedule: Schedule, config: FinetuningConfig) -> None:
    """Hand the pipeline and its schedule to the orchestrator, in place of one of the same name.

    What lies behind the settings is looked at by a first step of each run, not now.

    Raises:
        ConfigError: The orchestrator's notation cannot express the times.
    """
    from zenml.client import Client
    from zenml.utils import source_utils

    keeper = Client().active_stack.orchestrator
    when = zenml_schedule(schedule, keeper.flavor)
    _forget(schedule)
    source_utils.set_custom_source_root(str(ROOT))
    from pipelines.finetuning import finetuning

    name = schedule.name + "-{date}-{time}"  # ZenML puts in those of each run
    pipeline = finetuning.with_options(
        run_name=name,
        schedule=when,
        tags=["finetuning", Path(config.model.id).name, "scheduled"],
    )
    try:
        pipeline(config=config)
    except BaseException:
        _forget(schedule)  # noted in ZenML before the orchestrator is asked
        raise


def zenml_schedule(schedule: Schedule, flavor: str) -> ZenmlSchedule:
    """The ZenML schedule, in the notation that a flavor of orchestrator reads.

    Raises:
        ConfigError: That notation cannot express it.
    """
    from zenml.config.schedule import Schedule as ZenmlSchedule

    cron = to_aws_cron(schedule.cron) if flavor == _WITH_AWS_CRON else schedule.cron
    return ZenmlSchedule(name=schedule.name, cron_expression=cron, catchup=False)


def remove(schedule: Schedule) -> None:
    """Delete a schedule in ZenML, and at the orchestrator where ZenML can (it warns elsewhere)."""
    from zenml.client import Client

    Client().delete_schedule(schedule.name)


def _forget(schedule: Schedule) -> None:
    from zenml.client import Client

    if Client().list_schedules(name=schedule.name, size=1).total:
        remove(schedule)
