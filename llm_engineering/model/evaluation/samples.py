"""Sample answers to held-out prompts, from the base model and from the trained adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.rows.message import TEXT_ROLE, Conversation
from llm_engineering.data.tokens.prepared import answered_conversation
from llm_engineering.data.tokens.tokenization import IGNORED, prompt_of
from llm_engineering.errors import DataError
from llm_engineering.model.evaluation.greedy import continue_greedily
from llm_engineering.scoring.answers import row_key

if TYPE_CHECKING:
    import datasets


class Sample(BaseModel):
    """One held-out prompt with its answers."""

    origin: str = Field(description="file:line of the row.")
    prompt: str = Field(description="The last user message, or the beginning of a plain text.")
    reference: str = Field(description="The answer in the data.")
    before: str = Field(description="The base model's answer, greedy.")
    after: str = Field(description="The trained adapter's answer, greedy.")
    key: str = Field(
        "", description="By which the row is known again in another run; empty: not stored."
    )
    max_new_tokens: int = Field(0, description="Of an answer at most; 0: not stored.")


class Prompt(BaseModel):
    """A held-out prompt, tokenized as in training."""

    origin: str
    text: str
    reference: str
    input_ids: list[int]
    key: str = Field("", description="By which the row is known again in another run.")
    tool_calls: list[dict[str, Any]] | None = Field(
        None, description="The calls in the data's answer; None: the row has no tools and no calls."
    )


def choose_prompts(rows: datasets.Dataset, count: int, tokenizer: Any) -> list[Prompt]:
    """Take ``count`` held-out rows, evenly spread, up to their first answer that is trained.

    A plain text is its own prompt up to a part of it, and the rest is the reference.
    """
    prompts = []
    for row in _spread(rows, count):
        conversation, answer = answered_conversation(row)
        messages = conversation.messages
        ids = row["input_ids"]
        prompt_ids = (
            ids[: row["prompt_tokens"]] if "prompt_tokens" in row else prompt_of(ids, row["labels"])
        )
        if messages[0].role == TEXT_ROLE:
            text = tokenizer.decode(prompt_ids, skip_special_tokens=True)
            reference = tokenizer.decode(ids[len(prompt_ids) :], skip_special_tokens=True)
        else:
            text = messages[answer - 1].content
            reference = messages[answer].content or _trained_text(row, len(prompt_ids), tokenizer)
        prompts.append(
            Prompt(
                origin=row["origin"],
                text=text,
                reference=reference,
                input_ids=prompt_ids,
                key=row_key(conversation.until(answer + 1).to_dict()),
                tool_calls=_calls(conversation, answer),
            )
        )
    return prompts


def with_references(rows: datasets.Dataset) -> datasets.Dataset:
    """The held-out rows whose answers are references; of judged answers only the good ones are."""
    if "label" not in rows.column_names:
        return rows
    return rows.select([index for index, good in enumerate(rows["label"]) if good])


def require_tool_calls(dataset: PreparedDataset, count: int) -> None:
    """Check that the rows that will be answered have what the scorer tool_call compares.

    Args:
        dataset: Its held-out rows are answered.
        count: As in ``choose_prompts``; 0: nothing is compared.

    Raises:
        DataError: A row offers no tools, and its answer calls none; names ``file:line``.
    """
    if not count:
        return
    for row in _spread(with_references(dataset.split("held_out")), count):
        if _calls(*answered_conversation(row)) is None:
            raise DataError(
                f"{row['origin']}: has no tools, and its answer calls none, which "
                "evaluate.answers.scorers: tool_call compares; hold out rows with tools "
                "(data.held_out), or take tool_call off the list"
            )


def _spread(rows: datasets.Dataset, count: int) -> Iterator[dict[str, Any]]:
    count = min(count, len(rows))
    return (rows[index * len(rows) // count] for index in range(count))


def _calls(conversation: Conversation, answer: int) -> list[dict[str, Any]] | None:
    """The calls that a row's answer makes; None where it could make none."""
    if conversation.messages[0].role == TEXT_ROLE:
        return None
    calls = conversation.messages[answer].tool_calls
    if not conversation.tools and not calls:
        return None
    return [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]


def _trained_text(row: dict[str, Any], start: int, tokenizer: Any) -> str:
    """An answer without text of its own: its tool calls, as the template writes them."""
    ids = takewhile(lambda label: label != IGNORED, row["labels"][start:])
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
) -> list[str]:
    """Answer each prompt greedily, so that two models differ by their weights alone."""
    if not prompts:
        return []
    continued = continue_greedily(
        model,
        [prompt.input_ids for prompt in prompts],
        max_new_tokens=max_new_tokens,
        pad_id=tokenizer.pad_token_id,
        stop_ids=stop_ids,
    )
    return [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in continued]
