"""From conversations to token ids and labels: what is trained, and what is only read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType, cast

from llm_engineering.data.rows.message import TEXT_ROLE, Conversation
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError
from llm_engineering.data.tokens.rendering import answer_positions, render_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenId = NewType("TokenId", int)
Label = NewType("Label", int)
"""A token's id where it is trained, else ``IGNORED``."""
MessageNumber = NewType("MessageNumber", int)
"""A message of a conversation, counted from 0."""

IGNORED: Final = Label(-100)
"""Label of a token that is read but not trained (``torch.nn.CrossEntropyLoss`` ignore_index)."""

_PARALLEL = "TOKENIZERS_PARALLELISM"
_TEXT_PROMPT = 64  # tokens of a plain text that stand for its prompt in a sample, at most


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One training row: ``input_ids`` and ``labels`` have the same length, in tokens.

    ``prompt_tokens`` of them come before the answer that is message ``answer``, the first that is
    trained; a plain text has neither, and its beginning stands for a prompt.
    """

    input_ids: list[TokenId]
    labels: list[Label]
    turns: int
    truncated: bool
    prompt_tokens: int = 0
    answer: MessageNumber = MessageNumber(0)


def tokenize_conversations(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    loss_on: str,
    stop_ids: frozenset[int],
) -> list[TokenizedRow | UnusableRow]:
    """Render conversations with the tokenizer's chat template and label each token.

    Each assistant turn is tokenized on its own behind its prompt, which is how the tokens arrive
    in generation: the prompt's tokens never depend on the answer. A turn is trained up to and
    including its stop token; what a template puts after that (a newline, in ChatML) is not.

    A plain text is not rendered: all of it is trained, with the special tokens that the tokenizer
    puts around a text and the EOS token at its end.

    Args:
        conversations: Ending with the assistant's message; many, for few calls.
        tokenizer: With the run's chat template set.
        max_length: Longest row, in tokens; the end is cut.
        loss_on: "completion" trains the assistant's turns, "last_turn" the last of them,
            "everything" the prompt too.
        stop_ids: Tokens that end a turn in generation; a turn's last trained token is one.

    Returns:
        Each in tokens, or why it cannot be used: the prompt alone fills ``max_length``, so that
        nothing would be trained; the answer's own text holds a stop token; or the chat template
        refuses the conversation, changes its text or does not render it turn by turn.
    """
    rendered = render_turns(conversations, tokenizer)
    texts = [
        text
        for turns in rendered
        if not isinstance(turns, UnusableRow)
        for turn in turns
        for text in turn
    ]
    encoded = iter(_encode(tokenizer, texts))
    rows: list[TokenizedRow | UnusableRow] = []
    for conversation, turns in zip(conversations, rendered, strict=True):
        if isinstance(turns, UnusableRow):
            rows.append(turns)
            continue
        ids = [(next(encoded), next(encoded)) for _ in turns]
        try:
            if conversation.messages[0].role == TEXT_ROLE:
                row = _text_row(conversation.messages[0].content, tokenizer, stop_ids)
            else:
                row = _labelled(conversation, ids, tokenizer, loss_on, stop_ids)
            rows.append(_cut(row, max_length))
        except UnusableRowError as error:
            rows.append(UnusableRow(str(error)))
    return rows


def prompt_of(input_ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The tokens before the first trained one, as the model sees them in generation."""
    first = next(i for i, label in enumerate(labels) if label != IGNORED)
    return list(input_ids[:first])


def trained(ids: list[TokenId]) -> list[Label]:
    """Labels that train these tokens."""
    return cast("list[Label]", ids)


def _labelled(
    conversation: Conversation,
    turns: Sequence[tuple[list[TokenId], list[TokenId]]],
    tokenizer: PreTrainedTokenizerBase,
    loss_on: str,
    stop_ids: frozenset[int],
) -> TokenizedRow:
    input_ids: list[TokenId] = []
    labels: list[Label] = []
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
        everything = loss_on == "everything"
        labels += trained(prompt_ids) if everything else [IGNORED] * len(prompt_ids)
        learned = last or loss_on != "last_turn"
        labels += trained(answer_ids[:end]) if learned else [IGNORED] * end
        if not last:
            rest = answer_ids[end:]
            labels += trained(rest) if everything else [IGNORED] * len(rest)
    return TokenizedRow(
        input_ids,
        labels,
        turns=1 if loss_on == "last_turn" else len(turns),
        truncated=False,
        prompt_tokens=prompt_tokens,
        answer=MessageNumber(answer_positions(conversation)[shown]),
    )


def _text_row(
    text: str, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> TokenizedRow:
    ids: list[TokenId] = list(tokenizer(text, verbose=False)["input_ids"])
    if not ids or ids[-1] not in stop_ids:
        ids.append(TokenId(int(tokenizer.eos_token_id)))
    ends = sum(token in stop_ids for token in ids)
    prompt_tokens = min(len(ids) // 2, _TEXT_PROMPT)
    return TokenizedRow(
        ids, trained(list(ids)), turns=ends, truncated=False, prompt_tokens=prompt_tokens
    )


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


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[TokenId]]:
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
