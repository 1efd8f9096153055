"""Tokenizing stored rows, a batch at a time: from what they say to the columns of a split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from llm_engineering.data.dataset import to_table
from llm_engineering.data.objective_rows.objective_rows import Auditor, ObjectiveRows
from llm_engineering.data.read.row import BadRow
from llm_engineering.data.rows.row_store import StoredBatch
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.summary import ExampleRow
from llm_engineering.data.tokens.audit import labelled_pieces
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.model.chat_template import TemplateInputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")


class SourcedBatch(NamedTuple):
    """Stored rows, and the number of each one's source."""

    stored: StoredBatch
    sources: Sequence[int]


@dataclass(frozen=True)
class PreparedBatch(Generic[TokensT]):
    """What came of a batch."""

    table: Any
    """The rows that can be used, as ``dataset.to_table`` gives them."""
    trained: bytes
    """JSON of what of each is trained, one after the other; the digest is over it."""
    auditor: Auditor[TokensT]
    bad: list[BadRow]
    lost: list[int]
    """Numbers of the bad ones."""
    examples: dict[int, ExampleRow]
    """The first good row of each source."""
    cut: ExampleRow | None
    """The first that was cut."""
    notices: Counter[Notice]
    """What the chat template does that wants to be known, and how often."""


@dataclass(frozen=True)
class PrepareBatch(Generic[ItemT, TokensT]):
    """Tokenizes and audits batches of one split; runs in a worker.

    ``max_length`` is in tokens, ``stop_ids`` end a turn in generation, ``inputs`` are what the chat
    template is given beside messages, ``schema`` is the split's.
    """

    objective_rows: ObjectiveRows[ItemT, TokensT]
    tokenizer: PreTrainedTokenizerBase
    split: str
    max_length: int
    stop_ids: frozenset[int]
    inputs: TemplateInputs
    schema: Any

    def __call__(self, batch: SourcedBatch) -> PreparedBatch[TokensT]:
        """Prepare a batch."""
        rows = batch.stored.rows(self.objective_rows.from_json)
        notices = Counter[Notice]()
        tokenized = self.objective_rows.tokenize(
            [row.item for row in rows],
            self.tokenizer,
            max_length=self.max_length,
            stop_ids=self.stop_ids,
            inputs=self.inputs,
            notices=notices,
        )
        auditor = self.objective_rows.auditor(self.split, self.tokenizer, stop_ids=self.stop_ids)
        prepared, trained = [], list[str]()
        bad, lost = list[BadRow](), list[int]()
        examples: dict[int, ExampleRow] = {}
        cut: ExampleRow | None = None
        for row, source, training_rows in zip(rows, batch.sources, tokenized, strict=True):
            if isinstance(training_rows, UnusableRow):
                bad.append(BadRow(row.origin, training_rows.reason))
                lost.append(row.number)
                continue
            for tokens in training_rows:
                auditor.add(row.origin, tokens)
                trained.append(json.dumps(self.objective_rows.trained(tokens)))
                prepared.append(self.objective_rows.prepare(row, tokens))
                shown = self.objective_rows.shown(tokens)
                if source not in examples:
                    examples[source] = self._example(row.origin, tokens)
                if cut is None and shown.truncated:
                    cut = self._example(row.origin, tokens)
        return PreparedBatch(
            to_table(prepared, self.schema),
            "".join(trained).encode(),
            auditor,
            bad,
            lost,
            examples,
            cut,
            notices,
        )

    def _example(self, origin: str, tokens: TokensT) -> ExampleRow:
        shown = self.objective_rows.shown(tokens)
        pieces = labelled_pieces(shown, self.tokenizer)
        return ExampleRow(origin=origin, cut=shown.truncated, pieces=pieces)
