"""What the preparation of the data asks of an objective's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.keys import RowKeys
from llm_engineering.data.rows.row_store import StoredRow
from llm_engineering.data.rows.shingles import Piece
from llm_engineering.data.rows.unread import Unread
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.data.tokens.prepared import PreparedRow
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.tokens.tokenization import TokenizedRow
from llm_engineering.model.chat_template import TemplateInputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")
AuditedT = TypeVar("AuditedT", contravariant=True)


class Auditor(Protocol[AuditedT]):
    """Counts what is trained in one split, as ``audit.LabelAuditor`` does."""

    def add(self, origin: str, tokens: AuditedT, /) -> None:
        """Count a row, which came from ``origin`` (``file:line``)."""

    def merge(self, later: Self, /) -> None:
        """Count what another, of rows behind these, has counted."""

    def refusals(self, max_truncated_share: float) -> list[str]:
        """Why the split cannot be trained on."""

    def audit(self) -> LabelAudit:
        """What was counted."""


class ObjectiveRows(Protocol[ItemT, TokensT]):
    """An objective's rows: read from values, compared, tokenized, audited and prepared.

    An item (``ItemT``) is a checked row, a row of values may give several; ``TokensT`` is an item in
    tokens.
    """

    @property
    def columns(self) -> type[PreparedRow]:
        """The class of the prepared rows."""

    @property
    def judges_answers(self) -> bool:
        """Whether items judge answers to a prompt, so that one can say the opposite of another."""

    @property
    def leak(self) -> str:
        """What training rows are or have that leak held-out ones, behind "training rows"."""

    def form_of(self, values: Mapping[str, object]) -> RowForm | None:
        """The form of a row where none is stated, which all rows of a source share.

        Raises:
            UnusableRowError: It has none.
        """

    def read(
        self, values: Mapping[str, object], form: RowForm | None, unread: Unread
    ) -> list[ItemT]:
        """The items of a row; ``unread`` receives the names of what it holds and nothing uses.

        Raises:
            UnusableRowError: It cannot be trained on.
        """

    def to_json(self, item: ItemT) -> Any:
        """The item as JSON holds it."""

    def from_json(self, values: Any) -> ItemT:
        """What ``to_json`` gave."""

    def keys(self, item: ItemT) -> RowKeys:
        """What the item is compared by."""

    def asked(self, item: ItemT) -> Sequence[Piece]:
        """The first prompt: a training row whose own is near that of a held-out one nearly leaks it."""

    def said(self, item: ItemT) -> Sequence[Piece]:
        """What must be near where an item nearly repeats another."""

    def answers_said(self, item: ItemT) -> Sequence[Piece]:
        """The answers, which must be near too where an item that judges some repeats another."""

    def tokenize(
        self,
        items: Sequence[ItemT],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
        inputs: TemplateInputs,
        notices: Counter[Notice],
    ) -> list[list[TokensT] | UnusableRow]:
        """Each item in tokens, as one training row or several, or why it cannot be used.

        ``inputs`` are what the chat template is given beside messages; ``notices`` counts what it
        does that wants to be known.
        """

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> Auditor[TokensT]:
        """Begin the audit of a split."""

    def shown(self, tokens: TokensT) -> TokenizedRow:
        """The row as an example shows it."""

    def trained(self, tokens: TokensT) -> list[object]:
        """What of a row is trained and evaluated, which the digest is over."""

    def prepare(self, row: StoredRow[ItemT], tokens: TokensT) -> PreparedRow:
        """The row as a prepared split stores it, by ``columns``."""
