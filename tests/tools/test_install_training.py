"""One list of versions: everything that installs or names one agrees with poetry.lock."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((ROOT / "poetry.lock").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

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
    lines = [line.split() for line in install.training_requirements(LOCK)]
    requirements = dict(name.split("==") for name, *_ in lines)
    for name in ("peft", "trl", "accelerate", "unsloth", "unsloth-zoo", "gguf"):
        assert {requirements[name]} == locked()[name]
    assert not [name for name in requirements if name.startswith(("nvidia-", "cuda-"))]
    assert {"triton", "bitsandbytes", "xformers"}.isdisjoint(requirements)
    digests = {p["name"]: {f["hash"] for f in p["files"]} for p in LOCK["package"]}
    for requirement, *options in lines:
        assert {option.removeprefix("--hash=") for option in options} == digests[
            requirement.split("==")[0]
        ], requirement


def test_torch_without_cuda_is_the_locked_version_for_each_python_and_processor():
    assert sys.platform != "linux" or not [
        line for line in install.training_requirements(LOCK) if line.startswith("torch==")
    ]
    text = install.TORCH_CPU.read_text()
    versions = re.findall(r"^torch==(\S+)\+cpu", text, flags=re.M)
    assert set(versions) == locked()["torch"]
    digests = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", text)
    supported = [f"3.{minor}" for minor in range(11, 15)]
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(f"{v}.2") for v in supported)
    assert not SpecifierSet(PROJECT["requires-python"]).contains("3.15.0")
    assert len(set(digests)) == len(supported) * len(("x86-64", "aarch64"))


@pytest.fixture
def nothing_to_be_had(tmp_path, monkeypatch) -> Path:
    """An empty environment to install into, and no package anywhere."""
    venv.create(tmp_path / "empty", with_pip=False)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "TRAINING_BUILD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(install, "TARGET", tmp_path / "empty" / "bin" / "python")
    return tmp_path / "empty"


def test_asked_for_the_cpu_build_it_says_that_there_is_none(nothing_to_be_had, monkeypatch):
    monkeypatch.setenv("TRAINING_BUILD", "cpu")
    with pytest.raises(SystemExit) as error:
        install.main()
    assert re.fullmatch(
        r"TRAINING_BUILD=cpu: PyTorch's CPU build could not be fetched from download.pytorch.org "
        r"\(No matching distribution found for torch==2.13.0\+cpu\b.*\)\. Without .*",
        str(error.value),
    )


def test_without_a_cpu_build_the_cuda_build_is_installed_and_tried(
    nothing_to_be_had, monkeypatch, capsys
):
    monkeypatch.setattr(install, "chosen_build", lambda: "cpu")
    monkeypatch.setattr(install, "missing", lambda build: None)
    monkeypatch.setattr(install, "install_cuda", lambda: print("installs CUDA"))
    with pytest.raises(SystemExit) as error:
        install.main()
    told = capsys.readouterr().out
    assert "could not be fetched from download.pytorch.org" in told
    assert told.endswith("installs CUDA\n")
    # Nothing was installed here, and set-up is the first to notice.
    assert "cannot be imported: ModuleNotFoundError: No module named 'torch'" in str(error.value)


def test_without_room_for_the_cuda_build_nothing_is_fetched(nothing_to_be_had, monkeypatch):
    monkeypatch.setattr(install, "chosen_build", lambda: "cpu")
    monkeypatch.setattr(install, "missing", lambda build: f"no room for {build}")
    monkeypatch.setattr(install, "install_cuda", lambda: pytest.fail("fetched all the same"))
    with pytest.raises(SystemExit, match="no room for cuda"):
        install.main()


def test_a_torch_that_does_not_import_ends_the_set_up(nothing_to_be_had, monkeypatch):
    """As the CUDA build without NVIDIA's packages, which is how set-up once left a machine."""
    (package,) = nothing_to_be_had.glob("lib/python*/site-packages")
    (package / "torch.py").write_text("raise ValueError('libcublasLt.so.*[0-9] not found')")
    monkeypatch.setattr(install, "chosen_build", lambda: "cuda")
    monkeypatch.setattr(install, "install_cuda", lambda: None)
    with pytest.raises(SystemExit) as error:
        install.main()
    assert "cannot be imported: ValueError: libcublasLt.so.*[0-9] not found" in str(error.value)


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
                # What the project never installs, a tool's own packages in a folder, is not locked.
                own = file.name == "mutants-requirements.txt" and name not in locked()
                assert own or Version(version).public in locked()[name], f"{file}: {line}"


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
