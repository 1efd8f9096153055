"""Where the active ZenML stack runs a pipeline's steps, and what a configuration asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.zenml import checked
from llm_engineering.errors import ConfigError, SetupError

if TYPE_CHECKING:
    from zenml.stack import Stack


def active_stack() -> Stack:
    """The active stack.

    Raises:
        SetupError: Its packages are not installed.
    """
    from zenml.client import Client

    try:
        return Client().active_stack
    except ImportError as error:
        name = Client().active_stack_model.name
        raise SetupError(
            f"ZenML's active stack {name} needs packages that are not installed ({error}); install "
            "them (zenml integration install), or set another stack: zenml stack set default"
        ) from None


def runs_here() -> bool:
    """Whether steps run in this very process: then its memory, disk and hardware are theirs."""
    from zenml.orchestrators import ContainerizedOrchestrator

    orchestrator = active_stack().orchestrator
    in_containers = isinstance(orchestrator, ContainerizedOrchestrator)
    return orchestrator.config.is_local and not in_containers


def trains_here(config: FinetuningConfig) -> bool:
    """Whether the train step runs in this very process, and no step operator takes it elsewhere."""
    return config.zenml.step_operator is None and runs_here()


def configure_run(config: FinetuningConfig) -> None:
    """Merge the ``zenml`` section into the pipeline that is being compiled, by whatever way.

    It stops at its first failure where the orchestrator can; most know only to go on with what does
    not need the failed step, which of these steps is nothing.
    """
    from zenml.enums import ExecutionMode
    from zenml.pipelines.compilation_context import PipelineCompilationContext

    compiling = PipelineCompilationContext.get()
    if compiling is not None:
        known = active_stack().orchestrator.supported_execution_modes
        fails_fast = ExecutionMode.FAIL_FAST in known
        mode = ExecutionMode.FAIL_FAST if fails_fast else ExecutionMode.CONTINUE_ON_FAILURE
        compiling.pipeline.configure(execution_mode=mode, **run_options(config))


def run_options(config: FinetuningConfig) -> dict[str, Any]:
    """What the ``zenml`` section says of every step, by the names of ZenML's run configuration."""
    from zenml.config import DockerSettings
    from zenml.config.retry_config import StepRetryConfig

    zenml = config.zenml
    options: dict[str, Any] = {}
    settings: dict[str, Any] = _of_this_stack(zenml.settings, "settings")
    if zenml.docker:
        settings["docker"] = DockerSettings(**zenml.docker)
    if settings:
        options["settings"] = settings
    if zenml.retries is not None:
        options["retry"] = StepRetryConfig(**zenml.retries.model_dump())
    if zenml.secrets:
        options["secrets"] = list(zenml.secrets)
    return options


def train_options(config: FinetuningConfig) -> dict[str, Any]:
    """What the ``zenml`` section says of the train step, beside ``run_options``."""
    from zenml.config import ResourceSettings

    zenml = config.zenml
    options: dict[str, Any] = {}
    settings: dict[str, Any] = _of_this_stack(zenml.train_settings, "train_settings")
    asked = {name: value for name, value in zenml.resources.model_dump().items() if value}
    if asked:
        settings["resources"] = ResourceSettings(**asked)
    if settings:
        options["settings"] = settings
    if zenml.step_operator is not None:
        options["step_operator"] = zenml.step_operator
    if zenml.experiment_tracker is not None:
        options["experiment_tracker"] = zenml.experiment_tracker
    return options


def require_stack(config: FinetuningConfig) -> list[str]:
    """Check the ``zenml`` section against the active stack, before anything runs.

    Returns:
        What of it this stack does not use, a sentence each.

    Raises:
        ConfigError: The stack lacks a component that is named, a secret is not there, or a
            component's own class refuses its settings.
        SetupError: The stack's packages are not installed.
    """
    zenml, stack = config.zenml, active_stack()
    for key, wanted, found in (
        ("step_operator", zenml.step_operator, stack.step_operator),
        ("experiment_tracker", zenml.experiment_tracker, stack.experiment_tracker),
    ):
        if wanted is not None and (found is None or found.name != wanted):
            has = f"has {found.name}" if found is not None else "has none"
            raise ConfigError(
                f"zenml.{key}: {wanted}, and the active stack {stack.name} {has}; add it "
                f"(zenml stack update), or name what is there"
            )
    _require_secrets(zenml.secrets)
    notes = []
    for where in ("settings", "train_settings"):
        asked = getattr(zenml, where)
        used = _of_this_stack(asked, where)
        notes += [
            f"zenml.{where}.{key} is not used: it is of no component of the active stack {stack.name}"
            for key in asked
            if key not in used
        ]
    if runs_here() and zenml.resources.gpu_count:
        notes.append(
            f"zenml.resources.gpu_count ({zenml.resources.gpu_count}) is not used: steps run in this "
            "process, on this host's GPUs; --gpus says on how many"
        )
    return notes


def _of_this_stack(asked: dict[str, dict[str, Any]], where: str) -> dict[str, Any]:
    """The settings that are of the active stack's components, as these components' own classes.

    Raises:
        ConfigError: Such a class refuses them.
    """
    if not asked:
        return {}
    from zenml.utils.settings_utils import get_stack_component_setting_key

    taken = {}
    for component in active_stack().all_components:
        key, kind = get_stack_component_setting_key(component), component.settings_class
        for said in (key, key.split(".")[0]):
            if said not in asked:
                continue
            if kind is None:
                raise ConfigError(f"zenml.{where}.{said}: {component.flavor} takes no settings")
            try:
                taken[said] = checked(kind, asked[said])
            except ValueError as error:
                raise ConfigError(f"zenml.{where}.{said}: {error}") from None
    return taken


def _require_secrets(names: list[str]) -> None:
    from zenml.client import Client

    for name in names:
        try:
            Client().get_secret(name, hydrate=False)
        except KeyError:
            raise ConfigError(
                f"zenml.secrets: ZenML has no secret {name}; make it (zenml secret create {name} "
                "--KEY=VALUE), or take it off the list"
            ) from None
