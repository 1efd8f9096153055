"""The adapter that training starts from: an SFT adapter for dpo, or any to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.errors import LoraError
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.finetuning.record import AdapterFolder

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_SAME = (
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias",
)  # fmt: skip


def starting_adapter(start_from: str) -> AdapterFolder:
    """Find the adapter of ``train.start_from``.

    Args:
        start_from: An adapter folder, or ``MODEL:VERSION`` of the registry, where VERSION is a
            name, a number or "production".

    Raises:
        LoraError: It is neither.
        RegistryError: There is no such version, or its adapter is not in the store.
    """
    folder = Path(start_from).expanduser()
    if folder.is_dir():
        missing = [n for n in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / n).is_file()]
        if missing:
            raise LoraError(
                f"train.start_from: {start_from} has no {' and no '.join(missing)}; name the "
                "adapter/ folder of a finished run"
            )
        return AdapterFolder(folder, file_digest(folder / ADAPTER_WEIGHTS))
    model, colon, version = start_from.rpartition(":")
    if not colon or "/" in start_from:
        raise LoraError(
            f"train.start_from: no folder {start_from}; name an adapter folder, or a registered "
            "version as MODEL:VERSION (--models lists them)"
        )
    from llm_engineering.registry.versions import artifact, find_version, production_version

    current = production_version(model) if version == "production" else None
    found: AdapterFolder = artifact(current or find_version(model, version), "adapter")
    return found


def require_same_shape(adapter: AdapterFolder, config: FinetuningConfig) -> None:
    """Check, before a weight is loaded, that the configuration makes an adapter of the same shape.

    Raises:
        LoraError: Lists every setting that differs, with the value that fits.
    """
    theirs = _peft_settings(adapter)
    wrong = differing_settings(adapter, config.lora)
    base = str(theirs.get("base_model_name_or_path") or "")
    if Path(base).name != Path(config.model.id).name:
        wrong.append(
            f"model.id: {config.model.id}, the adapter is for {base or 'an unnamed model'}"
        )
    if wrong:
        raise LoraError(
            f"train.start_from: {config.train.start_from} does not fit:\n" + "\n".join(wrong)
        )


def differing_settings(adapter: AdapterFolder, lora: LoraSettings) -> list[str]:
    """A line for each setting that makes an adapter's shape, or its effect, another than ``lora``."""
    theirs, ours = _peft_settings(adapter), lora.model_dump()
    wrong = [
        f"lora.{name}: {ours[name]}, the adapter has {theirs[name]}"
        for name in _SAME
        if name in theirs and ours[name] != theirs[name]
    ]
    targets: Any = theirs.get("target_modules")
    named = isinstance(targets, list) and ours["target_modules"] != "all-linear"
    if named and set(targets) != set(ours["target_modules"]):
        wrong.append(f"lora.target_modules: the adapter has {', '.join(sorted(targets))}")
    return wrong


def _peft_settings(adapter: AdapterFolder) -> dict[str, Any]:
    text = (adapter.folder / ADAPTER_CONFIG).read_text(encoding="utf-8")
    return dict(json.loads(text))


def load_adapter_weights(model: Any, adapter: AdapterFolder) -> None:
    """Put an adapter's weights into a PEFT model that has one of the same shape.

    Raises:
        LoraError: A tensor is missing, left over, or of another shape.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(adapter.folder / ADAPTER_WEIGHTS)
    try:
        result = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:  # PyTorch's, for another shape
        raise LoraError(f"{adapter.folder}: does not fit this model: {error}") from None
    missing = [name for name in result.missing_keys if "lora_" in name]
    wrong = [*missing, *result.unexpected_keys]
    if wrong:
        raise LoraError(
            f"{adapter.folder}: does not fit this model: {len(missing)} tensors are missing and "
            f"{len(wrong) - len(missing)} left over, among them {wrong[0]}"
        )
