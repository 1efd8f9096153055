"""The shapes of a model and of its adapter, by building both on PyTorch's meta device."""

from __future__ import annotations

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.base_model import model_folder, read_config
from llm_engineering.model.finetuning.inject import matched_targets, peft_options
from llm_engineering.model.finetuning.targets import adapter_targets
from llm_engineering.model.meta import meta_model
from llm_engineering.planning.config_shape import shape_of_config
from llm_engineering.planning.shape import AdapterShape, TrainedShape, shape_of_modules
from llm_engineering.training_stack import has_pytorch, import_unsloth


def known_shape(model: ModelSettings, lora: LoraSettings) -> TrainedShape | None:
    """The shapes of model and adapter; None where it takes PyTorch to know them, and this host has none.

    Raises:
        ModelError: As ``trained_shape``.
        LoraError: Likewise.
    """
    if has_pytorch():
        return trained_shape(model, lora, trains=False)
    return shape_of_config(read_config(model_folder(model, weights=False)), lora)


def trained_shape(model: ModelSettings, lora: LoraSettings, *, trains: bool = True) -> TrainedShape:
    """The shapes of a model and its adapter, from configuration files alone.

    What is counted is what transformers builds and PEFT injects, so that no family needs to be known.

    Args:
        model: Names the base model.
        lora: The adapter.
        trains: False in a process that loads no model, where unsloth's import of seconds is spared.

    Raises:
        ModelError: Its config.json cannot be had, or transformers builds no decoder from it.
        LoraError: A target matches no module.
    """
    if trains:
        import_unsloth()
    import torch
    from peft import LoraConfig, get_peft_model

    base = meta_model(model_folder(model, weights=False), trust_remote_code=model.trust_remote_code)
    shape = shape_of_modules(base)
    targets = adapter_targets(base, model, lora)
    config = LoraConfig(**peft_options(lora, targets), task_type="CAUSAL_LM")
    with torch.device("meta"):
        adapted = get_peft_model(base, config)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    return TrainedShape(
        model=shape, adapter=AdapterShape.of(matched_targets(adapted), trainable, shape)
    )
