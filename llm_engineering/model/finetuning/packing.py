"""Whether rows can share a sequence: not where a layer carries what it read from one into the next.

Attention is kept within a row by its positions. A state-space, linear-attention or convolution layer
has no such mask in transformers' own code: packed, it would learn one row as the continuation of the
row before it, and nothing would say so.
"""

from __future__ import annotations

from typing import Any

from llm_engineering.errors import ConfigError
from llm_engineering.model.finetuning.targets import text_layers

_READS_OTHERWISE = ("gpt_oss", "qwen2_vl", "qwen2_5_vl")
"""Model types whose second row, packed, was measured to read otherwise than alone (test_packing)."""


def carrying_layer(model: Any) -> str | None:
    """What in a text model does not keep rows apart: a module that carries state; None: nothing."""
    from torch import nn

    if model.config.model_type in _READS_OTHERWISE:
        return "its attention"
    inside = tuple(f"{name}." for name in text_layers(model)[1])
    for name, module in model.named_modules():
        own = {each for each, _ in module.named_parameters(recurse=False)}
        if name.startswith(inside) and (isinstance(module, nn.Conv1d) or "A_log" in own):
            return str(name)
    return None


def require_packable(model: Any) -> None:
    """Check that rows packed into one sequence stay apart in this model.

    Raises:
        ConfigError: They do not; says which layer.
    """
    layer = carrying_layer(model)
    if layer is not None:
        raise ConfigError(
            f"train.packing: true would let {type(model).__name__} read each row as the continuation of "
            f"the one before it ({layer} does not keep them apart); set it to false"
        )
