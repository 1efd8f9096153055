"""Each example: its rows are those that its script makes, and its configuration passes its dry run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

from llm_engineering.commands import finetune

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/config.yaml"))
each_example = pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)


@each_example
def test_its_rows_are_those_that_the_script_makes(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_data", ROOT / "examples" / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = {rows.__name__: list(rows()) for rows in script.EXAMPLES}
    stored = (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in stored] == made[folder.name]


@each_example
def test_its_configuration_passes_its_dry_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (ROOT / "models" / "SmolLM2-135M-Instruct" / "model.safetensors").exists():
        pytest.skip("the embedded model is not here; `make model` makes it")
    monkeypatch.chdir(ROOT)
    finetune.run(folder / "config.yaml", [], dry_run=True)
    plan = capsys.readouterr().out
    assert f"examples/{folder.name}/data.jsonl, 1 file of " in plan
    assert "a run would stop here" not in plan
    assert "dry run: nothing was loaded or written" in plan


@each_example
def test_its_rows_can_all_be_learned_from(folder: Path, tmp_path: Path) -> None:
    from llm_engineering.configuration import load_config
    from llm_engineering.data.prepare import prepare_data

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        config = load_config(folder / "config.yaml")
        if not Path(config.model.id).is_dir():
            pytest.skip("the embedded model is not here; `make model` makes it")
        summary = prepare_data(
            config.data,
            config.model,
            objective=config.train.objective,
            folder=tmp_path / "data",
            trains=False,
        ).summary
    finally:
        os.chdir(before)
    assert summary.train.truncated_rows == 0
    assert summary.held_out.rows >= 16
    assert [source.unread for source in summary.sources] == [{}]


@each_example
def test_its_command_and_its_result_are_on_the_page(folder: Path) -> None:
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert f"--config examples/{folder.name}/config.yaml" in page
    section = page.partition(f"]({folder.name}/)")[2].partition("\n")[0]
    assert re.search(r"\d\.\d+ → \d\.\d+", section), "held-out loss before and after"
