"""unsloth: the backend of a process that holds the whole model, on a GPU or on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.finetuning.tiles import tile_feed_forward
from llm_engineering.model.finetuning.trainable_tokens import fitting_rows, tell_bias
from llm_engineering.model.finetuning.varlen_attention import enable_varlen_attention
from llm_engineering.model.stored_quantisation import dequantising
from llm_engineering.model_class import model_class
from llm_engineering.objectives.sft import trainer_by_pieces
from llm_engineering.planning.hardware import has_gpu
from llm_engineering.training_stack import import_unsloth

_OTHER = "production"
_PASSED_OVER = "UNSLOTH_IGNORED_TOKENIZER_NAMES"
_IN_32_BIT = "_unsloth_forced_float32"


class UnslothBackend:
    """As ``Backend``."""

    takes_adapters: ClassVar[bool] = True

    def load(self, folder: Path, settings: ModelSettings, dtype: str) -> Any:
        """As ``Backend.load``."""
        import_unsloth()
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        from unsloth import FastLanguageModel

        config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        loader = model_class(config)
        as_16_bit = dequantising(folder)
        if not has_gpu() and (loader is not AutoModelForCausalLM or as_16_bit):
            # unsloth's path for CPUs reads language models in 16 or 32 bit alone; it adapts others all
            # the same.
            return loader.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=settings.trust_remote_code,
                **as_16_bit,
            )
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=settings.max_seq_length,
            dtype=getattr(torch, dtype),
            load_in_4bit=settings.quantisation == "nf4",
            trust_remote_code=settings.trust_remote_code,
            use_exact_model_name=True,
            **as_16_bit,
        )
        if settings.quantisation == "fp8":
            from llm_engineering.model.fp8 import quantise_projections

            os.environ["UNSLOTH_BLOCK_COMPILE"] = (
                "0"  # a compiled layer would break at each product
            )
            quantise_projections(model)
        return model

    def add_adapter(self, model: Any, settings: LoraSettings, options: dict[str, Any]) -> Any:
        """As ``Backend.add_adapter``."""
        import_unsloth()
        from unsloth import FastLanguageModel

        from llm_engineering.model.finetuning.fused_lora import fuse_adapters

        adapted = FastLanguageModel.get_peft_model(
            model,
            **options,
            random_state=settings.random_state,
            use_gradient_checkpointing=False,  # training turns it on: set_checkpointing
        )
        if "trainable_token_indices" in options:
            tell_bias(adapted)
            # unsloth's trainer refuses tokens of zeros: it looks where nothing requires a gradient.
            passed_over = [
                *os.environ.get(_PASSED_OVER, "").split("\n"),
                model.config._name_or_path,
            ]
            os.environ[_PASSED_OVER] = "\n".join(passed_over)
        if has_gpu():
            fuse_adapters(adapted)
        return adapted

    def set_checkpointing(self, model: Any, kind: str) -> None:
        """As ``Backend.set_checkpointing``; what is learned does not depend on it.

        "unsloth" keeps what it needs in host memory (and is plain for rows under 512 tokens, where
        unsloth finds that faster). "tiled" does so too, and goes through each dense feed-forward block a
        tile of tokens at a time.
        """
        import_unsloth()
        if not has_gpu():
            return  # the trainer's own argument is all that unsloth's path for CPUs heeds
        tile_feed_forward(model, kind == "tiled")
        from unsloth.models._utils import apply_unsloth_gradient_checkpointing

        mode = {"none": False, "plain": True, "unsloth": "unsloth", "tiled": "unsloth"}[kind]
        dtype = model.get_input_embeddings().weight.dtype
        # unsloth's trainer reads the attribute when training begins, and arms the layers by it.
        model._unsloth_gradient_checkpointing = apply_unsloth_gradient_checkpointing(
            mode, model.max_seq_length, dtype
        )

    @contextmanager
    def precision(self, model: Any, dtype: str) -> Iterator[None]:
        """As ``Backend.precision``.

        unsloth's trainers turn bfloat16 autocast on for 32-bit weights where the GPU has it, but for
        a model that is marked like those families that cannot bear 16 bit. Only while the trainer is
        made: generation would take the mark for float16.
        """
        if dtype != "float32":
            yield
            return
        before = vars(model).get(_IN_32_BIT)
        setattr(model, _IN_32_BIT, True)
        try:
            yield
        finally:
            delattr(model, _IN_32_BIT)
            if before is not None:
                setattr(model, _IN_32_BIT, before)

    def sft_trainer(self) -> type:
        """trl's, which unsloth has patched."""
        import_unsloth()
        enable_varlen_attention()
        from trl import SFTTrainer

        return trainer_by_pieces(SFTTrainer)

    def whole_adapter(self, model: Any) -> dict[str, Any] | None:
        """None: the model holds it in one piece."""
        return None

    @contextmanager
    def other_adapter(self, model: Any, folder: Path) -> Iterator[None]:
        """As ``Backend.other_adapter``, beside the model's own."""
        active = model.active_adapter
        with fitting_rows(model, folder) as fitting:
            model.load_adapter(str(fitting), adapter_name=_OTHER)
        try:
            model.set_adapter(_OTHER)
            yield
        finally:
            model.set_adapter(active)
            model.delete_adapter(_OTHER)
