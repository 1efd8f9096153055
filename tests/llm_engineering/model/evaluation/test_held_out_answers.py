"""Tests of ``llm_engineering.model.evaluation.held_out_answers``: batched, and what is read of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_engineering.training_stack import import_unsloth

import_unsloth()

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from llm_engineering.configuration.answers import AnswersSettings  # noqa: E402
from llm_engineering.model.evaluation.held_out_answers import answer_rows, answered  # noqa: E402
from llm_engineering.model.evaluation.samples import Prompt, answers  # noqa: E402

STOPS = frozenset({2})


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Any:
    return (
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        AutoTokenizer.from_pretrained(tiny_model),
    )


def prompts(tokenizer: Any, *texts: str, **others: Any) -> list[Prompt]:
    return [
        Prompt(
            origin="a:1", text=text, reference="r", input_ids=tokenizer(text).input_ids, **others
        )
        for text in texts
    ]


def settings(**others: Any) -> AnswersSettings:
    return AnswersSettings.model_validate({"scorers": ["exact"], "max_new_tokens": 6, **others})


TEXTS = ("What is a list?", "Why?", "Explain the module os in detail.", "And?", "So")


def test_batches_give_what_one_prompt_after_the_other_gives(tiny: Any) -> None:
    model, tokenizer = tiny
    asked = prompts(tokenizer, *TEXTS)
    together = answer_rows(
        model, tokenizer, asked, settings(batch_size=2), stop_ids=STOPS, whose="a"
    )
    alone = answer_rows(model, tokenizer, asked, settings(batch_size=1), stop_ids=STOPS, whose="a")
    old = [answers(model, tokenizer, [one], max_new_tokens=6, stop_ids=STOPS)[0] for one in asked]
    assert [one.text for one in together] == [one.text for one in alone] == old
    assert all(one.tool_calls is None for one in together)


def test_an_answer_that_reaches_the_limit_is_cut(tiny: Any) -> None:
    model, tokenizer = tiny
    asked = prompts(tokenizer, "What is a list?")
    (long,) = answer_rows(model, tokenizer, asked, settings(), stop_ids=STOPS, whose="a")
    assert (long.tokens, long.is_cut) == (6, True)
    first = int(model(torch.tensor([asked[0].input_ids])).logits[0, -1].argmax())
    stop = frozenset({first})
    (ended,) = answer_rows(model, tokenizer, asked, settings(), stop_ids=stop, whose="a")
    assert (ended.text, ended.tokens, ended.is_cut) == ("", 0, False)


def test_no_answer_goes_beyond_the_models_positions(tiny: Any) -> None:
    model, tokenizer = tiny
    near = Prompt(origin="a:1", text="", reference="", input_ids=[5] * 509)
    asked = settings(max_new_tokens=100)
    (found,) = answer_rows(model, tokenizer, [near], asked, stop_ids=STOPS, whose="a")
    assert (found.tokens, found.is_cut) == (3, True)


def test_random_numbers_of_others_are_left_alone(tiny: Any) -> None:
    model, tokenizer = tiny
    asked, drawn = prompts(tokenizer, *TEXTS), settings(temperature=2.0, top_k=50)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one = answer_rows(model, tokenizer, asked, drawn, stop_ids=STOPS, whose="a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert one == answer_rows(model, tokenizer, asked, drawn, stop_ids=STOPS, whose="a")
    other = settings(temperature=2.0, top_k=50, seed=1)
    assert one != answer_rows(model, tokenizer, asked, other, stop_ids=STOPS, whose="a")
    greedy = answer_rows(model, tokenizer, asked, settings(), stop_ids=STOPS, whose="a")
    assert greedy != one
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(8).get_state())


def test_calls_are_read_where_a_row_has_tools(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_engineering.model.evaluation import held_out_answers

    model, tokenizer = tiny
    text = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    ids = tokenizer(text).input_ids
    monkeypatch.setattr(
        held_out_answers, "continue_prompts", lambda model, batch, *a, **k: [ids] * len(batch)
    )
    asked = prompts(tokenizer, "Add.", tool_calls=[{"name": "add", "arguments": {"a": 1}}])
    (found,) = answer_rows(model, tokenizer, asked, settings(), stop_ids=STOPS, whose="a")
    assert found.tool_calls == [{"name": "add", "arguments": {"a": 1}}]
    rows = answered(asked, [found], [found], settings()).rows
    assert rows[0].reference_calls == found.tool_calls
