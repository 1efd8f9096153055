"""The section ``data``: sources and held-out rows that agree."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.data import DataSettings

REQUIRED: dict[str, Any] = {
    "sources": [{"source": "rows.jsonl"}],
    "held_out": {"fraction": 0.1},
}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"sources": [{"source": "a", "weight": 1}, {"source": "b"}]},
            "sources.1 has no weight and another has: give every source one, or none",
        ),
        (
            {"held_out": {"source": "b", "group": "author"}},
            "group says how a fraction is drawn; drop it, or give a fraction",
        ),
        *(
            (
                {"held_out": {"fraction": 0.1, key: value}},
                f"{key} says how source is read, and a fraction is drawn from data.sources, which "
                "have their own; drop it",
            )
            for key, value in {
                "form": "messages",
                "columns": {"prompt": "q"},
                "split": "test",
                "subset": "de",
                "revision": "v1",
            }.items()
        ),
        (
            {"sources": [{"source": "a", "columns": {"prompt": "q", "completion": "q"}}]},
            "columns: q stands for prompt and completion; keep one",
        ),
        (
            {"held_out": {"source": "a", "columns": {"prompt": "q", "text": "q"}}},
            "columns: q stands for prompt and text; keep one",
        ),
        ({"sources": [{"source": "a", "columns": {"question": "q"}}]}, "'prompt', 'completion'"),
        ({"sources": [{"source": "a", "weight": 0}]}, "greater than 0"),
        ({"sources": [{"source": "a", "form": "vicuna"}]}, "'alpaca', 'prompt_completion'"),
    ],
)
def test_sources_and_held_out_rows_agree(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataSettings.model_validate({**REQUIRED, **data})
    assert message in str(caught.value)
