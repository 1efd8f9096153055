"""The exported requirements are the lock's own, whole for a job, and free of what it has no use for."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.job_requirements import BROUGHT_BY_IMAGE, ROOTS, job_requirements

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "poetry.lock"
# Of optional groups: a job leaves what needs them to the run's evaluate step, or is refused.
OPTIONAL = {"lm-eval", "openai", "sacrebleu"}
# Parts of the package that run beside a job, not in it.
BESIDE_THE_JOB = {"commands", "lineage", "registry", "sagemaker", "scheduling", "serving"}
# The launcher prepares the data, resolves where an adapter of the registry lies, and keeps the section
# of ZenML, which asks ZenML only where it says something.
ONLY_BEFORE_THE_JOB = {"artifacts.py", "near.py", "starting_adapter.py", "zenml.py"}

# A lock small enough to work out by hand; the fixture adds the roots that it does not define.
SMALL_LOCK = """
[[package]]
name = "datasets"
version = "4.8.5"
groups = ["main"]
[package.dependencies]
Fs_Spec = {version = "*", extras = ["http"]}
win-only = {version = "*", markers = "sys_platform == 'win32'"}
backport = {version = "*", markers = "python_version < '3.12'"}

[[package]]
name = "fs-spec"
version = "1.0"
groups = ["main"]
[package.dependencies]
aiohttp = {version = "*", optional = true, markers = "extra == 'http'"}
paramiko = {version = "*", optional = true, markers = "extra == 'ssh'"}

[[package]]
name = "peft"
version = "0.21.2"
groups = ["train"]
dependencies = {torch = "*", accelerate = "*"}

[[package]]
name = "torch"
version = "2.13.0"
groups = ["train"]
dependencies = {sympy = "*"}

[metadata]
python-versions = ">=3.11,<3.13"
"""


FILES = f'files = [{{file = "one.whl", hash = "sha256:{"a" * 64}"}}]'


@pytest.fixture
def small_lock(tmp_path: Path) -> Path:
    defined = {"datasets", "peft"}
    others = [
        *(set(ROOTS) - defined),
        *("aiohttp", "paramiko", "win-only", "backport", "sympy", "zenml"),
    ]
    blocks = [
        f'[[package]]\nname = "{name}"\nversion = "9"\ngroups = ["main"]\n' for name in others
    ]
    path = tmp_path / "poetry.lock"
    text = "\n".join(blocks) + SMALL_LOCK
    path.write_text(re.sub(r"(?m)^groups = .*$", rf"\g<0>\n{FILES}", text))
    return path


def packages(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(
        re.fullmatch(r"[a-z0-9-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines
    )
    return dict(line.split(" ", 1)[0].split("==") for line in lines)


@pytest.fixture(scope="module")
def exported() -> dict[str, str]:
    return packages(job_requirements(LOCK, "3.12"))


# --- the project's own lock --------------------------------------------------------------------


def test_every_line_is_the_locked_version(exported: dict[str, str]) -> None:
    locked = {
        package["name"]: package["version"]
        for package in tomllib.loads(LOCK.read_text())["package"]
    }
    assert exported == {name: locked[name] for name in exported}
    for name in ("unsloth", "unsloth-zoo", "trl", "peft", "transformers", "datasets", "tokenizers"):
        assert name in exported
    assert len(exported) > 60


def test_the_image_keeps_its_own_pytorch(exported: dict[str, str]) -> None:
    assert {"torch", "torchvision", "triton", "xformers"}.isdisjoint(exported)
    assert not [name for name in exported if BROUGHT_BY_IMAGE.fullmatch(name)]
    assert "torchao" not in exported  # unsloth does without, PEFT breaks on one that is too new


def test_the_launcher_the_server_and_the_tests_stay_at_home(exported: dict[str, str]) -> None:
    for name in ("zenml", "fastapi", "sqlalchemy", "uvicorn", "sagemaker", "boto3", "moto", "ruff"):
        assert name not in exported


def test_all_that_the_package_imports_in_a_job_is_there(exported: dict[str, str]) -> None:
    distributions = packages_distributions()
    package = ROOT / "llm_engineering"
    imported = set()
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in BESIDE_THE_JOB or path.name in ONLY_BEFORE_THE_JOB:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"llm_engineering"}
    needed = {canonicalize_name(distributions.get(name, [name])[0]) for name in foreign}
    assert {"datasets", "torch", "unsloth", "pyyaml"} <= needed
    missing = {name for name in needed if name not in exported}
    missing -= OPTIONAL
    assert {name for name in missing if not BROUGHT_BY_IMAGE.fullmatch(name)} == set()


def test_the_header_says_where_it_comes_from() -> None:
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    header = [line for line in job_requirements(LOCK, "3.12").splitlines() if line[0] == "#"]
    assert header == [
        f"# Exported from poetry.lock, sha256 {digest},",
        "# for CPython 3.12 on Linux x86-64. Do not edit: change the lock.",
        "# Complete but for what the image brings (PyTorch, CUDA): pip install --no-deps --require-hashes.",
    ]


def test_each_line_has_the_digests_of_the_lock_which_pip_enforces() -> None:
    files = {
        package["name"]: {file["hash"] for file in package["files"]}
        for package in tomllib.loads(LOCK.read_text())["package"]
    }
    (line,) = [x for x in job_requirements(LOCK, "3.12").splitlines() if x.startswith("peft==")]
    assert set(re.findall(r"--hash=(\S+)", line)) == files["peft"]


# --- the walk ----------------------------------------------------------------------------------


def test_dependencies_are_followed_with_their_extras_and_not_behind_the_image(
    small_lock: Path,
) -> None:
    names = set(packages(job_requirements(small_lock, "3.12")))
    assert names == {*ROOTS, "fs-spec", "aiohttp"}


@pytest.mark.parametrize(
    ("python", "has_backport"), [("3.11", True), ("3.12", False), ("3.12.11", False)]
)
def test_the_image_s_python_decides_not_this_one(
    python: str, has_backport: bool, small_lock: Path
) -> None:
    assert ("backport" in packages(job_requirements(small_lock, python))) == has_backport


def test_mlflows_client_comes_only_where_a_job_logs_to_it() -> None:
    plain = set(packages(job_requirements(LOCK, "3.12")))
    logging = set(packages(job_requirements(LOCK, "3.12", mlflow=True)))
    assert {"sagemaker-mlflow", "mlflow-skinny", "boto3"} <= logging - plain
    assert "sagemaker" not in logging, "AWS's SDK is not needed for it"
    assert plain <= logging


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (
            "3.10",
            r"3\.10 is outside of >=3\.11,<3\.15,!=3\.14\.1, which poetry\.lock is solved for",
        ),
        ("3.14.1", r"3\.14\.1 is outside of"),
        ("py312", r"expected a version such as 3\.12, got 'py312'"),
    ],
)
def test_a_python_that_the_lock_is_not_for_is_refused(python: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        job_requirements(LOCK, python)


def test_a_missing_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot read the locked versions"):
        job_requirements(tmp_path / "poetry.lock", "3.12")


def test_a_lock_without_a_needed_package_is_refused(small_lock: Path) -> None:
    small_lock.write_text(small_lock.read_text().replace('name = "unsloth"', 'name = "unsloth-x"'))
    with pytest.raises(LaunchError, match=r"has no unsloth, which a job needs"):
        job_requirements(small_lock, "3.12")
