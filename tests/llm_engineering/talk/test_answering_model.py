"""Tests of answers: those of plain transformers and PEFT, one by one or together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.errors import TalkError
from llm_engineering.talk.answering_model import AnsweringModel, load_answering_model
from llm_engineering.talk.finished_run import find_run
from llm_engineering.talk.sampling import Sampling, sampling_of

LIMIT = 12  # tokens


def asked(text: str) -> Conversation:
    return Conversation((Message("user", text),))


@pytest.fixture
def model(make_run: Any, make_config: Any) -> AnsweringModel:
    make_run()
    return load_answering_model(find_run("", make_config()))


def plain_answer(base: Path, adapter: Path | None, text: str) -> str:
    """As a user of transformers and PEFT would ask, without this project."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter or base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    output = model.generate(ids, do_sample=False, max_new_tokens=LIMIT, eos_token_id=stop)
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def test_answers_are_those_of_plain_transformers_and_peft(
    model: AnsweringModel, tiny_model: Path, random_adapter: Path
) -> None:
    prompts = [model.prompt(asked(text)) for text in ("What is a list?", "Why?")]
    sampling = Sampling(max_new_tokens=LIMIT)

    together = model.answer(prompts, sampling)
    base = model.answer(prompts, sampling, of_base=True)

    assert together[0].text == plain_answer(tiny_model, random_adapter, "What is a list?")
    assert base[0].text == plain_answer(tiny_model, None, "What is a list?")
    assert together[0].text != base[0].text
    assert together == [model.answer([prompt], sampling)[0] for prompt in prompts]
    assert together == model.answer(prompts, sampling)  # the base model's answers changed nothing


def test_an_answer_is_handed_on_as_it_grows(model: AnsweringModel) -> None:
    said: list[str] = []

    (answer,) = model.answer(
        [model.prompt(asked("Why?"))], Sampling(max_new_tokens=LIMIT), on_text=said.append
    )

    assert "".join(said).strip() == answer.text
    assert answer.is_cut
    assert answer.tokens == LIMIT


def test_an_answer_ends_before_its_stop_token(model: AnsweringModel) -> None:
    prompt, sampling = model.prompt(asked("Why?")), Sampling(max_new_tokens=LIMIT)
    (whole,) = model.answer([prompt], sampling)
    output = model.model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=LIMIT, pad_token_id=0
    )
    model.stop_ids = frozenset([*model.stop_ids, output[0, len(prompt) + 2].item()])

    (cut,) = model.answer([prompt], sampling)

    assert cut.tokens <= 2
    assert not cut.is_cut
    assert whole.text.startswith(cut.text)


def test_the_adapters_own_stop_tokens_count(model: AnsweringModel) -> None:
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.stop_ids


def test_no_answer_goes_beyond_the_models_positions(model: AnsweringModel) -> None:
    long = asked("list " * 480)
    prompt = model.prompt(long)

    (answer,) = model.answer([prompt], Sampling())

    assert len(prompt) + answer.tokens <= model.positions == 512
    with pytest.raises(TalkError, match="tokens and the model was made for 512; begin a new one"):
        model.prompt(asked("list " * 600))


def test_a_template_that_refuses_is_told(model: AnsweringModel) -> None:
    model.tokenizer.chat_template = "{{ raise_exception('no question') }}"
    with pytest.raises(TalkError, match="refuses this conversation: no question"):
        model.prompt(asked("Why?"))


def test_the_base_model_of_a_merged_one_cannot_be_asked(
    make_run: Any, make_config: Any, tiny_model: Path
) -> None:
    merged = make_run() / "merged"
    shutil.copytree(tiny_model, merged)
    model = load_answering_model(find_run(str(merged), make_config()))
    prompt = model.prompt(asked("Why?"))

    assert model.answer([prompt], Sampling(max_new_tokens=2))[0].tokens <= 2
    with pytest.raises(TalkError, match="merged with the adapter's"):
        model.answer([prompt], Sampling(max_new_tokens=2), of_base=True)


def test_sampling_is_the_base_models_own_and_greedy_where_it_states_none(
    model: AnsweringModel,
) -> None:
    assert sampling_of(model.model) == Sampling()
    stated = model.model.generation_config
    stated.do_sample, stated.temperature, stated.top_p = True, 0.7, 0.8

    sampling = sampling_of(model.model)

    assert sampling.arguments()["temperature"] == 0.7
    assert sampling.arguments()["top_p"] == 0.8
    assert "temperature 0.7, top_p 0.8" in str(sampling)
    assert "temperature" not in Sampling().arguments()
