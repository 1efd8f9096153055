"""Sample answers to held-out prompts, from the base model and from the trained adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.rows.message import TEXT_ROLE, Conversation
from llm_engineering.data.tokens.tokenization import IGNORED, prompt_of
from llm_engineering.model.evaluation.greedy import continue_greedily

if TYPE_CHECKING:
    import datasets


class Sample(BaseModel):
    """One held-out prompt with its answers."""

    origin: str = Field(description="file:line of the row.")
    prompt: str = Field(description="The last user message, or the beginning of a plain text.")
    reference: str = Field(description="The answer in the data.")
    before: str = Field(description="The base model's answer, greedy.")
    after: str = Field(description="The trained adapter's answer, greedy.")


class Prompt(BaseModel):
    """A held-out prompt, tokenized as in training."""

    origin: str
    text: str
    reference: str
    input_ids: list[int]


def choose_prompts(rows: datasets.Dataset, count: int, tokenizer: Any) -> list[Prompt]:
    """Take ``count`` held-out rows, evenly spread, up to their first answer that is trained.

    A plain text is its own prompt up to a part of it, and the rest is the reference.
    """
    count = min(count, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    prompts = []
    for row in chosen:
        messages = Conversation.from_dict(json.loads(row["conversation"])).messages
        ids = row["input_ids"]
        if "prompt_tokens" in row:
            answer, prompt_ids = row["answer"], ids[: row["prompt_tokens"]]
        else:  # preferences: the last answer, alone, is judged
            answer, prompt_ids = len(messages) - 1, prompt_of(ids, row["labels"])
        if messages[0].role == TEXT_ROLE:
            text = tokenizer.decode(prompt_ids, skip_special_tokens=True)
            reference = tokenizer.decode(ids[len(prompt_ids) :], skip_special_tokens=True)
        else:
            text = messages[answer - 1].content
            reference = messages[answer].content or _trained_text(row, len(prompt_ids), tokenizer)
        prompts.append(
            Prompt(origin=row["origin"], text=text, reference=reference, input_ids=prompt_ids)
        )
    return prompts


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
