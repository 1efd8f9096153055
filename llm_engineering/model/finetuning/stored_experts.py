"""A mixture's experts, as its weight files hold them and as transformers' modules do.

In the files each projection of each expert is a matrix of its own. transformers 5 joins those of a layer
in two parameters: gate and up, one below the other (experts x 2 inner x hidden), and the way back
(experts x hidden x inner). Only families whose files and modules are known to differ by nothing else
are here; tests hold each against its modules.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm_engineering.model.weight_headers import StoredTensor


class _Names(NamedTuple):
    """How a family's files name the block of experts, and an expert's projections."""

    block: str
    gate: str
    up: str
    down: str


_QWEN = _Names("mlp", "gate_proj", "up_proj", "down_proj")
_FAMILIES = {
    "qwen2_moe": _QWEN,
    "qwen3_moe": _QWEN,
    "olmoe": _QWEN,
    "mixtral": _Names("block_sparse_moe", "w1", "w3", "w2"),
}
_BLOCK = "mlp"
"""transformers' name of the block."""


class JoinedExperts(NamedTuple):
    """A parameter of all experts of a layer."""

    experts: int
    d_in: int
    d_out: int


@dataclass(frozen=True)
class Mixture:
    """The files' tensors but for experts and routers, and the experts' parameters as modules have them."""

    others: dict[str, StoredTensor]
    """By the modules' names; a shared expert is among them."""
    experts: dict[str, JoinedExperts]
    """By the parameter's name."""


def join_experts(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Mixture | str:
    """The experts of a mixture; a sentence that says why they are not known where they are not.

    Args:
        config: Its config.json.
        tensors: The headers of its weight files.
    """
    kind = str(config.get("model_type"))
    names = _FAMILIES.get(kind)
    if names is None:
        return f"it is a mixture of experts, and how {kind} keeps them is not known here"
    pattern = re.compile(
        rf"(.*\.layers\.\d+\.){names.block}\.experts\.(\d+)\."
        rf"({names.gate}|{names.up}|{names.down})\.weight"
    )
    shapes: dict[str, dict[tuple[int, str], tuple[int, ...]]] = defaultdict(dict)
    others = {}
    for name, tensor in tensors.items():
        found = pattern.fullmatch(name)
        if found:
            shapes[found[1]][int(found[2]), found[3]] = tensor.shape
        elif ".experts." in name:
            return "it is a mixture of experts, which its files hold in another form"
        else:
            others[name.replace(f".{names.block}.", f".{_BLOCK}.")] = tensor
    count = config.get("num_experts") or config.get("num_local_experts")
    # PEFT takes a dense layer's projections for those of experts of older versions.
    if len(shapes) != config.get("num_hidden_layers"):
        return "it is a mixture of experts with layers that have none"
    experts = {}
    for layer, parts in shapes.items():
        inner, hidden = parts.get((0, names.gate), (0, 0))
        expected = {
            (number, part): (hidden, inner) if part == names.down else (inner, hidden)
            for number in range(count or 0)
            for part in (names.gate, names.up, names.down)
        }
        router = others.pop(f"{layer}{_BLOCK}.gate.weight", None)
        if parts != expected or router is None or router.shape != (count, hidden):
            return "it is a mixture of experts of unlike shapes"
        holder = f"{layer}{_BLOCK}.experts"
        experts[f"{holder}.gate_up_proj"] = JoinedExperts(int(count or 0), hidden, 2 * inner)
        experts[f"{holder}.down_proj"] = JoinedExperts(int(count or 0), inner, hidden)
    return Mixture(others, experts)
