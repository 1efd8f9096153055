"""What the preparation of the data asks of an objective's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llm_engineering.data.rows.forms import Form
from llm_engineering.data.rows.row_store import Spool, SpooledRow
from llm_engineering.data.select.duplicates import Pairs
from llm_engineering.data.tokens.audit import LabelAudit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class Keys(NamedTuple):
    """Numbers of 64 bits by which a row is compared with others."""

    exact: int
    """Equal rows share it; rows that say the opposite differ in its last bit alone."""
    place: int
    """Rows that share it are held out together; evenly spread, as of ``split.place_of``."""
    leaks: int
    """A training row leaks the held-out rows that share it."""


class Auditor(Protocol):
    """Counts what is trained in one split, as ``audit.LabelAuditor`` does."""

    def add(self, origin: str, tokens: Any) -> None:
        """Count a row, which came from ``origin`` (``file:line``)."""

    def refusals(self, max_truncated_share: float) -> list[str]:
        """Why the split cannot be trained on."""

    def audit(self) -> LabelAudit:
        """What was counted."""


class RowKind(Protocol):
    """An objective's rows: read from values, compared, tokenized, audited and stored.

    An item is a checked row as JSON stores it; a row of values may give several.
    """

    @property
    def columns(self) -> Mapping[str, str]:
        """The prepared data's, as ``SplitWriter`` takes them."""

    @property
    def may_contradict(self) -> bool:
        """Whether one item can say the opposite of another."""

    @property
    def leak(self) -> str:
        """What training rows are or have that leak held-out ones, behind "training rows"."""

    def form_of(self, values: dict[str, Any]) -> Form | None:
        """The form of a row where none is stated, which all rows of a source share.

        Raises:
            UnusableRowError: It has none.
        """

    def read(self, values: dict[str, Any], form: Form | None) -> list[Any]:
        """The items of a row.

        Raises:
            UnusableRowError: It cannot be trained on.
        """

    def keys(self, item: Any, seed: int) -> Keys:
        """What the item is compared by."""

    def near_duplicates(self, spool: Spool, rows: NDArray[Any], threshold: float) -> Pairs:
        """Rows that nearly repeat an earlier one; ``threshold`` as in ``near_rows``."""

    def near_leaks(
        self, spool: Spool, rows: NDArray[Any], threshold: float, held_out: NDArray[Any]
    ) -> Pairs:
        """Rows that nearly leak a held-out one."""

    def tokenize(
        self,
        items: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
    ) -> Sequence[Any]:
        """Each item in tokens, or the ``UnusableRowError`` that says why it cannot be used."""

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> Auditor:
        """Begin the audit of a split."""

    def trained(self, tokens: Any) -> list[Any]:
        """What of a row is trained and evaluated, which the digest is over."""

    def store(self, rows: Sequence[tuple[SpooledRow, Any]]) -> dict[str, list[Any]]:
        """Rows and their tokens, by column."""
