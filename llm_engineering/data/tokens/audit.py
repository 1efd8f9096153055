"""The label audit: does every row train something, and does every answer learn to end?"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from llm_engineering.data.tokens.tokenization import IGNORED, Label, TokenizedRow

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


class LabelAuditor:
    """Counts what is trained, row by row, and remembers the first that would teach the wrong thing."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int], loss_on: str
    ) -> None:
        """Begin a split.

        Args:
            tokenizer: To show one row as text.
            stop_ids: Tokens that end a turn in generation.
            loss_on: As in ``data.loss_on``.
        """
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._loss_on = loss_on
        self._lengths: Counter[int] = Counter()
        self._trained = self._stops = self._truncated = 0
        self._example: tuple[str, TokenizedRow] | None = None
        self._first_truncated = ""
        self._refusal: str | None = None

    def add(self, origin: str, row: TokenizedRow) -> None:
        """Count a row of the split, which came from ``origin`` (``file:line``)."""
        self._example = self._example or (origin, row)
        trained = len(row.labels) - row.labels.count(IGNORED)
        stops = sum(row.labels.count(Label(token)) for token in self._stop_ids)
        self._lengths[len(row.labels)] += 1
        self._trained += trained
        self._stops += stops
        if row.truncated:
            self._truncated += 1
            self._first_truncated = self._first_truncated or origin
        if self._refusal is None:
            if not trained:
                self._refusal = f"{origin}: no token of this row is trained: every label is masked"
            elif self._loss_on != "everything" and not row.truncated and stops != row.turns:
                self._refusal = _stop_message(row, origin, stops, self._stop_ids, self._tokenizer)

    def merge(self, later: LabelAuditor) -> None:
        """Count what another, of rows behind these, has counted."""
        self._example = self._example or later._example
        self._lengths += later._lengths
        self._trained += later._trained
        self._stops += later._stops
        self._truncated += later._truncated
        self._first_truncated = self._first_truncated or later._first_truncated
        if self._refusal is None:
            self._refusal = later._refusal

    def __getstate__(self) -> dict[str, object]:
        """Without the tokenizer: what a process has counted is merged where there is one."""
        return {**vars(self), "_tokenizer": None}

    def refusals(self, max_truncated_share: float) -> list[str]:
        """Why the split cannot be trained on, naming a row by ``file:line``; empty if it can.

        Args:
            max_truncated_share: Largest share (0 to 1) of rows that may have been cut.
        """
        rows = self._lengths.total()
        found = [] if self._refusal is None else [self._refusal]
        if self._truncated > max_truncated_share * rows:
            found.append(
                f"{self._first_truncated}: this row and {self._truncated - 1} more of {rows} "
                f"({self._truncated / rows:.1%}) are longer than model.max_seq_length and would "
                f"lose their end; allowed by data.max_truncated_share: {max_truncated_share:.1%}. "
                "Raise model.max_seq_length, or that share"
            )
        return found

    def audit(self) -> LabelAudit:
        """What was counted."""
        longest = max(self._lengths, default=0)
        length_bin = math.ceil(longest / _LENGTH_BINS) or 1
        origin, example = self._example or ("", None)
        return LabelAudit(
            rows=self._lengths.total(),
            tokens=sum(length * count for length, count in self._lengths.items()),
            trained_tokens=self._trained,
            longest_row=longest,
            length_bin=length_bin,
            rows_by_length=_by_length(self._lengths, length_bin),
            truncated_rows=self._truncated,
            stop_tokens=self._stops,
            example_origin=origin,
            example=[] if example is None else labelled_pieces(example, self._tokenizer),
        )


def _by_length(lengths: Counter[int], length_bin: int) -> list[int]:
    counted: Counter[int] = Counter()
    for length, count in lengths.items():
        counted[math.ceil(length / length_bin)] += count
    return [counted[index] for index in range(1, max(counted, default=0) + 1)]


def _stop_message(
    row: TokenizedRow,
    origin: str,
    trained_stops: int,
    stop_ids: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    names = ", ".join(repr(tokenizer.decode([token])) for token in sorted(stop_ids))
    trained = [label for label in row.labels if label != IGNORED]
    added = tokenizer.added_tokens_decoder
    special = [label for label in trained if label in added and added[label].special]
    advice = "choose a model.chat_template that ends the assistant's turn with a stop token"
    if not trained_stops and special:
        advice = (
            f"set model.eos_token: {str(added[special[-1]])!r}, which ends it here; or {advice}"
        )
    return (
        f"{origin}: {trained_stops} stop tokens are trained for {row.turns} answer(s): the last "
        f"trained token is {tokenizer.decode([trained[-1]])!r}, the stop tokens are {names}. The "
        f"model would not learn when to stop: {advice}"
    )


def labelled_pieces(row: TokenizedRow, tokenizer: PreTrainedTokenizerBase) -> list[LabelledPiece]:
    """The row as text, cut where what is trained begins or ends."""
    pieces: list[LabelledPiece] = []
    start = 0
    for end in range(1, len(row.labels) + 1):
        trained = row.labels[start] != IGNORED
        if end == len(row.labels) or (row.labels[end] != IGNORED) != trained:
            text = str(tokenizer.decode(row.input_ids[start:end]))
            pieces.append(LabelledPiece(text=text, trained=trained))
            start = end
    return pieces
