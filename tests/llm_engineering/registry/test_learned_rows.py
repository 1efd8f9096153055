"""Which held-out rows a version has learned: by its own data, whatever moved them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.prepare import prepare_data
from llm_engineering.registry.learned_rows import learned_rows

MakeConfig = Callable[..., FinetuningConfig]


def test_rows_that_a_version_was_trained_on_are_counted(
    make_config: MakeConfig, write_jsonl: Callable[..., Any], tmp_path: Any
) -> None:
    rows = [{"instruction": f"Question {n}?", "response": f"{n}."} for n in range(60)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    def prepared(name: str, **settings: Any) -> PreparedDataset:
        sources = {"data.sources": [{"source": str(path)}]}
        share = {"data.held_out": {"fraction": 0.3}}
        config = make_config({**sources, **share, **settings})
        return prepare_data(config.data, config.model, folder=tmp_path / name)

    def prompts(dataset: PreparedDataset, split: str) -> set[str]:
        texts = dataset.split(split)["conversation"][:]
        return {json.loads(text)["messages"][0]["content"] for text in texts}

    version, same = prepared("version"), prepared("same")
    other = prepared("other", **{"data.seed": 1})

    assert learned_rows(version, same) == 0
    expected = len(prompts(other, "held_out") & prompts(version, "train"))
    assert learned_rows(version, other) == expected > 5
    leaked = prepared("leaked", **{"data.held_out": {"source": str(path)}})
    assert learned_rows(version, leaked) == 0  # the candidate has learned them too
