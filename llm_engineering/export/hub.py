"""Pushing a run's adapter, or its merged model, to the Hugging Face Hub."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import HubError
from llm_engineering.export.exports import ADAPTER, MERGED

TOKEN = "HF_TOKEN"  # noqa: S105  (its name)

logger = logging.getLogger(__name__)


def push(settings: ExportSettings, folder: Path) -> dict[str, str]:
    """Push what the configuration names, each with its card; a new repository is made for it.

    Args:
        settings: Names the repositories.
        folder: A finished run's folder.

    Returns:
        The link of each commit, by what was pushed.

    Raises:
        HubError: The Hub refuses, or is out of reach; the run's folder stays as it is.
    """
    repositories = {ADAPTER: settings.hub_repo, MERGED: settings.hub_merged_repo}
    wanted = {part: repository for part, repository in repositories.items() if repository}
    if not wanted:
        return {}
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ.get(TOKEN))
    links = {}
    for part, repository in wanted.items():
        logger.info("pushing %s to %s", folder / part, repository)
        try:
            api.create_repo(repository, private=settings.hub_private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder / part,
                commit_message=f"{part} of run {folder.name}",
            )
        except Exception as error:  # the library raises whatever its transport raised
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            raise HubError(
                f"export: {repository} was not pushed ({type(error).__name__}: {reason}); the run "
                f"is saved in {folder}. Give the same command again: what is trained comes from "
                "the cache"
            ) from None
        links[part] = str(commit.commit_url)
    return links
