"""Turning a row into a conversation: the one shape that everything after this works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.chat import (
    Chat,
    as_bool,
    check_order,
    check_trained,
    message_list,
    read_messages,
    same_tools,
)
from llm_engineering.data.rows.forms import RESPONSE_COLUMNS, form_of
from llm_engineering.data.rows.message import TEXT_ROLE, Conversation, Message
from llm_engineering.data.rows.text import holds_nothing, kind, read_text
from llm_engineering.data.rows.tools import from_json, read_tools
from llm_engineering.data.rows.unread import Columns, Unread
from llm_engineering.data.rows.unusable import UnusableRowError

LABELS = ("label", "kto_tag")
"""Columns that say whether an answer is good."""
SYSTEMS = ("system", "system_prompt")
_TOOLS = ("tools", "functions")
_TURNS = (("human", "assistant"), ("input", "output"))  # of ms-swift's and XTuner's conversations


def to_conversation(
    values: Mapping[str, object], form: RowForm | None = None, unread: Unread | None = None
) -> Conversation:
    """Read a row as a conversation.

    - messages: a list of messages, the last from the assistant;
    - sharegpt: ``conversations`` (or ``conversation``), likewise, or a list of turns;
    - alpaca: ``instruction`` with ``response``, ``output`` or ``answer``; ``input`` or ``context``,
      if there is one, is appended to the instruction, and ``history`` comes before;
    - prompt_completion: both of them texts, or lists of messages (as trl takes them): of the
      prompt's, none is trained. Texts are a user's and an assistant's message, where trl joins them
      as plain text: see continuation;
    - text: ``text``, as one message of role "text";
    - continuation: ``prompt`` and ``completion``, as two messages of role "text", of which the
      second is trained.

    Beside each but the last two a ``system`` (or ``system_prompt``) is the first message, and
    ``tools`` (or ``functions``) are the conversation's. How messages are read, and in which order
    they may stand, is told in ``chat.py``.

    Args:
        values: The row's columns.
        form: Its form; None tells it by the columns.
        unread: Receives the names of what the row holds and nothing uses.

    Returns:
        Messages in order, and tools.

    Raises:
        UnusableRowError: The row is of no known form, a text is missing, empty or no text, it holds
            what is not supported, or nothing of it would be trained.
    """
    row = Columns(values, set() if unread is None else unread)
    form = form or form_of(values)
    if form in ("text", "continuation"):
        messages = _from_text(row) if form == "text" else _from_continuation(row)
        row.finish()
        return Conversation(messages)
    _refuse_label(row, form)
    chat = read_form(row, form, loss=True)
    check_order(chat.messages)
    check_trained(chat.messages)
    row.finish()
    return Conversation(chat.messages, chat.tools)


def read_form(row: Columns, form: RowForm, *, loss: bool) -> Chat:
    """The messages and tools of a row of a form that chat templates render, in any order.

    Args:
        row: Its columns.
        form: One of those.
        loss: As of ``chat.read_messages``.

    Raises:
        UnusableRowError: As ``to_conversation``.
    """
    chat = _READERS[form](row, loss)
    add_system(row, chat)
    add_tools(row, chat)
    return chat


def add_system(row: Columns, chat: Chat) -> None:
    """Put what the row's system column says before the messages.

    Raises:
        UnusableRowError: The messages begin with another.
    """
    if row.first(SYSTEMS) is None:
        return
    said = [read_text(row.get(name), name) for name in SYSTEMS if row.has(name)]
    if chat.messages and chat.messages[0].role == "system":
        said.append(chat.messages.pop(0).content)
    if len(set(said)) > 1:
        raise UnusableRowError("has two different system prompts; keep one")
    if said:
        chat.messages.insert(0, Message("system", said[0]))


def add_tools(row: Columns, chat: Chat) -> None:
    """Give the conversation the tools of the row's column."""
    for name in _TOOLS:
        if row.has(name):
            same_tools(chat.tools, read_tools(row.get(name), name), name)


def read_instruction(row: Columns) -> list[Message]:
    """The messages before the answer of an alpaca row: its history, and what is asked.

    Raises:
        UnusableRowError: There is no instruction, or a text is no text.
    """
    if "instruction" not in row.values:
        raise UnusableRowError("has no instruction column")
    column = row.first(("input", "context"))
    instruction, context = row.get("instruction"), None if column is None else row.get(column)
    if context is None:
        asked = read_text(instruction, "instruction")
    elif holds_nothing(instruction):
        asked = read_text(context, str(column))
    else:
        text = read_text(instruction, "instruction")
        asked = f"{text}\n\n{read_text(context, str(column))}"
    return [*read_history(row), Message("user", asked)]


def _from_alpaca(row: Columns, loss: bool) -> Chat:
    column = row.first(RESPONSE_COLUMNS) or next(
        (name for name in RESPONSE_COLUMNS if name in row.values), None
    )
    if "instruction" in row.values and column is None:
        raise UnusableRowError("has an instruction but neither a response nor an output column")
    messages = read_instruction(row)
    messages.append(Message("assistant", read_text(row.get(str(column)), str(column))))
    return Chat(messages)


def _from_prompt_completion(row: Columns, loss: bool) -> Chat:
    whole = Chat(read_history(row))
    for column, role in (("prompt", "user"), ("completion", "assistant")):
        if column not in row.values:
            raise UnusableRowError(f"has no {column} column")
        value = row.get(column)
        if isinstance(value, list | dict):
            listed = message_list([value] if isinstance(value, dict) else value, column)
            part = read_messages(listed, column, row.unread, loss=loss)
            whole.messages += _as_prompt(part.messages) if role == "user" else part.messages
            same_tools(whole.tools, part.tools, column)
        else:
            said = read_text(value, column)
            whole.messages.append(
                Message("user", said) if role == "user" else Message("assistant", said)
            )
    return whole


def _as_prompt(messages: list[Message]) -> list[Message]:
    """The messages of a prompt: its answers are not trained, as in trl, unless they are marked."""
    return [
        replace(one, trained=False) if one.role == "assistant" and one.trained is None else one
        for one in messages
    ]


def _from_messages(row: Columns, loss: bool) -> Chat:
    given = message_list(row.get("messages"), "messages")
    return read_messages(given, "messages", row.unread, loss=loss)


def _from_sharegpt(row: Columns, loss: bool) -> Chat:
    column = "conversation" if row.values.get("conversations") is None else "conversations"
    if column not in row.values:
        column = "conversations"
    given = message_list(row.get(column), column)
    if isinstance(given[0], dict) and not given[0].keys() & {"role", "from"}:
        given = _turns(given, column)
    return read_messages(given, column, row.unread, loss=loss)


def _turns(given: Sequence[object], column: str) -> list[object]:
    """Turns of ms-swift ({human, assistant}) or XTuner ({system, input, output}) as messages."""
    messages: list[object] = []
    for number, turn in enumerate(given, start=1):
        keys = next((one for one in _TURNS if isinstance(turn, dict) and one[1] in turn), None)
        if keys is None or not isinstance(turn, dict):
            raise UnusableRowError(f"message {number} has no role and content")
        user, assistant = keys
        known = {"system", user, assistant}
        unknown = [name for name in turn if name not in known and not holds_nothing(turn[name])]
        if unknown:
            raise UnusableRowError(
                f"{column}: turn {number} has {unknown[0]!r}, which is not known"
            )
        if not holds_nothing(turn.get("system")):
            messages.append({"role": "system", "content": turn["system"]})
        if not holds_nothing(turn.get(user)):
            messages.append({"role": "user", "content": turn[user]})
        messages.append({"role": "assistant", "content": turn[assistant]})
    return messages


def _from_text(row: Columns) -> list[Message]:
    if "text" not in row.values:
        raise UnusableRowError("has no text column")
    return [Message(TEXT_ROLE, read_text(row.get("text"), "text"))]


def _from_continuation(row: Columns) -> list[Message]:
    for column in ("prompt", "completion"):
        if column not in row.values:
            raise UnusableRowError(f"has no {column} column")
    prompt = read_text(row.get("prompt"), "prompt")
    completion = read_text(row.get("completion"), "completion")
    return [
        Message(TEXT_ROLE, prompt, trained=False),
        Message(TEXT_ROLE, completion, trained=True),
    ]


_READERS: dict[str, Callable[[Columns, bool], Chat]] = {
    "alpaca": _from_alpaca,
    "prompt_completion": _from_prompt_completion,
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
}


def read_history(row: Columns) -> list[Message]:
    """Earlier turns of alpaca and ms-swift: a list of a question and its answer each."""
    if not row.has("history"):
        return []
    given: Any = from_json(row.get("history"), "history")
    if not isinstance(given, list):
        raise UnusableRowError(f"history is {kind(given)}, expected a list of two texts each")
    messages: list[Message] = []
    for number, turn in enumerate(given, start=1):
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise UnusableRowError(f"history: turn {number} is not a question and its answer")
        for role, text in zip(("user", "assistant"), turn, strict=True):
            said = read_text(text, f"history: turn {number}")
            messages.append(Message("user" if role == "user" else "assistant", said))
    return messages


def _refuse_label(row: Columns, form: RowForm) -> None:
    """Refuse a judged answer, which may be a bad one: it is no example to learn."""
    column = row.first(LABELS)
    if column is None or as_bool(row.values[column]) is None:
        return
    beside = "prompt and completion" if form == "prompt_completion" else f"a row of {form}"
    raise UnusableRowError(
        f"has a {column} beside {beside}: set train.objective to kto to learn from it"
    )
