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
        ({"sources": [{"source": "a", "weight": 0}]}, "greater than 0"),
        ({"sources": [{"source": "a", "form": "vicuna"}]}, "'alpaca', 'prompt_completion'"),
    ],
)
def test_sources_and_held_out_rows_agree(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataSettings.model_validate({**REQUIRED, **data})
    assert message in str(caught.value)
