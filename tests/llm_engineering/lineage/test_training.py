"""What the train step's own host must be, before it trains."""

from __future__ import annotations

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.errors import HardwareError
from llm_engineering.lineage.training import differences
from llm_engineering.model.recipes import LoraRecipe, ModelRecipe
from llm_engineering.planning import hardware


@pytest.fixture
def lora():
    model = ModelRecipe(
        id="acme/tiny", revision=None, architecture="LlamaForCausalLM", dtype="auto",
        quantisation="none", max_seq_length=64, chat_template="", stop_ids=(2,),
        trust_remote_code=False, weight_digests={"model.safetensors": "a"}, parameters=10,
    )  # fmt: skip
    return LoraRecipe(
        model=model, settings=LoraSettings(), matched=(), trainable_parameters=1,
        total_parameters=11, scaling=1.0,
    )  # fmt: skip


def with_model(lora, **changes):
    return lora.model_copy(update={"model": lora.model.model_copy(update=changes)})


def test_the_host_resolves_what_was_left_open_and_nothing_else(lora):
    assert differences(lora, with_model(lora, dtype="bfloat16")) == []
    loaded = with_model(lora, dtype="bfloat16", weight_digests={"model.safetensors": "b"})
    assert differences(lora, loaded) == ["model.weight_digests"]
    said = with_model(lora, dtype="float16")
    assert differences(said, with_model(lora, dtype="bfloat16")) == ["model.dtype"]
    assert differences(lora, lora.model_copy(update={"scaling": 2.0})) == ["lora.scaling"]


def test_a_host_without_the_gpus_that_were_asked_for_is_refused(monkeypatch):
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 1)
    hardware.require_gpus(1)
    with pytest.raises(HardwareError, match=r"zenml.resources.gpu_count: 2, and PyTorch sees 1"):
        hardware.require_gpus(2)
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    hardware.require_gpus(0)
