"""Which locked packages an environment needs: groups, markers, and names left out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.requirements import locked_requirements

ROOT = Path(__file__).resolve().parents[2]
NOTHING = re.compile("(?!)")
LOCK: dict[str, Any] = {
    "package": [
        {"name": "always", "version": "1.0", "groups": ["main", "train"]},
        {"name": "main-only", "version": "2.0", "groups": ["main"]},
        {
            "name": "windows",
            "version": "3.0",
            "groups": ["train"],
            "markers": 'sys_platform == "win32"',
        },
        {
            "name": "windows-in-train",
            "version": "4.0",
            "groups": ["main", "train"],
            "markers": {"train": 'sys_platform == "win32"'},
        },
        {
            "name": "old-python",
            "version": "5.0",
            "groups": ["train"],
            "markers": 'python_version < "3.12"',
        },
        {"name": "nvidia-nccl", "version": "6.0", "groups": ["train"]},
    ]
}


@pytest.mark.parametrize(
    ("groups", "environment", "leave_out", "expected"),
    [
        (
            {"train"},
            {"sys_platform": "linux", "python_version": "3.11"},
            "nvidia-.*",
            ["always==1.0", "old-python==5.0"],
        ),
        (
            {"train"},
            {"sys_platform": "win32", "python_version": "3.12"},
            "nvidia",  # matched as a whole, so it leaves nothing out
            ["always==1.0", "windows==3.0", "windows-in-train==4.0", "nvidia-nccl==6.0"],
        ),
        (
            {"main", "train"},
            {"sys_platform": "linux", "python_version": "3.12"},
            "always|nvidia-.*",
            ["main-only==2.0", "windows-in-train==4.0"],
        ),
        ({"dev"}, {"sys_platform": "linux", "python_version": "3.12"}, "(?!)", []),
    ],
)
def test_groups_markers_and_names_decide(
    groups: set[str], environment: dict[str, str], leave_out: str, expected: list[str]
) -> None:
    lines = locked_requirements(
        LOCK,
        groups=frozenset(groups),
        environment=environment,
        leave_out=re.compile(leave_out),
    )
    assert lines == expected


def test_without_an_environment_this_interpreter_decides() -> None:
    lines = locked_requirements(
        LOCK, groups=frozenset({"train"}), environment=None, leave_out=NOTHING
    )
    assert ("old-python==5.0" in lines) == (sys.version_info < (3, 12))
    assert ("windows==3.0" in lines) == (sys.platform == "win32")


def test_the_set_up_runs_it_before_the_project_is_installed(tmp_path: Path) -> None:
    """Outside of the checkout, with nothing but packaging, as Poetry's own interpreter has."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('i', {str(ROOT)!r} + '/tools/install_training.py')\n"
        "install = importlib.util.module_from_spec(spec); spec.loader.exec_module(install)\n"
        "package = {'name': 'peft', 'version': '1', 'groups': ['train'], 'files': [{'hash': 'h'}]}\n"
        "lock = {'package': [package]}\n"
        "print(install.training_requirements(lock))\n"
        "print(sorted({'pydantic', 'torch', 'yaml'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["['peft==1 --hash=h']", "[]"]
