"""One list of versions: everything that installs or names one agrees with poetry.lock."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((ROOT / "poetry.lock").read_text())

spec = importlib.util.spec_from_file_location("install", ROOT / "tools" / "install_training.py")
install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install)


def locked() -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for package in LOCK["package"]:
        versions.setdefault(canonical(package["name"]), set()).add(package["version"])
    return versions


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_cpu_set_up_installs_the_locked_training_stack():
    requirements = dict(line.split("==") for line in install.training_requirements(LOCK))
    for name in ("torch", "peft", "trl", "accelerate", "unsloth", "unsloth-zoo", "gguf"):
        assert {requirements[name]} == locked()[name]
    assert not [name for name in requirements if name.startswith(("nvidia-", "cuda-"))]
    assert {"triton", "bitsandbytes", "xformers"}.isdisjoint(requirements)


def test_what_is_installed_here_is_what_the_lock_says():
    installed = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    here = {canonical(d.metadata["Name"]): d.version for d in installed}
    for package in LOCK["package"]:
        name = canonical(package["name"])
        markers = package.get("markers")
        if name in here and not isinstance(markers, dict) and (
            not markers or Marker(markers).evaluate()
        ):  # fmt: skip
            assert Version(here[name]).public in locked()[name], name


def test_every_other_requirements_file_agrees_with_the_lock():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    files = [
        ROOT / name for name in listed if re.search(r"(requirements|constraints).*\.txt$", name)
    ]
    for file in files:
        for line in file.read_text().splitlines():
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;]+)", line)
            if match:
                name, version = canonical(match[1]), match[2]
                assert version in locked()[name], f"{file}: {line}"


def test_exact_versions_in_pyproject_are_the_locked_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    exact = {}
    for line in project["project"]["dependencies"]:
        match = re.match(r"([a-z0-9-]+)(?:\[.*\])?==(\S+)", line)
        if match:
            exact[match[1]] = match[2]
    for group in project["tool"]["poetry"]["group"].values():
        for name, value in group["dependencies"].items():
            version = value["version"] if isinstance(value, dict) else value
            if re.fullmatch(r"\d[\d.]*", version):
                exact[name] = version
    assert len(exact) > 8
    for name, version in exact.items():
        assert version in locked()[canonical(name)], name


@pytest.mark.parametrize("value", ["gpu", "CUDA"])
def test_an_unknown_build_is_refused(value, monkeypatch):
    monkeypatch.setenv("TRAINING_BUILD", value)
    with pytest.raises(SystemExit) as error:
        install.main()
    assert str(error.value) == f"TRAINING_BUILD: expected cuda or cpu, got {value!r}"
