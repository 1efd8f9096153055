"""The SageMaker jobs that the versions in production came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from llm_engineering.errors import RegistryError
from llm_engineering.registry.versions import ADAPTER_DIGEST, JOB_NAME

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse


def production_jobs() -> set[str]:
    """Names of the jobs that the production versions of all models in this store came from.

    Raises:
        RegistryError: A version was registered before jobs were noted with it, and its folder
            does not tell either.
    """
    from zenml.client import Client
    from zenml.enums import ModelStages
    from zenml.utils.pagination_utils import depaginate

    versions = depaginate(Client().list_model_versions, stage=ModelStages.PRODUCTION, hydrate=True)
    jobs = {_job_of(v) for v in versions if ADAPTER_DIGEST in v.run_metadata}
    return jobs - {""}


def _job_of(version: ModelVersionResponse) -> str:
    if JOB_NAME in version.run_metadata:
        return str(version.run_metadata[JOB_NAME])
    manifest = Path(str(version.run_metadata.get("output_folder", ""))) / "manifest.json"
    try:
        job = json.loads(manifest.read_text(encoding="utf-8"))["job"]
    except (OSError, ValueError, KeyError):
        raise RegistryError(
            f"production version {version.name}: which job it came from is not noted, and "
            f"{manifest} does not tell; nothing is removed. Promote a newer version first"
        ) from None
    return str(job["name"]) if job else ""
