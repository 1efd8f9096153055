"""Which training a job is: digests of all that decides what it makes, and the name made of them.

What does not decide it is left out: the run's name, the folders of model, data and outputs, how
often something is logged or saved, where and on what the job runs, and the launching host's own
packages, which train nothing. So a colleague's command finds the same job.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.base_model import is_hub_model
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.starting_adapter import starting_adapter

TAG = "identity"
CONFIGURATION_TAG = "configuration"
SHOWN = 12
"""Hexadecimal digits in a job's name and tags: equal by accident once in 2^48."""
# Settings of training that change what is shown or kept on the way, not what is learned.
_NOT_LEARNED = {"log_every", "trackers", "checkpoint_every", "keep_checkpoints", "start_from"}


@dataclass(frozen=True)
class JobIdentity:
    """The digests of one training, by what they are of."""

    parts: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 over all parts."""
        return _digest(self.parts)

    @property
    def tag(self) -> str:
        """The parts as a job's tag, of at most 256 characters as AWS demands."""
        return " ".join(f"{name}:{value[:SHOWN]}" for name, value in sorted(self.parts.items()))

    def is_of(self, job: str) -> bool:
        """Whether a job of that name trains the same."""
        return self.digest[:SHOWN] in job.split("-")

    def differences(self, tag: str) -> list[str]:
        """Names of the parts in which a job with that tag is another training."""
        other = dict(part.partition(":")[::2] for part in tag.split())
        shown = {name: value[:SHOWN] for name, value in self.parts.items()}
        return [n for n in sorted({*shown, *other}) if other.get(n) != shown.get(n)]


def job_identity(
    config: FinetuningConfig,
    lora: LoraRecipe,
    dataset: PreparedDataset,
    *,
    code: str,
    image: str,
    lock: str,
) -> JobIdentity:
    """What decides the result of a job.

    Args:
        config: The configuration.
        lora: The model with its adapter, as described by the launch; its weights are known by
            their digests, and a local folder's path does not count.
        dataset: The prepared rows.
        code: Digest of the source that computes.
        image: URI of the job's image, by its digest where that is known.
        lock: The requirements that the job installs.
    """
    model = lora.model.model_dump(mode="json")
    if not is_hub_model(config.model):
        del model["id"]
    adapter = lora.model_dump(mode="json", exclude={"model"})
    start = config.train.start_from
    return JobIdentity(
        {
            "model": _digest(model),
            "adapter": _digest(adapter),
            "data": dataset.summary.digest,
            "settings": _settings_digest(config),
            "start": starting_adapter(start).digest if start else _digest(None),
            "code": code,
            "image": _digest(image),
            "lock": _digest(lock),
        }
    )


def configuration_digest(
    config: FinetuningConfig,
    *,
    data: str,
    model: str,
    start: str,
    code: str,
    image: str,
    lock: str,
) -> str:
    """Which configuration a job answers to, known without preparing data or opening a model.

    Coarser than ``job_identity`` where the Hub is out of reach: only for showing.

    Args:
        config: The configuration.
        data: Fingerprint of the data's files.
        model: Fingerprint of the model's files.
        start: Fingerprint of the adapter to start from.
        code: As in ``job_identity``; so are ``image`` and ``lock``.
        image: As said.
        lock: As said.
    """
    settings = {
        "data": _without_paths(config.data),
        "model": config.model.model_dump(mode="json", exclude={"id", "chat_template"}),
        "lora": config.lora.model_dump(mode="json"),
        "rest": _settings_digest(config),
    }
    return _digest([settings, data, model, start, code, image, lock])[:16]


def _settings_digest(config: FinetuningConfig) -> str:
    """What is to be learned, measured and exported: a job brings all of it back."""
    return _digest(
        {
            "train": config.train.model_dump(mode="json", exclude=_NOT_LEARNED),
            "evaluate": config.evaluate.needing_the_model,
            "exports": _exports(config),
            "seed": config.run.seed,
        }
    )


def _exports(config: FinetuningConfig) -> dict[str, Any]:
    return {"merged_16bit": config.export.merged_16bit, "gguf": config.export.gguf}


def _without_paths(data: DataSettings) -> dict[str, Any]:
    settings = data.model_dump(mode="json")
    for source in [*settings["sources"], settings["held_out"]]:
        if source.get("source"):
            source["source"] = Path(source["source"]).suffix
    return settings


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
