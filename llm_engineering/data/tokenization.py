"""From a conversation to token ids and labels: what is trained, and what is only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_engineering.data.conversation import Message, UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is read but not trained (``torch.nn.CrossEntropyLoss`` ignore_index)."""


@dataclass(frozen=True)
class TokenizedRow:
    """One training row: ``input_ids`` and ``labels`` have the same length, in tokens."""

    input_ids: list[int]
    labels: list[int]
    turns: int
    truncated: bool


def tokenize(
    conversation: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    loss_on: str,
    stop_ids: frozenset[int],
) -> TokenizedRow:
    """Render a conversation with the tokenizer's chat template and label each token.

    Each assistant turn is tokenized on its own behind its prompt, which is how the tokens arrive
    in generation: the prompt's tokens never depend on the answer. A turn is trained up to and
    including its stop token; what a template puts after that (a newline, in ChatML) is not.

    Args:
        conversation: Messages in order, ending with the assistant's.
        tokenizer: With the run's chat template set.
        max_length: Longest row, in tokens; the end is cut.
        loss_on: "completion" trains the assistant's turns, "everything" the prompt too.
        stop_ids: Tokens that end a turn in generation; a turn's last trained token is one.

    Raises:
        UnusableRowError: The prompt alone fills ``max_length``, so that nothing would be trained; the
            answer's own text holds a stop token; or the chat template refuses the conversation
            or does not render it turn by turn.
    """
    input_ids: list[int] = []
    labels: list[int] = []
    turns = 0
    rendered = ""
    for index, message in enumerate(conversation):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, conversation[:index], add_generation_prompt=True)
        answered = _render(tokenizer, conversation[: index + 1], add_generation_prompt=False)
        if not prompt.startswith(rendered) or not answered.startswith(prompt):
            raise UnusableRowError(
                "the chat template renders a turn differently once the next is there, "
                "so what is trained would not be what is generated; choose another "
                "model.chat_template"
            )
        prompt_ids = _encode(tokenizer, prompt[len(rendered) :])
        answer_ids = _encode(tokenizer, answered[len(prompt) :])
        stops = [i for i, token in enumerate(answer_ids) if token in stop_ids]
        if len(stops) > 1:
            raise UnusableRowError(
                f"the answer's text holds {tokenizer.decode([answer_ids[stops[0]]])!r}, which ends "
                "a turn: the model would learn to stop in the middle"
            )
        trained = stops[0] + 1 if stops else len(answer_ids)
        last = index == len(conversation) - 1
        input_ids += prompt_ids + (answer_ids[:trained] if last else answer_ids)
        labels += prompt_ids if loss_on == "everything" else [IGNORED] * len(prompt_ids)
        labels += answer_ids[:trained]
        if not last:
            rest = answer_ids[trained:]
            labels += rest if loss_on == "everything" else [IGNORED] * len(rest)
        rendered = answered
        turns += 1
    truncated = len(input_ids) > max_length
    input_ids, labels = input_ids[:max_length], labels[:max_length]
    # The first token has no predecessor to be predicted from, so it never counts as trained.
    if all(label == IGNORED for label in labels[1:]):
        raise UnusableRowError(
            f"its prompt fills model.max_seq_length ({max_length} tokens), so nothing of the "
            "answer is trained; raise it, or shorten the row"
        )
    return TokenizedRow(input_ids, labels, turns, truncated)


def prompt_of(input_ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The tokens before the first trained one, as the model sees them in generation."""
    first = next(i for i, label in enumerate(labels) if label != IGNORED)
    return list(input_ids[:first])


def _render(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Sequence[Message],
    *,
    add_generation_prompt: bool,
) -> str:
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            list(conversation), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise UnusableRowError(f"the chat template refuses it: {error}") from None
    return str(text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
