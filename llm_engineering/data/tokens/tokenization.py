"""From conversations to token ids and labels: what is trained, and what is only read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_engineering.data.rows.conversations import TEXT_ROLE, Message, UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is read but not trained (``torch.nn.CrossEntropyLoss`` ignore_index)."""

_PARALLEL = "TOKENIZERS_PARALLELISM"
_TEXT_PROMPT = 64  # tokens of a plain text that stand for its prompt in a sample, at most


@dataclass(frozen=True)
class TokenizedRow:
    """One training row: ``input_ids`` and ``labels`` have the same length, in tokens.

    ``prompt_tokens`` of them come before the answer that is message ``answer``, the first that is
    trained; a plain text has neither, and its beginning stands for a prompt.
    """

    input_ids: list[int]
    labels: list[int]
    turns: int
    truncated: bool
    prompt_tokens: int = 0
    answer: int = 0


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

    A plain text is not rendered: all of it is trained, with the special tokens that the tokenizer
    puts around a text and the EOS token at its end.

    Args:
        conversation: Messages in order, ending with the assistant's.
        tokenizer: With the run's chat template set.
        max_length: Longest row, in tokens; the end is cut.
        loss_on: "completion" trains the assistant's turns, "last_turn" the last of them,
            "everything" the prompt too.
        stop_ids: Tokens that end a turn in generation; a turn's last trained token is one.

    Raises:
        UnusableRowError: The prompt alone fills ``max_length``, so that nothing would be trained; the
            answer's own text holds a stop token; or the chat template refuses the conversation,
            changes its text or does not render it turn by turn.
    """
    (row,) = tokenize_all(
        [conversation], tokenizer, max_length=max_length, loss_on=loss_on, stop_ids=stop_ids
    )
    if isinstance(row, UnusableRowError):
        raise row
    return row


def tokenize_all(
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    loss_on: str,
    stop_ids: frozenset[int],
) -> list[TokenizedRow | UnusableRowError]:
    """``tokenize`` many conversations in few calls; a row that cannot be used is its error."""
    rendered = _turns_of_all(conversations, tokenizer)
    pieces = [
        text for turns in rendered if isinstance(turns, list) for turn in turns for text in turn
    ]
    encoded = iter(_encode(tokenizer, pieces))
    rows: list[TokenizedRow | UnusableRowError] = []
    for conversation, turns in zip(conversations, rendered, strict=True):
        if isinstance(turns, UnusableRowError):
            rows.append(turns)
            continue
        try:
            if conversation[0]["role"] == TEXT_ROLE:
                row = _text_row(conversation[0]["content"], tokenizer, stop_ids)
            else:
                ids = [(next(encoded), next(encoded)) for _ in turns]
                row = _labelled(conversation, ids, tokenizer, loss_on, stop_ids)
            rows.append(_cut(row, max_length))
        except UnusableRowError as error:
            rows.append(error)
    return rows


def prompt_of(input_ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The tokens before the first trained one, as the model sees them in generation."""
    first = next(i for i, label in enumerate(labels) if label != IGNORED)
    return list(input_ids[:first])


def _turns_of_all(
    conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[list[tuple[str, str]] | UnusableRowError]:
    """For each conversation the texts of its turns, each as (prompt, answer)."""
    places = [
        (row, index)
        for row, conversation in enumerate(conversations)
        for index, message in enumerate(conversation)
        if message["role"] == "assistant"
    ]
    prompts = _render_all(tokenizer, [conversations[r][:i] for r, i in places], prompt=True)
    answered = _render_all(tokenizer, [conversations[r][: i + 1] for r, i in places], prompt=False)
    turns: list[list[tuple[str, str]] | UnusableRowError] = [[] for _ in conversations]
    rendered, start, current = "", 0, -1
    for (row, index), prompt, text in zip(places, prompts, answered, strict=True):
        if row != current:
            rendered, start, current = "", 0, row
        so_far = turns[row]
        if isinstance(so_far, UnusableRowError):
            continue
        try:
            so_far.append(_turn(conversations[row], start, index, rendered, prompt, text))
        except UnusableRowError as error:
            turns[row] = error
            continue
        rendered, start = str(text), index + 1
    return turns


def _turn(
    conversation: Sequence[Message],
    start: int,
    index: int,
    rendered: str,
    prompt: str | UnusableRowError,
    answered: str | UnusableRowError,
) -> tuple[str, str]:
    """What the messages from ``start`` to ``index`` add to the text rendered so far."""
    if isinstance(prompt, UnusableRowError):
        raise prompt
    if isinstance(answered, UnusableRowError):
        raise answered
    if not prompt.startswith(rendered) or not answered.startswith(prompt):
        raise UnusableRowError(
            "the chat template renders a turn differently once the next is there, "
            "so what is trained would not be what is generated; choose another "
            "model.chat_template"
        )
    asked, answer = prompt[len(rendered) :], answered[len(prompt) :]
    for number in range(start, index + 1):
        # Templates may trim a message; anything else would train other text than the data's.
        if conversation[number]["content"].strip() not in (answer if number == index else asked):
            raise UnusableRowError(
                f"the chat template does not render message {number + 1} "
                f"({conversation[number]['role']}) as it stands, so other text than the data's "
                "would be trained; choose another model.chat_template"
            )
    return asked, answer


def _labelled(
    conversation: Sequence[Message],
    turns: Sequence[tuple[list[int], list[int]]],
    tokenizer: PreTrainedTokenizerBase,
    loss_on: str,
    stop_ids: frozenset[int],
) -> TokenizedRow:
    input_ids: list[int] = []
    labels: list[int] = []
    shown = len(turns) - 1 if loss_on == "last_turn" else 0
    prompt_tokens = 0
    for number, (prompt_ids, answer_ids) in enumerate(turns):
        stops = [i for i, token in enumerate(answer_ids) if token in stop_ids]
        if len(stops) > 1:
            raise UnusableRowError(
                f"the answer's text holds {tokenizer.decode([answer_ids[stops[0]]])!r}, which ends "
                "a turn: the model would learn to stop in the middle"
            )
        end = stops[0] + 1 if stops else len(answer_ids)
        last = number == len(turns) - 1
        if number == shown:
            prompt_tokens = len(input_ids) + len(prompt_ids)
        input_ids += prompt_ids + (answer_ids[:end] if last else answer_ids)
        labels += prompt_ids if loss_on == "everything" else [IGNORED] * len(prompt_ids)
        trained = last or loss_on != "last_turn"
        labels += answer_ids[:end] if trained else [IGNORED] * end
        if not last:
            rest = answer_ids[end:]
            labels += rest if loss_on == "everything" else [IGNORED] * len(rest)
    places = [i for i, message in enumerate(conversation) if message["role"] == "assistant"]
    return TokenizedRow(
        input_ids,
        labels,
        turns=1 if loss_on == "last_turn" else len(turns),
        truncated=False,
        prompt_tokens=prompt_tokens,
        answer=places[shown],
    )


def _text_row(
    text: str, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> TokenizedRow:
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if not ids or ids[-1] not in stop_ids:
        ids.append(int(tokenizer.eos_token_id))
    ends = sum(token in stop_ids for token in ids)
    prompt_tokens = min(len(ids) // 2, _TEXT_PROMPT)
    return TokenizedRow(ids, list(ids), turns=ends, truncated=False, prompt_tokens=prompt_tokens)


def _cut(row: TokenizedRow, max_length: int) -> TokenizedRow:
    truncated = len(row.input_ids) > max_length
    input_ids, labels = row.input_ids[:max_length], row.labels[:max_length]
    # The first token has no predecessor to be predicted from, so it never counts as trained.
    if all(label == IGNORED for label in labels[1:]):
        raise UnusableRowError(
            f"its prompt fills model.max_seq_length ({max_length} tokens), so nothing of the "
            "answer is trained; raise it, or shorten the row"
        )
    return TokenizedRow(
        input_ids, labels, row.turns, truncated, min(row.prompt_tokens, max_length), row.answer
    )


def _render_all(
    tokenizer: PreTrainedTokenizerBase, conversations: list[Sequence[Message]], *, prompt: bool
) -> list[str | UnusableRowError]:
    """Render each with the chat template; ``prompt`` asks for the beginning of an answer too."""
    import jinja2

    def render(some: list[list[Message]]) -> list[str]:
        text = tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=prompt)
        return [str(one) for one in text]

    if not conversations:
        return []
    messages = [list(one) for one in conversations]
    try:
        return [*render(messages)]
    except (jinja2.TemplateError, TypeError):
        pass
    # One of them is refused: one by one, to say which.
    found: list[str | UnusableRowError] = []
    for one in messages:
        try:
            found += render([one])
        except (jinja2.TemplateError, TypeError) as error:
            found.append(UnusableRowError(f"the chat template refuses it: {error}"))
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    with _all_cores():
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    return list(encoded["input_ids"])


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use every core, which is switched off elsewhere for the sake of forks."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLEL] = "false" if before is None else before
