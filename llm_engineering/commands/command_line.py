"""The command line that a message tells to type: this program, with the configuration of now."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_engineering.configuration.load import without_schedule

ROOT = Path(__file__).resolve().parents[2]


def command_line(config_path: Path, overrides: Sequence[str]) -> list[str]:
    """This program with this configuration, to be followed by flags; works from any folder.

    Without what is set of ``schedule``: a job's command is stored in ZenML.
    """
    line = [sys.executable, str(ROOT / "tools" / "run.py"), "--config", str(config_path.resolve())]
    for override in without_schedule(overrides):
        line += ["--set", override]
    return line


def typed(line: Sequence[str], *flags: str) -> str:
    """A command line as it is typed."""
    return shlex.join([*line, *flags])
