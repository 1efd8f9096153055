"""Folders that pass between steps: read in place where the store is local, copied where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from zenml.client import Client

from llm_engineering.lineage.materializers import AdapterMaterializer
from llm_engineering.model.finetuning.record import AdapterFolder

COPY = """
import sys
from pathlib import Path
from types import SimpleNamespace
from zenml.client import Client
from llm_engineering.lineage.materializers import AdapterMaterializer
store = Client().active_stack.artifact_store
type(store.config).is_local = property(lambda self: False)  # as S3's says
loaded = AdapterMaterializer(uri=sys.argv[1], artifact_store=store).load(None)
assert (loaded.folder / "adapter_model.safetensors").read_text() == "weights"
print(loaded.folder)
"""


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """Where an adapter is in the artifact store."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_text("weights")
    store = Client().active_stack.artifact_store
    uri = str(Path(store.path) / tmp_path.name)
    Path(uri).mkdir()
    AdapterMaterializer(uri=uri, artifact_store=store).save(
        AdapterFolder(tmp_path / "adapter", "digest")
    )
    return uri


def test_a_local_store_is_read_in_place(stored):
    store = Client().active_stack.artifact_store
    loaded = AdapterMaterializer(uri=stored, artifact_store=store).load(AdapterFolder)
    assert loaded == AdapterFolder(Path(stored) / "files", "digest")


def test_a_copy_of_a_remote_one_is_gone_when_the_process_ends(stored, tmp_path, monkeypatch):
    """Outside of a step, where ZenML leaves it: as a schedule that starts from a version, each night."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", COPY, stored], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    copied = Path(done.stdout.strip().splitlines()[-1])
    assert copied.is_relative_to(tmp_path)
    assert not copied.exists()
