"""``--models``, ``--promote`` and ``--rollback`` on versions of a model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from zenml.client import Client

from llm_engineering.commands import models

ROOT = Path(__file__).resolve().parents[3]

Command = Callable[..., str]


@pytest.fixture
def command(model: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """What the flags do, in this process; returns what is printed."""
    settings = (ROOT / "configs" / "finetuning.yaml", [f"registry.model={model}"])

    def run(flag: str, *arguments: str) -> str:
        {
            "--models": models.show,
            "--promote": lambda version: models.promote(version, *settings),
            "--rollback": lambda: models.rollback(*settings),
        }[flag](*arguments)
        return capsys.readouterr().out

    return run


def test_forward_and_back_and_what_is_listed(
    command: Command, model: str, add_version: Callable[..., str]
) -> None:
    same = {"held_out_loss_before": 3.508, "held_out_digest": "a1b2c3d4", "held_out_rows": 64}
    add_version("Llama-qa-20261125-030000", held_out_loss_after=2.78, **same)
    add_version("Llama-qa-20261202-030000", held_out_loss_after=2.71, **same)

    assert command("--promote", "1").endswith(
        f"Llama-qa-20261125-030000 is the production version of {model}\n"
    )
    promoted = command("--promote", "Llama-qa-20261202-030000")
    assert "Llama-qa-20261125-030000 is archived; --rollback puts it back" in promoted
    assert "what serves keeps its version" in promoted
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


def test_of_many_versions_the_newest_are_listed_and_what_is_in_use(
    command: Command, model: str, add_version: Callable[..., str]
) -> None:
    for number in range(1, 26):
        add_version(f"v{number:02d}")
    for number in ("1", "3"):
        command("--promote", number)
    Client().create_model(f"{model}-of-another-project")
    listed = command("--models")
    assert f"{model}-of-another-project" not in listed
    listed = listed[listed.index(model) :]
    shown = re.findall(r"^ *(\d+) +v\d\d +(\S+)", listed, re.MULTILINE)
    assert [int(number) for number, _ in shown] == [*range(25, 5, -1), 3, 1]
    assert shown[-2:] == [("3", "production"), ("1", "archived")]
    assert f"and 3 older: zenml model version list --model={model}" in listed


def test_a_mistake_costs_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "tools/run.py", "--rollback", "--set", "registry.model=no-such-model"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 10
    assert done.stderr.splitlines()[-1] == (
        "error: model no-such-model has no production version to roll back"
    )
    assert "Traceback" not in done.stderr
