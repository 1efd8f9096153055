"""The columns of a prepared split: one class an objective's rows, one field a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_engineering.data.rows.message import Conversation
from llm_engineering.data.rows.row_store import JsonText
from llm_engineering.data.tokens.tokenization import Label, MessageNumber, TokenId


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """What every prepared row has; of a preference, with the better answer."""

    input_ids: list[TokenId]
    labels: list[Label]
    origin: str
    """``file:line`` that the row came from."""
    conversation: JsonText
    """As ``Conversation.to_dict`` in JSON."""


@dataclass(frozen=True, slots=True)
class PreparedConversation(PreparedRow):
    """A conversation; ``prompt_tokens`` and ``answer`` as in ``TokenizedRow``."""

    prompt_tokens: int
    answer: MessageNumber


@dataclass(frozen=True, slots=True)
class PreparedPair(PreparedRow):
    """A prompt and two answers, each on its own, as trl's trainers take them."""

    prompt_ids: list[TokenId]
    chosen_ids: list[TokenId]
    rejected_ids: list[TokenId]


@dataclass(frozen=True, slots=True)
class PreparedAnswer(PreparedRow):
    """A prompt and an answer that is good or bad, as trl's trainer takes them."""

    prompt_ids: list[TokenId]
    completion_ids: list[TokenId]
    label: bool


def answered_conversation(row: Mapping[str, Any]) -> tuple[Conversation, int]:
    """A prepared row's conversation, and the number of its message that answers.

    Of a preference that is the last one, which alone is judged.
    """
    conversation = Conversation.from_dict(json.loads(row["conversation"]))
    answer = row["answer"] if "answer" in row else len(conversation.messages) - 1
    return conversation, answer
