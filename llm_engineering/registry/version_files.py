"""The files of a registered version, written where somebody wants them: they are in the store."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from llm_engineering.errors import RegistryError
from llm_engineering.export.export_folder import ARTIFACTS
from llm_engineering.export.exports import ADAPTER
from llm_engineering.outputs import ANSWERS
from llm_engineering.registry.versions import artifact

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

_RECORDS = {"manifest": "manifest.json", "metrics": "metrics.json", "promotion": "promotion.json"}
_REPORT, _EVALUATION = "report", "evaluation"


def write_version(version: ModelVersionResponse, folder: Path) -> None:
    """Write a version as a run's folder has it: exports, figures, manifest, decision, report.

    The folder appears complete or not at all.

    Args:
        version: A registered version.
        folder: Where; must not be there yet.

    Raises:
        RegistryError: It is there, or the version's adapter is not in the store.
    """
    if folder.exists():
        raise RegistryError(f"{folder} is there already; name another folder, or remove it")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_exports(version, part)
        records = {
            file: artifact(version, name)
            for name, file in _RECORDS.items()
            if version.get_artifact(name) is not None
        }
        if version.get_artifact(_EVALUATION) is not None:
            records[ANSWERS] = artifact(version, _EVALUATION).answers
        for file, record in records.items():
            if record is not None:
                text = json.dumps(_plain(record), indent=2, ensure_ascii=False)
                (part / file).write_text(f"{text}\n", encoding="utf-8")
        if version.get_artifact(_REPORT) is not None:
            (part / "report.html").write_text(str(artifact(version, _REPORT)), encoding="utf-8")
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_exports(version: ModelVersionResponse, folder: Path) -> None:
    """Write a version's exports: ``adapter/``, and ``merged/`` and ``gguf/`` where it has them.

    Raises:
        RegistryError: The adapter is not in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in ARTIFACTS.items():
        if part != ADAPTER and version.get_artifact(name) is None:
            continue
        stored = artifact(version, name)
        if stored.is_copy:
            shutil.move(stored.folder, folder / part)
        else:
            shutil.copytree(stored.folder, folder / part)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
