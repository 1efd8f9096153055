"""Preferences in tokens, and the audit of what is trained of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.preferences import AnswerName, Preference
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError
from llm_engineering.data.tokens.audit import LabelAudit, LabelAuditor
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.tokens.tokenization import (
    IGNORED,
    TokenId,
    TokenizedRow,
    tokenize_conversations,
    trained,
)
from llm_engineering.model.chat_template import TemplateInputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TokenizedPreference:
    """A preference in tokens: every answer is whole; ``truncated`` says that the prompt was cut."""

    prompt_ids: list[TokenId]
    answer_ids: dict[AnswerName, list[TokenId]]
    truncated: bool
    label: bool | None = None

    def labelled(self, name: AnswerName) -> TokenizedRow:
        """The prompt with one of its answers, which is what is trained."""
        prompt, answer = self.prompt_ids, self.answer_ids[name]
        labels = [IGNORED] * len(prompt) + trained(answer)
        return TokenizedRow(prompt + answer, labels, turns=1, truncated=False)


def tokenize_preferences(
    preferences: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stop_ids: frozenset[int],
    inputs: TemplateInputs | None = None,
    notices: Counter[Notice] | None = None,
) -> list[TokenizedPreference | UnusableRow]:
    """Tokenize prompts and their answers; what does not fit is cut from the prompt's beginning.

    An answer cut at its end would no longer be the one that was judged, and one cut to nothing
    teaches the opposite of its pair.

    Args:
        preferences: Prompts and answers.
        tokenizer: With the run's chat template set.
        max_length: Longest prompt and answer together, in tokens.
        stop_ids: Tokens that end a turn in generation.
        inputs: What the chat template is given beside messages.
        notices: Counts what the chat template does that wants to be known.

    Returns:
        Each in tokens, or why it cannot be used: an answer leaves no room for a prompt, the answers
        have the same tokens, or as ``tokenize_conversations``.
    """
    tokenized = iter(
        tokenize_conversations(
            [_judged(one.prompt, answer) for one in preferences for answer in one.answers.values()],
            tokenizer,
            max_length=sys.maxsize,
            loss_on="last_turn",
            stop_ids=stop_ids,
            inputs=inputs,
            notices=notices,
        )
    )
    found: list[TokenizedPreference | UnusableRow] = []
    for one in preferences:
        rows = {name: next(tokenized) for name in one.answers}
        try:
            found.append(_joined(rows, one.label, max_length))
        except UnusableRowError as reason:
            found.append(UnusableRow(str(reason)))
    return found


class PreferenceAuditor:
    """Counts what is trained: tokens are those of every answer with its prompt, rows are items."""

    def __init__(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> None:
        """Begin a split.

        Args:
            split: "train" or "held_out".
            tokenizer: To show one row as text.
            stop_ids: Tokens that end a turn in generation.
        """
        self._key = "data.sources" if split == "train" else "data.held_out"
        self._answers = LabelAuditor(tokenizer, stop_ids=stop_ids, loss_on="completion")
        self._rows = self._truncated = 0
        self._first_truncated = ""
        self._labels: set[bool | None] = set()

    def add(self, origin: str, tokens: TokenizedPreference) -> None:
        """Count a preference, which came from ``origin`` (``file:line``)."""
        for name in tokens.answer_ids:
            self._answers.add(origin, tokens.labelled(name))
        self._rows += 1
        self._labels.add(tokens.label)
        if tokens.truncated:
            self._truncated += 1
            self._first_truncated = self._first_truncated or origin

    def merge(self, later: PreferenceAuditor) -> None:
        """Count what another, of rows behind these, has counted."""
        self._answers.merge(later._answers)
        self._rows += later._rows
        self._labels |= later._labels
        self._truncated += later._truncated
        self._first_truncated = self._first_truncated or later._first_truncated

    def refusals(self, max_truncated_share: float) -> list[str]:
        """Why the split cannot be trained on: as ``LabelAuditor``, or labels are all the same.

        Args:
            max_truncated_share: Largest share (0 to 1) of rows whose prompt may have been cut.
        """
        found = self._answers.refusals(1.0)
        if self._labels in ({True}, {False}):
            label = str(*self._labels).lower()
            found.append(
                f"{self._key}: every row has label {label}; kto learns from good answers and bad "
                "ones"
            )
        if self._truncated > max_truncated_share * self._rows:
            found.append(
                f"{self._first_truncated}: prompt and answer of this row and {self._truncated - 1} "
                f"more of {self._rows} ({self._truncated / self._rows:.1%}) are longer than "
                "model.max_seq_length and would lose the beginning of the prompt; allowed by "
                f"data.max_truncated_share: {max_truncated_share:.1%}. Raise "
                "model.max_seq_length, or that share"
            )
        return found

    def audit(self) -> LabelAudit:
        """What was counted."""
        return self._answers.audit().model_copy(
            update={"rows": self._rows, "truncated_rows": self._truncated}
        )


def _judged(prompt: Conversation, answer: Message) -> Conversation:
    """The answer alone is trained, whatever the messages say of themselves."""
    whole = prompt.with_answer(answer)
    messages = [replace(one, trained=None) for one in whole.messages]
    return replace(whole, messages=messages)


def _joined(
    rows: dict[AnswerName, list[TokenizedRow] | UnusableRow], label: bool | None, max_length: int
) -> TokenizedPreference:
    prompt_ids: list[TokenId] = []
    answer_ids: dict[AnswerName, list[TokenId]] = {}
    for name, found in rows.items():
        if isinstance(found, UnusableRow):
            raise UnusableRowError(f"{name}: {found.reason}")
        (row,) = found
        start = row.prompt_tokens
        prompt_ids, answer_ids[name] = row.input_ids[:start], row.input_ids[start:]
    longest = max(answer_ids, key=lambda name: len(answer_ids[name]))
    room = max_length - len(answer_ids[longest])
    if room < 1:
        raise UnusableRowError(
            f"{longest} has {len(answer_ids[longest])} tokens, which leaves no room for the prompt "
            f"in model.max_seq_length ({max_length}); raise it, or shorten the row"
        )
    if len(answer_ids) > len({tuple(ids) for ids in answer_ids.values()}):
        raise UnusableRowError("chosen and rejected have the same tokens: nothing is preferred")
    cut = len(prompt_ids) > room
    return TokenizedPreference(prompt_ids[-room:], answer_ids, truncated=cut, label=label)
