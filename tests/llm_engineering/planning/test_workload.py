"""What prepared rows ask of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.prepare import prepare_data
from llm_engineering.model.finetuning.inject import describe_lora
from llm_engineering.model.finetuning.load import describe_model
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning.shape import TrainedShape
from llm_engineering.planning.workload import Workload, configured_workload, prepared_workload


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


@pytest.fixture
def shape(work: Callable[..., Workload]) -> TrainedShape:
    """Of the embedded model, from its configuration."""
    known = work("SmolLM2-135M")
    return TrainedShape(model=known.shape, adapter=known.adapter)


def test_before_data_is_read_every_row_is_as_long_as_allowed(
    make_config: Callable[..., Any], shape: TrainedShape
) -> None:
    config = make_config(
        {
            "model.max_seq_length": 96,
            "model.dtype": "auto",
            "model.quantisation": "nf4",
            "lora.r": 4,
            "evaluate.samples": 3,
        }
    )

    assert dict(configured_workload(config, shape, "float16")) == {
        "shape": shape.model,
        "adapter": shape.adapter,
        "dtype": "float16",
        "quantisation": "nf4",
        "lora": config.lora,
        "train": config.train,
        "evaluate": config.evaluate,
        "longest_row": 96,
        "mean_row": 96,
    }


@pytest.mark.parametrize(
    ("train", "rows", "longest", "mean"),
    [
        ({"packing": True}, 10, 512, 512),
        ({}, 10, 300, 90),
        ({}, 1, 300, 900),
        ({"objective": "dpo"}, 10, 300, 45),
        ({}, 0, 300, 900),  # none counted: nothing is divided by it
    ],
)
def test_prepared_rows_are_as_long_as_they_are_and_packed_ones_full(
    train: dict[str, Any], rows: int, longest: int, mean: float, shape: TrainedShape
) -> None:
    model = SimpleNamespace(max_seq_length=512, dtype="bfloat16", quantisation="fp8")
    lora: Any = SimpleNamespace(model=model, settings=LoraSettings(r=4))
    counted: Any = SimpleNamespace(rows=rows, tokens=900, longest_row=300)
    settings, evaluate = TrainSettings(**train), EvaluateSettings(batch_size=7)

    assert dict(prepared_workload(lora, shape, settings, evaluate, counted)) == {
        "shape": shape.model,
        "adapter": shape.adapter,
        "dtype": "bfloat16",
        "quantisation": "fp8",
        "lora": lora.settings,
        "train": settings,
        "evaluate": evaluate,
        "longest_row": longest,
        "mean_row": mean,
    }
