"""ZenML's store of another user, of a newer and of an older ZenML."""

from __future__ import annotations

import importlib.metadata
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.lineage.store import require_store, store_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that ZenML is told to use."""
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "store"))
    return tmp_path / "store"


def made_by(store: Path, revision: str) -> None:
    database = store / "local_stores" / "default_zen_store" / "zenml.db"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])
        connection.commit()


def test_it_is_where_zenml_itself_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ZENML_CONFIG_PATH", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    told = subprocess.run(
        [sys.executable, "-c", "from zenml.utils.io_utils import get_global_config_directory as f; print(f())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == str(store_folder())


def test_none_yet_and_our_own_are_opened(store: Path) -> None:
    assert require_store() is None
    assert not store.exists()
    made_by(store, importlib.metadata.version("zenml"))
    assert require_store() is None


def test_a_newer_zenmls_is_refused(store: Path) -> None:
    made_by(store, "99.1.0")
    with pytest.raises(SetupError) as error:
        require_store()
    assert str(error.value).startswith(f"ZenML's store {store} was made by ZenML 99.1.0, and this")
    assert "set ZENML_CONFIG_PATH" in str(error.value)


def test_an_older_zenmls_is_told_to_be_migrated(store: Path) -> None:
    made_by(store, "0.9.0")
    note = require_store()
    assert note is not None
    assert "is migrated from ZenML 0.9.0 to" in note


def test_a_revision_between_releases_is_left_to_zenml(store: Path) -> None:
    made_by(store, "4f3a1c2b")
    assert require_store() is None


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_the_command_says_it_in_a_line(tmp_path: Path) -> None:
    """As a user who may read all, wherever the checkout is, but not write another's folder."""
    store = tmp_path / "store-of-another"
    store.mkdir(mode=0o755)
    os.chown(store, 54321, 54321)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-all",
         sys.executable, ROOT / "tools/run.py", "--models"],
        env=os.environ | {"ZENML_CONFIG_PATH": str(store)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == SetupError.exit_code, done.stderr
    assert done.stderr.splitlines() == [
        f"error: ZenML's store {store} cannot be written by this user: set ZENML_CONFIG_PATH to a "
        "folder of yours"
    ]
