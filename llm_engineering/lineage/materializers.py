"""How ZenML stores what passes between steps: JSON records, and folders copied file by file."""

from __future__ import annotations

import atexit
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.pydantic_materializer import DEFAULT_FILENAME, PydanticMaterializer
from zenml.metadata.metadata_types import StorageSize
from zenml.utils import io_utils

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.export.export_folder import ExportFolder
from llm_engineering.lineage.links import not_a_link
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe, ModelRecipe
from llm_engineering.registry.decision import Decision
from llm_engineering.reporting.data_page import render_data_page
from llm_engineering.reporting.manifest import Manifest

_FILES = "files"
_WEIGHTS = (".safetensors", ".gguf")
_SHOWN_CHARACTERS = 200


class RecordMaterializer(PydanticMaterializer):
    """Stores a record as JSON and shows its plain figures as metadata."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (
        ModelRecipe,
        LoraRecipe,
        TrainingRecord,
        Evaluation,
        Manifest,
        Decision,
    )

    def save(self, data: Any) -> None:
        """Write the record through its store: ZenML's own writer knows five kinds of remote store."""
        with self.artifact_store.open(f"{self.uri}/{DEFAULT_FILENAME}", "w") as file:
            json.dump(data.model_dump(mode="json"), file)

    def extract_metadata(self, data: Any) -> dict[str, Any]:
        """The record's numbers and short texts."""
        return {
            name: not_a_link(value) if isinstance(value, str) else value
            for name, value in data.model_dump(mode="json").items()
            if isinstance(value, int | float)
            or (isinstance(value, str) and len(value) <= _SHOWN_CHARACTERS)
        }


class FolderMaterializer(BaseMaterializer):
    """Stores a folder; a local artifact store is read in place, a remote one is copied here."""

    SKIP_REGISTRATION: ClassVar[bool] = True

    def save_folder(self, folder: Path) -> None:
        """Copy a folder into the artifact store; on the same disk, weights are one file, not two."""
        if self.artifact_store.config.is_local:
            shutil.copytree(folder, f"{self.uri}/{_FILES}", copy_function=_link_weights)
        else:
            io_utils.copy_dir(str(folder), f"{self.uri}/{_FILES}")

    def load_folder(self) -> Path:
        """The stored folder, as a local path."""
        stored = f"{self.uri}/{_FILES}"
        if self.artifact_store.config.is_local:
            return Path(stored)
        with self.get_temporary_directory(delete_at_exit=False) as temporary:
            # ZenML removes it after a step; outside of one nobody would.
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
            io_utils.copy_dir(stored, temporary, overwrite=True)
            return Path(temporary)


class DatasetMaterializer(FolderMaterializer):
    """Stores a prepared data set."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (PreparedDataset,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: PreparedDataset) -> None:
        """Copy the splits and their summary."""
        self.save_folder(data.folder)

    def load(self, data_type: type[Any]) -> PreparedDataset:
        """Open the stored splits."""
        return PreparedDataset.read(self.load_folder())

    def save_visualizations(self, data: PreparedDataset) -> dict[str, VisualizationType]:
        """Write the page that the dashboard shows of the data."""
        uri = f"{self.uri}/data.html"
        with fileio.open(uri, "wb") as file:
            file.write(render_data_page(data.summary).encode())
        return {uri: VisualizationType.HTML}

    def extract_metadata(self, data: PreparedDataset) -> dict[str, Any]:
        """Rows, tokens and what was skipped or cut."""
        return dict(data.summary.figures)

    def compute_content_hash(self, data: PreparedDataset) -> str | None:
        """Equal token ids and labels are the same data, whatever run prepared them."""
        return data.summary.digest


class AdapterMaterializer(FolderMaterializer):
    """Stores a trained adapter, in PEFT's format."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (AdapterFolder,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: AdapterFolder) -> None:
        """Copy the adapter and its digest."""
        self.save_folder(data.folder)
        with fileio.open(f"{self.uri}/adapter.json", "w") as file:
            json.dump({"digest": data.digest}, file)

    def load(self, data_type: type[Any]) -> AdapterFolder:
        """Open the stored adapter."""
        with fileio.open(f"{self.uri}/adapter.json", "r") as file:
            digest = json.load(file)["digest"]
        return AdapterFolder(self.load_folder(), digest)

    def extract_metadata(self, data: AdapterFolder) -> dict[str, Any]:
        """Digest and size."""
        return {"digest": data.digest, "size": _size(data.folder)}

    def compute_content_hash(self, data: AdapterFolder) -> str | None:
        """Equal weights are the same adapter."""
        return data.digest


class ExportMaterializer(FolderMaterializer):
    """Stores an export: the adapter's bundle, the merged model, a GGUF."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ExportFolder,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: ExportFolder) -> None:
        """Copy the files."""
        self.save_folder(data.folder)

    def load(self, data_type: type[Any]) -> ExportFolder:
        """Open the stored files."""
        return ExportFolder(self.load_folder(), is_copy=not self.artifact_store.config.is_local)

    def extract_metadata(self, data: ExportFolder) -> dict[str, Any]:
        """Its size."""
        return {"size": _size(data.folder)}


def _size(folder: Path) -> StorageSize:
    return StorageSize(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def _link_weights(source: str, target: str) -> str:
    """Copy a file; weights, which nobody edits in place, as a second name of the same one.

    Text is copied, so that a card that is edited in ``outputs/`` stays as it was in the store.
    """
    if source.endswith(_WEIGHTS):
        try:
            os.link(source, target)
            return target
        except OSError:  # another file system
            pass
    return str(shutil.copy2(source, target))
