"""Forgetting: the loss on general text that has nothing to do with the task, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation.held_out import HeldOutMetrics, held_out_metrics

PASSAGES = Path(__file__).with_name("generic_passages.txt")
"""Paragraphs on everyday, scientific and practical subjects, parted by blank lines."""


class GenericLoss(BaseModel):
    """Base model and trained adapter on the same passages of general text."""

    before: HeldOutMetrics = Field(description="The base model's.")
    after: HeldOutMetrics = Field(description="The trained adapter's.")

    @property
    def change(self) -> float:
        """Relative change of the loss: 0.1 is a loss higher by 10 %, some of it forgotten."""
        return self.after.loss / self.before.loss - 1.0

    @property
    def figures(self) -> dict[str, float]:
        """Losses in nats per token, and their change, by the names that metrics.json uses."""
        return {
            "generic_loss_before": self.before.loss,
            "generic_loss_after": self.after.loss,
            "generic_loss_change": self.change,
        }


def read_passages(count: int) -> list[str]:
    """The first ``count`` passages; they are mixed, so that any number covers many subjects."""
    text = PASSAGES.read_text(encoding="utf-8")
    return [" ".join(one.split()) for one in text.split("\n\n") if one.strip()][:count]


def generic_metrics(
    model: Any, tokenizer: Any, count: int, *, batch_size: int, max_length: int
) -> HeldOutMetrics:
    """Evaluate a model on the passages, as text without any chat template.

    Args:
        model: As in ``held_out_metrics``.
        tokenizer: The model's.
        count: Passages.
        batch_size: Passages in one forward pass.
        max_length: Longest passage in tokens; the end is cut.
    """
    import datasets

    ids = [tokenizer(text)["input_ids"][:max_length] for text in read_passages(count)]
    rows = datasets.Dataset.from_dict(
        {"input_ids": ids, "labels": [[IGNORED, *row[1:]] for row in ids]}
    )
    pad_id = tokenizer.pad_token_id
    metrics = held_out_metrics(model, rows, batch_size=batch_size, pad_id=pad_id)
    metrics.forget_rows()
    return metrics
