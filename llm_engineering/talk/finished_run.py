"""Which finished run is meant by a folder, a name or a registered version, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import TalkError
from llm_engineering.export.exports import ADAPTER, MERGED
from llm_engineering.model.base_model import file_digest, weight_digests
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llm_engineering.reporting.manifest import Manifest

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FinishedRun:
    """A trained model on disk."""

    name: str
    folder: Path
    """Its ``adapter/`` or ``merged/``."""
    kind: Literal["adapter", "merged"]
    base: ModelSettings
    """The base model of an adapter; of a merged model, itself."""
    inputs: TemplateInputs
    """What the chat template was given in training."""
    has_manifest: bool
    """False: an adapter of elsewhere, whose base model and template inputs nobody vouches for."""


def find_run(where: str, config: FinetuningConfig) -> FinishedRun:
    """The run that a user means.

    Args:
        where: A run's folder or its ``adapter/`` or ``merged/``, the name of a run in
            ``run.output_dir``, or empty: the newest run there.
        config: Says where runs are written.

    Raises:
        TalkError: There is no such run, it is none, or its files are not those that it names.
        ModelError: Its base model is not to be had.
    """
    folder = run_folder(where, Path(config.run.output_dir))
    parts = [folder / ADAPTER, folder / MERGED, folder]
    found, kind = next(((part, kind) for part in parts if (kind := _kind(part))), (None, None))
    if found is None or kind is None:
        raise TalkError(
            f"{folder}: has no {ADAPTER}/{ADAPTER_CONFIG} and no {MERGED}/config.json; name the "
            "folder of a finished run, or the adapter's own"
        )
    manifest = _manifest(found)
    run = FinishedRun(
        name=manifest.run if manifest else found.name,
        folder=found,
        kind=kind,
        base=_base(found, manifest),
        inputs=manifest.template_inputs if manifest else TemplateInputs(),
        has_manifest=manifest is not None,
    )
    if manifest is not None:
        _require_same_files(run, manifest)
    return run


def own_configuration(run: FinishedRun) -> FinetuningConfig | None:
    """What a run was trained by, out of its manifest; None: it has none."""
    manifest = _manifest(run.folder)
    return None if manifest is None else FinetuningConfig.model_validate(manifest.config)


def run_folder(where: str, output_dir: Path) -> Path:
    """The folder of a run that is named by its folder or its name; empty: the newest.

    Raises:
        TalkError: There is none.
    """
    if not where:
        latest = output_dir / "latest"
        if not latest.is_dir():
            raise TalkError(f"no finished run in {output_dir}/ yet: --finetune makes one")
        return latest.resolve()
    for folder in (Path(where).expanduser(), output_dir / where):
        if folder.is_dir():
            return folder
    runs = (path.parent for path in output_dir.glob(f"*/{MANIFEST}"))
    known = sorted(run.name for run in runs if not run.is_symlink())
    newest = ", ".join(known[-3:]) or "none"
    raise TalkError(
        f"{where}: neither a folder nor a run in {output_dir}/ (newest there: {newest})"
    )


def _kind(folder: Path) -> Literal["adapter", "merged"] | None:
    if (folder / ADAPTER_CONFIG).is_file():
        return "adapter"
    return "merged" if (folder / "config.json").is_file() else None


def _manifest(part: Path) -> Manifest | None:
    path = part.parent / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TalkError(
            f"{path}: is no manifest of this version of the project ({error.errors()[0]['msg']}); "
            "check out the commit that it names"
        ) from None


def _base(part: Path, manifest: Manifest | None) -> ModelSettings:
    """How the weights are loaded: as in training, or as an adapter of elsewhere says."""
    if manifest is not None:
        settings = ModelSettings.model_validate(manifest.config["model"])
        own: dict[str, Any] = {"revision": manifest.base_model_revision, "chat_template": None}
        if part.name == MERGED:
            own |= {"id": str(part), "revision": None, "load_in_4bit": False}
        return settings.model_copy(update=own)
    if _kind(part) == "merged":
        return ModelSettings(id=str(part))
    values = json.loads((part / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = values.get("base_model_name_or_path")
    if not base:
        raise TalkError(f"{part / ADAPTER_CONFIG}: names no base model (base_model_name_or_path)")
    return ModelSettings(id=base, revision=values.get("revision"))


def _require_same_files(run: FinishedRun, manifest: Manifest) -> None:
    if run.kind != "adapter":
        return
    weights = run.folder / ADAPTER_WEIGHTS
    found = file_digest(weights)
    if found != manifest.adapter_digest:
        raise TalkError(
            f"{weights}: has SHA-256 {found}, and the run's manifest says {manifest.adapter_digest}; "
            "this is not what was trained and proven"
        )
    for name, digest in weight_digests(run.base).items():
        if manifest.base_model_digests.get(name) != digest:
            raise TalkError(
                f"{run.base.id}: {name} has SHA-256 {digest}, and the adapter was trained on "
                f"{manifest.base_model_digests.get(name, 'no such file')}; put the old file back"
            )
