"""Held-out rows, answered by base model and adapter: batched, each with its tool calls read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.data.progress import row_bar
from llm_engineering.model.evaluation.greedy import continue_prompts, read_answer
from llm_engineering.model.evaluation.inference import random_numbers_kept
from llm_engineering.model.evaluation.samples import Prompt
from llm_engineering.scoring.answers import Answer, AnsweredRow, Answers, Call
from llm_engineering.scoring.tool_calls import read_calls

logger = logging.getLogger(__name__)


def answer_rows(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    settings: AnswersSettings,
    *,
    stop_ids: frozenset[int],
    whose: str,
) -> list[Answer]:
    """Answer prompts in batches of like length, by a KV cache.

    The state of PyTorch's random numbers is left as it was: sampling has a seed of its own.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompts: Held-out rows.
        settings: How long an answer may be, how it is sampled, and how many are made at once.
        stop_ids: Token ids that end an answer.
        whose: Whose answers these are, for the progress line.

    Returns:
        An answer each, in the prompts' order.
    """
    import torch

    sampling: dict[str, Any] = {"do_sample": bool(settings.temperature)}
    if settings.temperature:
        sampling |= {
            "temperature": settings.temperature,
            "top_p": 1.0 if settings.top_p is None else settings.top_p,
            "top_k": settings.top_k or 0,
        }
    calls_of = _calls_reader(tokenizer)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # The longest first: memory that suffices for them suffices for all.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].input_ids))
    found: dict[int, Answer] = {}
    bar = row_bar(f"answering, {whose}", len(prompts))
    with random_numbers_kept():
        torch.manual_seed(settings.seed)
        for start in range(0, len(order), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            width = max(len(prompts[index].input_ids) for index in batch)
            limit = settings.max_new_tokens
            if positions is not None:
                limit = max(1, min(limit, positions - width))
            continued = continue_prompts(
                model,
                [prompts[index].input_ids for index in batch],
                sampling,
                max_new_tokens=limit,
                pad_id=tokenizer.pad_token_id,
                stop_ids=stop_ids,
            )
            for index, ids in zip(batch, continued, strict=True):
                has_tools = prompts[index].tool_calls is not None
                found[index] = _read(
                    tokenizer, ids, limit, stop_ids, calls_of if has_tools else None
                )
            bar.update(len(batch))
            logger.info("answering, %s: %d of %d rows", whose, len(found), len(prompts))
    bar.close()
    return [found[index] for index in range(len(prompts))]


def answered(
    prompts: Sequence[Prompt],
    before: Sequence[Answer],
    after: Sequence[Answer],
    settings: AnswersSettings,
) -> Answers:
    """Both models' answers by row, not scored yet."""
    return Answers(
        generation=settings.generation,
        rows=[
            AnsweredRow(
                origin=prompt.origin,
                key=prompt.key,
                prompt=prompt.text,
                reference=prompt.reference,
                reference_calls=prompt.tool_calls,
                before=one,
                after=other,
            )
            for prompt, one, other in zip(prompts, before, after, strict=True)
        ],
    )


def _read(
    tokenizer: Any,
    ids: list[int],
    limit: int,
    stop_ids: frozenset[int],
    calls_of: Callable[[list[int]], list[Call]] | None,
) -> Answer:
    text, tokens, is_cut = read_answer(tokenizer, ids, limit=limit, stop_ids=stop_ids)
    calls = None if calls_of is None else calls_of(ids[: tokens + 1])  # with its stop token
    return Answer(text=text, tokens=tokens, is_cut=is_cut, tool_calls=calls)


def _calls_reader(tokenizer: Any) -> Callable[[list[int]], list[Call]]:
    """Reads tool calls as the tokenizer's own template parses them, where it or trl has one for it."""

    def by_text(ids: list[int]) -> list[Call]:
        return read_calls(str(tokenizer.decode(ids, skip_special_tokens=False)))

    from trl.chat_template_utils import add_response_schema

    try:
        known = add_response_schema(copy(tokenizer))
    except ValueError:  # of no family that it knows
        known = tokenizer
    if not (getattr(known, "response_template", None) or getattr(known, "response_schema", None)):
        return by_text

    def by_template(ids: list[int]) -> list[Call]:
        try:
            message = known.parse_response(ids)
            calls = [one["function"] for one in message.get("tool_calls") or []]
            return [{"name": one["name"], "arguments": dict(one["arguments"])} for one in calls]
        except (ValueError, KeyError, TypeError, AttributeError):  # not as the template has them
            return by_text(ids)

    return by_template
