"""Continuation of prompts: greedy, so that two models differ by their weights alone, or sampled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llm_engineering.model.evaluation.inference import inference


def continue_greedily(
    model: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    pad_id: int,
    stop_ids: Collection[int],
) -> list[list[int]]:
    """Token ids that follow each prompt; behind a stop token they are ``pad_id``.

    Args:
        model: A causal language model.
        prompts: Token ids, at least one prompt.
        max_new_tokens: Longest continuation, in tokens.
        pad_id: Fills short prompts; masked, so any id does.
        stop_ids: Token ids that end a continuation.
    """
    return continue_prompts(
        model,
        prompts,
        {"do_sample": False},
        max_new_tokens=max_new_tokens,
        pad_id=pad_id,
        stop_ids=stop_ids,
    )


def continue_prompts(
    model: Any,
    prompts: Sequence[list[int]],
    sampling: Mapping[str, Any],
    *,
    max_new_tokens: int,
    pad_id: int,
    stop_ids: Collection[int],
) -> list[list[int]]:
    """As ``continue_greedily``, by any settings of sampling.

    Args:
        model: A causal language model.
        prompts: Token ids, at least one prompt.
        sampling: For transformers' ``GenerationConfig``.
        max_new_tokens: Longest continuation, in tokens.
        pad_id: Fills short prompts.
        stop_ids: Token ids that end a continuation.
    """
    from transformers import GenerationConfig

    input_ids, mask = padded_left(prompts, pad_id)
    width = input_ids.shape[1]
    with inference(model) as device:
        output = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            # A configuration of our own: the model's may set a temperature, or a max_length.
            generation_config=GenerationConfig(
                **sampling,
                max_new_tokens=max_new_tokens,
                use_cache=True,
                pad_token_id=pad_id,
                eos_token_id=sorted(stop_ids),
            ),
        )
    continued: list[list[int]] = output[:, width:].tolist()
    return continued


def read_answer(
    tokenizer: Any, ids: list[int], *, limit: int, stop_ids: Collection[int]
) -> tuple[str, int, bool]:
    """What a continuation says: its text, its tokens before the stop token, and whether it was cut.

    Args:
        tokenizer: Its tokenizer.
        ids: The continuation, padding behind it included.
        limit: Tokens that it could have at most.
        stop_ids: Token ids that end it.
    """
    end = next((place for place, token in enumerate(ids) if token in stop_ids), None)
    said = ids[:end]
    text = str(tokenizer.decode(said, skip_special_tokens=True)).strip()
    return text, len(said), end is None and len(ids) >= limit


def padded_left(prompts: Sequence[list[int]], pad_id: int) -> tuple[Any, Any]:
    """Prompts and their attention mask, of the shape ``(prompts, tokens)``: generation continues the right."""
    import torch

    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for index, prompt in enumerate(prompts):
        input_ids[index, width - len(prompt) :] = torch.tensor(prompt)
        mask[index, width - len(prompt) :] = 1
    return input_ids, mask
