"""Conversations as an objective's rows: the assistant's answers are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.forms import form_of
from llm_engineering.data.rows.keys import (
    RowKeys,
    conversation_key,
    first_prompt,
    plain_text,
    prompt_key,
)
from llm_engineering.data.rows.message import Conversation, ConversationDict
from llm_engineering.data.rows.row_store import StoredRow
from llm_engineering.data.rows.shingles import Piece
from llm_engineering.data.rows.unread import Unread
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.audit import LabelAuditor
from llm_engineering.data.tokens.prepared import PreparedConversation
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.tokens.tokenization import TokenizedRow, tokenize_conversations
from llm_engineering.model.chat_template import TemplateInputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SupervisedRows:
    """``ObjectiveRows`` of conversations.

    Rows repeat where they are equal in all: messages, tools, and what is trained of them. A training
    row leaks if its first prompt is held out, but for case and spaces: what is said of a prompt in
    another answer, or in a longer conversation, is no evidence on unseen ones. Rows that share a
    first prompt are held out together.
    """

    columns = PreparedConversation
    judges_answers = False
    leak = "begin with a prompt that is held out too"

    def __init__(self, loss_on: str) -> None:
        """For ``data.loss_on``."""
        self._loss_on = loss_on

    def form_of(self, values: Mapping[str, object]) -> RowForm:
        """As ``forms.form_of``."""
        return form_of(values)

    def read(
        self, values: Mapping[str, object], form: RowForm | None, unread: Unread
    ) -> list[Conversation]:
        """One conversation, as ``to_conversation``."""
        return [to_conversation(values, form, unread)]

    def to_json(self, item: Conversation) -> ConversationDict:
        """As ``Conversation.to_dict``."""
        return item.to_dict()

    def from_json(self, values: Any) -> Conversation:
        """As ``Conversation.from_dict``."""
        return Conversation.from_dict(values)

    def keys(self, item: Conversation) -> RowKeys:
        """Of the whole conversation, and of its first prompt."""
        return RowKeys(equal=conversation_key(item), prompt=prompt_key(item))

    def asked(self, item: Conversation) -> list[Piece]:
        """The first prompt."""
        return [Piece(plain_text(first_prompt(item)))]

    def said(self, item: Conversation) -> list[Piece]:
        """The whole conversation."""
        return [Piece(plain_text(item.messages))]

    def answers_said(self, item: Conversation) -> list[Piece]:
        """None: the conversation has them all."""
        return []

    def tokenize(
        self,
        items: Sequence[Conversation],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
        inputs: TemplateInputs,
        notices: Counter[Notice],
    ) -> list[list[TokenizedRow] | UnusableRow]:
        """As ``tokenize_conversations``."""
        return tokenize_conversations(
            items,
            tokenizer,
            max_length=max_length,
            loss_on=self._loss_on,
            stop_ids=stop_ids,
            inputs=inputs,
            notices=notices,
        )

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> LabelAuditor:
        """The label audit."""
        return LabelAuditor(tokenizer, stop_ids=stop_ids, loss_on=self._loss_on)

    def shown(self, tokens: TokenizedRow) -> TokenizedRow:
        """As it is."""
        return tokens

    def trained(self, tokens: TokenizedRow) -> list[object]:
        """Token ids and labels."""
        return [tokens.input_ids, tokens.labels]

    def prepare(self, row: StoredRow[Conversation], tokens: TokenizedRow) -> PreparedConversation:
        """Tokens and labels, with the conversation that they are of."""
        return PreparedConversation(
            input_ids=tokens.input_ids,
            labels=tokens.labels,
            origin=row.origin,
            conversation=row.text,
            prompt_tokens=tokens.prompt_tokens,
            answer=tokens.answer,
        )
