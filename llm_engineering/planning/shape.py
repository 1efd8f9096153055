"""A model's shape and its adapter's, read off their modules: what memory and speed are worked out from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.errors import ModelError
from llm_engineering.model.recipes import MatchedTarget


class LayerShape(BaseModel):
    """A layer of a decoder, and how many there are of its kind."""

    model_config = ConfigDict(frozen=True)

    count: int = Field(description="Layers of this shape.")
    parameters: int = Field(description="All of one layer.")
    linear_parameters: int = Field(
        description="Those of its linear modules, which quantised loading narrows; not the experts'."
    )
    idle_parameters: int = Field(0, description="Those of experts that a token does not go to.")
    kept: int = Field(
        description="Numbers a token keeps for the backward pass: inputs of norms and of projections, "
        "queries, keys, values, the attention's output, outputs of gate and up projections."
    )
    kept_by_experts: int = Field(0, description="Likewise, in all experts that it goes to.")
    kept_in_tiles: int = Field(
        0, description="Those of ``kept`` inside feed-forward blocks that can go through in tiles."
    )
    attention: int = Field(description="Width of the attention's output; 0 where it has none.")
    inner: int = Field(
        description="Numbers of a token inside the feed-forward part, gate and up counted once; of all "
        "experts that it goes to."
    )
    expert_parameters: int = Field(0, description="Those of all experts.")


class ModelShape(BaseModel):
    """A decoder: its layers and its embeddings."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    family: str = Field(description="model_type of its config.json, of the text part.")
    hidden: int = Field(description="Width of the residual stream.")
    vocabulary: int = Field(description="Rows of the output embeddings.")
    parameters: int = Field(description="All of them, tied ones once.")
    layers: tuple[LayerShape, ...]

    @property
    def depth(self) -> int:
        """Layers."""
        return sum(layer.count for layer in self.layers)

    @property
    def has_tiles(self) -> bool:
        """Whether every layer has a feed-forward block that can go through in tiles of tokens."""
        return all(layer.kept_in_tiles for layer in self.layers)

    @property
    def linear_parameters(self) -> int:
        """Parameters that 4-bit loading quantises."""
        return sum(layer.count * layer.linear_parameters for layer in self.layers)

    @property
    def expert_parameters(self) -> int:
        """Those of all experts, which 4-bit loading narrows too."""
        return sum(layer.count * layer.expert_parameters for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Parameters that a token goes through: of a mixture's experts those that its router picks."""
        return self.parameters - sum(layer.count * layer.idle_parameters for layer in self.layers)

    @property
    def is_mixture(self) -> bool:
        """Whether it has experts."""
        return any(layer.expert_parameters for layer in self.layers)

    def __str__(self) -> str:
        text = f"{self.parameters / 1e9:.2f}B parameters"
        return text + f", {self.active_parameters / 1e9:.2f}B active" * self.is_mixture


class AdapterShape(BaseModel):
    """A LoRA adapter on such a model."""

    model_config = ConfigDict(frozen=True)

    parameters: int = Field(description="Trainable ones, as PEFT injects them.")
    outputs: int = Field(description="Output features of all adapted modules together.")
    weights: int = Field(description="Parameters of the weights that are adapted.")
    is_everywhere: bool = Field(description="Whether every linear module of every layer has it.")

    @classmethod
    def of(
        cls, matched: Sequence[MatchedTarget], trainable: int, shape: ModelShape
    ) -> AdapterShape:
        """The shape of an injected adapter.

        Args:
            matched: What carries it.
            trainable: Its parameters.
            shape: The model's.
        """
        weights = [
            (target.experts, target.modules * target.experts * target.d_in * target.d_out)
            for target in matched
        ]
        linear = sum(numbers for experts, numbers in weights if experts == 1)
        return cls(
            parameters=trainable,
            outputs=sum(target.modules * target.d_out for target in matched),
            weights=sum(numbers for _, numbers in weights),
            is_everywhere=linear >= shape.linear_parameters,
        )


class TrainedShape(BaseModel):
    """A model with its adapter."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: ModelShape
    adapter: AdapterShape


def shape_of_modules(model: Any) -> ModelShape:
    """The shape of a model, whatever its family; weights may be on PyTorch's meta device.

    Args:
        model: As transformers builds it, without an adapter.

    Raises:
        ModelError: It has no list of layers.
    """
    layers = _decoder_layers(model)
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    embeddings = head if head is not None else model.get_input_embeddings()
    seen: set[int] = set()
    shapes = Counter(_layer_shape(layer, config.hidden_size, seen) for layer in layers)
    return ModelShape(
        family=str(config.model_type),
        hidden=config.hidden_size,
        vocabulary=embeddings.weight.shape[0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=tuple(layer.model_copy(update={"count": count}) for layer, count in shapes.items()),
    )


def _decoder_layers(model: Any) -> Any:
    """The largest list of modules that is in no other: towers for images are smaller."""
    from torch.nn import ModuleList

    lists: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and not any(name.startswith(f"{n}.") for n in lists):
            lists[name] = module
    sizes = {name: sum(p.numel() for p in found.parameters()) for name, found in lists.items()}
    if not sizes:
        raise ModelError(
            f"model.id: {type(model).__name__} has no list of layers, so its memory cannot be planned"
        )
    return lists[max(sizes, key=lambda name: sizes[name])]


def _layer_shape(layer: Any, hidden: int, seen: set[int]) -> LayerShape:
    """One layer's shape.

    Args:
        layer: The layer.
        hidden: Width of the residual stream.
        seen: Parameters, by identity, of layers before: shared ones count once.
    """
    from torch.nn import Linear

    own = {id(p): p for p in layer.parameters() if id(p) not in seen}
    seen.update(own)
    linears = [m for m in layer.modules() if isinstance(m, Linear) and id(m.weight) in own]
    attention = inner = kept = in_tiles = by_experts = idle = in_experts = 0
    for name, module in layer.named_modules():
        if (smallest := _experts(name, module)) is not None:
            numbers, picked = smallest // hidden, _experts_picked(layer)
            total = getattr(module, "num_experts", None) or len(module)
            size = sum(p.numel() for p in module.parameters())
            in_experts += size
            idle += size - size * picked // total
            # What goes in, gate, up and their product; what comes out is summed at once.
            by_experts += picked * (hidden + 3 * numbers)
            inner += picked * numbers
        elif "Norm" in type(module).__name__:
            kept += _normed(name, module, layer, hidden)
        elif not _in_experts(name, layer):
            found = [m for m in module.children() if isinstance(m, Linear)]
            # The way back into the residual stream is the last one of its width (o_proj, down_proj):
            # what comes out is added to the stream at once.
            back = [m for m in found if m.out_features == hidden][-1:]
            into = [m for m in found if m not in back]
            kept += sum(m.out_features for m in into) + sum({m.in_features for m in into})
            width = sum(m.in_features for m in back)
            if "Attention" in type(module).__name__:
                attention += width
                kept += width
            else:
                inner += width
            if is_feed_forward(name, module):
                in_tiles += sum(m.out_features for m in into)
    return LayerShape(
        count=1,
        parameters=sum(p.numel() for p in own.values()),
        linear_parameters=sum(m.weight.numel() for m in linears),
        idle_parameters=idle,
        expert_parameters=in_experts,
        kept=kept,
        kept_by_experts=by_experts,
        kept_in_tiles=in_tiles,
        attention=attention,
        inner=inner,
    )


def is_feed_forward(name: str, module: Any) -> bool:
    """Whether a module is a dense feed-forward block: each token by itself, so that tiles of tokens can.

    Args:
        name: Its own, or with those of the modules that it is in.
        module: With or without adapters in it.
    """
    block = name.rpartition(".")[2] in ("mlp", "feed_forward", "ffn", "shared_mlp")
    return block and all(p.ndim < 3 for p in module.parameters()) and not _has_experts(module)


def _has_experts(module: Any) -> bool:
    return any(name.rpartition(".")[2] == "experts" for name, _ in module.named_modules())


def _normed(name: str, module: Any, layer: Any, hidden: int) -> int:
    """Numbers a token that a norm keeps: its input; of one over each head all heads'."""
    weight = getattr(module, "weight", None)
    width = hidden if weight is None else weight.numel()
    if width >= hidden:
        return width
    parent = layer.get_submodule(name.rpartition(".")[0])
    letter = name.rsplit(".", 1)[-1][:1]  # of q_norm, k_layernorm ...
    projection = getattr(parent, f"{letter}_proj", None)
    return projection.out_features if projection is not None else width


def _experts(name: str, module: Any) -> int | None:
    """Parameters of one expert's smallest projection, the way back, where a module holds experts.

    Its other side is the residual stream, which tells the expert's own width.
    """
    from torch.nn import Linear, ModuleList

    if isinstance(module, ModuleList) and name.endswith("experts") and len(module):
        linears = [m for m in module[0].modules() if isinstance(m, Linear)]
        return min(m.weight.numel() for m in linears) if linears else None
    stacked = [p for p in module.parameters(recurse=False) if p.ndim == 3]
    if not stacked or not isinstance(getattr(module, "num_experts", None), int):
        return None
    return min(int(p.numel() // p.shape[0]) for p in stacked)


def _in_experts(name: str, layer: Any) -> bool:
    """Whether a module is inside one that ``_experts`` has counted."""
    parts = name.split(".")
    parents = (".".join(parts[:i]) for i in range(1, len(parts)))
    return any(_experts(parent, layer.get_submodule(parent)) is not None for parent in parents)


def _experts_picked(layer: Any) -> int:
    """Experts that a token goes to, as the layer's router says."""
    for module in layer.modules():
        for key in ("top_k", "num_experts_per_tok", "experts_per_token"):
            if isinstance(value := getattr(module, key, None), int):
                return value
    return 1
