"""Preference data: two answers of which one is better, or one answer that is good or bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.message import Conversation, ConversationDict, Message, MessageDict
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.objectives import OBJECTIVES

AnswerName = Literal["chosen", "rejected", "completion"]
"""Column of an answer: the better and the worse of two, or the one that is judged."""

_LABELS = {"true": True, "false": False, "1": True, "0": False}  # CSV has text alone


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


def to_preferences(values: Mapping[str, object], objective: ObjectiveName) -> list[Preference]:
    """Read a row as what an objective learns from.

    ``prompt`` is text or chat messages; ``chosen`` and ``rejected`` (or ``completion``, with
    ``label``) are text, one assistant message in a list, or the whole conversation, whose beginning
    is the prompt. For judged answers a pair is a good one and a bad one.

    Raises:
        UnusableRowError: Columns are missing, a text is empty or no text, the two conversations
            begin differently, or both answers are the same.
    """
    judged = OBJECTIVES[objective].learns_from == "judged answers"
    if "chosen" in values and "rejected" in values:
        pair = _answers(values, ("chosen", "rejected"))
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
    if judged and "completion" in values and "label" in values:
        single = _answers(values, ("completion",))
        return [Preference(single.prompt, single.answers, _label(values["label"]))]
    wanted = "prompt, completion and label" if judged else "prompt, chosen and rejected"
    raise UnusableRowError(
        f"has columns {', '.join(map(str, values)) or '(none)'}; {objective} needs {wanted}"
    )


def _answers(values: Mapping[str, object], names: tuple[AnswerName, ...]) -> Preference:
    """Prompt and answers, wherever the prompt stands."""
    given = _messages(values["prompt"], "prompt", "user") if "prompt" in values else None
    prompts: list[Conversation] = []
    answers: dict[AnswerName, Message] = {}
    for name in names:
        *before, answer = _messages(values[name], name, "assistant")
        if given is None and not before:
            raise UnusableRowError(f"has no prompt: neither a column nor messages in {name}")
        if given is not None and before and before != given:
            raise UnusableRowError(f"{name} does not begin with the prompt")
        prompt = before if given is None else given
        try:
            whole = to_conversation({"messages": [*prompt, answer]})
        except UnusableRowError as reason:
            raise UnusableRowError(f"prompt with {name}: {reason}") from None
        prompts.append(whole.until(-1))
        answers[name] = whole.messages[-1]
    if prompts[0] != prompts[-1]:
        raise UnusableRowError("chosen and rejected do not answer the same prompt")
    return Preference(prompts[0], answers)


def _messages(value: object, name: str, role: str) -> list[object]:
    """A column as messages; text is one message of the role that it stands for."""
    if isinstance(value, str):
        if not value.strip():
            raise UnusableRowError(f"{name} is empty")
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value:
        if role == "assistant" and not (
            isinstance(value[-1], dict) and value[-1].get("role") == "assistant"
        ):
            raise UnusableRowError(f"{name} does not end with an assistant message")
        return value
    kind = "null" if value is None else "empty" if value == [] else type(value).__name__
    raise UnusableRowError(f"{name} is {kind}, expected text or messages")


def _label(value: object) -> bool:
    found = value if isinstance(value, bool) else _LABELS.get(str(value).strip().lower())
    if found is None:
        raise UnusableRowError(f"label is {value!r}, expected true or false")
    return found
