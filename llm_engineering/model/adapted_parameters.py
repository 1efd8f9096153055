"""Which parameter each tensor of an adapter changes, and how: as PEFT itself reads the adapter.

A linear module's adapter has the module's name. An adapter of parameters (a mixture's experts) has
that of the module that holds them, once more for each parameter; which is whose, only PEFT can say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS, adapted_modules

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdaptedParameter:
    """What a pair of factors is added to: ``A`` (rank x in) and ``B`` (out x rank)."""

    module: str
    """Name of the adapter's tensors in its file, without the prefix: MODULE.lora_A.weight."""
    parameter: str
    """Name of what it changes in the base model."""
    key: str
    """The name that PEFT matches patterns of ranks and alphas with."""
    experts: int
    """How many factors ``A`` holds one below another, and ``B`` one between another; 1: one of each."""
    dimensions: int
    """Of the parameter."""
    transposed: bool
    """Whether the parameter is stored in x out."""
    scaling: float
    """The factor on ``B A``, as PEFT has it."""

    def change(self, a: Any, b: Any, expert: int | None, scaling: float | None = None) -> Any:
        """What is added to the parameter, in its shape; of one expert: 1 x out x in.

        Args:
            a: rank x in, of all experts.
            b: out x rank, of all experts.
            expert: Which; None: all.
            scaling: Default: PEFT's.
        """
        import torch

        factor = self.scaling if scaling is None else scaling
        if self.dimensions < 3:
            whole = factor * (b @ a)
            return whole.T if self.transposed else whole
        of_a = a.reshape(self.experts, -1, a.shape[1])
        of_b = b.reshape(b.shape[0], -1, self.experts)
        wanted = range(self.experts) if expert is None else (expert,)
        made = [factor * (of_b[:, :, each] @ of_a[each]) for each in wanted]
        return torch.stack([one.T if self.transposed else one for one in made])


@dataclass(frozen=True)
class ReplacedRows:
    """Rows of a matrix that an adapter holds whole, in place of the base model's."""

    tensor: str
    """Their name in the adapter's file."""
    ids: list[int]
    """Which rows, in the order of the tensor's."""
    is_tied: bool
    """Whether the matrix is another one's under a second name, which files may lack."""


@dataclass(frozen=True)
class Adapted:
    """What an adapter changes."""

    factors: dict[str, AdaptedParameter]
    """By the name of their tensors without prefix."""
    rows: dict[str, ReplacedRows]
    """By the parameter's name in the base model."""

    @property
    def parameters(self) -> list[str]:
        """Names of all that is changed in the base model, tied matrices once."""
        rows = [name for name, one in self.rows.items() if not one.is_tied]
        return [*(one.parameter for one in self.factors.values()), *rows]


def adapted_parameters(model: Any, config: Any) -> Adapted:
    """What an adapter changes in a base model.

    Args:
        model: The base model on the meta device; it is changed.
        config: The adapter's ``peft.LoraConfig``.
    """
    import torch
    from peft import get_peft_model

    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    with torch.device("meta"):
        wrapped = get_peft_model(model, config)
    found = {}
    for name, layer, active in adapted_modules(wrapped):
        module = name.removeprefix(_PREFIX)
        kind = getattr(layer, "parameter_name", "weight")
        parameter = f"{module.replace('.base_layer', '')}.{kind}"
        dimensions = shapes[parameter]
        experts = getattr(layer, "num_experts", 1)
        by_row = dimensions < 3 or getattr(layer, "_did_swap_in_out_features", True)
        found[module] = AdaptedParameter(
            module=module,
            parameter=parameter,
            key=parameter if hasattr(layer, "parameter_name") else module,
            experts=experts,
            dimensions=dimensions,
            transposed=bool(getattr(layer, "fan_in_fan_out", False)) or not by_row,
            scaling=float(layer.scaling[active]),
        )
    return Adapted(found, _replaced_rows(wrapped))


def _replaced_rows(model: Any) -> dict[str, ReplacedRows]:
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    layers = {
        name.removesuffix(".token_adapter"): module
        for name, module in model.named_modules()
        if isinstance(module, TrainableTokensLayer)
    }
    names = {id(layer): name for name, layer in layers.items()}
    found = {}
    for name, layer in layers.items():
        (active,) = layer.active_adapters
        owner = layer.tied_adapter or layer
        found[f"{name.removeprefix(_PREFIX)}.weight"] = ReplacedRows(
            tensor=f"{names[id(owner)]}{TRAINED_ROWS}",
            ids=[int(id_) for id_ in owner.token_indices[active]],
            is_tied=owner is not layer,
        )
    return found


def read_peft_config(adapter: Path) -> Any:
    """An adapter's ``peft.LoraConfig``, of its folder."""
    from peft import PeftConfig

    return PeftConfig.from_pretrained(str(adapter))
