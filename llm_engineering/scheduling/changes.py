"""Whether there is anything new to learn since the last successful run of a schedule."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, Field

from llm_engineering.configuration.finetuning import FinetuningConfig

# What decides when, where and under which name a run happens, not what comes of it.
_NOT_LEARNED: dict[str, bool | set[str]] = {"schedule": True, "sagemaker": True, "run": {"name"}}


class Inputs(BaseModel):
    """Digests of what a run is made from; equal ones make the same adapter."""

    data: str = Field(description="Contents of the data files, or commits of the Hub data sets.")
    model: str = Field(description="Contents of the model's files, or commit of the Hub model.")
    config: str = Field(description="The settings that decide the result.")
    start: str = Field("", description="Weights of the adapter that training starts from, if any.")


def take_inputs(config: FinetuningConfig) -> Inputs:
    """Look at data, base model and configuration as they are now.

    Raises:
        DataError: A data file is missing.
        HubError: The Hub cannot be asked now.
        LoraError: There is no such adapter to start from.
        ModelError: A local model is missing or incomplete.
    """
    from llm_engineering.lineage.fingerprints import take_fingerprints

    fingerprints = take_fingerprints(config, require_hub=True)
    return Inputs(
        data=fingerprints.data,
        model=fingerprints.model,
        config=config_digest(config),
        start=fingerprints.start,
    )


def config_digest(config: FinetuningConfig) -> str:
    """A digest of the settings that decide the result."""
    settings = config.model_dump(mode="json", exclude=_NOT_LEARNED)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def what_changed(now: Inputs, last: Inputs | None) -> str | None:
    """Why to run: "first run", "data changed" ...; None if everything is as it was."""
    if last is None:
        return "first run"
    names = {
        "data": "data",
        "model": "base model",
        "config": "configuration",
        "start": "starting adapter",
    }
    changed = [names[key] for key, value in now if value != getattr(last, key)]
    return f"{' and '.join(changed)} changed" if changed else None
