"""Questions in a file: rows of any form, with or without the answer that they would be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.read.row import BadRow
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.chat import Chat
from llm_engineering.data.rows.columns import named
from llm_engineering.data.rows.conversations import (
    add_system,
    add_tools,
    read_form,
    read_instruction,
)
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.text import read_text
from llm_engineering.data.rows.unread import Columns
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.errors import DataError

_TEXTS = ("question", "prompt", "query")
_FORMS: dict[str, RowForm] = {
    "messages": "messages",
    "conversations": "sharegpt",
    "conversation": "sharegpt",
}


@dataclass(frozen=True)
class Question:
    """What is asked, where it stands, and what the data answers."""

    origin: str
    conversation: Conversation
    reference: str | None


def read_questions(source: str) -> list[Question]:
    """The questions of a file, or of any other data source.

    Raises:
        DataError: There is none, or a row asks nothing; names ``file:line``.
    """
    found = []
    for row in read_rows(source):
        if isinstance(row, BadRow):
            raise DataError(f"{row.origin}: {row.reason}")
        try:
            found.append(_question(row.origin, row.values))
        except UnusableRowError as error:
            raise DataError(f"{row.origin}: {error}") from None
    if not found:
        raise DataError(f"{source}: holds no question")
    return found


def _question(origin: str, values: Mapping[str, object]) -> Question:
    row = Columns(values, set())
    form = next((form for column, form in _FORMS.items() if row.has(column)), None)
    text = row.first(_TEXTS)
    if form is not None:
        chat = read_form(row, form, loss=False)
    elif row.has("instruction"):
        chat = Chat(read_instruction(row), [])
        add_system(row, chat)
        add_tools(row, chat)
    elif text == "prompt" and isinstance(row.get(text), list):
        chat = read_form(
            Columns({**values, "messages": row.get(text)}, set()), "messages", loss=False
        )
    elif text is not None:
        chat = Chat([Message("user", read_text(row.get(text), text))], [])
        add_system(row, chat)
        add_tools(row, chat)
    else:
        raise UnusableRowError(
            f"has columns {named(values)}, and asks nothing; expected messages, conversations, "
            "instruction, question or prompt"
        )
    messages, reference = list(chat.messages), _reference(row)
    while messages and messages[-1].role == "assistant":
        reference = messages.pop().content
    if not messages or messages[-1].role not in ("user", "tool"):
        raise UnusableRowError("asks nothing: no message of the user, or of a tool, is the last")
    return Question(origin, Conversation(tuple(messages), tuple(chat.tools)), reference)


def _reference(row: Columns) -> str | None:
    column = row.first(("completion", "response", "output", "answer"))
    value = None if column is None else row.get(column)
    return value if isinstance(value, str) else None
