"""A model's shape from its config.json alone, for a launcher without PyTorch.

Elsewhere the modules are asked (``shape_of_modules``). Here only families whose configuration says all,
and only what is exact: tests hold each against its modules.
"""

from __future__ import annotations

from typing import Any

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.planning.shape import AdapterShape, LayerShape, ModelShape, TrainedShape

_NEEDED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
)  # fmt: skip
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def shape_of_config(config: dict[str, Any], lora: LoraSettings) -> TrainedShape | None:
    """The shapes that a config.json states; None where it takes the modules to know them.

    Args:
        config: Of the base model.
        lora: The adapter.
    """
    family = config.get("model_type")
    if family not in _FAMILIES or not all(isinstance(config.get(key), int) for key in _NEEDED):
        return None
    if config.get("attention_bias") or config.get("mlp_bias"):
        return None
    if lora.rank_pattern or lora.bias != "none":
        return None
    hidden, inner, depth, heads, vocabulary = (config[key] for key in _NEEDED)
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, (config.get("num_key_value_heads") or heads) * width
    linears = {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    targets = lora.target_modules if isinstance(lora.target_modules, list) else list(linears)
    if not set(targets) <= set(linears):
        return None
    linear = sum(d_in * d_out for d_in, d_out in linears.values())
    norms = 2 * hidden + (2 * width if family == "qwen3" else 0)
    biases = queries + 2 * keys if family == "qwen2" else 0
    kept = 4 * hidden + 2 * queries + 2 * keys + 2 * inner
    if family == "qwen3":  # norms of queries and keys keep both as they come in
        kept += queries + keys
    layer = LayerShape(
        count=depth,
        parameters=linear + norms + biases,
        linear_parameters=linear,
        kept=kept,
        attention=queries,
        inner=inner,
    )
    matrices = 1 if config.get("tie_word_embeddings") else 2
    embeddings = vocabulary * hidden * matrices
    adapted = [linears[name] for name in targets]
    outputs = depth * sum(d_out for _, d_out in adapted)
    token_rows = matrices * len(lora.trainable_tokens) * hidden
    return TrainedShape(
        model=ModelShape(
            family=family,
            hidden=hidden,
            vocabulary=vocabulary,
            parameters=depth * layer.parameters + embeddings + hidden,
            layers=(layer,),
        ),
        adapter=AdapterShape(
            parameters=depth * lora.r * sum(map(sum, adapted))
            + outputs * lora.use_dora
            + token_rows,
            outputs=outputs,
            weights=depth * sum(d_in * d_out for d_in, d_out in adapted),
            is_everywhere=len(targets) == len(linears),
        ),
    )
