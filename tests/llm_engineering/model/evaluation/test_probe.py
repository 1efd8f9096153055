"""Tests of ``llm_engineering.model.evaluation.probe``: what is kept of the logits, and the distances."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.evaluation.probe import (
    NEW_TOKENS,
    Logits,
    Probe,
    ProbeRow,
    choose_rows,
    largest_difference,
    mean_kl,
    render,
    take_probe,
)


def probe(logits: list[float]) -> Probe:
    """One position whose vocabulary is kept whole."""
    log_sum = float(torch.tensor(logits).logsumexp(0))
    one = Logits(ids=[list(range(len(logits)))], values=[logits], log_sums=[log_sum])
    return Probe(rows=[one], greedy=[], answers=[])


def test_kl_is_that_of_the_whole_distributions() -> None:
    ours, theirs = [2.0, 1.0, 0.0, -1.0], [1.0, 2.0, 0.0, -1.0]
    p, q = torch.tensor(ours).log_softmax(0), torch.tensor(theirs).log_softmax(0)

    assert mean_kl(probe(ours), probe(theirs)) == pytest.approx(
        float((p.exp() * (p - q)).sum()), abs=1e-6
    )
    assert mean_kl(probe(ours), probe(ours)) == 0.0
    assert largest_difference(probe(ours), probe(theirs)) == pytest.approx(1.0)


def test_a_logit_that_is_not_kept_shows_in_the_log_sum() -> None:
    kept = {"ids": [[0]], "values": [[1.0]]}
    ours, theirs = (
        Probe(rows=[Logits(**kept, log_sums=[s])], greedy=[], answers=[]) for s in (2.0, 3.0)
    )

    assert largest_difference(ours, theirs) == 1.0
    assert mean_kl(ours, theirs) > 0.1


@pytest.fixture
def model(tiny_model: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(tiny_model)
    return loaded, AutoTokenizer.from_pretrained(tiny_model)


def test_logits_are_the_models_at_the_end_of_the_row(model: tuple[Any, Any]) -> None:
    loaded, tokenizer = model
    ids = tokenizer(
        "A string method that returns a copy with its first character raised."
    ).input_ids
    row = ProbeRow(origin="x:1", input_ids=ids, prompt_ids=ids, messages=[], rendered_ids=[])

    found = take_probe(loaded, [row], pad_id=0, stop_ids=[2])

    with torch.inference_mode():
        expected = loaded(torch.tensor([ids])).logits[0]
    kept = found.rows[0]
    assert len(kept.log_sums) == 16
    for place, (tokens, values, log_sum) in enumerate(
        zip(kept.ids, kept.values, kept.log_sums, strict=True), start=len(ids) - 16
    ):
        assert values == pytest.approx(expected[place][tokens].tolist(), abs=1e-4)
        assert log_sum == pytest.approx(float(expected[place].logsumexp(0)), abs=1e-4)
        assert int(expected[place].argmax()) in tokens
    assert 0 < len(found.greedy[0]) <= NEW_TOKENS
    # Greedy: each answered token is the likeliest where it was chosen.
    for place, token in enumerate(found.greedy[0]):
        best = found.answers[0]
        assert max(zip(best.values[place], best.ids[place], strict=True))[1] == token


def test_rows_carry_their_prompt_by_the_template(model: tuple[Any, Any]) -> None:
    import datasets

    asked = Conversation([Message("user", "Why?"), Message("assistant", "So.")])
    plain = Conversation([Message("text", "plain")])
    rows = datasets.Dataset.from_list(
        [
            {
                "input_ids": [1, 2, 3, 4],
                "labels": [IGNORED, IGNORED, 3, 4],
                "origin": f"x:{number}",
                "conversation": json.dumps(asked.to_dict()),
                "prompt_tokens": 2,
                "answer": 1,
            }
            for number in range(6)
        ]
        + [
            {
                "input_ids": [5, 6, 7, 8],
                "labels": [5, 6, 7, 8],
                "origin": "text:1",
                "conversation": json.dumps(plain.to_dict()),
                "prompt_tokens": 2,
                "answer": 0,
            }
        ]
    )
    _, tokenizer = model

    spread = choose_rows(rows, 3, tokenizer)
    (text,) = choose_rows(rows.select([6]), 4, tokenizer)

    assert [row.origin for row in spread] == ["x:0", "x:2", "x:4"]
    assert spread[0].prompt_ids == [1, 2]
    assert spread[0].messages == [{"role": "user", "content": "Why?"}]
    assert tokenizer.decode(spread[0].rendered_ids).endswith(
        "Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (text.prompt_ids, text.messages, text.rendered_ids) == ([5, 6], [], [])


def test_a_prompt_is_rendered_again_with_its_tools_and_inputs(model: tuple[Any, Any]) -> None:
    import datasets

    _, tokenizer = model
    tokenizer.chat_template = (
        "{{ strftime_now('%Y') }}{{ mood }}{% for t in tools %}{{ t.name }}{% endfor %}"
        "{% for m in messages %}{{ m.content }}{{ m.thinking }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}so:{% endif %}"
    )
    asked = Conversation(
        [
            Message("user", "Why?"),
            Message("assistant", "So.", reasoning="Hm."),
            Message("user", "Sure?"),
            Message("assistant", "Yes."),
        ],
        [{"name": "look"}],
    )
    prompt = tokenizer("1999calmlookWhy?<|im_end|>So.Hm.<|im_end|>Sure?<|im_end|>so:")["input_ids"]
    answer = tokenizer("Yes.<|im_end|>")["input_ids"]
    rows = datasets.Dataset.from_list(
        [
            {
                "input_ids": prompt + answer,
                "labels": [IGNORED] * len(prompt) + answer,
                "origin": "x:1",
                "conversation": json.dumps(asked.to_dict()),
                "prompt_tokens": len(prompt),
                "answer": 3,
            }
        ]
    )
    inputs = TemplateInputs(variables={"mood": "calm"}, date=datetime.date(1999, 1, 1))

    (row,) = choose_rows(rows, 1, tokenizer, inputs)

    assert row.prompt_ids == row.rendered_ids == prompt
    sent = ProbeRow.model_validate_json(row.model_dump_json())  # as the process that reads it back
    assert render(tokenizer, sent.messages, sent.tools, sent.template_inputs) == prompt
