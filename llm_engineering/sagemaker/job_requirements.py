"""The requirements file of a training job, exported from poetry.lock for the image's Python."""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from llm_engineering.errors import LaunchError
from llm_engineering.requirements import locked_requirements

# What this package imports outside of its launcher and its ZenML parts. All else that a job needs
# follows from the lock's own dependencies.
ROOTS = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "gguf",
    "httpx",
    "huggingface-hub",
    "jinja2",
    "jsonschema",
    "markdown-it-py",
    "markupsafe",
    "packaging",
    "peft",
    "psutil",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "referencing",
    "rich",
    "safetensors",
    "transformers",
    "trl",
    "unsloth",
    "unsloth-zoo",
)
# The Deep Learning Containers come with a PyTorch that is built for their CUDA and driver, and
# with all that it was built against. A second one would be 3 GB more to download in paid minutes.
# xformers and torchao belong here although few images have them: unsloth does without, the first's
# wheels fit one version of PyTorch each, and beside the second's 0.18 plain PEFT cannot be imported
# on PyTorch 2.9.
BROUGHT_BY_IMAGE = re.compile(
    r"torch|torchvision|torchaudio|torchao|triton(-windows)?|xformers|nvidia-.*|cuda-.*"
)
GROUPS = frozenset({"main", "train"})
MLFLOW, MLFLOW_GROUP = "sagemaker-mlflow", "sagemaker"
"""Teaches MLflow's client the ARN of a managed server; comes with that client."""

_VERSION = re.compile(r"3\.\d+(\.\d+)?")


def job_requirements(lock_path: Path, python_version: str, *, mlflow: bool = False) -> str:
    """Return the text of the requirements.txt that a job installs beside what its image brings.

    Each line has the digests of the package's files in the lock, which pip enforces in the job.

    Args:
        lock_path: The project's poetry.lock.
        python_version: Of the image's CPython on Linux x86-64: "3.12" or "3.12.11".
        mlflow: Whether the job logs to a managed MLflow server.

    Raises:
        LaunchError: There is no lock, or it is not solved for that Python.
    """
    try:
        content = lock_path.read_bytes()
    except OSError as error:
        raise LaunchError(
            f"{lock_path}: cannot read the locked versions ({error.strerror}); launch from a "
            "checkout of the project, which has a poetry.lock"
        ) from None
    lock = tomllib.loads(content.decode("utf-8"))
    environment = _linux_environment(python_version, lock["metadata"]["python-versions"])
    roots = (*ROOTS, MLFLOW) if mlflow else ROOTS
    needed = _closure(lock, environment, roots)
    lines = [
        line
        for line in locked_requirements(
            lock,
            groups=GROUPS | {MLFLOW_GROUP} if mlflow else GROUPS,
            environment=environment,
            leave_out=BROUGHT_BY_IMAGE,
            hashes=True,
        )
        if canonicalize_name(line.partition("==")[0]) in needed
    ]
    header = (
        f"# Exported from {lock_path.name}, sha256 {hashlib.sha256(content).hexdigest()},\n"
        f"# for CPython {python_version} on Linux x86-64. Do not edit: change the lock.\n"
        "# Complete but for what the image brings (PyTorch, CUDA): pip install --no-deps "
        "--require-hashes.\n"
    )
    return header + "".join(f"{line}\n" for line in lines)


def _linux_environment(python_version: str, solved_for: str) -> dict[str, str]:
    """The marker variables (PEP 508) of CPython in the image."""
    if not _VERSION.fullmatch(python_version):
        raise LaunchError(
            f"Python of the image: expected a version such as 3.12, got {python_version!r}"
        )
    short = ".".join(python_version.split(".")[:2])
    full = python_version if python_version.count(".") == 2 else f"{python_version}.0"
    if full not in SpecifierSet(solved_for):
        raise LaunchError(
            f"Python of the image: {python_version} is outside of {solved_for}, which poetry.lock "
            "is solved for; choose an image with such a Python"
        )
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": short,
        "sys_platform": "linux",
    }


def _closure(
    lock: Mapping[str, Any], environment: Mapping[str, str], roots: Sequence[str]
) -> set[str]:
    """Names of the roots and all that they need, not looking behind what the image brings."""
    packages: dict[str, Mapping[str, Any]] = {
        canonicalize_name(package["name"]): package for package in lock["package"]
    }
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset()) for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = node = waiting.pop()
        if node in seen or BROUGHT_BY_IMAGE.fullmatch(name):
            continue
        if name not in packages:
            raise LaunchError(f"poetry.lock: has no {name}, which a job needs; run `poetry lock`")
        seen.add(node)
        waiting += _dependencies(packages[name], extras, environment)
    return {name for name, _ in seen}


def _dependencies(
    package: Mapping[str, Any], extras: frozenset[str], environment: Mapping[str, str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """Name and extras of each package that this one needs, with these extras, in the image."""
    for name, constraint in package.get("dependencies", {}).items():
        # A constraint is a version, a table, or a list of tables with a marker each.
        for entry in constraint if isinstance(constraint, list) else [constraint]:
            table = entry if isinstance(entry, dict) else {}
            marker = table.get("markers")
            if not marker or any(
                Marker(marker).evaluate({**environment, "extra": extra})
                for extra in (extras or {""})
            ):
                yield canonicalize_name(name), frozenset(table.get("extras", ()))


if __name__ == "__main__":  # for a wheelhouse (docs/sagemaker/README.md): the text, on stdout
    lock = Path(__file__).resolve().parents[2] / "poetry.lock"
    print(job_requirements(lock, sys.argv[1], mlflow="mlflow" in sys.argv[2:]), end="")
