"""A model's shape, from its config.json alone: what memory and speed are worked out from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.base_model import model_folder, read_config

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class ModelShape(BaseModel):
    """A decoder of attention and gated feed-forward layers: Llama, Mistral, Qwen, Gemma ..."""

    model_config = ConfigDict(frozen=True)

    hidden: int = Field(description="Width of the residual stream.")
    inner: int = Field(description="Width inside the feed-forward layer.")
    layers: int
    queries: int = Field(description="Heads times their width.")
    keys: int = Field(description="Key heads times their width; the values' is the same.")
    vocabulary: int
    tied: bool = Field(description="Whether input and output embeddings are one matrix.")

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output features of a layer's projections, by name."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Parameters of all projections, which 4-bit loading quantises."""
        return self.layers * sum(d_in * d_out for d_in, d_out in self.linears.values())

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once; biases, which some families have, are left out."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = (2 * self.layers + 1) * self.hidden
        return embeddings + self.linear_parameters + norms

    def adapted(self, lora: LoraSettings) -> dict[str, tuple[int, int]]:
        """Those of ``linears`` that carry an adapter."""
        names = lora.target_modules if isinstance(lora.target_modules, list) else self.linears
        return {name: self.linears[name] for name in names if name in self.linears}

    def adapter_parameters(self, lora: LoraSettings) -> int:
        """Trainable parameters of an adapter: r (d_in + d_out) a projection, and DoRA's d_out."""
        shapes = self.adapted(lora).values()
        magnitudes = sum(d_out for _, d_out in shapes) if lora.use_dora else 0
        return self.layers * (lora.r * sum(map(sum, shapes)) + magnitudes)


def read_shape(settings: ModelSettings) -> ModelShape | None:
    """The shape of a base model; None for one that is not such a decoder (mixtures of experts).

    Raises:
        ModelError: The model's config.json cannot be had.
    """
    return shape_of(read_config(model_folder(settings, weights=False)))


def shape_of(config: dict[str, Any]) -> ModelShape | None:
    """The shape that a config.json states, or None."""
    text = config.get("text_config")
    if isinstance(text, dict):
        config = {"tie_word_embeddings": config.get("tie_word_embeddings", True), **text}
    if any(config.get(key) for key in _EXPERTS):
        return None
    if not all(isinstance(config.get(key), int) for key in (*_NEEDED, "vocab_size")):
        return None
    hidden, inner, layers, heads = (config[key] for key in _NEEDED)
    width = config.get("head_dim") or hidden // heads
    return ModelShape(
        hidden=hidden,
        inner=inner,
        layers=layers,
        queries=heads * width,
        keys=(config.get("num_key_value_heads") or heads) * width,
        vocabulary=config["vocab_size"],
        # transformers leaves the key out where it is the family's default.
        tied=config.get("tie_word_embeddings", str(config.get("model_type")).startswith("gemma")),
    )
