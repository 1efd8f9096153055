"""The layout of model.tar.gz: what AWS's containers for large models (LMI, DJL Serving) take as it is.

Such a container is configured by ``serving.properties`` at the root, and finds each adapter in
``adapters/NAME/`` beside it, or a whole model's files at the root itself
(docs.djl.ai, "Adapters", and LMI's "Container and Model Configurations"). The run's own files lie
between: a container passes over them. ``restore`` undoes it, so that all else knows one layout.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.errors import LaunchError

PROPERTIES = "serving.properties"
ADAPTERS = "adapters"
ADAPTER, MERGED = "adapter", "merged"
LAYOUT = "records/layout.json"
MAX_RANKS = (8, 16, 32, 64, 128, 256, 512)
"""vLLM's choices of ``max_lora_rank``."""


# Of an archive that is not trusted: no name leads out of its folder.
_PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
_AdapterPlace = Annotated[str, Field(pattern=r"^adapters/[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class ServedFrom(BaseModel):
    """What the job is told of serving."""

    name: _PlainName = Field(description="Folder of the adapter, and its name in requests.")
    base: str = Field(description="Base model for a container: Hub id, or S3 folder.")
    revision: str | None = Field(None, description="Commit of a Hub model.")


class Layout(BaseModel):
    """Where the parts of a model folder were put."""

    adapter: _AdapterPlace | None = Field(None, description="New place of adapter/.")
    merged: list[_PlainName] = Field(
        [], description="Files of merged/ that were moved to the root."
    )
    text: str = Field(description="What a container makes of it, or why none can.")


def unservable(config: FinetuningConfig) -> str | None:
    """Why no container can serve what a configuration trains, in a sentence; None if one can."""
    if config.export.merged_16bit:
        return None
    problem = _adapter_problem(config.lora)
    return f"{problem}; export.merged_16bit: true makes a model that it serves" if problem else None


def layout_text(config: FinetuningConfig, served: ServedFrom) -> str:
    """What a container will make of the archive, or why none can."""
    if config.export.merged_16bit:
        return "LMI: the merged model, at the root"
    problem = unservable(config)
    if problem is not None:
        return f"none: {problem}"
    text = f"LMI: the adapter {served.name}, on {served.base}"
    if config.model.chat_template is not None:
        text += (
            "; a container applies the base model's own chat template, not model.chat_template: "
            "send rendered prompts, or export.merged_16bit"
        )
    return text


def arrange(folder: Path, served: ServedFrom, config: FinetuningConfig) -> Layout:
    """Give a model folder the layout, and note how in ``records/layout.json``.

    Args:
        folder: Holds adapter/, maybe merged/, and records/.
        served: What the launcher knows of serving.
        config: What was trained.
    """
    lines = ["engine=Python"]
    layout = Layout(text=layout_text(config, served))
    if config.export.merged_16bit:
        layout.merged = sorted(path.name for path in (folder / MERGED).iterdir())
        for name in layout.merged:
            shutil.move(folder / MERGED / name, folder / name)
        (folder / MERGED).rmdir()
    elif unservable(config) is not None:
        lines = []
    else:
        layout.adapter = f"{ADAPTERS}/{served.name}"
        (folder / ADAPTERS).mkdir()
        shutil.move(folder / ADAPTER, folder / layout.adapter)
        rank = _highest_rank(config.lora)
        lines += [
            f"option.model_id={served.base}",
            *([f"option.revision={served.revision}"] if served.revision else []),
            "option.enable_lora=true",
            f"option.max_lora_rank={next(each for each in MAX_RANKS if each >= rank)}",
        ]
    if lines:
        if config.model.trust_remote_code:
            lines.append("option.trust_remote_code=true")
        (folder / PROPERTIES).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / LAYOUT).write_text(layout.model_dump_json(indent=1), encoding="utf-8")
    return layout


def restore(folder: Path) -> str:
    """Put the parts of an extracted and checked archive back where a local run has them.

    Returns:
        What a container makes of the archive; "" for one of before there was a layout.

    Raises:
        LaunchError: The note of the layout is none that a job writes.
    """
    path = folder / LAYOUT
    if not path.is_file():
        return ""
    try:
        layout = Layout.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LaunchError(f"{path}: is no layout that a job writes ({error})") from None
    if layout.adapter is not None:
        shutil.move(folder / layout.adapter, folder / ADAPTER)
        shutil.rmtree(folder / ADAPTERS)
    if layout.merged:
        (folder / MERGED).mkdir()
        for name in layout.merged:
            shutil.move(folder / name, folder / MERGED / name)
    (folder / PROPERTIES).unlink(missing_ok=True)
    return layout.text


def _adapter_problem(lora: LoraSettings) -> str | None:
    """Why vLLM, which LMI's containers run, takes no such adapter."""
    if lora.use_dora:
        return "vLLM takes no DoRA adapter (lora.use_dora)"
    if lora.bias != "none":
        return f"vLLM takes no adapter with trained biases (lora.bias: {lora.bias})"
    if lora.trainable_tokens:
        return "vLLM takes no adapter with trained tokens (lora.trainable_tokens)"
    rank = _highest_rank(lora)
    if rank > MAX_RANKS[-1]:
        return f"vLLM takes no adapter of rank {rank}, at most {MAX_RANKS[-1]}"
    return None


def _highest_rank(lora: LoraSettings) -> int:
    """Of the adapter as it is saved, whose ranks an initialisation may double."""
    return lora.saved_rank // lora.r * max([lora.r, *lora.rank_pattern.values()])
