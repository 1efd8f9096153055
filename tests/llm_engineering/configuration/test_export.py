"""The section ``export``: what cannot be made is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.export import ExportSettings


@pytest.mark.parametrize(
    ("export", "says"),
    [
        ({"hub_merged_repo": "a/b"}, "hub_merged_repo needs a merged model"),
        ({"hub_repo": "a/b", "hub_merged_repo": "a/b", "merged_16bit": True}, "are the same"),
        ({"hub_repo": "no owner"}, "should match pattern"),
        ({"gguf": "f16"}, "gguf is made of the merged model"),
        ({"gguf": "q4_k_m", "merged_16bit": True}, "llama-quantize MODEL-bf16.gguf .* Q4_K_M"),
        ({"gguf": "Q5_K_M", "merged_16bit": True}, "made by llama.cpp's own llama-quantize"),
        ({"gguf": "q9", "merged_16bit": True}, "should be 'f16', 'bf16' or 'q8_0'"),
    ],
)
def test_an_export_that_cannot_be_made_is_refused(export: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ExportSettings.model_validate(export)
