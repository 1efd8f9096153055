"""The section ``train``: each objective's learning rate, and the rows of a step."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.objectives import OBJECTIVES


def test_every_objective_has_a_learning_rate_of_its_own_unless_one_is_given() -> None:
    def rate(**train: Any) -> float:
        return TrainSettings.model_validate(train).learning_rate

    rates = {objective: rate(objective=objective) for objective in OBJECTIVES}
    assert rates == {"sft": 3e-4, "dpo": 2e-6, "orpo": 8e-6, "kto": 5e-6}
    assert rate(objective="dpo", learning_rate=1e-4) == 1e-4


@pytest.mark.parametrize(
    ("train", "rows"),
    [
        ({}, 16),
        ({"effective_batch": 6}, 6),
        ({"micro_batch": 4}, 16),
        ({"micro_batch": 3, "gradient_accumulation": 5}, 15),
        ({"gradient_accumulation": 2}, 16),
        ({"effective_batch": 12, "micro_batch": 3, "gradient_accumulation": 4}, 12),
    ],
)
def test_rows_in_a_step(train: dict[str, Any], rows: int) -> None:
    assert TrainSettings.model_validate(train).rows_in_step == rows


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"effective_batch": 16, "micro_batch": 3},
            r"effective_batch \(16\) is no multiple of micro_batch \(3\); the nearest is 15",
        ),
        ({"gradient_accumulation": 7}, r"\(16\) is no multiple of gradient_accumulation \(7\)"),
        (
            {"effective_batch": 16, "micro_batch": 4, "gradient_accumulation": 2},
            r"effective_batch \(16\) is not micro_batch x gradient_accumulation \(4 x 2 = 8\)",
        ),
    ],
)
def test_a_split_that_does_not_give_the_rows_is_refused(
    train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings.model_validate(train)


@pytest.mark.parametrize(("key", "value"), [("keep_best", True), ("early_stopping_patience", 2)])
def test_what_looks_at_the_held_out_loss_needs_it_while_training(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{key} looks at the held-out loss"):
        TrainSettings.model_validate({key: value})
    train = {key: value, "evaluate_every": 10}
    settings = TrainSettings.model_validate(train)
    assert getattr(settings, key) == value
