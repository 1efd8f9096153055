"""Machines that lack something: set-up says what, in one line, before it fetches anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 54321  # has no entry in /etc/passwd, as in many a container
NAMESPACES = (
    os.getuid() == 0
    and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
)
needs_root = pytest.mark.skipif(not NAMESPACES, reason="needs root to make such a machine")


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What set-up reads of this project, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="Für alle Fälle ") as folder:
        top = Path(folder)
        top.chmod(0o755)
        project = top / "project"
        project.mkdir()
        shutil.copy(ROOT / "Makefile", project)
        shutil.copytree(ROOT / "tools", project / "tools")
        shutil.copytree(
            ROOT / "llm_engineering",
            project / "llm_engineering",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (top / "home").mkdir()
        yield project


def set_up(
    checkout: Path, *, prefix: Sequence[str] = (), **environment: str
) -> tuple[int, list[str]]:
    """Exit code and lines of set-up's first part, which would fetch Poetry, without any network."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(checkout.parent / "home"), "LANG": "C.UTF-8"}
    clean |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [*prefix, "make", ".poetry/.installed"],
        cwd=checkout, env=clean | environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()


def refused(checkout: Path, *, prefix: Sequence[str] = (), **environment: str) -> str:
    code, lines = set_up(checkout, prefix=prefix, **environment)
    assert code == 2
    assert len(lines) == 1, lines
    assert not (checkout / ".poetry").exists()
    start, _, message = lines[0].partition("*** ")
    assert start.startswith("Makefile:")
    return message


def test_where_nothing_is_missing_poetry_is_fetched(checkout: Path) -> None:
    """In a folder with spaces and umlauts; here it ends at the index, which is switched off."""
    code, lines = set_up(checkout)
    assert code == 2
    assert (checkout / ".poetry" / "bin" / "python").exists()
    assert any("No matching distribution found for poetry==" in line for line in lines), lines


@pytest.mark.parametrize(
    ("version", "capable", "message"),
    [
        ("3.10.14", True, "is 3.10.14: this project needs Python 3.11 to 3.14 (3.14.1 excepted);"),
        ("3.14.1", True, "is 3.14.1: this project needs Python 3.11 to 3.14 (3.14.1 excepted);"),
        ("3.15.0", True, "is 3.15.0: this project needs Python 3.11 to 3.14"),
        ("3.13.5", False, "cannot make virtual environments: install python3-venv"),
        (None, True, "is not there: install Python 3.11 to 3.14"),
    ],
)
def test_a_python_that_does_not_do(
    checkout: Path, version: str | None, capable: bool, message: str
) -> None:
    python = checkout.parent / "python"
    if version is not None:
        major, minor, patch = version.split(".")
        python.write_text(
            f"""#!/bin/sh
            exec {shutil.which("python3")} -c '
import sys, platform, collections
info = collections.namedtuple("info", "major minor micro")({major}, {minor}, {patch})
sys.version_info = info
platform.python_version = lambda: "{version}"
if "ensurepip" in sys.argv[1] and not {capable}: sys.exit(1)
exec(sys.argv[1])' "$2"
"""
        )
        python.chmod(0o755)
    told = refused(checkout, PYTHON=str(python))
    assert told.startswith(f"set-up: {python} {message}")
    assert "make PYTHON=" in told
    assert "uv python install" in told


def test_a_home_that_is_not_there(checkout: Path) -> None:
    assert refused(checkout, HOME="/nonexistent").startswith(
        "your home folder (/nonexistent) cannot be written"
    )


@needs_root
def test_no_home_at_all(checkout: Path) -> None:
    checkout.chmod(0o777)
    told = refused(
        checkout,
        prefix=["setpriv", f"--reuid={NOBODY}", "--clear-groups", "env", "-u", "HOME"],
    )
    assert told.startswith("your home folder (~) cannot be written")
    assert "set HOME" in told


@needs_root
def test_another_users_zenml_store(checkout: Path) -> None:
    checkout.chmod(0o777)
    (checkout.parent / "home").chmod(0o777)
    store = checkout.parent / "store"
    store.mkdir(mode=0o755)
    told = refused(
        checkout,
        prefix=["setpriv", f"--reuid={NOBODY}", "--clear-groups"],
        ZENML_CONFIG_PATH=str(store),
    )
    assert told.startswith(f"ZenML's store {store} cannot be written by this user")


@needs_root
def test_a_read_only_checkout(checkout: Path) -> None:
    mounted = 'mount --bind "$PWD" "$PWD"; mount -o remount,bind,ro "$PWD"; cd "$PWD"; exec "$@"'
    told = refused(checkout, prefix=["unshare", "--mount", "sh", "-ec", mounted, "sh"])
    assert told.startswith(f"{checkout} cannot be written")


@needs_root
@pytest.mark.parametrize(("build", "need"), [("cpu", "GB"), ("cuda", "GB")])
def test_a_disk_that_is_too_small(checkout: Path, build: str, need: str) -> None:
    """The checkout on 64 MB of its own; what pip keeps lies elsewhere."""
    mounted = """
        mount -t tmpfs -o size=64m tmpfs "$PWD/../home"
        cp -a "$PWD" ../home/project
        cd ../home/project
        exec "$@"
    """
    told = refused(
        checkout, prefix=["unshare", "--mount", "sh", "-ec", mounted, "sh"], TRAINING_BUILD=build
    )
    assert "has 0.1 GB of disk free, and set-up" in told
    assert f"({build} build of PyTorch)" in told


@needs_root
def test_a_temporary_folder_that_is_too_small(checkout: Path) -> None:
    mounted = 'mkdir ../small; mount -t tmpfs -o size=64m tmpfs ../small; exec "$@"'
    told = refused(
        checkout,
        prefix=["unshare", "--mount", "sh", "-ec", mounted, "sh"],
        TMPDIR=str(checkout.parent / "small"),
    )
    assert told.startswith(f"{checkout.parent}/small has 0.1 GB of disk free")
    assert "set TMPDIR" in told
