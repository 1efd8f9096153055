"""Rendering: the texts of a conversation's turns, as the tokenizer's chat template writes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from llm_engineering.data.rows.message import Conversation
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Turn(NamedTuple):
    """What a turn adds to the text: the prompt up to where the answer begins, and the answer."""

    prompt: str
    answer: str


def render_turns(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[list[Turn] | UnusableRow]:
    """The turns of each conversation, one an answer, or why its text could not be trained on.

    A conversation cannot be trained on where the chat template refuses it, changes its text, or
    renders a turn differently once the next is there.

    Args:
        conversations: Messages in order; one without an answer, as a plain text, has no turn.
        tokenizer: With the run's chat template set.
    """
    ends = [
        (conversation, index)
        for conversation in conversations
        for index in answer_positions(conversation)
    ]
    prompts = _render([conversation.until(index) for conversation, index in ends], tokenizer, True)
    whole = _render(
        [conversation.until(index + 1) for conversation, index in ends], tokenizer, False
    )
    rendered = iter(zip(prompts, whole, strict=True))
    turns: list[list[Turn] | UnusableRow] = []
    for conversation in conversations:
        answers = answer_positions(conversation)
        try:
            turns.append(_turns(conversation, answers, list(islice(rendered, len(answers)))))
        except UnusableRowError as error:
            turns.append(UnusableRow(str(error)))
    return turns


def answer_positions(conversation: Conversation) -> list[int]:
    """Which of the messages are the assistant's, counted from 0."""
    return [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]


def _turns(
    conversation: Conversation,
    answers: Sequence[int],
    rendered: Sequence[tuple[str | UnusableRow, str | UnusableRow]],
) -> list[Turn]:
    turns: list[Turn] = []
    before, start = "", 0
    for index, (prompt, whole) in zip(answers, rendered, strict=True):
        if isinstance(prompt, UnusableRow):
            raise UnusableRowError(prompt.reason)
        if isinstance(whole, UnusableRow):
            raise UnusableRowError(whole.reason)
        turns.append(_turn(conversation, start, index, before, prompt, whole))
        before, start = whole, index + 1
    return turns


def _turn(
    conversation: Conversation, start: int, index: int, before: str, prompt: str, whole: str
) -> Turn:
    """What the messages from ``start`` to ``index`` add to the text before them."""
    if not prompt.startswith(before) or not whole.startswith(prompt):
        raise UnusableRowError(
            "the chat template renders a turn differently once the next is there, "
            "so what is trained would not be what is generated; choose another "
            "model.chat_template"
        )
    turn = Turn(prompt[len(before) :], whole[len(prompt) :])
    for number in range(start, index + 1):
        message = conversation.messages[number]
        # Templates may trim a message; anything else would train other text than the data's.
        if message.content.strip() not in (turn.answer if number == index else turn.prompt):
            raise UnusableRowError(
                f"the chat template does not render message {number + 1} "
                f"({message.role}) as it stands, so other text than the data's "
                "would be trained; choose another model.chat_template"
            )
    return turn


def _render(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, prompt: bool
) -> list[str | UnusableRow]:
    """Render each with the chat template; ``prompt`` asks for the beginning of an answer too."""
    import jinja2

    def render(some: Sequence[Conversation]) -> list[str]:
        text = tokenizer.apply_chat_template(
            [[message.to_template() for message in one.messages] for one in some],
            tokenize=False,
            add_generation_prompt=prompt,
        )
        return [str(one) for one in text]

    if not conversations:
        return []
    try:
        return [*render(conversations)]
    except (jinja2.TemplateError, TypeError):
        pass
    # One of them is refused: one by one, to say which.
    found: list[str | UnusableRow] = []
    for one in conversations:
        try:
            found += render([one])
        except (jinja2.TemplateError, TypeError) as error:
            found.append(UnusableRow(f"the chat template refuses it: {error}"))
    return found
