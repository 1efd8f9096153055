"""The command line that a message tells to type, and that a job keeps."""

from __future__ import annotations

from pathlib import Path

from llm_engineering.commands.command_line import command_line, typed


def test_it_holds_the_configuration_but_not_how_to_tell_the_user(tmp_path: Path) -> None:
    private = "schedule.alert_command=[curl, https://hooks.example.com/private]"
    line = command_line(tmp_path / "a b.yaml", ["run.seed=1", private, "schedule={retries: 1}"])
    assert line[2:] == ["--config", f"{tmp_path}/a b.yaml", "--set", "run.seed=1"]
    assert typed(line, "--jobs").endswith(f"'{tmp_path}/a b.yaml' --set run.seed=1 --jobs")
