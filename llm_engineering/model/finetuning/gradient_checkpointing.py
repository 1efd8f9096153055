"""Turning gradient checkpointing on in a model that was injected without it."""

from __future__ import annotations

from typing import Any

from llm_engineering.planning.hardware import has_gpu
from llm_engineering.training_stack import import_unsloth


def set_gradient_checkpointing(model: Any, kind: str) -> None:
    """Choose how the next training recomputes activations; what is learned does not depend on it.

    Args:
        model: What unsloth's ``get_peft_model`` returned.
        kind: "none", "plain", or "unsloth", which keeps what it needs in host memory (plain for
            rows under 512 tokens, where unsloth finds that faster).
    """
    if not has_gpu():
        return  # the trainer's own argument is all that unsloth's path for CPUs heeds
    import_unsloth()
    from unsloth.models._utils import apply_unsloth_gradient_checkpointing

    mode = {"none": False, "plain": True, "unsloth": "unsloth"}[kind]
    dtype = model.get_input_embeddings().weight.dtype
    # unsloth's trainer reads the attribute when training begins, and arms the layers by it.
    model._unsloth_gradient_checkpointing = apply_unsloth_gradient_checkpointing(
        mode, model.max_seq_length, dtype
    )
