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
        ({"gguf": "q3_k_s", "merged_16bit": True}, "llama-quantize MODEL-bf16.gguf .* Q3_K_S"),
        ({"gguf": "Q5_K_M", "merged_16bit": True}, "not made here; q8_0, q5_k_m and q4_k_m are"),
        (
            {"gguf": "q9", "merged_16bit": True},
            "should be 'f16', 'bf16', 'q8_0', 'q5_k_m' or 'q4_k",
        ),
    ],
)
def test_an_export_that_cannot_be_made_is_refused(export: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ExportSettings.model_validate(export)
