"""What a run exports, as one thing that can be stored: an adapter's bundle, a merged model, a GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_engineering.export.exports import ADAPTER, GGUF, MERGED

ARTIFACTS = {ADAPTER: "adapter_bundle", MERGED: "merged_model", GGUF: "gguf"}
"""Names of the artifacts by the folder in a run's output that each is a copy of."""


@dataclass(frozen=True)
class ExportFolder:
    """A folder of files that is complete in itself: weights, tokenizer, template, card."""

    folder: Path
    is_copy: bool = False
    """Whether the folder was made for the reader, who removes it."""
