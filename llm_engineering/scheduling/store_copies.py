"""ZenML's own copies of the data and adapters of runs whose folders retention removed.

What is small (manifest, report, figures, promotion) stays, and so does the version itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llm_engineering.registry.versions import PRUNED

if TYPE_CHECKING:
    from zenml.models import ArtifactVersionResponse, PipelineRunResponse

logger = logging.getLogger(__name__)


def prune_copies(runs: Iterable[str]) -> int:
    """Remove the stored data and models of runs from the artifact store; how many were removed.

    Those that a version of another run carries too, as after a step from the cache, stay.

    Args:
        runs: Names of the runs whose folders are gone.
    """
    from zenml import log_metadata
    from zenml.client import Client

    client, removed = Client(), 0
    for name in runs:
        for version in client.list_model_versions(name=f"equals:{name}").items:
            log_metadata(metadata={PRUNED: True}, model_version_id=version.id)
        for run in client.list_pipeline_runs(name=f"equals:{name}", hydrate=True).items:
            for artifact in _heavy_outputs(run):
                if not _is_carried(artifact):
                    _forget(artifact)
                    removed += 1
    return removed


def _heavy_outputs(run: PipelineRunResponse) -> list[ArtifactVersionResponse]:
    from zenml.enums import ArtifactType

    made = [one for step in run.steps.values() for some in step.outputs.values() for one in some]
    unique = {one.id: one for one in made}
    return [one for one in unique.values() if one.type in (ArtifactType.DATA, ArtifactType.MODEL)]


def _is_carried(artifact: ArtifactVersionResponse) -> bool:
    """Whether a version carries it whose own run was not pruned."""
    from zenml.client import Client

    client = Client()
    links = client.list_model_version_artifact_links(artifact_version_id=artifact.id, size=100)
    versions = {link.model_version for link in links.items}
    carriers = [client.zen_store.get_model_version(version, hydrate=True) for version in versions]
    return any(not version.run_metadata.get(PRUNED) for version in carriers)


def _forget(artifact: ArtifactVersionResponse) -> None:
    """Remove the files, and keep the cache from answering with them."""
    from zenml.client import Client
    from zenml.utils.time_utils import utc_now

    client = Client()
    whole = client.get_artifact_version(artifact.id)
    if whole.producer_step_run_id is not None:
        key = client.get_run_step(whole.producer_step_run_id).cache_key
        for step in client.list_run_steps(cache_key=key, size=100).items if key else ():
            client.update_step_run(step.id, cache_expires_at=utc_now())
    try:
        client.delete_artifact_version(
            artifact.id, delete_metadata=False, delete_from_artifact_store=True
        )
    except FileNotFoundError:
        logger.info("%s is gone already", artifact.uri)
