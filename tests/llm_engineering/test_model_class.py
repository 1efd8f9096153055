"""Which class of transformers holds a base model whole."""

from __future__ import annotations

import pytest

from llm_engineering.model_class import auto_class_name


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("LlamaForCausalLM", "AutoModelForCausalLM"),
        ("Gemma3ForCausalLM", "AutoModelForCausalLM"),
        ("Gemma3ForConditionalGeneration", "AutoModelForImageTextToText"),
        ("Llama4ForConditionalGeneration", "AutoModelForImageTextToText"),
        ("unknown", "AutoModelForCausalLM"),
    ],
)
def test_a_checkpoint_that_sees_is_loaded_whole(architecture: str, expected: str) -> None:
    assert auto_class_name(architecture) == expected
