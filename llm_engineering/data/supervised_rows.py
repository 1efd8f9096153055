"""Conversations as rows of the preparation: the assistant's answers are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.data.dataset import SUPERVISED_COLUMNS
from llm_engineering.data.objective_rows import Keys
from llm_engineering.data.rows.conversations import Message, UnusableRowError, to_conversation
from llm_engineering.data.rows.forms import Form, form_of
from llm_engineering.data.rows.row_store import Spool, SpooledRow
from llm_engineering.data.select.duplicates import Pairs, near_rows, pieces, text_key
from llm_engineering.data.select.split import place_of
from llm_engineering.data.tokens.audit import LabelAuditor
from llm_engineering.data.tokens.tokenization import TokenizedRow, tokenize_all

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class SupervisedRows:
    """A ``RowKind``; an item is a list of messages.

    Rows repeat where all messages are equal, and leak where they say the same, but for case,
    spaces and form.
    """

    columns = SUPERVISED_COLUMNS
    may_contradict = False
    leak = "are held out too"

    def __init__(self, loss_on: str) -> None:
        """For ``data.loss_on``."""
        self._loss_on = loss_on

    def form_of(self, values: dict[str, Any]) -> Form:
        """As ``forms.form_of``."""
        return form_of(values)

    def read(self, values: dict[str, Any], form: Form | None) -> list[list[Message]]:
        """One conversation, as ``to_conversation``."""
        return [to_conversation(values, form)]

    def keys(self, item: Sequence[Message], seed: int) -> Keys:
        """All by the whole conversation."""
        place = place_of(item, seed)
        return Keys(exact=place, place=place, leaks=text_key(item))

    def near_duplicates(self, spool: Spool, rows: NDArray[Any], threshold: float) -> Pairs:
        """Rows whose conversation is near an earlier one."""
        return near_rows(spool, rows, threshold, _pieces)

    def near_leaks(
        self, spool: Spool, rows: NDArray[Any], threshold: float, held_out: NDArray[Any]
    ) -> Pairs:
        """Rows whose conversation is near one that is held out."""
        return near_rows(spool, rows, threshold, _pieces, held_out)

    def tokenize(
        self,
        items: Sequence[Sequence[Message]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
    ) -> list[TokenizedRow | UnusableRowError]:
        """As ``tokenize_all``."""
        return tokenize_all(
            items, tokenizer, max_length=max_length, loss_on=self._loss_on, stop_ids=stop_ids
        )

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> LabelAuditor:
        """The label audit."""
        return LabelAuditor(tokenizer, stop_ids=stop_ids, loss_on=self._loss_on)

    def trained(self, tokens: TokenizedRow) -> list[Any]:
        """Token ids and labels."""
        return [tokens.input_ids, tokens.labels]

    def store(self, rows: Sequence[tuple[SpooledRow, TokenizedRow]]) -> dict[str, list[Any]]:
        """By ``columns``."""
        return {
            "input_ids": [row.input_ids for _, row in rows],
            "labels": [row.labels for _, row in rows],
            "origin": [spooled.origin for spooled, _ in rows],
            "messages": [spooled.text for spooled, _ in rows],
            "prompt_tokens": [row.prompt_tokens for _, row in rows],
            "answer": [row.answer for _, row in rows],
        }


def _pieces(row: SpooledRow) -> set[str]:
    return pieces(row.item)
