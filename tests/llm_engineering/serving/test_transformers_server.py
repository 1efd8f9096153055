"""Tests of the server on a CPU: a real OpenAI client is answered as ``--ask`` answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.errors import TalkError
from llm_engineering.serving.endpoint import LOCAL, Endpoint, listen
from llm_engineering.serving.transformers_server import (
    build_app,
    read_request,
    sampling_for,
    serve,
)
from llm_engineering.talk.answering_model import AnsweringModel, load_answering_model
from llm_engineering.talk.finished_run import find_run
from llm_engineering.talk.sampling import Sampling

LIMIT = 12  # tokens
NAME = "one"


@pytest.fixture
def model(make_run: Any, make_config: Any) -> AnsweringModel:
    make_run()
    return load_answering_model(find_run("", make_config()))


@pytest.fixture
def client(model: AnsweringModel) -> Iterator[Any]:
    """OpenAI's client, of a server of the model."""
    import uvicorn
    from openai import OpenAI

    taken = listen(LOCAL, 0)
    server = uvicorn.Server(uvicorn.Config(build_app(model, NAME), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = Endpoint(LOCAL, taken.getsockname()[1], NAME).url
    yield OpenAI(base_url=url, api_key="none", max_retries=0)
    server.should_exit = True
    thread.join()


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def answer_of_ask(model: AnsweringModel, text: str, limit: int = LIMIT) -> Any:
    prompt = model.prompt(Conversation((Message("user", text),)))
    return model.answer([prompt], Sampling(max_new_tokens=limit))[0]


def test_a_client_is_answered_as_ask_answers_at_once_and_streamed(
    client: Any, model: AnsweringModel
) -> None:
    for text in ("What is a list?", "Why?"):
        expected = answer_of_ask(model, text)
        request = {"model": NAME, "messages": asked(text), "max_tokens": LIMIT, "temperature": 0}

        whole = client.chat.completions.create(**request)
        chunks = list(client.chat.completions.create(**request, stream=True))

        assert expected.text
        assert whole.choices[0].message.content.strip() == expected.text
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert streamed.strip() == expected.text
        assert whole.choices[0].finish_reason == "length"
        assert chunks[-1].choices[0].finish_reason == "length"
        assert whole.usage.completion_tokens == LIMIT
    assert [one.id for one in client.models.list()] == [NAME]


def test_an_answer_ends_with_the_runs_own_stop_tokens(client: Any, model: AnsweringModel) -> None:
    whole = answer_of_ask(model, "Why?").tokens
    prompt = model.prompt(Conversation((Message("user", "Why?"),)))
    ids = model.model.generate(
        torch.tensor([prompt]),
        do_sample=False,
        max_new_tokens=LIMIT,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    said = [one for one in ids if model.tokenizer.decode([one], skip_special_tokens=True).strip()]
    model.stop_ids = frozenset([*model.stop_ids, said[-1]])  # no special token
    request = {"model": NAME, "messages": asked("Why?"), "temperature": 0}

    cut = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))

    expected = answer_of_ask(model, "Why?").text
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < whole
    assert (cut.choices[0].message.content or "").strip() == expected
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed.strip() == expected


def test_the_template_is_given_what_it_was_given_in_training(
    client: Any, model: AnsweringModel
) -> None:
    model.inputs = model.inputs.model_copy(update={"variables": {"mood": "glad"}})
    model.tokenizer.chat_template = "{{ mood }} {{ messages[-1].content }}"
    expected = answer_of_ask(model, "Why?").text

    given = client.chat.completions.create(model=NAME, messages=asked("Why?"), max_tokens=LIMIT)

    assert given.choices[0].message.content.strip() == expected
    assert given.usage.prompt_tokens == len(model.tokenizer("glad Why?")["input_ids"])


def test_a_temperature_draws_and_its_seed_repeats(client: Any, model: AnsweringModel) -> None:
    def draw(seed: int) -> str:
        given = client.chat.completions.create(
            model=NAME, messages=asked("Why?"), max_tokens=LIMIT, temperature=5.0, seed=seed
        )
        return str(given.choices[0].message.content)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)  # transformers serve alone would answer greedily


REFUSED = [
    ({"stop": ["."]}, r"stop: .* leaves the stop text"),
    ({"n": 2}, "n: 2 is not supported here"),
    ({"frequency_penalty": 0.5}, "makes another penalty"),
    ({"max_tokens": 0}, "max_new_tokens: Input should be greater than 0"),
    ({"temperature": -1}, "temperature: Input should be greater"),
    ({"messages": asked("list " * 600)}, "tokens and the model was made for 512"),
    ({"messages": [{"role": "assistant", "content": "Hm."}]}, "the last is to be the user's"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "supported are parts of text",
    ),
    ({"model": "another"}, "Server is pinned to 'one'"),
]


def test_what_would_be_passed_over_is_refused(client: Any) -> None:
    from openai import BadRequestError

    for changes, told in REFUSED:
        with pytest.raises(BadRequestError, match=told):
            client.chat.completions.create(**{"model": NAME, "messages": asked("Why?"), **changes})


def test_routes_that_were_never_held_against_ask_are_not_served(client: Any) -> None:
    from openai import InternalServerError, NotFoundError

    with pytest.raises(InternalServerError, match="not served here; ask by /v1/chat/completions"):
        client.completions.create(model=NAME, prompt="Why?")
    with pytest.raises(NotFoundError):
        client.post("../reset", cast_to=object)


def test_the_newer_name_of_the_longest_answer_counts() -> None:
    assert sampling_for({"max_completion_tokens": 3}, Sampling()).max_new_tokens == 3
    assert sampling_for({"max_tokens": 4}, Sampling()).max_new_tokens == 4
    assert sampling_for({}, Sampling()) == Sampling()
    drawn = sampling_for({"temperature": 0.5, "top_p": 0.9}, Sampling())
    assert drawn.arguments()["do_sample"]
    assert drawn.arguments()["top_p"] == 0.9


def test_a_tools_result_and_content_beside_calls_are_read_as_in_training() -> None:
    call = {"type": "function", "id": "a", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        *asked("Look."),
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
    ]

    read = read_request({"messages": messages})

    assert [one.content for one in read.messages] == ["Look.", "I look.", "seen"]
    assert read.messages[1].tool_calls[0].arguments == {}


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded() -> None:
    taken = listen(LOCAL, 0)
    with taken, pytest.raises(TalkError, match=r"--port \d+: cannot listen there"):
        listen(LOCAL, taken.getsockname()[1])
    with pytest.raises(TalkError, match="cannot listen there"):
        listen("192.0.2.1", 0)  # an address of no host (RFC 5737)


def test_an_end_by_a_signal_that_asyncio_swallows_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, model: AnsweringModel
) -> None:
    import uvicorn

    def swallow(server: uvicorn.Server, **_: Any) -> None:
        server.should_exit = True

    monkeypatch.setattr(uvicorn.Server, "run", swallow)
    with listen(LOCAL, 0) as taken, pytest.raises(KeyboardInterrupt):
        serve(model, Endpoint(LOCAL, 0, NAME), taken)
