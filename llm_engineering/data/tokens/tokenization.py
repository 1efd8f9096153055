"""From conversations to token ids and labels: what is trained, and what is only read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NewType, cast

from llm_engineering.data.rows.message import TEXT_ROLE, Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError
from llm_engineering.data.tokens.rendering import (
    Answer,
    Notice,
    RenderedRow,
    Renderer,
    render_rows,
    stop_texts,
)
from llm_engineering.model.chat_template import TemplateInputs

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
_NEAR = 200  # characters at the end of a prompt that its last special token is looked for in
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
    inputs: TemplateInputs | None = None,
    notices: Counter[Notice] | None = None,
) -> list[list[TokenizedRow] | UnusableRow]:
    """Render conversations with the tokenizer's chat template and label each token.

    A row's whole text is tokenized at once, as transformers does. The tokens of each answer's
    prompt, tokenized alone as for generation, must be its beginning. An answer is trained up to and
    including its stop token; what a template puts after that (a newline, in ChatML) is not.

    A plain text is not rendered: all of it is trained, with the special tokens that the tokenizer
    puts around a text and the EOS token at its end. Of several texts in a row, joined as they stand,
    those are trained that say so (a prompt and its completion, as trl takes them).

    Args:
        conversations: Ending with the assistant's message; many, for few calls.
        tokenizer: With the run's chat template set.
        max_length: Longest row, in tokens; the end is cut.
        loss_on: "completion" trains the assistant's turns, "last_turn" the last of them,
            "everything" the prompt too. What a message says of itself (``trained``) counts more.
        stop_ids: Tokens that end a turn in generation; a turn's last trained token is one.
        inputs: What the chat template is given beside messages.
        notices: Counts what the chat template does that wants to be known.

    Returns:
        The training rows of each, several where the chat template writes earlier answers otherwise
        than they are generated; or why it cannot be used: the prompt alone fills ``max_length``, so
        that nothing would be trained; the answer's own text holds a stop token; the prompt's tokens
        are not those of the whole; or the chat template refuses the conversation, changes or leaves
        out what it says, or begins an answer otherwise than its prompt ends.
    """
    renderer = Renderer(tokenizer, inputs or TemplateInputs(), stop_ids, notices)
    chats = [one for one in conversations if one.messages[0].role != TEXT_ROLE]
    rendered = iter(render_rows(chats, renderer, loss_on=loss_on))
    planned: list[list[RenderedRow] | UnusableRow | None] = [
        None if one.messages[0].role == TEXT_ROLE else next(rendered) for one in conversations
    ]
    encoder = _Encoder(tokenizer, stop_ids)
    for rows in planned:
        if isinstance(rows, list):
            for row in rows:
                encoder.ask(row)
    encoder.encode()
    found: list[list[TokenizedRow] | UnusableRow] = []
    for conversation, rows in zip(conversations, planned, strict=True):
        if isinstance(rows, UnusableRow):
            found.append(rows)
            continue
        try:
            if rows is None:
                whole = [_text_row(conversation.messages, tokenizer, stop_ids)]
            else:
                whole = [
                    encoder.labelled(row, conversation, loss_on, is_main=row is rows[-1])
                    for row in rows
                ]
            found.append(_cut(whole, max_length))
        except UnusableRowError as error:
            found.append(UnusableRow(str(error)))
    return found


def prompt_of(input_ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The tokens before the first trained one, as the model sees them in generation."""
    first = next(i for i, label in enumerate(labels) if label != IGNORED)
    return list(input_ids[:first])


def trained(ids: list[TokenId]) -> list[Label]:
    """Labels that train these tokens."""
    return cast("list[Label]", ids)


class _Encoder:
    """Encodes the texts of many rows in one call, and labels each row's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._texts: dict[str, list[TokenId]] = {}
        self._parting = _parting_tokens(tokenizer)
        self._parting_of = {TokenId(i): text for text, i in self._parting.items()}
        self._last_parting = re.compile(f".*({'|'.join(map(re.escape, self._parting))})", re.DOTALL)

    def ask(self, row: RenderedRow) -> None:
        """Remember what of a row is to be encoded."""
        self._texts[row.text] = []
        prompt = row.text[: row.answers[0].start]
        self._texts[prompt[self._last_part(prompt) :]] = []
        for before, answer in pairwise(row.answers):
            self._texts[row.text[before.stop : answer.start]] = []

    def encode(self) -> None:
        """Encode all that was asked for."""
        self._texts = dict(
            zip(self._texts, _encode(self._tokenizer, list(self._texts)), strict=True)
        )

    def labelled(
        self, row: RenderedRow, conversation: Conversation, loss_on: str, *, is_main: bool
    ) -> TokenizedRow:
        """A row in tokens.

        Args:
            row: Its text and answers.
            conversation: What it is made of.
            loss_on: As ``data.loss_on``.
            is_main: Whether the conversation's other messages are trained in this row, if at all.

        Raises:
            UnusableRowError: A prompt's tokens alone are not those that it has in the whole.
        """
        ids = self._texts[row.text]
        everything = loss_on == "everything" and is_main
        labels = trained(list(ids)) if everything else [IGNORED] * len(ids)
        self._label_others(row, conversation, ids, labels)
        spans: list[range] = []
        end, before = 0, None
        for answer in row.answers:
            start = self._prompt_tokens(row, before, answer, ids, end)
            before = answer
            stop = next((i for i in range(start, len(ids)) if ids[i] in self._stop_ids), None)
            end = len(ids) if stop is None else stop + 1
            labels[start:end] = trained(ids[start:end])
            spans.append(range(start, end))
        if end != len(ids):
            self._require_end(row.text, end)
        if row.marked is not None:
            self._keep_marked(row, labels, spans)
        return TokenizedRow(
            ids,
            labels,
            turns=len(row.answers),
            truncated=False,
            prompt_tokens=spans[0].start,
            answer=MessageNumber(row.answers[0].message),
        )

    def _prompt_tokens(
        self, row: RenderedRow, before: Answer | None, answer: Answer, ids: list[TokenId], end: int
    ) -> int:
        """How many tokens are before an answer, whose prompt has the same ones when it is alone.

        Up to the answer before it, which had ``end`` tokens, that is known. Its stop token parts the
        text for the tokenizer, so that what follows is compared alone.
        """
        if before is not None:
            stop, *rest = self._texts[row.text[before.stop : answer.start]] or [TokenId(-1)]
            if stop in self._stop_ids and ids[end : end + len(rest)] == rest:
                return end + len(rest)
            self._require_end(row.text[: before.end], end)
        prompt = row.text[: answer.start]
        if before is None and (part := self._last_part(prompt)):
            alone = self._texts[prompt[part:]]
            begin = _nth(ids, alone[0], prompt.count(self._parting_of[alone[0]]))
            if begin is not None and ids[begin : begin + len(alone)] == alone:
                return begin + len(alone)
        alone = self._texts.get(prompt) or _encode(self._tokenizer, [prompt])[0]
        if ids[: len(alone)] != alone:
            raise UnusableRowError(_different(self._tokenizer, alone, ids))
        return len(alone)

    def _last_part(self, prompt: str) -> int:
        """Where the last token of a prompt begins that parts it for the tokenizer, near its end.

        What is before it has the same tokens, whatever follows it. 0: there is none.
        """
        near = max(0, len(prompt) - _NEAR)
        found = self._last_parting.match(prompt, near) if self._parting else None
        return 0 if found is None else found.start(1)

    def _require_end(self, text: str, end: int) -> None:
        """Refuse a row whose answer has a stop token before the one that ends it."""
        (ids,) = _encode(self._tokenizer, [text])
        if len(ids) != end:
            raise UnusableRowError(
                f"the answer's text holds {self._tokenizer.decode([ids[end - 1]])!r}, which ends a "
                "turn: the model would learn to stop in the middle"
            )

    def _label_others(
        self,
        row: RenderedRow,
        conversation: Conversation,
        ids: list[TokenId],
        labels: list[Label],
    ) -> None:
        """Train or mask the messages that say so of themselves, by their characters."""
        if not row.others:
            return
        offsets = self._offsets(row.text)
        for number, (begin, end) in row.others.items():
            is_trained = bool(conversation.messages[number].trained)
            for i, (first, last) in enumerate(offsets):
                if first < end and last > begin:
                    labels[i] = Label(ids[i]) if is_trained else IGNORED

    def _keep_marked(self, row: RenderedRow, labels: list[Label], answers: Sequence[range]) -> None:
        """Mask the tokens of answers that the template's generation markers leave out.

        Not what is between answers: of a question, the data and ``data.loss_on`` say it.
        """
        offsets = self._offsets(row.text)
        marked = row.marked or ()
        for i in chain.from_iterable(answers):
            first, last = offsets[i]
            if not any(begin <= first and last <= end for begin, end in marked):
                labels[i] = IGNORED

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        if not self._tokenizer.is_fast:
            raise UnusableRowError(
                "what of it is trained goes by its characters (the data's trained, or the chat "
                f"template's generation markers), which {type(self._tokenizer).__name__} does not "
                "tell of its tokens; the model needs a tokenizer.json"
            )
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return list(encoded["offset_mapping"])


def _parting_tokens(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, int]:
    """Special tokens by their text, at which the tokenizer parts a text whatever is around them."""
    if not tokenizer.is_fast:
        return {}
    return _parting(
        tuple(
            (
                i,
                str(token),
                token.special
                and not (token.lstrip or token.rstrip or token.single_word or token.normalized),
            )
            for i, token in tokenizer.added_tokens_decoder.items()
            if str(token)
        )
    )


@lru_cache(maxsize=4)
def _parting(added: tuple[tuple[int, str, bool], ...]) -> Mapping[str, int]:
    """Of the added tokens (id, text, whether it parts), those that are in no other's text.

    Asked for each batch, and of a thousand tokens that takes a tenth of a second.
    """
    texts = [text for _, text, _ in added]
    return {
        text: i for i, text, parts in added if parts and sum(text in other for other in texts) == 1
    }


def _nth(ids: list[TokenId], token: TokenId, count: int) -> int | None:
    """Where a token is for the ``count``-th time; None: it is not there so often."""
    place = -1
    try:
        for _ in range(count):
            place = ids.index(token, place + 1)
    except ValueError:
        return None
    return place


def _different(tokenizer: PreTrainedTokenizerBase, alone: list[TokenId], ids: list[TokenId]) -> str:
    """That a prompt has other tokens alone than before its answer, with the first that differ."""
    place = next(
        (i for i, (one, other) in enumerate(zip(alone, ids, strict=False)) if one != other),
        min(len(alone), len(ids)),
    )
    ours, theirs = (
        " ".join(map(repr, tokenizer.convert_ids_to_tokens(some[place : place + 3]))) or "nothing"
        for some in (alone, ids)
    )
    return (
        "the tokens of the prompt are others before its answer than alone, so what is trained would "
        f"not be what is generated: at token {place} {theirs}, alone {ours}. A space or line break "
        "at the end of the prompt joins the answer: mend the data, or the chat template"
    )


def _text_row(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> TokenizedRow:
    """A plain text; or several that go on from one another, of which some are trained."""
    stops = stop_texts(tokenizer, stop_ids)
    text = "".join(message.content for message in messages)
    ids = _text_ids(text, tokenizer)
    if not ids or ids[-1] not in stop_ids:
        ids.append(TokenId(int(tokenizer.eos_token_id)))
    begins = 1 if ids[0] == tokenizer.bos_token_id else 0
    held = next((token for token in ids[begins:-1] if token in stop_ids), None)
    if held is not None:
        raise UnusableRowError(
            f"the text holds {tokenizer.decode([held])!r} before its end, which ends a text: the "
            "model would learn to stop in the middle; split it there, or, if it is a conversation, "
            "bring its messages"
        )
    labels = [IGNORED] * len(ids)
    begin, characters = 0, 0
    for number, message in enumerate(messages):
        characters += len(message.content)
        end = len(ids)
        if number < len(messages) - 1:
            alone = _text_ids(text[:characters], tokenizer)
            if alone and alone[-1] in stop_ids and not any(map(message.content.endswith, stops)):
                del alone[-1]  # which the tokenizer puts behind every text
            if ids[: len(alone)] != alone:
                raise UnusableRowError(_different(tokenizer, alone, ids))
            end = len(alone)
        if message.trained is not False:
            labels[begin:end] = trained(ids[begin:end])
        begin = end
    prompt_tokens = next((i for i, label in enumerate(labels) if label != IGNORED), len(ids))
    return TokenizedRow(
        ids,
        labels,
        turns=sum(label in stop_ids for label in labels),
        truncated=False,
        prompt_tokens=prompt_tokens or min(len(ids) // 2, _TEXT_PROMPT),
    )


def _text_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[TokenId]:
    return list(tokenizer(text, verbose=False)["input_ids"])


def _cut(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    """Rows of at most so many tokens; of several, those whose prompt alone is longer are left out.

    The last one that is kept then counts as cut, since what is behind it is lost.
    """
    kept = []
    for row in rows:
        if len(row.input_ids) <= max_length and row.labels[-1] != IGNORED and len(row.labels) > 1:
            kept.append(row)
            continue
        input_ids, labels = row.input_ids[:max_length], row.labels[:max_length]
        # The first token has no predecessor to be predicted from, so it never counts as trained.
        if any(label != IGNORED for label in labels[1:]):
            truncated = len(row.input_ids) > max_length
            prompt_tokens = min(row.prompt_tokens, max_length)
            kept.append(
                replace(
                    row,
                    input_ids=input_ids,
                    labels=labels,
                    truncated=truncated,
                    prompt_tokens=prompt_tokens,
                )
            )
    if not kept:
        raise UnusableRowError(_nothing_left(rows[0], max_length))
    if len(kept) < len(rows):
        kept[-1] = replace(kept[-1], truncated=True)
    return kept


def _nothing_left(row: TokenizedRow, max_length: int) -> str:
    if all(label == IGNORED for label in row.labels[1:]):
        return "no token of it is trained: the data, or the chat template's markers, say so"
    return (
        f"its prompt fills model.max_seq_length ({max_length} tokens), so nothing of the answer is "
        "trained; raise it, or shorten the row"
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
