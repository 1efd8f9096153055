"""The shapes of a model and of its adapter, by building both on PyTorch's meta device."""

from __future__ import annotations

import logging
from typing import Any

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import FinetuningError, ModelError
from llm_engineering.model.finetuning.inject import _peft_options, _require_targets, matched_targets
from llm_engineering.model.finetuning.load import meta_model
from llm_engineering.planning.shape import AdapterShape, TrainedShape, shape_of_modules

logger = logging.getLogger(__name__)


class UnknownShapeError(ModelError):
    """transformers builds no decoder from a model's configuration: its memory cannot be planned."""


def trained_shape(model: ModelSettings, lora: LoraSettings, *, trains: bool = True) -> TrainedShape:
    """The shapes of a model and its adapter, from configuration files alone.

    What is counted is what transformers builds and PEFT injects, so that no family needs to be known.

    Args:
        model: Names the base model.
        lora: The adapter.
        trains: False in a process that loads no model, where unsloth's import of seconds is spared.

    Raises:
        ModelError: Its config.json cannot be had.
        UnknownShapeError: transformers builds no decoder from it.
        LoraError: A target matches no module.
    """
    try:
        base = meta_model(model, trains=trains)
    except FinetuningError:
        raise
    except Exception as error:  # a configuration may be wrong in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnknownShapeError(
            f"model.id: transformers builds no model from the config.json of {model.id} ({reason})"
        ) from None
    shape = shape_of_modules(base)
    if shape is None:
        raise UnknownShapeError(f"model.id: {model.id} has no layers that a plan could count")
    adapted = _adapted(base, lora)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    return TrainedShape(
        model=shape, adapter=AdapterShape.of(matched_targets(adapted), trainable, shape)
    )


def _adapted(base: Any, lora: LoraSettings) -> Any:
    _require_targets(base, lora)
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**_peft_options(lora), task_type="CAUSAL_LM")
    with torch.device("meta"):
        return get_peft_model(base, config)


def known_shape(model: ModelSettings, lora: LoraSettings) -> TrainedShape | None:
    """As ``trained_shape``; None, and a warning, where the model cannot be built from its configuration.

    Raises:
        ModelError: Its config.json cannot be had.
        LoraError: A target matches no module.
    """
    try:
        return trained_shape(model, lora)
    except UnknownShapeError as reason:
        logger.warning("memory is not planned: %s", reason)
        return None
