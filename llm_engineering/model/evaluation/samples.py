"""Sample answers to held-out prompts, from the base model and from the trained adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.conversation import TEXT_ROLE
from llm_engineering.data.tokenization import prompt_of
from llm_engineering.model.evaluation.inference import inference

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
        messages = json.loads(row["messages"])
        ids = row["input_ids"]
        if "prompt_tokens" in row:
            answer, prompt_ids = row["answer"], ids[: row["prompt_tokens"]]
        else:  # preferences: the last answer, alone, is judged
            answer, prompt_ids = len(messages) - 1, prompt_of(ids, row["labels"])
        if messages[0]["role"] == TEXT_ROLE:
            text = tokenizer.decode(prompt_ids, skip_special_tokens=True)
            reference = tokenizer.decode(ids[len(prompt_ids) :], skip_special_tokens=True)
        else:
            text, reference = messages[answer - 1]["content"], messages[answer]["content"]
        prompts.append(
            Prompt(origin=row["origin"], text=text, reference=reference, input_ids=prompt_ids)
        )
    return prompts


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
) -> list[str]:
    """Answer each prompt greedily, so that two models differ by their weights alone."""
    import torch
    from transformers import GenerationConfig

    if not prompts:
        return []
    width = max(len(prompt.input_ids) for prompt in prompts)
    pad_id = tokenizer.pad_token_id
    input_ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for index, prompt in enumerate(prompts):  # padded on the left: generation continues the right
        input_ids[index, width - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
        mask[index, width - len(prompt.input_ids) :] = 1
    with inference(model) as device:
        output = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            # A configuration of our own: the model's may set a temperature, or a max_length.
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=pad_id,
                eos_token_id=sorted(stop_ids),
            ),
        )
    return [str(tokenizer.decode(row[width:], skip_special_tokens=True)).strip() for row in output]
