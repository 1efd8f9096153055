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
from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS
from llm_engineering.model.adapted_parameters import (
    Adapted,
    AdaptedParameter,
    ReplacedRows,
    adapted_parameters,
    read_peft_config,
)
from llm_engineering.model.base_model import read_config, weight_files
from llm_engineering.model.file_tensors import FileTensors, file_shapes
from llm_engineering.model.meta import meta_model
from llm_engineering.model.rope_scaling import HF_OVERRIDES

_INDEX = "model.safetensors.index.json"
_PREFIX = "base_model.model."
_PLAIN_INITIAL_WEIGHTS = (True, False, "gaussian", "orthogonal")
_FACTORS = re.compile(r"^(?P<module>.+)\.(?P<part>lora_A|lora_B)\.weight$")
_MAGNITUDE = re.compile(r"^(?P<module>.+)\.lora_magnitude_vector(\.weight)?$")
_BIAS = re.compile(r"^(?P<module>.+?)(\.base_layer)?\.bias$")
# What PEFT can put into an adapter, and this does not add to a weight: refused by name.
_REFUSED = {
    "lora_bias": "biases of lora_B",
    "modules_to_save": "modules trained in full",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "an adapter that some tokens switch on",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "velora_config": "VeLoRA",
    "monteclora_config": "Monte Carlo LoRA",
}

_OF_THE_ADAPTER = (
    *("adapter_config.json", "adapter_model.safetensors"),
    *("generation_config.json", "README.md", HF_OVERRIDES),
)


@dataclass
class _Update:
    """What an adapter does to one parameter."""

    target: AdaptedParameter
    factors: dict[str, str] = field(default_factory=dict)
    """Names of its tensors in the adapter's file: lora_A, lora_B, magnitude."""
    alpha: float = 0.0
    rslora: bool = False

    def change(self, adapter: Any, expert: int | None) -> Any:
        """What it adds to the parameter, in 32 bit; scaled as the adapter's own settings say."""
        a = adapter.get_tensor(self.factors["lora_A"]).float()
        b = adapter.get_tensor(self.factors["lora_B"]).float()
        rank = a.shape[0] // self.target.experts
        scaling = self.alpha / (math.sqrt(rank) if self.rslora else rank)
        return self.target.change(a, b, expert, scaling)


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


def merge(
    base: Path,
    adapter: Path,
    folder: Path,
    *,
    stop_ids: tuple[int, ...],
    trust_remote_code: bool = False,
) -> None:
    """Write the base model with the adapter in its weights, as a model of its own.

    Each target's weight becomes ``W + scaling * B A``, computed in 32 bit and rounded once; with
    DoRA its rows are then scaled to the learned magnitudes (arXiv 2402.09353, equation 5). The rows of
    trained tokens take the place of the base model's. Shards
    keep their names and their tensors: what transformers makes one parameter of when it loads them
    (a mixture's experts), each gets its part of the change. Peak memory is one tensor in 32 bit, a few
    times, and what the system keeps of the shard that is being read.

    Args:
        base: Folder of the base model, its weights in safetensors and not quantised.
        adapter: Folder in PEFT's format, with the tokenizer and the chat template beside it.
        folder: New folder, which receives weights, configuration, generation configuration,
            tokenizer and chat template.
        stop_ids: Tokens that end an answer.
        trust_remote_code: Whether to run the code that the model brings, to know its modules.

    Raises:
        ExportError: The adapter has a part that cannot be merged, or that the base model lacks;
            says which.
    """
    from safetensors import safe_open

    require_mergeable(base)
    folder.mkdir(parents=True)
    files = FileTensors(meta_model(base, trust_remote_code=trust_remote_code), file_shapes(base))
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        config, found = _read_config(adapter, list(tensors.keys()))
        targets = adapted_parameters(
            meta_model(base, trust_remote_code=trust_remote_code), read_peft_config(adapter)
        )
        updates = _updates(config, found, targets)
        replaced, rows = found.biases, targets.rows
        changed = [*updates, *replaced, *(name for name, one in rows.items() if not one.is_tied)]
        missing = sorted(name for name in changed if files.of_parameter(name) is None)
        if missing:
            raise ExportError(
                f"export.merged_16bit: the base model has no tensor {missing[0]}, which the adapter "
                f"changes ({len(missing)} such)"
            )
        _require_plain(files, updates, replaced, rows)
        _write_shards(base, folder, tensors, files, updates, replaced, rows)
    _write_configuration(base, adapter, folder, stop_ids)


@dataclass
class _Found:
    """The tensors of an adapter's file, by what they are."""

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    """By module: lora_A, lora_B, magnitude."""
    biases: dict[str, str] = field(default_factory=dict)
    """That replace the base model's, by its name for them."""
    rows: set[str] = field(default_factory=set)
    """That hold rows of trained tokens."""


def _read_config(adapter: Path, names: list[str]) -> tuple[dict[str, Any], _Found]:
    """The adapter's settings and what is in its file; what cannot be merged is refused."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    wrong = [f"{key} ({what})" for key, what in _REFUSED.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        wrong.append(f"peft_type {config.get('peft_type')}")
    if config.get("init_lora_weights", True) not in _PLAIN_INITIAL_WEIGHTS:
        wrong.append(
            f"init_lora_weights {config['init_lora_weights']} (changes the base model's weights)"
        )
    found = _Found()
    for name in names:
        inner = name.removeprefix(_PREFIX)
        match = _FACTORS.match(inner) or _MAGNITUDE.match(inner)
        if match:
            part = match.groupdict().get("part", "magnitude")
            found.factors.setdefault(match["module"], {})[part] = name
        elif name.endswith(TRAINED_ROWS):
            found.rows.add(name)
        elif match := _BIAS.match(inner):
            found.biases[f"{match['module']}.bias"] = name
        else:
            wrong.append(name)
    wrong += [
        f"{module} ({', '.join(parts)} alone)"
        for module, parts in found.factors.items()
        if not {"lora_A", "lora_B"} <= set(parts)
    ]
    if wrong:
        raise ExportError(
            f"export.merged_16bit: cannot merge {', '.join(wrong[:3])}; export the adapter alone"
        )
    return config, found


def _updates(
    config: dict[str, Any],
    found: _Found,
    targets: Adapted,
) -> dict[str, _Update]:
    """What is added to which parameter of the base model."""
    rows = {one.tensor for one in targets.rows.values()}
    unread = sorted((found.factors.keys() - targets.factors.keys()) | (found.rows - rows))
    if lacking := sorted(rows - found.rows):
        raise ExportError(
            f"export.merged_16bit: the adapter has no {lacking[0]}, of which its configuration speaks"
        )
    if unread:
        raise ExportError(
            f"export.merged_16bit: the base model has no module {unread[0]}, which the adapter "
            f"changes ({len(unread)} such)"
        )
    return {
        targets.factors[module].parameter: _Update(
            targets.factors[module],
            parts,
            _alpha(config, targets.factors[module]),
            bool(config.get("use_rslora")),
        )
        for module, parts in found.factors.items()
    }


def _require_plain(
    files: FileTensors,
    updates: dict[str, _Update],
    replaced: dict[str, str],
    rows: dict[str, ReplacedRows],
) -> None:
    """Magnitudes, biases and rows go with tensors that are in the files as they are in the model."""
    for parameter, update in updates.items():
        (name, *more) = files.names_of(parameter)
        if "magnitude" in update.factors and (
            more or not files.is_one(name) or update.target.transposed
        ):
            raise ExportError(
                f"export.merged_16bit: cannot merge DoRA's magnitudes into {parameter}, which the "
                f"files hold in another form ({name}); export the adapter alone"
            )
    in_files = [name for name in rows if files.of_parameter(name) is not None]
    for parameter in [*replaced, *in_files]:
        (name, *_) = files.names_of(parameter)
        if not files.is_one(name):
            what = "rows of" if parameter in rows else "the bias"
            raise ExportError(
                f"export.merged_16bit: cannot merge {what} {parameter}, which the files hold in "
                f"another form ({name}); export the adapter alone"
            )


def _alpha(config: dict[str, Any], target: AdaptedParameter) -> float:
    """A module's alpha, by the pattern that PEFT would choose for it."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", target.key):
            return float(alpha)
    return float(config["lora_alpha"])


def _write_shards(
    base: Path,
    folder: Path,
    adapter: Any,
    files: FileTensors,
    updates: dict[str, _Update],
    replaced: dict[str, str],
    rows: dict[str, ReplacedRows],
) -> None:
    """Write every weight file, and their index where there is one."""
    from safetensors import safe_open

    stored = "F16" if _sixteen_bit(read_config(base)) == "float16" else "BF16"
    places: dict[str, str] = {}
    total = 0
    paths = weight_files(base)
    for path in paths:
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
                made = files.parameters_of(name)
                if made[0] in replaced:
                    value = adapter.get_tensor(replaced[made[0]])
                elif any(parameter in updates for parameter in made):
                    value = _merged(value, adapter, files, updates, name)
                value = value.to(torch_dtype(slots[name].dtype))
                if made[0] in rows:
                    new = rows[made[0]]
                    value[new.ids] = adapter.get_tensor(new.tensor).to(value.dtype)
                return value

            total += write_tensors(folder / path.name, slots, tensor)
        places |= dict.fromkeys(slots, path.name)
    if len(paths) > 1 or (base / _INDEX).is_file():
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / _INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _merged(
    weight: Any, adapter: Any, files: FileTensors, updates: dict[str, _Update], name: str
) -> Any:
    import torch

    def change(parameter: str, expert: int | None) -> Any:
        update = updates.get(parameter)
        return None if update is None else update.change(adapter, expert)

    added = files.change(name, change)
    if tuple(added.shape) != tuple(weight.shape):
        raise ExportError(
            f"export.merged_16bit: {name} is {tuple(weight.shape)}, its adapter "
            f"{' x '.join(map(str, added.shape))}; the base model stores it in another form"
        )
    merged = weight.float().add_(added)
    update = updates[files.parameters_of(name)[0]] if files.is_one(name) else None
    if update is not None and "magnitude" in update.factors:
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
