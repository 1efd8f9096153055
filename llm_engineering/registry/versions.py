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
PRUNED = "pruned"
"""Set where retention removed the files of a version."""
ADAPTER_DIGEST = "adapter_digest"
BASE_WEIGHTS_DIGEST = "base_weights_digest"
_PAGE = 20
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


def newest_versions(model: str, count: int = _PAGE) -> tuple[list[ModelVersionResponse], int]:
    """A model's newest versions with their figures, newest first, and how many versions it has.

    Versions of runs that were killed before their adapter was saved are counted, and left out.
    Only so many are read with their figures: that takes some ten milliseconds each.
    """
    from zenml.client import Client

    try:
        page = Client().list_model_versions(
            model=model, sort_by="desc:number", size=count, hydrate=True
        )
    except KeyError:
        return [], 0
    return _saved(page.items), page.total


def all_versions(model: str, stage: ModelStages | None = None) -> list[ModelVersionResponse]:
    """A model's versions (of one stage) with their figures, newest first; empty if there is no such
    model.

    Of all stages: for a model of few versions. Versions of runs that were killed before their
    adapter was saved are left out.
    """
    return _find(model, stage=stage)


def production_version(model: str) -> ModelVersionResponse | None:
    """The version in stage production, if there is one."""
    from zenml.enums import ModelStages

    return next(iter(_find(model, stage=ModelStages.PRODUCTION)), None)


def rolled_back_versions(model: str) -> list[ModelVersionResponse]:
    """The versions that were in production and that a rollback archived."""
    found = _find(model, run_metadata=f"{ROLLED_BACK}:true")
    return [version for version in found if version.run_metadata.get(ROLLED_BACK)]


def find_version(model: str, name_or_number: str) -> ModelVersionResponse:
    """A version by its name or number.

    Raises:
        RegistryError: There is none; lists the newest that there are.
    """
    found = _find(model, name=f"equals:{name_or_number}")
    if not found and name_or_number.isdecimal():
        found = _find(model, number=int(name_or_number))
    if found:
        return found[0]
    newest, _ = newest_versions(model, 5)
    if not newest:
        raise RegistryError(f"model {model} has no versions; --models lists what there is")
    known = ", ".join(f"{version.number} ({version.name})" for version in newest)
    raise RegistryError(f"model {model} has no version {name_or_number}; newest: {known}")


def _find(model: str, **filters: Any) -> list[ModelVersionResponse]:
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    try:
        found = depaginate(
            Client().list_model_versions,
            model=model,
            sort_by="desc:number",
            hydrate=True,
            **filters,
        )
    except KeyError:
        return []
    return _saved(found)


def _saved(versions: list[ModelVersionResponse]) -> list[ModelVersionResponse]:
    return [version for version in versions if ADAPTER_DIGEST in version.run_metadata]


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


def require_artifact(version: ModelVersionResponse, name: str) -> None:
    """Check that an artifact's files are in the store, without loading them.

    A version that carries no such artifact at all, which tests and other tools make, is let pass.

    Raises:
        RegistryError: They are not there any more.
    """
    from zenml.artifacts.utils import load_artifact_store

    found = version.get_artifact(name)
    if found is None:
        return
    store = load_artifact_store(found.artifact_store_id) if found.artifact_store_id else None
    if store is not None and not (store.exists(found.uri) and store.listdir(found.uri)):
        raise RegistryError(
            f"the {name} of {version.name} is not in the store any more: retention removed it, or the "
            "store was emptied"
        )
