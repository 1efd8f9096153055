"""Merging an adapter into its base model's weights: 16-bit safetensors, one tensor in memory at a time."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_engineering.errors import ExportError
from llm_engineering.export.tensor_file import FLOATS, TensorSlot, torch_dtype, write_tensors
from llm_engineering.model.base_model import read_config, weight_files

_INDEX = "model.safetensors.index.json"
_PREFIX = "base_model.model."
_PLAIN_INITIAL_WEIGHTS = (True, False, "gaussian", "orthogonal")
_FACTORS = re.compile(r"^(?P<module>.+)\.(?P<part>lora_A|lora_B)\.weight$")
_MAGNITUDE = re.compile(r"^(?P<module>.+)\.lora_magnitude_vector(\.weight)?$")
_BIAS = re.compile(r"^(?P<module>.+?)(\.base_layer)?\.bias$")
# What PEFT can put into an adapter, and this does not add to a weight: refused by name.
_REFUSED = {
    "fan_in_fan_out": "weights stored transposed",
    "lora_bias": "biases of lora_B",
    "modules_to_save": "modules trained in full",
    "trainable_token_indices": "tokens trained in full",
    "layer_replication": "replicated layers",
    "target_parameters": "parameters that are no linear module's",
    "alora_invocation_tokens": "an adapter that some tokens switch on",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "velora_config": "VeLoRA",
    "monteclora_config": "Monte Carlo LoRA",
}

_OF_THE_ADAPTER = (
    *("adapter_config.json", "adapter_model.safetensors"),
    *("generation_config.json", "README.md"),
)


@dataclass
class _Update:
    """What an adapter does to one linear module."""

    factors: dict[str, str] = field(default_factory=dict)
    """Names of its tensors in the adapter's file: lora_A, lora_B, magnitude."""
    alpha: float = 0.0
    rslora: bool = False

    def scaling(self, rank: int) -> float:
        """The factor on ``B A``."""
        return self.alpha / (math.sqrt(rank) if self.rslora else rank)


def require_mergeable(base: Path) -> None:
    """Check a base model's configuration before anything is trained.

    Raises:
        ExportError: Its weights on disk are quantised, so there is nothing to add to.
    """
    if "quantization_config" in read_config(base):
        raise ExportError(
            f"export.merged_16bit: the weights of {base} are quantised on disk; name the original "
            "16-bit model as model.id (model.quantisation rounds it when it is loaded)"
        )


def merge(base: Path, adapter: Path, folder: Path, *, stop_ids: tuple[int, ...]) -> None:
    """Write the base model with the adapter in its weights, as a model of its own.

    Each target's weight becomes ``W + scaling * B A``, computed in 32 bit and rounded once; with
    DoRA its rows are then scaled to the learned magnitudes (arXiv 2402.09353, equation 5). Shards
    keep their names and their tensors. Peak memory is one tensor in 32 bit, a few times, and what
    the system keeps of the shard that is being read.

    Args:
        base: Folder of the base model, its weights in safetensors and not quantised.
        adapter: Folder in PEFT's format, with the tokenizer and the chat template beside it.
        folder: New folder, which receives weights, configuration, generation configuration,
            tokenizer and chat template.
        stop_ids: Tokens that end an answer.

    Raises:
        ExportError: The adapter has a part that cannot be merged, or that the base model lacks;
            says which.
    """
    from safetensors import safe_open

    require_mergeable(base)
    folder.mkdir(parents=True)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        updates, replaced = _read_adapter(adapter, list(tensors.keys()))
        places = _write_shards(base, folder, tensors, updates, replaced)
    missing = sorted({*(f"{name}.weight" for name in updates), *replaced} - set(places))
    if missing:
        raise ExportError(
            f"export.merged_16bit: the base model has no tensor {missing[0]}, which the adapter "
            f"changes ({len(missing)} such)"
        )
    _write_configuration(base, adapter, folder, stop_ids)


def _read_adapter(adapter: Path, names: list[str]) -> tuple[dict[str, _Update], dict[str, str]]:
    """What the adapter does: updates by module, and tensors that replace the base model's."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    wrong = [f"{key} ({what})" for key, what in _REFUSED.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        wrong.append(f"peft_type {config.get('peft_type')}")
    if config.get("init_lora_weights", True) not in _PLAIN_INITIAL_WEIGHTS:
        wrong.append(
            f"init_lora_weights {config['init_lora_weights']} (changes the base model's weights)"
        )
    updates: dict[str, _Update] = {}
    replaced: dict[str, str] = {}
    for name in names:
        inner = name.removeprefix(_PREFIX)
        found = _FACTORS.match(inner) or _MAGNITUDE.match(inner)
        if found:
            module = found["module"]
            part = found.groupdict().get("part", "magnitude")
            updates.setdefault(module, _Update()).factors[part] = name
        elif found := _BIAS.match(inner):
            replaced[f"{found['module']}.bias"] = name
        else:
            wrong.append(name)
    wrong += [
        f"{module} ({', '.join(one.factors)} alone)"
        for module, one in updates.items()
        if not {"lora_A", "lora_B"} <= set(one.factors)
    ]
    if wrong:
        raise ExportError(
            f"export.merged_16bit: cannot merge {', '.join(wrong[:3])}; export the adapter alone"
        )
    for module, update in updates.items():
        update.alpha, update.rslora = _alpha(config, module), bool(config.get("use_rslora"))
    return updates, replaced


def _alpha(config: dict[str, Any], module: str) -> float:
    """A module's alpha, by the pattern that PEFT would choose for it."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(alpha)
    return float(config["lora_alpha"])


def _write_shards(
    base: Path,
    folder: Path,
    adapter: Any,
    updates: dict[str, _Update],
    replaced: dict[str, str],
) -> dict[str, str]:
    """Write every weight file; returns the file of each tensor."""
    from safetensors import safe_open

    stored = "F16" if _sixteen_bit(read_config(base)) == "float16" else "BF16"
    places: dict[str, str] = {}
    total = 0
    files = weight_files(base)
    for path in files:
        with safe_open(path, framework="pt") as shard:
            slots: dict[str, TensorSlot] = {}
            for name in shard.keys():  # noqa: SIM118  (safe_open is no mapping)
                view = shard.get_slice(name)
                dtype = view.get_dtype()
                if torch_dtype(dtype) is None:
                    raise ExportError(
                        f"export.merged_16bit: {path.name} holds {name} as {dtype}, which is a "
                        "quantised weight; name the original 16-bit model as model.id"
                    )
                slots[name] = TensorSlot(stored if dtype in FLOATS else dtype, view.get_shape())

            def tensor(name: str, shard: Any = shard, slots: Any = slots) -> Any:
                value = shard.get_tensor(name)
                update = updates.get(name.removesuffix(".weight"))
                if name in replaced:
                    value = adapter.get_tensor(replaced[name])
                elif update is not None and name.endswith(".weight"):
                    value = _merged(value, adapter, update, name)
                return value.to(torch_dtype(slots[name].dtype))

            total += write_tensors(folder / path.name, slots, tensor)
        places |= dict.fromkeys(slots, path.name)
    if len(files) > 1 or (base / _INDEX).is_file():
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return places


def _merged(weight: Any, adapter: Any, update: _Update, name: str) -> Any:
    import torch

    a = adapter.get_tensor(update.factors["lora_A"]).float()
    b = adapter.get_tensor(update.factors["lora_B"]).float()
    if (b.shape[0], a.shape[1]) != tuple(weight.shape):
        raise ExportError(
            f"export.merged_16bit: {name} is {tuple(weight.shape)}, its adapter "
            f"{b.shape[0]} x {a.shape[1]}; the base model stores it in another form"
        )
    merged = weight.float().addmm_(b, a, alpha=update.scaling(a.shape[0]))
    if "magnitude" in update.factors:
        magnitude = adapter.get_tensor(update.factors["magnitude"]).float()
        merged *= (magnitude / torch.linalg.norm(merged, dim=1)).unsqueeze(1)
    return merged


def _write_configuration(
    base: Path, adapter: Path, folder: Path, stop_ids: tuple[int, ...]
) -> None:
    config = read_config(base)
    config["dtype"] = _sixteen_bit(config)
    for key in ("_name_or_path", "torch_dtype"):
        config.pop(key, None)
    _write_json(folder / "config.json", config)
    stated = base / "generation_config.json"
    generation = json.loads(stated.read_text(encoding="utf-8")) if stated.is_file() else {}
    # The run's stop tokens, which the base model's configuration may lack (a base model that was
    # never taught turns) or have as one of several.
    generation["eos_token_id"] = stop_ids[0] if len(stop_ids) == 1 else list(stop_ids)
    _write_json(folder / "generation_config.json", generation)
    for path in sorted(base.glob("*.py")):  # the code of a model that brings its own
        shutil.copy2(path, folder / path.name)
    for path in sorted(adapter.iterdir()):
        if path.name not in _OF_THE_ADAPTER:
            shutil.copy2(path, folder / path.name)


def _sixteen_bit(config: dict[str, Any]) -> str:
    """float16 where the base model is; bfloat16 holds the range of 32 bit, and is all others'."""
    stated = str(config.get("dtype") or config.get("torch_dtype"))
    return "float16" if stated == "float16" else "bfloat16"


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
