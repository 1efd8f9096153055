"""The versions of a registered model in ZenML: finding them, and the figures that they carry."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.errors import RegistryError
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.outputs import model_and_data

if TYPE_CHECKING:
    from zenml import Model
    from zenml.enums import ModelStages
    from zenml.models import ModelVersionResponse

TAG = "finetuning"
PRODUCTION = "production"

ROLLED_BACK = "rolled_back"
REPLACED = "replaced"
ADAPTER_DIGEST = "adapter_digest"
BASE_WEIGHTS_DIGEST = "base_weights_digest"
JOB_NAME = "job_name"
"""The SageMaker job that a version came from; empty where it was trained on a host of one's own."""


def model_name(config: FinetuningConfig) -> str:
    """``registry.model``, else base model and data: ``SmolLM2-135M-Instruct-stdlib_qa``."""
    return config.registry.model or model_and_data(config)


def zenml_model(config: FinetuningConfig) -> Model:
    """The ZenML model version that a run adds; ``name_after_run`` gives it the run's name."""
    from zenml import Model

    return Model(name=model_name(config), tags=[TAG])


def name_after_run() -> str:
    """Give the running step's new version the name of its run, which only the run itself knows.

    Returns:
        That name, which is that of the run's folder too.
    """
    from zenml import get_step_context
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError
    from zenml.models import ModelVersionUpdate

    context, client = get_step_context(), Client()
    name, version = context.pipeline_run.name, context.model_version
    if version is not None and version.name != name:
        named = ModelVersionUpdate(name=name)
        try:
            client.zen_store.update_model_version(version.id, named)
        except EntityExistsError:  # an attempt at this step that failed has left one
            left = client.get_model_version(version.model.id, name)
            other = ModelVersionUpdate(name=f"{name}-failed-{left.number}")
            client.zen_store.update_model_version(left.id, other)
            client.zen_store.update_model_version(version.id, named)
    return name


def all_versions(model: str, stage: ModelStages | None = None) -> list[ModelVersionResponse]:
    """A model's versions (of one stage), newest first; empty if there is no such model.

    Versions of runs that were killed before their adapter was saved are left out.
    """
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    try:
        found = depaginate(
            Client().list_model_versions,
            model=model,
            stage=stage,
            sort_by="desc:number",
            hydrate=True,
        )
    except KeyError:
        return []
    return [version for version in found if ADAPTER_DIGEST in version.run_metadata]


def production_version(model: str) -> ModelVersionResponse | None:
    """The version in stage production, if there is one."""
    from zenml.enums import ModelStages

    return next(iter(all_versions(model, ModelStages.PRODUCTION)), None)


def find_version(model: str, name_or_number: str) -> ModelVersionResponse:
    """A version by its name or number.

    Raises:
        RegistryError: There is none; lists the newest that there are.
    """
    versions = all_versions(model)
    for version in versions:
        if name_or_number in (version.name, str(version.number)):
            return version
    if not versions:
        raise RegistryError(f"model {model} has no versions; --models lists what there is")
    known = ", ".join(f"{version.number} ({version.name})" for version in versions[:5])
    raise RegistryError(f"model {model} has no version {name_or_number}; newest: {known}")


def weights_digest(model: ModelRecipe) -> str:
    """SHA-256 over the base model's weight files: one figure for all of them."""
    return hashlib.sha256(json.dumps(model.weight_digests, sort_keys=True).encode()).hexdigest()


def artifact(version: ModelVersionResponse, name: str) -> Any:
    """Load an artifact that a version carries.

    Raises:
        RegistryError: It is not there any more, or cannot be read.
    """
    from zenml.exceptions import DoesNotExistException

    found = version.get_artifact(name)
    try:
        if found is not None:
            return found.load()
    except ValidationError:
        raise RegistryError(
            f"the {name.replace('_', ' ')} of {version.name} was stored by another version of this "
            "project, which this one cannot read"
        ) from None
    except (OSError, KeyError, DoesNotExistException):
        pass
    raise RegistryError(f"the {name.replace('_', ' ')} of {version.name} is not in the store")
