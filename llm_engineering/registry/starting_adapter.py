"""The adapter that training starts from: a folder, or a registered version."""

from __future__ import annotations

from pathlib import Path

from llm_engineering.errors import LoraError
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llm_engineering.model.finetuning.record import AdapterFolder


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
