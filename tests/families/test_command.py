"""A mixture of experts by the command: the dry run, the report, the card and the manifest say what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration import to_yaml

pytestmark = pytest.mark.slow


def test_a_mixture_by_the_command(
    family_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_engineering.commands.finetune import run

    config = family_config(
        "qwen2_moe", {"run.output_dir": str(tmp_path / "outputs"), "registry.promote": False}
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    run(file, [], dry_run=True, name="mixture")
    told = capsys.readouterr().out
    assert "experts.gate_up_proj, experts.down_proj" in told
    assert "a mixture of 4 experts a layer: the router is frozen" in told

    run(file, [], name="mixture")
    folder = tmp_path / "outputs" / "mixture"
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "A mixture of 4 experts a layer; each has an adapter of its own" in report
    assert "auxiliary loss" in report
    card = (folder / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "experts.gate_up_proj" in card
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["targets"]["parameters"] == ["experts.gate_up_proj", "experts.down_proj"]
