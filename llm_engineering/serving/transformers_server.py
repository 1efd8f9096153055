"""``transformers serve`` around a model that is loaded, asked and ended as ``--ask`` does.

Its command takes a whole model's folder alone: an adapter's has no ``config.json``. So its server,
its handlers and its streaming are built here around a model that PEFT has put an adapter on, not
merged, so that answers are computed as ``--ask`` computes them. Two things it would do otherwise are
this project's: a request's messages are read as a row of data is, and rendered as in training; and
what a request asks for and the engine would pass over is refused.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from llm_engineering.data.rows.conversations import read_form
from llm_engineering.data.rows.message import Conversation
from llm_engineering.data.rows.unread import Columns
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.errors import SetupError, TalkError
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.serving.endpoint import Endpoint
from llm_engineering.talk.answering_model import AnsweringModel
from llm_engineering.talk.sampling import Sampling, sampling_of

PACKAGES = ("fastapi", "uvicorn", "openai")
_ROUTE = "/v1/chat/completions"
_PATIENCE = 3
"""Seconds that an answer under way has to be complete after Ctrl-C."""
_NOTHING = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tool_choice": ("auto",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Values of a request that ask for nothing."""
_REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("audio", "function_call", "functions", "logprobs", "modalities", "n", "prediction")
        + ("presence_penalty", "reasoning_effort", "response_format", "tool_choice")
        + ("top_logprobs", "web_search_options"),
        "transformers serve passes over it; vLLM takes it",
    ),
    "frequency_penalty": "transformers serve makes another penalty of it; vLLM takes it",
    "stop": "transformers serve leaves the stop text in the answer; vLLM takes it",
    "generation_config": "it would replace the run's own stop tokens",
    "chat_template_kwargs": "the chat template is given what it was given in training",
}
"""What a request may ask for, and why it is not done here."""


def missing_packages() -> list[str]:
    """What the server needs and this installation has not got."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require_packages() -> None:
    """Check that the server can run.

    Raises:
        SetupError: A package is missing.
    """
    missing = missing_packages()
    if missing:
        raise SetupError(f"--serve needs {', '.join(missing)}: run `make setup`")


def serve(
    model: AnsweringModel,
    endpoint: Endpoint,
    taken: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal ends it, which is raised again then.

    Args:
        model: As ``--ask`` loads it.
        endpoint: Where, and under which name.
        taken: The port, from ``listen``.
        on_ready: Is called once requests are answered.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        TalkError: The model's tokenizer is none that the engine can stream with.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready()

    config = uvicorn.Config(
        build_app(model, endpoint.model), log_level="warning", timeout_graceful_shutdown=_PATIENCE
    )
    server = Server(config)
    server.run(sockets=[taken])
    # uvicorn raises the signal again once it has shut down; asyncio, seen on a busy host, may take it
    # for one of its own tasks' and end in silence, as if nobody had asked.
    if server.should_exit:
        raise KeyboardInterrupt


def build_app(model: AnsweringModel, name: str) -> Any:
    """transformers' own application, which answers chat completions with this model alone.

    Raises:
        TalkError: As of ``serve``.
    """
    from fastapi import HTTPException
    from transformers.cli.serving.server import build_server

    if not hasattr(model.tokenizer, "_tokenizer"):
        raise TalkError(
            f"{type(model.tokenizer).__name__}: transformers serve needs a tokenizer of the library "
            "tokenizers (tokenizer.json); serve it by vLLM"
        )
    manager, state = _manager(model, name), _state(model)
    not_served: Any = _NotServed()
    app = build_server(
        manager,
        _chat_handler(model, manager, state),
        completion_handler=not_served,
        response_handler=not_served,
        transcription_handler=not_served,
        generation_state=state,
    )
    app.add_exception_handler(HTTPException, _as_openai_tells_it)
    # Both would load or drop models, and there is one.
    app.router.routes = [
        route
        for route in app.router.routes
        if getattr(route, "path", "") not in ("/load_model", "/reset")
    ]
    return app


def read_request(body: Mapping[str, Any]) -> Conversation:
    """A request's messages and tools, read as a row of data is.

    Raises:
        TalkError: They are no question, hold what is not supported, or the request asks for what
            would not be done.
    """
    for name, why in _REFUSED.items():
        value = body.get(name)
        if value is not None and value not in _NOTHING.get(name, ()) and value != []:
            raise TalkError(f"{name}: {json.dumps(value)[:80]} is not supported here: {why}")
    unread: set[str] = set()
    asked = {name: body[name] for name in ("messages", "tools") if body.get(name) is not None}
    try:
        chat = read_form(Columns(asked, unread), "messages", loss=False)
    except UnusableRowError as error:
        raise TalkError(f"the request {error}") from None
    if unread:
        raise TalkError(f"the request has {', '.join(sorted(unread))}, which nothing here reads")
    if not chat.messages or chat.messages[-1].role not in ("user", "tool"):
        raise TalkError("messages: the last is to be the user's, or a tool's result")
    return Conversation(tuple(chat.messages), tuple(chat.tools))


def sampling_for(body: Mapping[str, Any], stated: Sampling) -> Sampling:
    """How a request's answer is drawn: as it says, else as the base model states.

    Raises:
        TalkError: A value is out of its range.
    """
    values = stated.model_dump()
    if body.get("temperature") is not None:
        values["temperature"] = body["temperature"]
    if body.get("top_p") is not None:
        values["others"] = {**values["others"], "top_p": body["top_p"]}
    for name in ("max_tokens", "max_completion_tokens"):  # the newer one counts
        if body.get(name) is not None:
            values["max_new_tokens"] = body[name]
    try:
        return Sampling.model_validate(values)
    except ValueError as error:
        wrong = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, wrong["loc"]))
        raise TalkError(f"the request's {where}: {wrong['msg']}") from None


async def _as_openai_tells_it(_: Any, error: Any) -> Any:
    """An error in the form that OpenAI's clients print."""
    from fastapi.responses import JSONResponse

    told = {"message": str(error.detail), "type": "invalid_request_error", "code": None}
    return JSONResponse({"error": told}, status_code=error.status_code)


class _NotServed:
    """Routes of transformers serve whose answers were never held against those of ``--ask``."""

    async def handle_request(self, *_: Any) -> Any:
        from fastapi import HTTPException

        raise HTTPException(status_code=501, detail=f"not served here; ask by {_ROUTE}")


def _manager(model: AnsweringModel, name: str) -> Any:
    """transformers' ModelManager, which has one model already."""
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.utils import Modality

    class OneModel(ModelManager):
        def load_model_and_processor(self, *_: Any, **__: Any) -> Any:
            return model.model, model.tokenizer

        @staticmethod
        def process_model_name(model_id: str) -> str:
            return model_id

        @staticmethod
        def get_model_modality(*_: Any, **__: Any) -> Any:
            return Modality.LLM

        @staticmethod
        def get_gen_models(*_: Any, **__: Any) -> list[dict[str, Any]]:
            return [{"id": name, "object": "model", "created": 0, "owned_by": "local"}]

        def shutdown(self) -> None:
            """Nothing: the model goes with the process."""

    return OneModel(device="cpu", force_model=name)


def _state(model: AnsweringModel) -> Any:
    """One thread that generates, one request at a time, as ``inference`` has it."""
    from transformers.cli.serving.utils import GenerateManager, GenerationState

    class InInference(GenerateManager):
        # ``inference`` counts for the thread that enters it.
        def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return super().submit(self._generate, fn, *args, **kwargs)

        def async_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return super().async_submit(self._generate, fn, *args, **kwargs)

        @staticmethod
        def _generate(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with inference(model.model):
                return fn(*args, **kwargs)

    class OneThread(GenerationState):
        def __init__(self) -> None:
            super().__init__()
            self._only = InInference()

        def get_manager(self, model_id: str, use_cb: bool = False) -> Any:
            return self._only

    return OneThread()


@lru_cache(maxsize=1)
def _without_stops(tokenizer: Any, stop_ids: frozenset[int]) -> Any:
    """The tokenizer, or a copy for decoding alone, of which every stop token is special.

    The engine leaves special tokens out of an answer, and a run may stop at others.
    """
    from tokenizers import AddedToken

    known = tokenizer.added_tokens_decoder
    plain = [one for one in stop_ids if one not in known or not known[one].special]
    if not plain:
        return tokenizer
    decoding = copy.deepcopy(tokenizer)
    decoding._tokenizer.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text in tokenizer.convert_ids_to_tokens(plain)
        ]
    )
    return decoding


def _chat_handler(model: AnsweringModel, manager: Any, state: Any) -> Any:
    from fastapi import HTTPException
    from transformers import GenerationConfig
    from transformers.cli.serving.chat_completion import ChatCompletionHandler

    stated = sampling_of(model.model)

    class Handler(ChatCompletionHandler):
        async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
            import torch

            self._validate_request(body)
            name, _, _ = self._resolve_model(body)
            try:
                prompt = model.prompt(read_request(body))
                sampling = sampling_for(body, stated)
            except TalkError as error:
                raise HTTPException(status_code=400, detail=str(error)) from None
            config = self._build_generation_config(
                {key: body.get(key) for key in ("seed", "logit_bias")},
                GenerationConfig(**model.generation(sampling, len(prompt))),
            )
            config.max_new_tokens = model.generation(sampling, len(prompt))["max_new_tokens"]
            ids = torch.tensor([prompt], device=next(model.model.parameters()).device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            answer = self._streaming if body.get("stream") else self._non_streaming
            given = answer(
                request_id,
                model.model,
                _without_stops(model.tokenizer, model.stop_ids),
                name,
                inputs,
                config,
                gen_manager=self.generation_state.get_manager(name),
            )
            return given if body.get("stream") else await given

    return Handler(model_manager=manager, generation_state=state)
