"""An adapter on disk: held against other settings, and read into a model."""

import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.errors import LoraError
from llm_engineering.model import live
from llm_engineering.model.finetuning.adapter_folder import (
    ADAPTER_WEIGHTS,
    load_adapter_weights,
    require_same_shape,
    save_adapter,
)
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.registry.starting_adapter import starting_adapter


def test_an_adapter_of_another_shape_is_refused_by_its_keys(run, preference_config, tmp_path):
    _, _, adapter, _ = run(preference_config("dpo", {"train.max_steps": 2}), tmp_path)
    start = str(adapter.folder)
    other = preference_config(
        "dpo", {"train.start_from": start, "lora.r": 8, "lora.target_modules": ["q_proj"]}
    )
    with pytest.raises(LoraError) as error:
        require_same_shape(starting_adapter(start), other)
    lines = str(error.value).splitlines()
    assert lines[1] == "lora.r: 8, the adapter has 32"
    assert lines[2].startswith("lora.target_modules: the adapter has down_proj, gate_proj, k_proj")


def test_weights_that_do_not_fit_are_refused_with_one_of_their_names(make_config, tmp_path):
    config = make_config()
    lora = inject_lora(load_model(config.model), config.lora)
    model = live_lora_model(lora).model
    adapter = save_adapter(model, lora, tmp_path / "adapter")
    load_adapter_weights(model, adapter)

    weights = load_file(adapter.folder / ADAPTER_WEIGHTS)
    name = next(iter(weights))
    weights["base_model.model.nowhere.lora_A.weight"] = weights.pop(name)
    save_file(weights, adapter.folder / ADAPTER_WEIGHTS)
    with pytest.raises(LoraError, match="1 tensors are missing and 1 left over, among them"):
        load_adapter_weights(model, adapter)
    live.release()
