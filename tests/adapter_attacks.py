"""Ways to ship another adapter than was trained, each of which changes a saved adapter's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change an adapter's tensors in place."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def scale_b(factor: float, part: str = "") -> Callable[[Path], None]:
    """Scale all ``B`` whose name has ``part`` in it."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name and part in name:
                tensor.mul_(factor)

    return lambda folder: edit(folder, change)


def permute_one(folder: Path) -> None:
    """The rows of one ``B`` move on by one."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if "lora_B" in name and tensors[name].any())
        tensors[name] = tensors[name].roll(1, dims=0)

    edit(folder, change)


def double_alpha(folder: Path) -> None:
    """The adapter's configuration says twice the scaling."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    values["lora_alpha"] *= 2
    values["alpha_pattern"] = {key: 2 * x for key, x in (values["alpha_pattern"] or {}).items()}
    path.write_text(json.dumps(values))


WEIGHT_ATTACKS: dict[str, Callable[[Path], None]] = {
    "empty": scale_b(0.0),
    "negated": scale_b(-1.0),
    "half-scaled": scale_b(0.5),
    "one layer empty": scale_b(0.0, "layers.1."),
    "one module empty": scale_b(0.0, "layers.0.self_attn.v_proj"),
    "one module permuted": permute_one,
    "wrong alpha": double_alpha,
}


def drop_layer(folder: Path) -> None:
    """Layer 1 has no tensors."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "layers.1." in name]:
            del tensors[name]

    edit(folder, change)


def forget_a_target(folder: Path) -> None:
    """PEFT then passes over its tensors in silence."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    values["target_modules"] = [name for name in values["target_modules"] if name != "v_proj"]
    path.write_text(json.dumps(values))


def other_template(folder: Path) -> None:
    """It differs only where there are tools, of which no held-out row has any."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if tools %}{{ tools }}{% endif %}")


def stale_tokenizer(folder: Path) -> None:
    """The tokenizer has a token more."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<of-last-year>"])
    tokenizer.save_pretrained(folder)


TEXT_ATTACKS = {"wrong template": other_template, "stale tokenizer": stale_tokenizer}
ADAPTER_ATTACKS = {
    **WEIGHT_ATTACKS,
    **TEXT_ATTACKS,
    "a layer missing": drop_layer,
    "a target not named": forget_a_target,
}
