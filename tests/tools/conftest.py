"""Loads the simulated training service."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = str(Path(__file__).resolve().parents[1])
# At the end: the names of tests/ (llm_engineering, tools) must not hide the project's.
if TESTS not in sys.path:
    sys.path.append(TESTS)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("sagemaker_service.fixtures")
