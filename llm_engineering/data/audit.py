"""The label audit: does every row train something, and does every answer learn to end?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from llm_engineering.data.tokenization import IGNORED, TokenizedRow
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LENGTH_BINS = 24


class LabelledPiece(BaseModel):
    """A stretch of a row's text whose tokens are all trained, or all only read."""

    text: str
    trained: bool


class LabelAudit(BaseModel):
    """What the audit counted over one split."""

    rows: int = Field(description="Rows audited.")
    tokens: int = Field(description="Tokens in all rows.")
    trained_tokens: int = Field(description="Tokens that carry a label.")
    longest_row: int = Field(description="Tokens in the longest row.")
    length_bin: int = Field(description="Tokens by which the bins of rows_by_length grow.")
    rows_by_length: list[int] = Field(
        description="Rows of at most length_bin tokens, of at most twice that, and so on."
    )
    truncated_rows: int = Field(description="Rows cut at model.max_seq_length.")
    stop_tokens: int = Field(description="Trained end-of-turn tokens; one for each answer.")
    example_origin: str = Field(description="file:line of the row shown.")
    example: list[LabelledPiece] = Field(description="That row, as the model will see it.")


def audit_labels(
    rows: Sequence[TokenizedRow],
    origins: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    stop_ids: frozenset[int],
    loss_on: str,
    max_truncated_share: float,
) -> LabelAudit:
    """Count what is trained, and refuse data from which the model would learn the wrong thing.

    Args:
        rows: Tokenized rows of one split.
        origins: ``file:line`` of each row.
        tokenizer: To show one row as text.
        stop_ids: Tokens that end a turn in generation.
        loss_on: As in ``data.loss_on``.
        max_truncated_share: Largest share (0 to 1) of rows that may have been cut.

    Raises:
        DataError: A row has no trained token; a complete answer does not train exactly one stop
            token; or more rows were cut than allowed. Names rows by ``file:line``.
    """
    stops = 0
    for row, origin in zip(rows, origins, strict=True):
        if all(label == IGNORED for label in row.labels):
            raise DataError(f"{origin}: no token of this row is trained: every label is masked")
        trained_stops = sum(label in stop_ids for label in row.labels)
        stops += trained_stops
        if loss_on == "completion" and not row.truncated and trained_stops != row.turns:
            raise DataError(_stop_message(row, origin, trained_stops, stop_ids, tokenizer))
    truncated = [origin for row, origin in zip(rows, origins, strict=True) if row.truncated]
    if len(truncated) > max_truncated_share * len(rows):
        raise DataError(
            f"{truncated[0]}: this row and {len(truncated) - 1} more of {len(rows)} "
            f"({len(truncated) / len(rows):.1%}) are longer than model.max_seq_length and would "
            f"lose their end; allowed by data.max_truncated_share: {max_truncated_share:.1%}. "
            "Raise model.max_seq_length, or that share"
        )
    lengths = [len(row.input_ids) for row in rows]
    length_bin = math.ceil(max(lengths) / _LENGTH_BINS)
    return LabelAudit(
        rows=len(rows),
        tokens=sum(lengths),
        trained_tokens=sum(label != IGNORED for row in rows for label in row.labels),
        longest_row=max(lengths),
        length_bin=length_bin,
        rows_by_length=_by_length(lengths, length_bin),
        truncated_rows=len(truncated),
        stop_tokens=stops,
        example_origin=origins[0],
        example=_pieces(rows[0], tokenizer),
    )


def _by_length(lengths: Sequence[int], length_bin: int) -> list[int]:
    counted = Counter(math.ceil(length / length_bin) for length in lengths)
    return [counted[index] for index in range(1, max(counted) + 1)]


def _stop_message(
    row: TokenizedRow,
    origin: str,
    trained_stops: int,
    stop_ids: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    names = ", ".join(repr(tokenizer.decode([token])) for token in sorted(stop_ids))
    last = next(label for label in reversed(row.labels) if label != IGNORED)
    return (
        f"{origin}: {trained_stops} stop tokens are trained for {row.turns} answer(s): the last "
        f"trained token is {tokenizer.decode([last])!r}, the stop tokens are {names}. The model "
        "would not learn when to stop. Choose a model.chat_template that ends the assistant's "
        "turn with a stop token"
    )


def _pieces(row: TokenizedRow, tokenizer: PreTrainedTokenizerBase) -> list[LabelledPiece]:
    pieces: list[LabelledPiece] = []
    start = 0
    for end in range(1, len(row.labels) + 1):
        trained = row.labels[start] != IGNORED
        if end == len(row.labels) or (row.labels[end] != IGNORED) != trained:
            text = str(tokenizer.decode(row.input_ids[start:end]))
            pieces.append(LabelledPiece(text=text, trained=trained))
            start = end
    return pieces
