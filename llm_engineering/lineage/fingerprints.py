"""What ZenML's cache must notice beside the parameters: the data, the base model, the code."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, Field

from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.data.read.artifacts import find_artifact
from llm_engineering.data.read.files import find_files
from llm_engineering.data.read.sources import is_artifact, is_file, sources_of
from llm_engineering.errors import HubError
from llm_engineering.lineage.imported_sources import sources_behind
from llm_engineering.model.base_model import (
    TOKENIZER_FILES,
    file_digest,
    is_hub_model,
    model_folder,
    weight_files,
)
from llm_engineering.model.chat_template import read_chat_template
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.training_stack import versions

_COMPUTE = tuple(
    f"llm_engineering.{name}"
    for name in (
        "data.prepare",
        "model.finetuning.load",
        "model.finetuning.inject",
        "training.evaluate",
        "training.production",
        "training.rank",  # started by its name
        "training.run",
    )
)
"""What the steps call; with all that these import, it decides what a step gives."""


class Fingerprints(BaseModel):
    """Digests that change whenever the thing behind an unchanged setting does."""

    data: str = Field(
        description="Contents of the data files, or what else tells them: a remote file's tag and "
        "time, a ZenML artifact's version, a Hub data set's commit."
    )
    model: str = Field(description="Contents of the model's files, or commit of the Hub model.")
    code: str = Field(
        description="Source of the rooms that compute, and versions of what they run on."
    )
    start: str = Field("", description="Weights of the adapter that training starts from, if any.")


def take_fingerprints(config: FinetuningConfig, *, require_hub: bool = False) -> Fingerprints:
    """Look at the configured inputs, without importing the training stack.

    Args:
        config: Names the inputs.
        require_hub: Raise where the Hub is out of reach; otherwise the name of the branch stands
            in for its commit then.

    Raises:
        DataError: A data file is missing.
        HubError: The Hub is out of reach and required.
        LoraError: There is no such adapter to start from.
        ModelError: A local model is missing or incomplete.
    """
    return Fingerprints(
        data=_data(config.data, require_hub),
        model=_model(config.model, require_hub),
        code=_code(),
        start=_start(config.train.start_from),
    )


def _data(data: DataSettings, require_hub: bool) -> str:
    parts = []
    for _, source, asked in sources_of(data):
        if is_artifact(source):
            parts.append(str(find_artifact(source).id))
        elif not is_file(source):
            parts.append(_hub_commit(source, asked.revision, "dataset", require_hub))
        else:
            for file in find_files(source, split=asked.split, default_split=asked.default_split):
                local = file.local
                parts.append(file.version() if local is None else file_digest(local))
    return _join(parts)


def _model(model: ModelSettings, require_hub: bool) -> str:
    if is_hub_model(model):
        commit = _hub_commit(model.id, model.revision, "model", require_hub)
        return _join([commit, read_chat_template(model.chat_template) or ""])
    folder = model_folder(model, weights=True)
    files = weight_files(folder)
    for pattern in TOKENIZER_FILES:
        files += sorted(folder.glob(pattern))
    digests = [f"{path.name}={file_digest(path)}" for path in files]
    return _join([*digests, read_chat_template(model.chat_template) or ""])


def _start(start_from: str | None) -> str:
    return "" if start_from is None else starting_adapter(start_from).digest


def _hub_commit(repo: str, revision: str | None, kind: str, required: bool) -> str:
    """The commit that a branch or tag stands for; the name itself where the Hub is out of reach."""
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=10)
    except (OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError):
        return revision or "main"  # offline on purpose; or reading it will say what is wrong
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if required:
            raise HubError(
                f"{kind} {repo}: the Hub cannot be asked for its commit: {error}"
            ) from None
        return revision or "main"
    return info.sha or revision or "main"


def source_digest() -> str:
    """A digest of the source that computes, without what this host has installed to run it.

    Only what decides a computation: a change to the report's looks trains nothing again.
    """
    return _join(
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources_behind(_COMPUTE)]
    )


def _code() -> str:
    return _join([source_digest(), *(f"{name}={version}" for name, version in versions().items())])


def _join(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
