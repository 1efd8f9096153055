"""The manifest: everything that is needed to say what a run did, and to do it again."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.summary import DatasetSummary, SourceSummary
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import AdapterTargets, LoraRecipe
from llm_engineering.training_stack import versions


class Manifest(BaseModel):
    """The identity of a run's inputs, its environment, and its cost."""

    run: str = Field(description="Name of the run.")
    created: str = Field(description="When the run was saved, UTC, ISO 8601.")
    config: dict[str, Any] = Field(description="The resolved configuration.")
    seed: int
    data_seed: int = Field(0, description="What decided which rows are held out or drawn.")
    data_digest: str = Field(description="SHA-256 over all token ids and labels.")
    data_sources: list[SourceSummary] = Field(
        [], description="What was read of each source, used, and not read by anything."
    )
    chat_template_digest: str | None = Field(
        None, description="SHA-256 of the chat template's text."
    )
    template_inputs: TemplateInputs = Field(
        TemplateInputs(),
        description="What the chat template was given beside messages; a date that it prints too.",
    )
    base_model: str
    base_model_revision: str | None
    base_model_digests: dict[str, str] = Field(description="SHA-256 of each weight file.")
    adapter_digest: str = Field(description="SHA-256 of adapter_model.safetensors.")
    targets: AdapterTargets = Field(
        AdapterTargets(), description="What received an adapter, and what was left out and why."
    )
    git_commit: str | None = Field(description="Commit of this project; '+changes' if edited.")
    packages: dict[str, str] = Field(description="Versions of the packages that compute.")
    python: str
    platform: str
    hardware: str = Field(description="GPU or CPU.")
    train_tokens: int
    train_seconds: float
    wall_seconds: float = Field(description="Seconds from the run's start to its save.")
    resumed_from_step: int | None
    job: dict[str, Any] | None = Field(None, description="The remote job that trained, if any.")
    parity: list[ParityProof] = Field([], description="One proof an export.")


def make_manifest(
    name: str,
    config: FinetuningConfig,
    summary: DatasetSummary,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    *,
    parity: list[ParityProof],
    wall_seconds: float,
) -> Manifest:
    """Collect the manifest of a finished run; the environment is that which trained."""
    job, there = record.job, record.there
    return Manifest(
        run=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.model_dump(mode="json"),
        seed=config.run.seed,
        data_seed=config.data.seed,
        data_digest=summary.digest,
        data_sources=summary.sources,
        chat_template_digest=hashlib.sha256(lora.model.chat_template.encode()).hexdigest(),
        template_inputs=summary.template_inputs,
        targets=lora.targets,
        base_model=lora.model.id,
        base_model_revision=lora.model.revision,
        base_model_digests=lora.model.weight_digests,
        adapter_digest=adapter.digest,
        git_commit=git_commit(),
        packages=versions() if there is None else there.packages,
        python=sys.version.split()[0] if there is None else there.python,
        platform=platform.platform() if there is None else there.platform,
        hardware=record.device,
        train_tokens=record.train_tokens,
        train_seconds=record.train_seconds,
        wall_seconds=wall_seconds,
        resumed_from_step=record.resumed_from_step,
        job=None
        if job is None
        else job.model_dump(exclude={"packages", "python", "platform", "parity"}),
        parity=parity,
    )


def git_commit() -> str | None:
    """The commit of this project's checkout; None where it is not one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}+changes" if git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return None
