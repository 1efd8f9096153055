"""Rendering: the texts that a conversation is trained as, by the tokenizer's chat template.

An answer is trained behind exactly the prompt that generation would see: the template's own text of
all messages before it, with the beginning of an answer. Where the text of a whole conversation holds
every answer so, it is one training row. Many templates write an earlier turn otherwise once others
follow (Qwen3 drops what was thought, gpt-oss writes another end); then an answer whose text the
whole one does not hold becomes a training row of its own.

trl's training templates make one row of such conversations, with earlier turns as they are never
generated: of the originals that need several rows (7 on plain turns, 12 on reasoning, 1 on tools,
trl 1.15), none has a training template whose text holds every prompt and answer of generation. So
they are not used.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError
from llm_engineering.data.tokens.template_text import (
    END_THINK,
    THINK,
    difference,
    has_result,
    has_text,
    is_empty_thinking,
    lacking_call,
    lacking_tool,
    past_empty_thinking,
    shown,
    stop_of_answer,
    stop_pattern,
    thought,
    without_closed_thinking,
)
from llm_engineering.model.chat_template import (
    TemplateInputs,
    apply_template,
    for_template,
    generation_spans,
    has_generation_markers,
    takes_parts,
    variables,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Characters of a text: first, and the one behind the last."""


class Answer(NamedTuple):
    """An answer in a row's text: its message, and the characters where it and its stop begin."""

    message: int
    start: int
    stop: int
    end: int


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A training row as text, which ends with its last answer."""

    text: str
    answers: tuple[Answer, ...]
    """Those trained, in order."""
    others: Mapping[int, Span] = field(default_factory=dict)
    """Where the messages are that are not trained as answers, and say themselves whether to be."""
    marked: tuple[Span, ...] | None = None
    """What the template's own generation markers enclose, if it has some."""


class Notice(NamedTuple):
    """Something that a template makes of data, which is right and still wants to be known."""

    what: str
    advice: str
    level: int = logging.INFO


EMPTY_THINKING = Notice(
    "answers are trained with thinking that has no thought in it (<think></think>), as the chat "
    "template writes them",
    "to train answers without it, set model.chat_template_kwargs: {enable_thinking: false} where "
    "the template has that variable; or bring reasoning_content in the data",
    logging.WARNING,
)
EARLIER_REASONING = Notice(
    "training rows have an earlier answer without its reasoning, which the chat template drops once "
    "another turn follows",
    "generation sees the same; the reasoning is trained where it is the answer's own",
)
OTHERWISE_ONCE_ANSWERED = Notice(
    "answers are trained behind the prompt that generation sees; with the answer, the chat template "
    "writes that prompt otherwise",
    "nothing is to be done",
)
UNROLLED = Notice(
    "training rows more than conversations: the chat template writes earlier turns otherwise than "
    "it generates them, so such an answer is a row of its own",
    "they train the same answers; tokens of the earlier turns are read again for each",
)


class Renderer:
    """A tokenizer's chat template with its inputs and stop tokens; counts what is to be said."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        inputs: TemplateInputs,
        stop_ids: frozenset[int],
        notices: Counter[Notice] | None = None,
    ) -> None:
        """For one run.

        Args:
            tokenizer: With the run's chat template set.
            inputs: What that is given beside messages.
            stop_ids: Tokens that end a turn in generation.
            notices: Counts what a template does that wants to be known.
        """
        self.tokenizer = tokenizer
        self.inputs = inputs
        self.notices: Counter[Notice] = Counter() if notices is None else notices
        self.stops = stop_pattern(stop_texts(tokenizer, stop_ids))
        self.template = str(tokenizer.chat_template)
        self.is_marked = has_generation_markers(self.template)
        self._in_parts = takes_parts(tokenizer, inputs)

    def render(
        self, conversations: Sequence[Conversation], *, prompt: bool
    ) -> list[str | UnusableRow]:
        """Each as text; ``prompt`` asks for the beginning of an answer too."""
        groups: defaultdict[str, list[int]] = defaultdict(list)
        found: list[str | UnusableRow] = [""] * len(conversations)
        for index, one in enumerate(conversations):
            if any(message.tool_calls for message in one.messages):
                found[index] = self._refused_or(self._text_with_calls, one, prompt)
            else:
                groups[json.dumps(one.tools) if one.tools else ""].append(index)
        for indices in groups.values():
            texts = self._render_alike([conversations[index] for index in indices], prompt)
            for index, text in zip(indices, texts, strict=True):
                found[index] = text
        return found

    def messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        """Messages as the template takes them."""
        if any(message.tool_calls for message in conversation.messages):
            return self.with_calls(conversation, True)[1]
        return self._messages(conversation)

    def with_calls(
        self, conversation: Conversation, prompt: bool
    ) -> tuple[str, list[dict[str, Any]]]:
        """The text of a conversation with tool calls, and the messages that it is of.

        Templates take a call's arguments as an object or, against their own documentation, as JSON
        text (DeepSeek's); and beside calls no content as empty text, or as none. The first of these
        that shows all calls is taken, else the first that the template takes at all.

        Raises:
            Exception: Whatever the template raises.
        """
        first: tuple[str, list[dict[str, Any]]] | None = None
        refused: Exception | None = None
        for no_content in ("", None):
            for as_text in (False, True):
                messages = _with_calls(self._messages(conversation), as_text, no_content)
                try:
                    (text,) = self._apply([messages], conversation, prompt)
                except Exception as error:
                    refused = refused or error
                    continue
                if _shows_calls(conversation, text):
                    return text, messages
                first = first or (text, messages)
        if first is None:
            raise refused or ValueError("it renders nothing")
        return first

    def _messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        messages = [message.to_template() for message in conversation.messages]
        return for_template(messages, self.template, in_parts=self._in_parts)

    def _render_alike(
        self, conversations: Sequence[Conversation], prompt: bool
    ) -> list[str | UnusableRow]:
        """Of conversations with the same tools."""
        messages = [self._messages(one) for one in conversations]
        try:
            return [*self._apply(messages, conversations[0], prompt)]
        except Exception:  # noqa: S110  (a template is a program, and raises what it likes)
            pass
        # One of them is refused: one by one, to say which.
        return [
            self._refused_or(self._text, turns, one, prompt)
            for one, turns in zip(conversations, messages, strict=True)
        ]

    def _apply(
        self, messages: Sequence[list[dict[str, Any]]], like: Conversation, prompt: bool
    ) -> list[str]:
        return apply_template(
            self.tokenizer,
            messages,
            tools=like.tools,
            inputs=self.inputs,
            add_generation_prompt=prompt,
        )

    def _text(self, messages: list[dict[str, Any]], like: Conversation, prompt: bool) -> str:
        return self._apply([messages], like, prompt)[0]

    def _text_with_calls(self, conversation: Conversation, prompt: bool) -> str:
        return self.with_calls(conversation, prompt)[0]

    @staticmethod
    def _refused_or(render: Callable[..., str], *arguments: object) -> str | UnusableRow:
        try:
            return render(*arguments)
        except Exception as error:
            reason = str(error) or type(error).__name__
            return UnusableRow(f"the chat template refuses it: {reason}")


def _with_calls(
    messages: list[dict[str, Any]], as_text: bool, no_content: str | None
) -> list[dict[str, Any]]:
    """Messages with calls' arguments as JSON text if asked, and what stands for no content."""
    for message in messages:
        if "tool_calls" not in message:
            continue
        message["content"] = message["content"] or no_content
        for call in message["tool_calls"] if as_text else ():
            arguments = call["function"]["arguments"]
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return messages


def _shows_calls(conversation: Conversation, text: str) -> bool:
    """Whether a text has all calls, none as Python prints a dictionary, which is no JSON."""
    return all(
        lacking_call(message, text) is None
        and not any(
            call.arguments and str(dict(call.arguments)) in text for call in message.tool_calls
        )
        for message in conversation.messages
    )


def stop_texts(tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int]) -> list[str]:
    """How stop tokens stand in a text; an id that the tokenizer does not have stands in none."""
    added = tokenizer.added_tokens_decoder
    texts = [str(added[i]) if i in added else str(tokenizer.decode([i])) for i in sorted(stop_ids)]
    return [text for text in texts if text]


def answer_positions(conversation: Conversation) -> list[int]:
    """Which of the messages are the assistant's, counted from 0."""
    return [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]


def trained_answers(conversation: Conversation, loss_on: str) -> list[int]:
    """Which of the assistant's messages are trained: as the data says, else by ``data.loss_on``."""
    positions = answer_positions(conversation)
    by_default = positions[-1:] if loss_on == "last_turn" else positions
    messages = conversation.messages
    return [
        i
        for i in positions
        if (i in by_default if messages[i].trained is None else messages[i].trained)
    ]


def render_rows(
    conversations: Sequence[Conversation], renderer: Renderer, *, loss_on: str
) -> list[list[RenderedRow] | UnusableRow]:
    """The training rows of each conversation as texts, or why it cannot be trained on.

    Args:
        conversations: With answers; others, as plain texts, give no row.
        renderer: The chat template.
        loss_on: As ``data.loss_on``.
    """
    wanted = [trained_answers(one, loss_on) for one in conversations]
    ends = [
        (conversation, index)
        for conversation, answers in zip(conversations, wanted, strict=True)
        for index in answers
    ]
    prompts = renderer.render([one.until(index) for one, index in ends], prompt=True)
    wholes = renderer.render([one.until(index + 1) for one, index in ends], prompt=False)
    rendered = iter(zip(prompts, wholes, strict=True))
    found: list[list[RenderedRow] | UnusableRow] = []
    for conversation, answers in zip(conversations, wanted, strict=True):
        texts = [next(rendered) for _ in answers]
        try:
            rows = _rows(conversation, answers, texts, renderer, loss_on)
        except UnusableRowError as error:
            found.append(UnusableRow(str(error)))
            continue
        if len(rows) > 1:
            renderer.notices[UNROLLED] += len(rows) - 1
        found.append(rows)
    return found


def _rows(
    conversation: Conversation,
    answers: Sequence[int],
    texts: Sequence[tuple[str | UnusableRow, str | UnusableRow]],
    renderer: Renderer,
    loss_on: str,
) -> list[RenderedRow]:
    if not answers:
        if not answer_positions(conversation):
            return []
        raise UnusableRowError("the data says of every answer not to train it")
    rows: list[tuple[str, list[Answer], str]] = []
    for index, (prompt, whole) in reversed(list(zip(answers, texts, strict=True))):
        for text in (prompt, whole):
            if isinstance(text, UnusableRow):
                raise UnusableRowError(text.reason)
        assert isinstance(prompt, str)
        assert isinstance(whole, str)
        answer, stop = _answer(conversation, index, prompt, whole, renderer)
        text = prompt + answer
        place = Answer(index, len(prompt), len(prompt) + stop, len(text))
        stops = place.stop < place.end
        holding = next((row for row in rows if stops and row[0].startswith(text)), None)
        if holding is None:
            rows.append((text, [place], whole))
        else:
            holding[1].insert(0, place)
    found = []
    for position, (text, places, whole) in enumerate(rows):
        # The last answer's row is the conversation's; what else is trained is trained there, once.
        is_main = position == 0
        others = _check(conversation, text, places, renderer, loss_on, is_main)
        marked = None
        if renderer.is_marked:
            marked = _marked(conversation.until(places[-1].message + 1), text, whole, renderer)
        found.append(RenderedRow(text, tuple(places), others, marked))
    return found[::-1]


def _answer(
    conversation: Conversation, index: int, prompt: str, whole: str, renderer: Renderer
) -> tuple[str, int]:
    """What an answer adds to its prompt with its stop token, and where that begins, if there is one."""
    message = conversation.messages[index]
    answer = _continuation(conversation, index, prompt, whole, renderer)
    stop = stop_of_answer(answer, message, renderer.stops)
    if stop is None and whole.endswith(answer):
        # The turn may be ended by how the next one begins.
        answer += _next_stop(conversation, index, renderer)
        stop = stop_of_answer(answer, message, renderer.stops)
    if is_empty_thinking(answer):
        if thought(message).reasoning:
            raise UnusableRowError(
                "the chat template takes the thinking in the answer's text for the answer, behind "
                "thinking of its own that is empty: bring it as reasoning_content"
            )
        renderer.notices[EMPTY_THINKING] += 1
    return (answer, len(answer)) if stop is None else (answer[: stop.end()], stop.start())


def _continuation(
    conversation: Conversation, index: int, prompt: str, whole: str, renderer: Renderer
) -> str:
    """The text behind the prompt, in what the template makes of the prompt with the answer."""
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    own = thought(conversation.messages[index])
    # With the answer, the template may write what is before the last message otherwise (Mistral's
    # and Gemma's leave out a system prompt): what follows that message is the same.
    anchor = conversation.messages[index - 1].content.strip() if index else ""
    if anchor not in prompt:  # a tool's result in another form
        anchor = ""
    header = prompt.rpartition(anchor)[2] if anchor else prompt
    beginning = anchor + header
    place = whole.rfind(beginning) if header else -1
    if place >= 0:
        renderer.notices[OTHERWISE_ONCE_ANSWERED] += 1
        return whole[place + len(beginning) :]
    # The prompt may open the thinking, or close it, which the template does not do in the whole.
    opened = header.rstrip().endswith(THINK)
    kept = header.rstrip().removesuffix(THINK) if opened else without_closed_thinking(header)
    if kept is not None:
        place = whole.rfind(anchor + kept)
        rest = past_empty_thinking(whole[place + len(anchor + kept) :]) if place >= 0 else ""
        said = rest.startswith(own.content)
        if opened and not own.reasoning:
            raise UnusableRowError(
                "the chat template lets every answer begin with thinking (its prompt ends with "
                f"{THINK}), and this one has none: bring reasoning_content in the data, "
                f"{_switch(renderer, 'false')}or choose another model.chat_template"
            )
        if opened and said:
            gap = "" if header.endswith("\n") else "\n"
            return f"{gap}{own.reasoning}\n{END_THINK}\n\n{rest}"
        if not opened and own.reasoning:
            raise UnusableRowError(
                "the chat template closes the thinking in its prompt, which ends with "
                f"{header[len(kept) :].strip()!r}, and this answer has some: "
                f"{_switch(renderer, 'true')}or leave it out of the data"
            )
        if not opened and said:
            return rest
    raise UnusableRowError(
        "the chat template's prompt is not how it begins the answer, so what is trained would not "
        f"be what is generated: {difference(prompt, whole)}; choose another model.chat_template"
    )


def _switch(renderer: Renderer, value: str) -> str:
    """The variable by which a template thinks or does not, as advice."""
    known = variables(renderer.template)
    name = next((one for one in ("enable_thinking", "thinking") if one in known), None)
    return "" if name is None else f"set model.chat_template_kwargs: {{{name}: {value}}}, "


def _next_stop(conversation: Conversation, index: int, renderer: Renderer) -> str:
    """The stop token that begins the turn behind an answer, and what is before it; or nothing."""
    message = conversation.messages[index]
    if index + 1 < len(conversation.messages):
        following = conversation.messages[index + 1]
    elif message.tool_calls:
        call = message.tool_calls[0]
        following = Message("tool", "Yes.", tool_call_id=call.id, name=call.name)
    else:
        following = Message("user", "Yes.")
    # Without what was thought, which many templates drop once another turn follows.
    bare = replace(message, reasoning="", content=thought(message).content)
    answered = conversation.until(index).with_answer(bare)
    whole, longer = renderer.render([answered, answered.with_answer(following)], prompt=False)
    if isinstance(whole, UnusableRow) or isinstance(longer, UnusableRow):
        return ""
    if not longer.startswith(whole):
        return ""
    rest = longer[len(whole) :]
    stop = renderer.stops.match(rest.lstrip())
    return "" if stop is None else rest[: len(rest) - len(rest.lstrip())] + stop[0]


def _check(
    conversation: Conversation,
    text: str,
    places: Sequence[Answer],
    renderer: Renderer,
    loss_on: str,
    is_main: bool,
) -> dict[int, Span]:
    """Check that a row has what the data says; returns where messages are that say they are trained.

    Raises:
        UnusableRowError: The template leaves out or changes a message, a tool call or a tool.
    """
    answers = {place.message: place for place in places}
    last = places[-1].message
    prompt = text[: places[-1].start]
    late = [
        m.role for m in conversation.messages[last + 1 :] if m.trained and m.role != "assistant"
    ]
    if is_main and late:
        raise UnusableRowError(
            f"the data says to train a {late[0]} message behind the last answer that is trained, "
            "which no training row has; say it of an answer behind it, or of none"
        )
    wanted: dict[int, Span] = {}
    cursor, dropped = 0, False
    for number, message in enumerate(conversation.messages[:last]):
        if number in answers:
            cursor = answers[number].end
            continue
        start, end = _find(message, number, prompt, cursor)
        if message.role not in ("system", "developer"):
            cursor = end
        if message.role == "assistant":
            own = thought(message)
            dropped |= bool(own.reasoning) and own.reasoning not in prompt
            lacking = lacking_call(message, prompt)
            if lacking is not None:
                raise UnusableRowError(
                    _leaves_out(f"tool_calls ({lacking} in message {number + 1})")
                )
            if loss_on == "everything":
                stop = renderer.stops.search(prompt, end)
                wanted[number] = (start, end if stop is None else stop.end())
        elif message.trained is not None and (is_main or loss_on == "everything"):
            wanted[number] = (start, end)
    if conversation.tools:
        before = conversation.until(last)
        (without,) = renderer.render([replace(before, tools=())], prompt=True)
        lacking = lacking_tool(conversation.tools, prompt)
        if without == prompt or lacking is not None:
            raise UnusableRowError(_leaves_out("tools" + (f" ({lacking})" if lacking else "")))
    if dropped:
        renderer.notices[EARLIER_REASONING] += 1
    return wanted


def _find(message: Message, number: int, prompt: str, cursor: int) -> Span:
    """Where a message's content is in the prompt, behind ``cursor``; a system's is anywhere."""
    content = message.content.strip()
    anywhere = message.role in ("system", "developer")
    start = prompt.find(content, 0 if anywhere else cursor)
    if start < 0 and message.role == "assistant":
        content = thought(message).content
        start = prompt.find(content, cursor)
    if start >= 0:
        return start, start + len(content)
    if message.role == "tool" and has_result(content, prompt):
        return cursor, cursor
    if message.role == "system" and not has_text(content, prompt):
        raise UnusableRowError(_leaves_out(f"the system prompt {shown(content)}"))
    raise UnusableRowError(
        f"the chat template does not render message {number + 1} ({message.role}) as it stands, so "
        "other text than the data's would be trained; choose another model.chat_template"
    )


def _leaves_out(what: str) -> str:
    return (
        f"the chat template leaves out {what}, so generation would never see it; choose another "
        "model.chat_template, or leave it out of the data"
    )


def _marked(
    conversation: Conversation, text: str, whole: str, renderer: Renderer
) -> tuple[Span, ...]:
    """The spans of the template's generation markers, in a row's text.

    Raises:
        UnusableRowError: The row's text is not the beginning of the template's.
    """
    messages = renderer.messages(conversation)
    rendered, spans = generation_spans(
        renderer.tokenizer, messages, tools=conversation.tools, inputs=renderer.inputs
    )
    if rendered != whole or not (whole.startswith(text) or text.startswith(whole)):
        raise UnusableRowError(
            "the chat template marks what to train ({% generation %}), but not behind the prompt "
            f"that generation sees: {difference(text, rendered)}; remove the markers, or choose "
            "another model.chat_template"
        )
    return tuple(spans)
