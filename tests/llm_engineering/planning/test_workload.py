"""What prepared rows ask of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.prepare import prepare_data
from llm_engineering.model.finetuning.inject import describe_lora
from llm_engineering.model.finetuning.load import describe_model
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning.workload import prepared_workload


@pytest.mark.parametrize(("objective", "sequences"), [("dpo", 2), ("kto", 1)])
def test_the_mean_is_of_sequences_and_a_pair_is_two(
    objective: str, sequences: int, preference_config: Callable[..., Any], tmp_path: Path
) -> None:
    config = preference_config(objective)
    dataset = prepare_data(config.data, config.model, objective=objective, folder=tmp_path / "data")
    lora = describe_lora(describe_model(config.model, dtype="float32"), config.lora)

    work = prepared_workload(
        lora,
        trained_shape(config.model, config.lora),
        config.train,
        config.evaluate,
        dataset.summary.train,
    )

    lengths = [
        len(row["prompt_ids"]) + len(ids)
        for row in dataset.split("train")
        for name, ids in row.items()
        if name in ("chosen_ids", "rejected_ids", "completion_ids")
    ]
    assert work.sequences_per_row == sequences
    assert work.mean_row == pytest.approx(sum(lengths) / len(lengths))
    assert work.longest_row == max(lengths)
