"""The quantiser's package is what it was, all of it, or nothing is put in place."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "get_gguf_quantiser.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("get_gguf_quantiser", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.sys, "argv", ["tool", str(tmp_path / "converter" / "quantiser")])
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return module


def packs(tmp_path: Path, names: tuple[str, ...]) -> str:
    """Let ``npm pack`` give a package of these files; its digest."""
    package = tmp_path / "given.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"package/bins/linux-x64/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\ncp '{package}' given.tgz\n")
    npm.chmod(0o755)
    return hashlib.sha256(package.read_bytes()).hexdigest()


def test_what_is_needed_is_kept(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = packs(tmp_path, (*tool.KEPT, "llama-addon.node"))
    monkeypatch.setattr(tool, "SHA256", digest)
    tool.main()
    folder = tmp_path / "converter" / "quantiser"
    assert sorted(path.name for path in folder.iterdir()) == sorted(tool.KEPT)
    assert (folder / "libggml-base.so").read_text() == "libggml-base.so"


def test_another_package_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    packs(tmp_path, tool.KEPT)
    with pytest.raises(SystemExit, match=r"has the digest .*, not "):
        tool.main()
    assert not (tmp_path / "converter" / "quantiser").exists()


def test_one_that_lacks_a_library_is_refused(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tool, "SHA256", packs(tmp_path, tool.KEPT[:-1]))
    with pytest.raises(SystemExit, match=f"lacks {tool.KEPT[-1]}"):
        tool.main()
    assert not (tmp_path / "converter" / "quantiser").exists()


@pytest.mark.parametrize(
    ("system", "machine", "says"),
    [
        ("Darwin", "arm64", "is of Linux on x86-64"),
        ("Linux", "aarch64", "is of Linux on x86-64"),
        ("Linux", "x86_64", "npm is not here: install it"),
    ],
)
def test_where_it_cannot_be_had_one_line_says_so(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    says: str,
) -> None:
    monkeypatch.setattr(tool.platform, "system", lambda: system)
    monkeypatch.setattr(tool.platform, "machine", lambda: machine)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemExit, match=says):
        tool.main()
