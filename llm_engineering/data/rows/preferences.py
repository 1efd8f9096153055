"""Preference data: two answers of which one is better, or one answer that is good or bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypedDict

from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.rows.chat import (
    Chat,
    as_bool,
    check_order,
    message_list,
    read_messages,
    same_tools,
)
from llm_engineering.data.rows.columns import named
from llm_engineering.data.rows.conversations import (
    LABELS,
    add_system,
    add_tools,
    read_form,
    read_history,
    read_instruction,
)
from llm_engineering.data.rows.forms import (
    LISTED,
    PREFERRED,
    RESPONSE_COLUMNS,
    WORSE,
    are_two_texts,
    form_of,
)
from llm_engineering.data.rows.message import Conversation, ConversationDict, Message, MessageDict
from llm_engineering.data.rows.text import kind, read_text
from llm_engineering.data.rows.unread import Columns, Unread
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.objectives import OBJECTIVES

AnswerName = Literal["chosen", "rejected", "completion"]
"""Column of an answer: the better and the worse of two, or the one that is judged."""

_PROMPTS = ("prompt", "question", "query")
_CONVERSATIONS = ("messages", "conversations", "conversation")


class PreferenceDict(TypedDict):
    """A preference as JSON stores it."""

    prompt: ConversationDict
    answers: dict[AnswerName, MessageDict]
    label: bool | None


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt, ending with a user's message, and what is said about answers to it.

    ``answers`` are "chosen" and "rejected", the better first, or one "completion" whose ``label``
    says whether it is good.
    """

    prompt: Conversation
    answers: dict[AnswerName, Message]
    label: bool | None = None

    def to_dict(self) -> PreferenceDict:
        """As JSON stores it."""
        answers = {name: answer.to_dict() for name, answer in self.answers.items()}
        return {"prompt": self.prompt.to_dict(), "answers": answers, "label": self.label}

    @classmethod
    def from_dict(cls, values: PreferenceDict) -> Preference:
        """What ``to_dict`` gave."""
        answers = {name: Message.from_dict(one) for name, one in values["answers"].items()}
        return cls(Conversation.from_dict(values["prompt"]), answers, values["label"])


def to_preferences(
    values: Mapping[str, object], objective: ObjectiveName, unread: Unread | None = None
) -> list[Preference]:
    """Read a row as what an objective learns from.

    The better and the worse answer are ``chosen`` and ``rejected`` (``chosen_response`` and
    ``rejected_response``; ``preferred_output`` and ``non_preferred_output``), or a list of two
    texts, the better first (``chosen``, ``output`` or ``response``). Each is text, an assistant's
    message, or the whole conversation, whose beginning is the prompt. ``rejected_response`` or
    ``rejected_messages`` beside ``messages``, ``conversations`` or ``response`` is the worse answer,
    and the last message is the better. The prompt is ``prompt`` or ``question`` (text or messages),
    alpaca's ``instruction``, or ``messages`` or ``conversations``; ``system`` and ``tools`` may
    stand beside it.

    A judged answer is the last message of a row of any form of ``to_conversation``, or the
    ``completion`` behind such a prompt, and its ``label`` (or ``kto_tag``). For judged answers a
    pair is a good one and a bad one.

    Args:
        values: The row's columns.
        objective: That which learns from it.
        unread: Receives the names of what the row holds and nothing uses.

    Raises:
        UnusableRowError: Columns are missing, a text is empty or no text, the two conversations
            begin differently, both answers are the same, or the row holds what is not supported.
    """
    row = Columns(values, set() if unread is None else unread)
    judged = OBJECTIVES[objective].learns_from == "judged answers"
    label = row.first(LABELS) or next((name for name in LABELS if name in values), None)
    if (pair := _pair(row)) is not None:
        row.finish()
        chosen, rejected = pair.answers["chosen"], pair.answers["rejected"]
        if replace(chosen, content=chosen.content.strip()) == replace(
            rejected, content=rejected.content.strip()
        ):
            raise UnusableRowError("chosen and rejected are the same text: nothing is preferred")
        if not judged:
            return [pair]
        return [
            Preference(pair.prompt, {"completion": chosen}, label=True),
            Preference(pair.prompt, {"completion": rejected}, label=False),
        ]
    if judged and label is not None and (single := _judged(row)) is not None:
        good = _label(row.get(label), label)
        row.finish()
        return [Preference(single.prompt, single.answers, good)]
    wanted = "prompt, completion and label" if judged else "prompt, chosen and rejected"
    raise UnusableRowError(f"has columns {named(values)}; {objective} needs {wanted}")


def _pair(row: Columns) -> Preference | None:
    """The pair of a row; None: its columns are not those of one."""
    values = row.values
    for better, worse in PREFERRED.items():
        if better in values and worse in values:
            return _answered(row, _Answer("chosen", better), _Answer("rejected", worse))
    both = row.first(LISTED)
    if both is not None and are_two_texts(values[both]):
        good, bad = _Answer("chosen", both, 0), _Answer("rejected", both, 1)
        return _answered(row, good, bad)
    column = row.first(WORSE)
    if column is None:
        return None
    bad = _Answer("rejected", column)
    if (better_column := row.first(RESPONSE_COLUMNS)) is not None:
        return _answered(row, _Answer("chosen", better_column), bad)
    whole = _conversation(row)
    if whole is None or whole.messages[-1].role != "assistant":
        raise UnusableRowError(f"has {column}, and no messages that end with the better answer")
    return _answered(row, bad, whole=whole)


class _Answer(NamedTuple):
    """An answer of a row: what it is, and the column that it stands in, maybe as one of two."""

    name: AnswerName
    column: str
    place: int | None = None

    def read(self, row: Columns) -> Chat:
        value: Any = row.get(self.column)
        return _messages(row, value if self.place is None else value[self.place], self.column)


def _judged(row: Columns) -> Preference | None:
    """The one answer of a row that a label judges; None: the row has none."""
    if "completion" in row.values:
        return _answered(row, _Answer("completion", "completion"))
    form = form_of({name: one for name, one in row.values.items() if name not in LABELS})
    if form in ("text", "continuation"):
        return None
    chat = read_form(row, form, loss=False)
    check_order(chat.messages)
    *prompt, answer = chat.messages
    return Preference(Conversation(prompt, chat.tools), {"completion": answer})


def _answered(row: Columns, *given_answers: _Answer, whole: Chat | None = None) -> Preference:
    """Prompt and answers, wherever the prompt stands.

    Args:
        row: The row.
        given_answers: Those that have a column.
        whole: A conversation whose last message is the better answer.
    """
    read = {one.name: one.read(row) for one in given_answers}
    columns: dict[AnswerName, str] = {one.name: one.column for one in given_answers}
    tools: list[Mapping[str, Any]] = []
    given: Chat | None
    if whole is not None:
        *before, better = whole.messages
        read = {"chosen": Chat([better]), **read}
        given = Chat(before, whole.tools)
    else:
        given = _prompt(row, complete=all(len(one.messages) > 1 for one in read.values()))
    if given is not None:
        tools = given.tools
    prompts: list[list[Message]] = []
    answers: dict[AnswerName, Message] = {}
    for name, chat in read.items():
        column = columns.get(name, str(name))
        *before, answer = chat.messages
        if before and before[0].role in ("assistant", "tool"):
            raise UnusableRowError(
                f"{column} is {len(chat.messages)} messages; an answer is one: leave out what "
                "follows the first"
            )
        if given is None and not before:
            raise UnusableRowError(f"has no prompt: neither a column nor messages in {column}")
        same_tools(tools, chat.tools, column)
        prompt = _same_prompt(given, before, column)
        whole_chat = Chat([*prompt])
        add_system(row, whole_chat)
        try:
            check_order([*whole_chat.messages, answer])
        except UnusableRowError as reason:
            raise UnusableRowError(f"prompt with {column}: {reason}") from None
        prompts.append(whole_chat.messages)
        answers[name] = answer
    if prompts[0] != prompts[-1]:
        raise UnusableRowError("chosen and rejected do not answer the same prompt")
    kept = Chat(prompts[0], tools)
    add_tools(row, kept)
    return Preference(Conversation(kept.messages, kept.tools), answers)


def _same_prompt(given: Chat | None, before: list[Message], column: str) -> list[Message]:
    """The prompt that a column gives, or an answer's conversation begins with, or both."""
    if given is None:
        return before
    if not before or before == given.messages:
        return given.messages
    # A text that is one of the conversation's questions is said again there, with what is around it.
    if len(given.messages) == 1 and given.messages[0] in before:
        return before
    raise UnusableRowError(f"{column} does not begin with the prompt")


def _prompt(row: Columns, *, complete: bool) -> Chat | None:
    """What the row's own columns ask; None: nothing, or ``complete`` answers say it themselves."""
    column = row.first(_PROMPTS) or next((name for name in _PROMPTS if name in row.values), None)
    if column is not None:
        return _with_history(row, _messages(row, row.get(column), column, role="user"))
    if "instruction" in row.values:
        return Chat(read_instruction(row))
    if row.has("input"):
        value = row.get("input")
        if not isinstance(value, dict):
            return _with_history(row, _messages(row, value, "input", role="user"))
        inner = Columns(value, row.unread)  # OpenAI's preferences
        listed = message_list(inner.get("messages"), "input.messages")
        chat = read_messages(listed, "input.messages", row.unread, loss=False)
        add_tools(inner, chat)
        inner.finish("input.")
        return chat
    return None if complete else _conversation(row)


def _with_history(row: Columns, asked: Chat) -> Chat:
    return Chat([*read_history(row), *asked.messages], asked.tools)


def _conversation(row: Columns) -> Chat | None:
    column = row.first(_CONVERSATIONS)
    if column is None:
        return None
    listed = message_list(row.get(column), column)
    return read_messages(listed, column, row.unread, loss=False)


def _messages(
    row: Columns, value: object, column: str, *, role: Literal["user", "assistant"] = "assistant"
) -> Chat:
    """A column as messages; text is one message of the role that it stands for."""
    if isinstance(value, str):
        return Chat([Message(role, read_text(value, column))])
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        seen = "empty" if value == [] else kind(value)
        raise UnusableRowError(f"{column} is {seen}, expected text or messages")
    chat = read_messages(value, column, row.unread, loss=False)
    if role == "assistant" and chat.messages[-1].role != "assistant":
        raise UnusableRowError(f"{column} does not end with an assistant message")
    return chat


def _label(value: object, column: str) -> bool:
    found = as_bool(value)
    if found is None:
        raise UnusableRowError(f"{column} is {value!r}, expected true or false")
    return found
