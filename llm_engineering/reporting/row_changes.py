"""The held-out rows that training changed the most, and the least: where the adapter is good, and where not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_engineering.data.rows.message import TEXT_ROLE
from llm_engineering.data.tokens.prepared import answered_conversation

if TYPE_CHECKING:
    from llm_engineering.data.dataset import PreparedDataset
    from llm_engineering.model.evaluation.evaluation import Evaluation

_SHOWN = 600
"""Characters of a text; a row may have 16 MiB."""


@dataclass(frozen=True)
class RowChange:
    """A held-out row, and what training did to its loss."""

    origin: str
    """``file:line``."""
    prompt: str
    answer: str
    before: float
    """Loss per labelled token, in nats; of a preference objective, that of the row."""
    after: float


@dataclass(frozen=True)
class RowChanges:
    """The rows at either end of all held-out rows, by how much their loss fell."""

    best: list[RowChange]
    worst: list[RowChange]
    risen: int
    """Rows whose loss rose."""
    rows: int


def row_changes(
    dataset: PreparedDataset, evaluation: Evaluation, count: int = 3
) -> RowChanges | None:
    """Find the rows whose loss fell most and least; None where the rows' own losses are not known.

    Args:
        dataset: The prepared data, whose held-out rows were evaluated.
        evaluation: Its losses before and after, in the rows' order.
        count: Rows at either end; fewer where there are fewer than twice as many.
    """
    before, after = evaluation.before, evaluation.after
    losses = list(zip(before.row_losses, after.row_losses, strict=False))
    if not losses or len(before.row_losses) != len(after.row_losses):
        return None
    rows = dataset.split("held_out")
    if len(rows) != len(losses):
        return None
    # A preference's loss is of the pair; its labelled tokens are not what it is counted by.
    per_row = after.rewards is not None or len(after.row_tokens) != len(losses)
    tokens = [1] * len(losses) if per_row else after.row_tokens
    means = [(old / size, new / size) for (old, new), size in zip(losses, tokens, strict=True)]
    order = sorted(range(len(means)), key=lambda index: means[index][1] - means[index][0])
    count = min(count, len(order) // 2)

    def told(index: int) -> RowChange:
        prompt, answer = _texts(rows[index])
        return RowChange(rows[index]["origin"], _cut(prompt), _cut(answer), *means[index])

    return RowChanges(
        best=[told(index) for index in order[:count]],
        worst=[told(index) for index in order[len(order) - count :][::-1]],
        risen=sum(new > old for old, new in means),
        rows=len(means),
    )


def _texts(row: dict[str, Any]) -> tuple[str, str]:
    """What is asked, and the answer of the data; a plain text has no question."""
    conversation, answer = answered_conversation(row)
    messages = conversation.messages
    if messages[0].role == TEXT_ROLE:
        return "", messages[-1].content
    return messages[answer - 1].content, messages[answer].content


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
