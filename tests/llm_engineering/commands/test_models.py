"""``--models``, ``--promote`` and ``--rollback`` by the real command."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

Command = Callable[..., str]


@pytest.fixture
def command(model: str) -> Command:
    def run(*arguments: str, fails: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "run.py"), *arguments]
            + ["--set", f"registry.model={model}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == fails, done.stderr[-2000:]
        return done.stderr if fails else done.stdout

    return run


def test_forward_and_back_and_what_is_listed(
    command: Command, model: str, add_version: Callable[..., str]
) -> None:
    same = {"held_out_loss_before": 3.508, "held_out_digest": "a1b2c3d4", "held_out_rows": 64}
    add_version("Llama-qa-20261125-030000", held_out_loss_after=2.78, **same)
    add_version("Llama-qa-20261202-030000", held_out_loss_after=2.71, **same)

    assert command("--promote", "1").splitlines() == [
        f"Llama-qa-20261125-030000 is the production version of {model}"
    ]
    assert "Llama-qa-20261125-030000 is archived; --rollback puts it back" in command(
        "--promote", "Llama-qa-20261202-030000"
    )
    assert f"Llama-qa-20261125-030000 is the production version of {model} again" in command(
        "--rollback"
    )

    listed = command("--models")
    rows = re.findall(
        r"^ *(\d) +(\S+) +(.*?)  +(\S+ → \S+) ", listed[listed.index(model) :], re.MULTILINE
    )
    assert rows == [
        ("2", "Llama-qa-20261202-030000", "rolled back", "3.508 → 2.710"),
        ("1", "Llama-qa-20261125-030000", "production", "3.508 → 2.780"),
    ]
    assert listed.count("64 rows, a1b2c3") == 2


def test_mistakes_cost_a_line(
    command: Command, model: str, add_version: Callable[..., str]
) -> None:
    assert f"error: model {model} has no production version to roll back" in command(
        "--rollback", fails=10
    )
    assert f"error: model {model} has no versions" in command("--promote", "3", fails=10)
    add_version("one")
    assert f"error: model {model} has no version 3; newest: 1 (one)" in command(
        "--promote", "3", fails=10
    )
