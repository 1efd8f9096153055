"""A model's shape from its config.json alone, for a launcher without PyTorch.

Elsewhere the modules are asked (``shape_of_modules``). Here only families whose configuration says all,
and only what is exact: tests hold each against its modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.planning.shape import AdapterShape, LayerShape, ModelShape, TrainedShape

_NEEDED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
)  # fmt: skip
_DENSE = ("llama", "mistral", "qwen2", "qwen3")
_MIXTURES = ("qwen2_moe", "qwen3_moe", "olmoe", "mixtral")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class _Experts:
    """What a configuration says of the experts of each layer."""

    count: int
    picked: int
    inner: int
    shared: int
    """Inner width of the expert that every token goes to; 0: there is none."""


def shape_of_config(config: dict[str, Any], lora: LoraSettings) -> TrainedShape | None:
    """The shapes that a config.json states; None where it takes the modules to know them.

    Args:
        config: Of the base model.
        lora: The adapter.
    """
    family = config.get("model_type")
    if not all(isinstance(config.get(key), int) for key in _NEEDED):
        return None
    if config.get("attention_bias") or config.get("mlp_bias"):
        return None
    if lora.rank_pattern or lora.bias != "none":
        return None
    experts = None
    if family in _MIXTURES:
        experts = _experts(config)
        if experts is None:
            return None
    elif family not in _DENSE:
        return None
    hidden, inner, depth, heads, vocabulary = (config[key] for key in _NEEDED)
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, (config.get("num_key_value_heads") or heads) * width
    linears = {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
    }  # fmt: skip
    if experts is not None:
        inner = experts.shared
    if inner:
        into, back = (hidden, inner), (inner, hidden)
        linears |= dict(zip(_FEED_FORWARD, (into, into, back), strict=True))
    adapted = _adapted(linears, experts, hidden, lora)
    if adapted is None:
        return None
    biases = queries + 2 * keys if _has_biases(config) else 0
    norms, normed = 2 * hidden, 0
    if family in ("qwen3", "qwen3_moe"):  # norms of each head's queries and keys
        norms, normed = norms + 2 * width, queries + keys
    elif family == "olmoe":  # norms of all heads' at once
        norms, normed = norms + queries + keys, queries + keys
    linear = sum(d_in * d_out for d_in, d_out in linears.values())
    kept = 3 * hidden + 2 * queries + 2 * keys + normed
    if inner:
        kept += hidden + 2 * inner
    layer = LayerShape(
        count=depth,
        parameters=linear + norms + biases,
        linear_parameters=linear,
        kept=kept,
        kept_in_tiles=0 if experts is not None else 2 * inner,
        attention=queries,
        inner=inner,
    )
    if experts is not None:
        layer = _with_experts(layer, experts, hidden)
    matrices = 1 if config.get("tie_word_embeddings") else 2
    embeddings = vocabulary * hidden * matrices
    outputs = depth * sum(d_out for _, _, d_out in adapted)
    plain = depth * sum(d_in * d_out for count, d_in, d_out in adapted if count == 1)
    token_rows = matrices * len(lora.trainable_tokens) * hidden
    return TrainedShape(
        model=ModelShape(
            family=str(family),
            hidden=hidden,
            vocabulary=vocabulary,
            parameters=depth * layer.parameters + embeddings + hidden,
            layers=(layer,),
        ),
        adapter=AdapterShape(
            parameters=depth * lora.r * sum(count * (i + o) for count, i, o in adapted)
            + outputs * lora.use_dora
            + token_rows,
            outputs=outputs,
            weights=depth * sum(count * d_in * d_out for count, d_in, d_out in adapted),
            is_everywhere=plain >= depth * layer.linear_parameters,
        ),
    )


def _has_biases(config: dict[str, Any]) -> bool:
    """Whether queries, keys and values have biases."""
    family = config["model_type"]
    return family == "qwen2" or (family == "qwen2_moe" and config.get("qkv_bias", True))


def _experts(config: dict[str, Any]) -> _Experts | None:
    """The experts of each layer; None where layers differ, or something is not said."""
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        return None
    is_qwen = config["model_type"].startswith("qwen")
    shared = (
        config.get("shared_expert_intermediate_size") if config["model_type"] == "qwen2_moe" else 0
    )
    said = (
        config.get("num_experts") or config.get("num_local_experts"),
        config.get("num_experts_per_tok"),
        config.get("moe_intermediate_size" if is_qwen else "intermediate_size"),
        shared,
    )
    known = [value for value in said if isinstance(value, int)]
    return _Experts(*known) if len(known) == len(said) else None


def _with_experts(layer: LayerShape, experts: _Experts, hidden: int) -> LayerShape:
    """A layer, of which all else is known, with its experts, their router, and the shared one's gate."""
    one = 3 * hidden * experts.inner
    gate = hidden if experts.shared else 0  # one output for the shared expert
    return layer.model_copy(
        update={
            "parameters": layer.parameters + experts.count * (one + hidden) + gate,
            "linear_parameters": layer.linear_parameters + gate,
            "idle_parameters": (experts.count - experts.picked) * one,
            "kept": layer.kept + (gate + 1 if gate else 0),
            "kept_by_experts": experts.picked * (hidden + 3 * experts.inner),
            "inner": layer.inner + experts.picked * experts.inner,
            "expert_parameters": experts.count * one,
        }
    )


def _adapted(
    linears: dict[str, tuple[int, int]], experts: _Experts | None, hidden: int, lora: LoraSettings
) -> list[tuple[int, int, int]] | None:
    """Experts (of a linear module 1), input and output features of what carries an adapter in a layer.

    None where a name is none of those that are known here.
    """
    joined: dict[str, tuple[int, int, int]] = {}
    if experts is not None:
        joined = {
            "experts.gate_up_proj": (experts.count, hidden, 2 * experts.inner),
            "experts.down_proj": (experts.count, experts.inner, hidden),
        }
    names = {name: (1, *shape) for name, shape in linears.items()} | joined
    if isinstance(lora.target_modules, list):
        targets = [
            f"experts.{name}" if name not in linears and f"experts.{name}" in joined else name
            for name in dict.fromkeys(lora.target_modules)
        ]
    else:
        targets = list(names if lora.target_modules == "auto" else linears)
    if not set(targets) <= set(names):
        return None
    return [names[name] for name in targets]
