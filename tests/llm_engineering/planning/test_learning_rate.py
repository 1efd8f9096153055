"""The rate that auto stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ModelError
from llm_engineering.planning.learning_rate import choose_learning_rate


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def make(model: dict[str, Any], rate: Any = "auto", **lora: Any) -> FinetuningConfig:
        (tmp_path / "config.json").write_text(json.dumps(model))
        return FinetuningConfig.model_validate(
            {
                "model": {"id": str(tmp_path)},
                "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
                "train": {"learning_rate": rate},
                "lora": lora,
            }
        )

    return make


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        # As tinker-cookbook gives them: 2.86e-4 for Llama-3.1-8B, 4.73e-4 for Qwen3-8B.
        ({"model_type": "llama", "hidden_size": 4096}, 2.86e-4),
        ({"model_type": "llama", "hidden_size": 2048}, 4.91e-4),
        ({"model_type": "llama", "hidden_size": 8192}, 1.66e-4),
        ({"model_type": "qwen3", "hidden_size": 4096}, 4.73e-4),
        ({"model_type": "qwen3_moe", "hidden_size": 2048}, 4.99e-4),
        ({"model_type": "mistral", "hidden_size": 4096}, 2.86e-4),  # the lower of the two
        ({"model_type": "gemma3", "text_config": {"hidden_size": 1152}}, 5.22e-4),  # likewise
        ({"model_type": "gpt2", "n_embd": 2000}, 5e-4),
    ],
)
def test_it_goes_by_width_and_family(model: dict[str, Any], rate: float, config: Any) -> None:
    chosen = choose_learning_rate(config(model))
    assert chosen is not None
    assert chosen.rate == pytest.approx(rate, rel=0.002)
    assert ("no fit of" in chosen.reason) == (model["model_type"] in ("mistral", "gemma3", "gpt2"))
    assert chosen.in_place_of_auto(config(model)).train.peak_learning_rate == chosen.rate


def test_pissa_takes_its_papers_rate_at_most(config: Any) -> None:
    chosen = choose_learning_rate(
        config({"model_type": "llama", "hidden_size": 4096}, init="pissa")
    )
    assert chosen is not None
    assert chosen.rate == 2e-5
    assert "is 0.000286, and lora.init: pissa takes 2e-05 at most" in chosen.reason


def test_an_adapter_that_is_scaled_otherwise_is_told_of(config: Any) -> None:
    llama = {"model_type": "llama", "hidden_size": 4096}
    plain, other = (choose_learning_rate(config(llama, lora_alpha=alpha)) for alpha in (32, 64))
    assert plain is not None
    assert "scaled" not in plain.reason
    assert other is not None
    assert "this adapter is scaled otherwise" in other.reason


def test_a_number_stays(config: Any) -> None:
    assert choose_learning_rate(config({}, rate=3e-4)) is None


def test_a_model_without_a_width_needs_a_number(config: Any) -> None:
    with pytest.raises(ModelError, match="has no hidden_size; give a number"):
        choose_learning_rate(config({"model_type": "llama"}))


def test_it_is_a_fit_of_supervised_training_alone(config: Any) -> None:
    settings = config({}, rate=3e-4).model_dump()
    settings["train"] |= {"objective": "dpo", "learning_rate": "auto"}
    with pytest.raises(ValidationError, match=r"objective is dpo; leave it out \(2e-06\)"):
        FinetuningConfig.model_validate(settings)
