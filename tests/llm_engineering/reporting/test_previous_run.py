"""Which run was before, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_engineering.reporting.previous_run import (
    figure_rows,
    previous_run,
    setting_differences,
)


def manifest(created: str, *, model: str = "m", rank: int = 8, data: str = "d") -> dict[str, Any]:
    config = {
        "run": {"name": created},
        "model": {"id": model},
        "lora": {"r": rank},
        "data": {"sources": [{"source": "rows.jsonl"}]},
    }
    return {"created": created, "config": config, "data_digest": data}


def write(folder: Path, values: dict[str, Any], figures: dict[str, float]) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(values))
    (folder / "metrics.json").write_text(json.dumps(figures))


def test_the_newest_run_of_the_same_model_and_source_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "old", manifest("2026-01-01"), {"held_out_loss_after": 3.0})
    write(tmp_path / "newer", manifest("2026-01-02", rank=4), {"held_out_loss_after": 2.5})
    write(tmp_path / "other", manifest("2026-01-03", model="n"), {})
    write(tmp_path / "later", manifest("2026-01-09"), {})
    write(tmp_path / "me", manifest("2026-01-04"), {})
    (tmp_path / "latest").symlink_to("newer", target_is_directory=True)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")

    figures = {"held_out_loss_after": 2.0, "tokens_per_second": 10.0}
    found = previous_run(tmp_path, "me", manifest("2026-01-04", data="e"), figures)

    assert found is not None
    assert found.name == "newer"
    assert found.settings == [("lora.r", "4", "8")]
    assert found.figures == [("Held-out loss", "2.50", "2.00")]
    assert not found.same_data


def test_the_first_run_has_none_before_it(tmp_path: Path) -> None:
    assert previous_run(tmp_path, "me", manifest("2026-01-04"), {}) is None
    assert previous_run(tmp_path / "nowhere", "me", manifest("2026-01-04"), {}) is None


def test_settings_are_compared_key_by_key() -> None:
    one = {"a": {"b": 1, "c": None}, "list": [{"x": "y"}], "plain": [1, 2], "run": {"name": "q"}}
    two = {"a": {"b": 2}, "list": [{"x": "z"}], "plain": [1, 2], "run": {"name": "r"}}
    assert setting_differences([one, two]) == [
        ("a.b", "1", "2"),
        ("a.c", "null", "–"),
        ("list.0.x", "y", "z"),
    ]


def test_a_figure_that_a_run_lacks_is_told() -> None:
    assert figure_rows([{"held_out_loss_after": 2.0}, {}]) == [
        ("held_out_loss_after", ["2.00", "–"])
    ]
