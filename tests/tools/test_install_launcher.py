"""A host that only launches gets boto3 and the SDK's table, in the lock's versions, and no more."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What boto3 needs that the main packages bring (poetry.lock says so of each).
OF_THE_MAIN_GROUP = {"python-dateutil", "urllib3"}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    path = ROOT / "tools" / "install_launcher.py"
    spec = importlib.util.spec_from_file_location("install_launcher", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.launcher_requirements(tomllib.loads((ROOT / "poetry.lock").read_text()))


def test_these_packages_each_with_the_digests_of_the_lock(lines):
    names = {line.split("==")[0] for line in lines}
    assert names == {"boto3", "botocore", "jmespath", "s3transfer", "sagemaker-core"}
    assert all(re.search(r"==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_all_that_boto3_needs_is_there(lines):
    packages = {p["name"]: p for p in tomllib.loads((ROOT / "poetry.lock").read_text())["package"]}
    names = {line.split("==")[0] for line in lines} - {"sagemaker-core"}
    needed = {dep.lower() for name in names for dep in packages[name].get("dependencies", {})}
    assert needed - names == OF_THE_MAIN_GROUP
    assert all("main" in packages[name]["groups"] for name in OF_THE_MAIN_GROUP)
