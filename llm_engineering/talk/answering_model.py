"""A finished run's model in memory, loaded by plain transformers and PEFT, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llm_engineering.data.rows.message import Conversation
from llm_engineering.errors import TalkError
from llm_engineering.export.reload import Export, load_export, stated_stops
from llm_engineering.model.base_model import model_folder
from llm_engineering.model.chat_template import TemplateInputs, for_template, takes_parts
from llm_engineering.model.evaluation.greedy import padded_left, read_answer
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.model.evaluation.probe import render
from llm_engineering.planning.hardware import resolve_dtype
from llm_engineering.talk.finished_run import FinishedRun
from llm_engineering.talk.sampling import Sampling


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    tokens: int
    is_cut: bool
    """Whether it reached the limit before it came to its end."""


@dataclass
class AnsweringModel:
    """A model, its tokenizer, and what the run says of how to ask it."""

    model: Any
    tokenizer: Any
    stop_ids: frozenset[int]
    inputs: TemplateInputs
    positions: int
    """Tokens that the model was made for: prompt and answer together."""
    has_base: bool
    """Whether the base model's own answer can be had: an adapter can be switched off."""
    _in_parts: bool = field(init=False)

    def __post_init__(self) -> None:
        self._in_parts = takes_parts(self.tokenizer, self.inputs)

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, up to where the assistant's answer begins.

        Raises:
            TalkError: The chat template refuses it, or the model has no positions left to answer.
        """
        messages = for_template(
            [message.to_template() for message in conversation.messages],
            self.tokenizer.chat_template,
            in_parts=self._in_parts,
        )
        try:
            ids = render(self.tokenizer, messages, conversation.tools, self.inputs)
        except Exception as error:  # a template is a program
            raise TalkError(f"the chat template refuses this conversation: {error}") from None
        if len(ids) >= self.positions:
            raise TalkError(
                f"the conversation has {len(ids)} tokens and the model was made for "
                f"{self.positions}; begin a new one"
            )
        return ids

    def answer(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        of_base: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Answer]:
        """Answer prompts together.

        Args:
            prompts: Token ids each, from ``prompt``.
            sampling: How; an answer ends earlier where the model's positions do.
            of_base: The base model's answers, with the adapter switched off.
            on_text: Is given the answer to the only prompt as it grows.
        """
        from transformers import GenerationConfig

        input_ids, mask = padded_left(prompts, self._pad)
        width = input_ids.shape[1]
        settings = self.generation(sampling, width)
        with inference(self.model) as device, self._only_base() if of_base else nullcontext():
            output = self.model.generate(
                input_ids=input_ids.to(device),
                attention_mask=mask.to(device),
                generation_config=GenerationConfig(**settings),
                streamer=None if on_text is None else _streamer(self.tokenizer, on_text),
            )
        return [self._read(ids, settings["max_new_tokens"]) for ids in output[:, width:].tolist()]

    def generation(self, sampling: Sampling, width: int) -> dict[str, Any]:
        """Arguments of transformers' ``GenerationConfig`` for prompts of so many tokens."""
        arguments = sampling.arguments()
        arguments["max_new_tokens"] = min(arguments["max_new_tokens"], self.positions - width)
        return {
            **arguments,
            "use_cache": True,
            "pad_token_id": self._pad,
            "eos_token_id": sorted(self.stop_ids),
        }

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _read(self, ids: list[int], limit: int) -> Answer:
        return Answer(*read_answer(self.tokenizer, ids, limit=limit, stop_ids=self.stop_ids))

    @contextmanager
    def _only_base(self) -> Iterator[None]:
        if not self.has_base:
            raise TalkError(
                "the base model's own answer cannot be had here: its weights are merged with the "
                "adapter's, or its biases were trained"
            )
        with self.model.disable_adapter():
            yield


def load_answering_model(run: FinishedRun) -> AnsweringModel:
    """Load a finished run's model to this host's GPU, or its CPU.

    Raises:
        ModelError: The base model is not to be had.
        HardwareError: This host cannot compute in its type.
        TalkError: The files do not make a model.
    """
    from transformers import AutoTokenizer

    dtype = resolve_dtype(run.base)
    folder = model_folder(run.base, weights=True)
    export = Export(
        kind="adapter" if run.kind == "adapter" else "merged_16bit",
        path=str(run.folder),
        base=str(folder),
        quantisation=run.base.quantisation,
    )
    own = run.folder if (run.folder / "tokenizer_config.json").is_file() else folder
    trust = run.base.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(own, trust_remote_code=trust)
        model = load_export(export, dtype=dtype, trust_remote_code=trust)
    except (OSError, ValueError, RuntimeError, UserWarning) as error:
        reason = " ".join(str(error).split())[:300]
        raise TalkError(f"{run.folder}: cannot be loaded: {reason}") from None
    if not tokenizer.chat_template:
        raise TalkError(f"{own}: its tokenizer has no chat template, so nothing can be asked of it")
    stated = getattr(model.generation_config, "eos_token_id", None)
    stops = {*(stated if isinstance(stated, list) else [stated]), tokenizer.eos_token_id}
    if run.kind == "adapter":
        stops |= set(stated_stops(run.folder))
    config = model.config.get_text_config()
    peft = getattr(model, "peft_config", {}).get("default")
    return AnsweringModel(
        model=model,
        tokenizer=tokenizer,
        stop_ids=frozenset(stops - {None}),
        inputs=run.inputs,
        positions=getattr(config, "max_position_embeddings", None) or run.base.max_seq_length,
        has_base=peft is not None and peft.bias == "none",
    )


def _streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        """Hands on what transformers prints: whole words, as they are complete."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                on_text(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
