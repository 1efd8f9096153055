import json

import pytest
import torch
from safetensors.torch import load_file

from llm_engineering.errors import HardwareError, ModelError
from llm_engineering.model import live
from llm_engineering.model.finetuning import load
from llm_engineering.model.finetuning.load import live_base_model, load_model
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning.device_plans import require_memory

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="asserts the CPU's refusal")


def test_reference_says_what_was_loaded(make_config, tiny_model):
    reference = load_model(make_config().model)
    stored = load_file(tiny_model / "model.safetensors")
    assert reference.id == str(tiny_model)
    assert reference.architecture == "LlamaForCausalLM"
    assert reference.parameters == sum(tensor.numel() for tensor in stored.values())
    assert reference.quantisation == "none"
    assert reference.max_seq_length == 128
    assert list(reference.weight_digests) == ["model.safetensors"]
    tokenizer = live_base_model(reference).tokenizer
    assert reference.stop_ids == (tokenizer.eos_token_id,)
    assert reference.chat_template == tokenizer.chat_template


def test_the_reference_is_small_and_plain(make_config):
    text = load_model(make_config().model).model_dump_json()
    assert len(text) < 4000
    json.loads(text)


def test_the_live_model_is_handed_over_not_loaded_again(make_config):
    reference = load_model(make_config().model)
    assert live_base_model(reference).model is live_base_model(reference).model


def test_one_model_is_held_at_a_time(make_config):
    first = load_model(make_config().model)
    second = load_model(make_config({"model.max_seq_length": 96}).model)
    assert live.find(first.digest) is None
    assert live.find(second.digest) is not None


def test_rebuilt_from_its_reference_it_is_the_same_to_the_bit(make_config):
    reference = load_model(make_config().model)
    before = {n: p.clone() for n, p in live_base_model(reference).model.named_parameters()}
    live.release()
    after = dict(live_base_model(reference).model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_changed_weights_are_noticed(make_config, tiny_model, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    reference = load_model(make_config({"model.id": str(folder)}).model)
    live.release()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="have changed since this run loaded them"):
        live_base_model(reference)


@needs_no_gpu
def test_four_bit_on_a_cpu_is_refused(make_config):
    with pytest.raises(HardwareError) as error:
        load_model(make_config({"model.load_in_4bit": True, "model.dtype": "auto"}).model)
    assert str(error.value) == (
        "model.quantisation: nf4 needs an NVIDIA GPU, and PyTorch sees none; set it to none"
    )


def test_rows_longer_than_the_model_has_positions_are_refused_with_both_figures(
    make_config, monkeypatch
):
    config = make_config({"model.max_seq_length": 513})
    monkeypatch.setattr(load, "backend", None)  # nothing is loaded
    for refused in (
        lambda: load.load_model(config.model),
        lambda: load.describe_model(config.model, dtype="float32"),
        lambda: require_memory(config, trained_shape(config.model, config.lora)),
    ):
        with pytest.raises(ModelError, match=r"max_seq_length: 513 tokens are more than the 512"):
            refused()
