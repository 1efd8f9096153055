"""Probe: a model's logits and greedy answers on a few held-out rows, small enough to be kept.

What an export must give again. Of each position's logits only some are kept: those of the likeliest
tokens, those of tokens spread evenly over the vocabulary, and the logarithm of the sum of all
exponentials, in which every logit has its part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.rows.message import TEXT_ROLE, MessageDict
from llm_engineering.data.tokens.prepared import answered_conversation
from llm_engineering.data.tokens.rendering import Renderer
from llm_engineering.data.tokens.tokenization import prompt_of
from llm_engineering.model.chat_template import TemplateInputs, apply_template
from llm_engineering.model.evaluation.greedy import continue_greedily
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.model.evaluation.trained_tensors import TrainedTensors

if TYPE_CHECKING:
    import datasets

NEW_TOKENS = 16
"""Longest greedy answer, in tokens."""

_POSITIONS = 16  # of each row: its last ones
_LONGEST = 256  # tokens read of a row, and of a prompt
_LIKELIEST = 32
_SPREAD = 32


class ProbeRow(BaseModel):
    """A held-out row as the model reads it, and its prompt as the chat template writes it."""

    origin: str = Field(description="file:line of the row.")
    input_ids: list[int] = Field(description="Prompt and answer of the data.")
    prompt_ids: list[int] = Field(description="What is answered greedily.")
    messages: list[MessageDict] = Field(
        description="The prompt, as the chat template takes it; empty for plain text."
    )
    tools: list[dict[str, Any]] = Field([], description="Tools of the prompt.")
    template_inputs: TemplateInputs = Field(
        TemplateInputs(), description="What else the chat template is given."
    )
    rendered_ids: list[int] = Field(description="The messages, by the run's chat template.")


class Logits(BaseModel):
    """The kept part of the logits of consecutive positions, all by position."""

    ids: list[list[int]] = Field(description="The tokens whose logits are kept.")
    values: list[list[float]] = Field(description="Their logits.")
    log_sums: list[float] = Field(description="log(sum(exp(logits))) over the whole vocabulary.")


class Probe(BaseModel):
    """What a model says of the probe's rows."""

    rows: list[Logits] = Field(description="At the end of each row.")
    greedy: list[list[int]] = Field(description="Each prompt's greedy answer.")
    answers: list[Logits] = Field(
        description="At the tokens of the trained model's greedy answers."
    )


class TrainedProbe(BaseModel):
    """The trained model's own probe, taken in the memory of the run that trained it."""

    rows: list[ProbeRow]
    probe: Probe
    effect: float | None = Field(
        description="Mean KL of the base model from the trained one on the same positions, in "
        "nats: what an export without the adapter would show. None: not known."
    )
    tensors: TrainedTensors | None = Field(
        None, description="What was trained, as it was in memory; None: not recorded."
    )
    vocabulary: str | None = Field(
        None, description="SHA-256 of the tokenizer's vocabulary; None: not recorded."
    )


def choose_rows(
    rows: datasets.Dataset, count: int, tokenizer: Any, inputs: TemplateInputs | None = None
) -> list[ProbeRow]:
    """Take ``count`` held-out rows, evenly spread over the split.

    Args:
        rows: The split.
        count: At most so many.
        tokenizer: With the run's chat template set.
        inputs: What that is given beside messages.
    """
    count = min(count, len(rows))
    renderer = Renderer(tokenizer, inputs or TemplateInputs(), frozenset())
    return [_probe_row(rows[index * len(rows) // count], renderer) for index in range(count)]


def render(
    tokenizer: Any,
    messages: Sequence[MessageDict],
    tools: Sequence[Mapping[str, Any]] = (),
    inputs: TemplateInputs | None = None,
) -> list[int]:
    """A prompt's tokens by a tokenizer's own chat template.

    Args:
        tokenizer: It has one.
        messages: The prompt, as the template takes it.
        tools: JSON schemas of its tools.
        inputs: What else the template is given.
    """
    (text,) = apply_template(
        tokenizer,
        [messages],
        tools=tools,
        inputs=inputs or TemplateInputs(),
        add_generation_prompt=True,
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's tokens and their ids, added ones included."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def take_probe(
    model: Any,
    rows: Sequence[ProbeRow],
    *,
    pad_id: int,
    stop_ids: Sequence[int],
    same_as: Probe | None = None,
    answer: bool = True,
) -> Probe:
    """Run a model on the rows; it is left in the mode that it came in.

    Args:
        model: A causal language model.
        rows: What it reads.
        pad_id: Fills short prompts; masked.
        stop_ids: Tokens that end an answer.
        same_as: Keep the logits of the same tokens, at the tokens of the same answers.
        answer: Whether to answer the prompts too; with False, ``greedy`` is that of ``same_as``.
    """
    if same_as is not None and not answer:
        greedy = same_as.greedy
    else:
        continued = continue_greedily(
            model,
            [row.prompt_ids for row in rows],
            max_new_tokens=NEW_TOKENS,
            pad_id=pad_id,
            stop_ids=stop_ids,
        )
        greedy = [_until_stop(ids, stop_ids) for ids in continued]
    followed = same_as or Probe(rows=[], greedy=greedy, answers=[])
    with inference(model) as device:
        ends = [
            _logits(model, device, row.input_ids, _POSITIONS, _at(followed.rows, index))
            for index, row in enumerate(rows)
        ]
        answers = []
        for index, (row, answered) in enumerate(zip(rows, followed.greedy, strict=True)):
            ids, count = row.prompt_ids + answered, len(answered) + 1
            answers.append(_logits(model, device, ids, count, _at(followed.answers, index)))
    return Probe(rows=ends, greedy=greedy, answers=answers)


def mean_kl(trained: Probe, other: Probe) -> float:
    """Mean Kullback-Leibler divergence of ``other`` from ``trained``, in nats a position.

    Over the kept tokens and all others as one more outcome, so a lower bound of the whole one.
    """
    found = [
        _kl(ids, a, a_sum, b, b_sum)
        for mine, theirs in _pairs(trained, other)
        for ids, a, a_sum, b, b_sum in zip(
            mine.ids, mine.values, mine.log_sums, theirs.values, theirs.log_sums, strict=True
        )
    ]
    return sum(found) / len(found)


def largest_difference(trained: Probe, other: Probe) -> float:
    """Largest absolute difference of a kept logit, or of a position's log-sum."""
    return max(
        abs(x - y)
        for mine, theirs in _pairs(trained, other)
        for a, a_sum, b, b_sum in zip(
            mine.values, mine.log_sums, theirs.values, theirs.log_sums, strict=True
        )
        for x, y in zip([*a, a_sum], [*b, b_sum], strict=True)
    )


def positions(probe: Probe) -> int:
    """How many positions' logits a probe holds."""
    return sum(len(one.log_sums) for one in (*probe.rows, *probe.answers))


def _at(logits: Sequence[Logits], index: int) -> Logits | None:
    return logits[index] if logits else None


def _pairs(trained: Probe, other: Probe) -> list[tuple[Logits, Logits]]:
    pairs = list(zip(trained.rows, other.rows, strict=True))
    return pairs + list(zip(trained.answers, other.answers, strict=True))


def _kl(ids: list[int], a: list[float], a_sum: float, b: list[float], b_sum: float) -> float:
    import math

    once = {token: (x - a_sum, y - b_sum) for token, x, y in zip(ids, a, b, strict=True)}
    total, rest_a, rest_b = 0.0, 1.0, 1.0
    for log_p, log_q in once.values():
        p = math.exp(log_p)
        total += p * (log_p - log_q)
        rest_a -= p
        rest_b -= math.exp(min(log_q, 0.0))
    if rest_a > 1e-7:  # below, what is left of 1 is rounding
        total += rest_a * math.log(rest_a / max(rest_b, 1e-7))
    return max(total, 0.0)


def _probe_row(row: dict[str, Any], renderer: Renderer) -> ProbeRow:
    conversation, answer = answered_conversation(row)
    ids = list(row["input_ids"])[:_LONGEST]
    if conversation.messages[0].role == TEXT_ROLE:  # its second half continues its first
        return ProbeRow(
            origin=row["origin"],
            input_ids=ids,
            prompt_ids=ids[: max(1, len(ids) // 2)],
            messages=[],
            rendered_ids=[],
        )
    asked = conversation.until(answer)
    messages, tools = renderer.messages(asked), [dict(tool) for tool in asked.tools]
    prompt_ids = (
        list(row["input_ids"][: row["prompt_tokens"]])
        if "prompt_tokens" in row
        else prompt_of(row["input_ids"], row["labels"])
    )
    return ProbeRow(
        origin=row["origin"],
        input_ids=ids,
        prompt_ids=prompt_ids[-_LONGEST:],
        messages=messages,
        tools=tools,
        template_inputs=renderer.inputs,
        rendered_ids=render(renderer.tokenizer, messages, tools, renderer.inputs),
    )


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


def _logits(model: Any, device: Any, ids: list[int], count: int, same_as: Logits | None) -> Logits:
    import torch

    count = min(count, len(ids))
    input_ids = torch.tensor([ids], device=device)
    logits = model(
        input_ids=input_ids, attention_mask=torch.ones_like(input_ids), logits_to_keep=count
    ).logits[0, -count:]
    logits = logits.float()
    if same_as is None:
        spread = torch.linspace(0, logits.shape[-1] - 1, _SPREAD, device=device).long()
        likeliest = logits.topk(min(_LIKELIEST, logits.shape[-1]), dim=-1).indices
        kept = torch.cat([likeliest, spread.expand(count, -1)], dim=-1)
    else:
        kept = torch.tensor(same_as.ids, device=device)
    return Logits(
        ids=kept.tolist(),
        values=[[round(x, 5) for x in row] for row in logits.gather(-1, kept).tolist()],
        log_sums=[round(x, 5) for x in logits.logsumexp(-1).tolist()],
    )
