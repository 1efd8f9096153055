"""An adapter on disk, in PEFT's format: written, read into a model, held against other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import RopeScaling
from llm_engineering.errors import LoraError
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.model import live
from llm_engineering.model.base_model import file_digest, original_folder, read_config
from llm_engineering.model.evaluation.trained_tensors import is_of_adapter
from llm_engineering.model.finetuning.inject import live_lora_model
from llm_engineering.model.finetuning.load import meta_model
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.model.finetuning.targets import adapter_targets
from llm_engineering.model.recipes import AdapterTargets, LoraRecipe
from llm_engineering.model.rope_scaling import HF_OVERRIDES, overrides, told
from llm_engineering.training_stack import has_pytorch

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_SAME = (
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias",
)  # fmt: skip


def save_adapter(
    model: Any, lora: LoraRecipe, folder: Path, parameters: dict[str, Any] | None = None
) -> AdapterFolder:
    """Write a PEFT model's adapter, naming its base model as the configuration does.

    Args:
        model: The model; it knows the adapter's settings.
        lora: What was trained.
        folder: Receives the adapter.
        parameters: The adapter's; default: as they are in the model.
    """
    model.save_pretrained(str(folder), state_dict=parameters)
    config = folder / ADAPTER_CONFIG
    values = json.loads(config.read_text(encoding="utf-8"))
    # unsloth and PEFT write the folder that the weights were read from, which means nothing
    # on another machine.
    values["base_model_name_or_path"] = lora.model.id
    values["revision"] = lora.model.revision
    config.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
    scaling = lora.model.rope_scaling
    if scaling is not None:
        base = read_config(original_folder(lora.model.settings, weights=False))
        stretched = overrides(base, scaling, lora.model.id)
        (folder / HF_OVERRIDES).write_text(json.dumps(stretched, indent=2), encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; ours comes with the save
    return AdapterFolder(folder, file_digest(folder / ADAPTER_WEIGHTS))


def live_trained_model(lora: LoraRecipe, adapter: AdapterFolder) -> live.LiveModel:
    """The trained model: the one that this process has, else built from base model and adapter."""
    found = live.find(adapter.digest)
    if found is not None:
        return found
    fresh = live_lora_model(lora)
    INITIALISATIONS[lora.settings.init].fit_saved_weights(fresh.model)
    load_adapter_weights(fresh.model, adapter)
    live.keep(adapter.digest, fresh)
    return fresh


def require_same_shape(adapter: AdapterFolder, config: FinetuningConfig) -> None:
    """Check, before a weight is loaded, that the configuration makes an adapter of the same shape.

    Raises:
        LoraError: Lists every setting that differs, with the value that fits.
    """
    theirs = peft_settings(adapter)
    wrong = differing_settings(adapter, config.lora, _targets(config))
    base = str(theirs.get("base_model_name_or_path") or "")
    if Path(base).name != Path(config.model.id).name:
        wrong.append(
            f"model.id: {config.model.id}, the adapter is for {base or 'an unnamed model'}"
        )
    wrong += _other_positions(adapter, config.model.rope_scaling)
    if wrong:
        raise LoraError(
            f"train.start_from: {config.train.start_from} does not fit:\n" + "\n".join(wrong)
        )


def _targets(config: FinetuningConfig) -> AdapterTargets | None:
    """What the settings mean in the model; None on a host that launches alone: the job looks again."""
    if not has_pytorch():
        return None
    model = meta_model(config.model)
    return adapter_targets(model, config.model, config.lora)


def differing_settings(
    adapter: AdapterFolder, lora: LoraSettings, targets: AdapterTargets | None
) -> list[str]:
    """A line for each setting that makes an adapter's shape, or its effect, another than ``lora``.

    Args:
        adapter: On disk.
        lora: The settings.
        targets: What they mean in the model; None: the targets are not compared.
    """
    theirs, ours = peft_settings(adapter), lora.model_dump()
    wrong = [
        f"lora.{name}: {ours[name]}, the adapter has {theirs[name]}"
        for name in _SAME
        if name in theirs and ours[name] != theirs[name]
    ]
    found: Any = theirs.get("target_modules")
    if targets is not None and isinstance(
        found, list
    ):  # all-linear was once saved by every module's whole name
        named = {str(name).rpartition(".")[2] for name in found}
        named |= set(theirs.get("target_parameters") or [])
        if named != {*targets.modules, *targets.parameters}:
            wrong.append(f"lora.target_modules: the adapter has {', '.join(sorted(named))}")
    if targets is not None:
        rows = theirs.get("trainable_token_indices") or {}
        rows = rows if isinstance(rows, dict) else {"embed_tokens": rows}
        if {name: tuple(ids) for name, ids in rows.items()} != targets.token_rows:
            trained = ", ".join(f"row {id_}" for id_ in next(iter(rows.values()), [])) or "no row"
            wrong.append(
                f"lora.trainable_tokens: {', '.join(lora.trainable_tokens) or 'none'}, the adapter trained "
                f"{trained} of the embeddings"
            )
    return wrong


def _other_positions(adapter: AdapterFolder, scaling: RopeScaling | None) -> list[str]:
    path = adapter.folder / HF_OVERRIDES
    theirs = json.loads(path.read_text())["rope_parameters"] if path.is_file() else {}
    ours = told(scaling)
    if {key: theirs.get(key) for key in ours or ("rope_type",)} == (ours or {"rope_type": None}):
        return []
    made = (
        f"{{rope_type: {theirs['rope_type']}, factor: {theirs['factor']:g}}}" if theirs else "none"
    )
    return [f"model.rope_scaling: the adapter was trained with {made}"]


def peft_settings(adapter: AdapterFolder) -> dict[str, Any]:
    """What the adapter says of itself, under the names of ``peft.LoraConfig``."""
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
    own = {name for name, _ in model.named_parameters()}  # a tied output layer's rows are no others
    missing = [name for name in result.missing_keys if is_of_adapter(name) and name in own]
    wrong = [*missing, *result.unexpected_keys]
    if wrong:
        raise LoraError(
            f"{adapter.folder}: does not fit this model: {len(missing)} tensors are missing and "
            f"{len(wrong) - len(missing)} left over, among them {wrong[0]}"
        )
