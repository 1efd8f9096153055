"""The backend of this process: how a base model is loaded, adapted, trained and read in one piece."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.finetuning.unsloth_backend import UnslothBackend


class Backend(Protocol):
    """unsloth where a process holds the whole model; ``distributed.fsdp`` where it holds a part."""

    takes_adapters: ClassVar[bool]
    """Whether a second adapter of any shape can be added to the live model."""

    def load(self, folder: Path, settings: ModelSettings, dtype: str) -> Any:
        """The base model of a folder, its weights in ``dtype`` or quantised, ready for an adapter."""

    def add_adapter(self, model: Any, settings: LoraSettings, options: dict[str, Any]) -> Any:
        """PEFT's wrapper with a fresh adapter.

        Args:
            model: What ``load`` returned; changed in place.
            settings: The adapter.
            options: The settings under PEFT's names.
        """

    def set_checkpointing(self, model: Any, kind: str) -> None:
        """Choose how the next training recomputes activations: a plan's ``gradient_checkpointing``."""

    def precision(self, model: Any, dtype: str) -> AbstractContextManager[None]:
        """While a trainer is made: it shall compute in what ``dtype`` says of the frozen weights."""

    def sft_trainer(self) -> type:
        """trl's trainer for conversations, or what this backend needs in its place."""

    def whole_adapter(self, model: Any) -> dict[str, Any] | None:
        """The adapter's parameters in one piece; None where the model holds them so."""

    def other_adapter(self, model: Any, folder: Path) -> AbstractContextManager[None]:
        """The model with another adapter in the place of its own, which comes back afterwards."""


_backend: Backend = UnslothBackend()


def backend() -> Backend:
    """The backend of this process."""
    return _backend


def use_backend(chosen: Backend) -> None:
    """Choose this process's backend, before a model is loaded."""
    global _backend
    _backend = chosen
