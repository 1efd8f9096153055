"""How much an optimizer step learns from, and how many steps there are: what is said, and warned of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from llm_engineering.configuration.train import TrainSettings

if TYPE_CHECKING:
    from llm_engineering.data.tokens.audit import LabelAudit

_FEW_STEPS = 100
_MANY_DOCUMENTS = 64


class StepSize(BaseModel):
    """What goes into an optimizer step."""

    documents: float = Field(
        description="Conversations, pairs or judged answers; packed: on average."
    )
    tokens: float = Field(description="Tokens of them, on average.")
    steps: int = Field(description="Optimizer steps of the training; of packed rows, about.")
    packed: bool

    def __str__(self) -> str:
        about = "about " * self.packed
        return (
            f"{about}{self.documents:.0f} documents and {self.tokens:,.0f} tokens a step, "
            f"{about}{self.steps} steps"
        )


def step_size(train: TrainSettings, rows: LabelAudit, full_row: int) -> StepSize:
    """The size of a training's steps.

    Args:
        train: The optimisation.
        rows: What the audit counted over the training rows.
        full_row: Tokens of a packed row, which is taken to be full.
    """
    trained = max(1, math.ceil(rows.tokens / full_row)) if train.packing else rows.rows
    in_step = min(train.rows_in_step, trained)
    steps = math.ceil(train.epochs * math.ceil(trained / train.rows_in_step))
    return StepSize(
        documents=in_step * rows.rows / trained,
        tokens=in_step * rows.tokens / trained,
        steps=train.max_steps or steps,
        packed=train.packing,
    )


def step_warnings(documents: float, steps: int | None) -> list[str]:
    """What speaks against steps of such a size, or so few of them.

    LoRA loses to full fine-tuning where steps are large ("LoRA Without Regret", thinkingmachines.ai,
    2025; arXiv 2602.09492), and an adapter whose B starts at zero spends its first steps on leaving it.

    Args:
        documents: In a step.
        steps: Of the training; None: not known yet.
    """
    warnings = []
    if steps is not None and steps < _FEW_STEPS:
        warnings.append(
            f"{steps} optimizer steps are few: an adapter starts without effect and learns little in "
            f"under {_FEW_STEPS}; raise train.epochs, or lower train.effective_batch"
        )
    if documents > _MANY_DOCUMENTS:
        warnings.append(
            f"{documents:.0f} documents a step are many: LoRA learns less from large steps than from "
            f"as many documents in small ones; lower train.effective_batch, to {_MANY_DOCUMENTS} "
            "documents or fewer"
        )
    return warnings
