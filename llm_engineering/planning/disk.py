"""What a run writes to the disk, worked out before it begins, and whether there is room for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import DiskError
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.shape import TrainedShape

# Bytes a trainable parameter: the adapter is kept in 32 bit, and AdamW holds two moments of it
# (arXiv 1412.6980), in 32 bit or in 8 (arXiv 2110.02861).
_ADAPTER = 4
_MOMENTS = {"adamw_torch": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2}
_MERGED = 2
# Q8_0: 32 weights in 8 bit and one scale in 16.
_GGUF = {"f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_k_m": 2.85, "q4_k_m": 2.85}
"""Bytes a parameter; of a k-quant with the bf16 file that it is made of: 0.83 and 0.78 were seen of a narrow
model, most of whose matrices llama.cpp gives more bits."""
_COPIES = 3
"""Of the adapter: in the work folder, in the output and in ZenML's store."""
_REST = 100e6
"""Tokenizer, tokenized data of a small set, report, logs."""


class DiskNeed(BaseModel):
    """Bytes that a run writes; its data are not counted but for a small set's."""

    checkpoints: float = Field(
        description="The newest ones at a time, one more until it is complete."
    )
    adapter: float = Field(description="All copies of it.")
    merged: float
    gguf: float
    rest: float = _REST

    @property
    def total(self) -> float:
        """All of it."""
        return self.checkpoints + self.adapter + self.merged + self.gguf + self.rest

    def __str__(self) -> str:
        parts = {
            "checkpoints": self.checkpoints,
            "adapter": self.adapter,
            "merged model": self.merged,
            "GGUF": self.gguf,
        }
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)
        return f"{self.total / GIB:.1f} GiB ({listed})"


def plan_disk(config: FinetuningConfig, shape: TrainedShape) -> DiskNeed:
    """Estimate what a run writes beside its data."""
    train, trained = config.train, shape.adapter.parameters
    at_a_time = train.keep_checkpoints + 1 if train.checkpoint_every else 0
    one = trained * (_ADAPTER + _MOMENTS[train.optimizer])
    best = trained * _ADAPTER if train.keep_best else 0
    return DiskNeed(
        checkpoints=at_a_time * (one + best) + best,
        adapter=_COPIES * trained * _ADAPTER,
        merged=shape.model.parameters * _MERGED if config.export.merged_16bit else 0,
        gguf=shape.model.parameters * _GGUF[config.export.gguf] if config.export.gguf else 0,
    )


def require_disk(config: FinetuningConfig, shape: TrainedShape) -> None:
    """Refuse a run for which the output folder's disk has no room.

    Raises:
        DiskError: There is too little; says what takes how much, and what to do.
    """
    need = plan_disk(config, shape)
    outputs = Path(config.run.output_dir)
    free = shutil.disk_usage(_existing(outputs.absolute())).free
    if need.total > free:
        raise DiskError(
            f"run.output_dir: the disk of {outputs} has {free / GIB:.1f} GiB free, and the run writes "
            f"about {need}, and its data. Make room (tools/run.py --disk shows what takes how much), "
            f"lower train.keep_checkpoints ({config.train.keep_checkpoints}), or set run.output_dir "
            "to another disk"
        )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
