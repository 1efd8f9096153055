"""Stretched positions: the same for every loader, in training, merged, and refused where they cannot be."""

import copy
import json
import shutil

import pytest
import torch
from pydantic import ValidationError

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.configuration.model import ModelSettings, RopeScaling
from llm_engineering.errors import LoraError, ModelError, UnprovenError
from llm_engineering.export.exports import ADAPTER, MERGED, make_exports
from llm_engineering.export.parity import prove
from llm_engineering.model import live
from llm_engineering.model.base_model import (
    model_folder,
    original_folder,
    require_positions,
    weight_digests,
)
from llm_engineering.model.finetuning.adapter_folder import require_same_shape
from llm_engineering.model.finetuning.load import describe_model
from llm_engineering.model.rope_scaling import HF_OVERRIDES, overrides, require_stretched
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.training.evaluate import evaluate

YARN = {"rope_type": "yarn", "factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 2.5}
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "rope_theta": 5e5,
    "max_position_embeddings": 512,
}  # fmt: skip


def test_it_is_configured_by_either_name():
    assert RopeScaling.model_validate({"type": "yarn", "factor": 4}) == RopeScaling(**YARN)
    with pytest.raises(ValidationError, match="Input should be 'yarn' or 'linear'"):
        RopeScaling(rope_type="dynamic", factor=2)
    with pytest.raises(ValidationError, match="greater than 1"):
        RopeScaling(rope_type="yarn", factor=1)


@pytest.mark.parametrize("scaling", [YARN, LINEAR])
def test_every_loader_computes_the_same_positions(tiny_model, scaling, caplog):
    """unsloth's way and ours, by the folder; and whoever loads the original with the overrides."""
    from transformers import AutoModelForCausalLM

    settings = ModelSettings(id=str(tiny_model), max_seq_length=512, rope_scaling=scaling)
    folder = model_folder(settings, weights=True)
    assert folder != tiny_model
    by_folder = AutoModelForCausalLM.from_pretrained(folder)
    told = overrides(
        json.loads((tiny_model / "config.json").read_text()), settings.rope_scaling, ""
    )
    by_overrides = AutoModelForCausalLM.from_pretrained(tiny_model, **told)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    require_stretched(by_folder, settings)
    assert "rows of model.max_seq_length (512) do not need it" in caplog.text
    with pytest.raises(ModelError, match=r"was loaded with the positions.*'default'"):
        require_stretched(plain, settings)
    own = copy.deepcopy(by_folder)
    own.model.rotary_emb.inv_freq = plain.model.rotary_emb.inv_freq
    with pytest.raises(ModelError, match="computes its positions by other rules"):
        require_stretched(own, settings)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        first, second, third = (m(ids).logits for m in (by_folder, by_overrides, plain))
    assert torch.equal(first, second)
    assert (first - third).abs().max() > 1e-4
    assert by_folder.config.max_position_embeddings == int(512 * scaling["factor"])
    assert weight_digests(settings) == weight_digests(ModelSettings(id=str(tiny_model)))


def test_the_folder_follows_the_original(tiny_model, tmp_path):
    copy = shutil.copytree(tiny_model, tmp_path / "model")
    settings = ModelSettings(id=str(copy), rope_scaling=YARN)
    (copy / "extra.txt").write_text("1")
    first = model_folder(settings, weights=True)
    assert (first / "extra.txt").read_text() == "1"
    (copy / "extra.txt").unlink()
    (copy / "more.txt").write_text("2")
    assert model_folder(settings, weights=True) == first
    assert {p.name for p in first.iterdir()} == {p.name for p in copy.iterdir()}
    assert original_folder(settings, weights=True) == copy


def test_rows_fit_the_stretched_positions(tiny_model, tmp_path):
    def settings(length, **scaling):
        return ModelSettings(id=str(tiny_model), max_seq_length=length, **scaling)

    with pytest.raises(ModelError, match=r"rope_scaling: \{rope_type: yarn, factor: 4\}"):
        require_positions(settings(2048))
    require_positions(settings(2048, rope_scaling=YARN))
    with pytest.raises(ModelError, match=r"the 2048 positions.*factor: 4.1\}"):
        require_positions(settings(2049, rope_scaling=YARN))
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gemma2"}))
    with pytest.raises(ModelError, match=r"take a model of longer context$"):
        require_positions(ModelSettings(id=str(tmp_path), max_seq_length=2048))


REFUSED = {
    "no rotary positions": {"model_type": "gpt2", "n_positions": 512},
    "stretched already, by llama3": {
        **LLAMA,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
    "unsloth's positions of gemma2": {**LLAMA, "model_type": "gemma2"},
    "positions of different kinds": {**LLAMA, "model_type": "gemma3_text"},
    "a model of text and more": {"model_type": "gemma3", "text_config": LLAMA},
    "does not know its model_type, own": {**LLAMA, "model_type": "own"},
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_stretched_is_refused_by_name(why):
    with pytest.raises(ModelError, match=f"positions of some/model cannot be stretched.*{why}"):
        overrides(REFUSED[why], RopeScaling(**YARN), "some/model")


def test_another_original_length_is_refused():
    wrong = RopeScaling(**YARN, original_max_position_embeddings=4096)
    with pytest.raises(ModelError, match="is 4096, but some/model was made for 512"):
        overrides(LLAMA, wrong, "some/model")


@pytest.mark.slow
def test_trained_proven_and_told(run, make_config, tmp_path):
    """Rows longer than the model was made for; plain readers need, and get, the same positions."""
    source = tmp_path / "long.jsonl"
    row = {"instruction": "Say it.", "response": "word " * 700}
    source.write_text(
        "".join(json.dumps(row | {"instruction": f"Say {n}."}) + "\n" for n in range(8))
    )
    config = make_config(
        {
            "model.rope_scaling": YARN,
            "model.max_seq_length": 1024,
            "data.sources": [{"source": str(source)}],
            "data.max_truncated_share": 1.0,
            "train.max_steps": 3,
            "train.learning_rate": 0.01,
            "train.micro_batch": 1,
        }
    )
    described = describe_model(config.model, dtype="float32")
    lora, dataset, adapter, record = run(config, tmp_path)
    assert lora.model == described
    assert max(map(len, dataset.split("train")["input_ids"])) > 512
    told = json.loads((adapter.folder / HF_OVERRIDES).read_text())
    assert told["max_position_embeddings"] == 2048
    assert told["rope_parameters"]["original_max_position_embeddings"] == 512

    trained = evaluate(lora, adapter, dataset, record, config.evaluate).trained_probe
    live.release()
    saved = tmp_path / "saved"
    shutil.copytree(adapter.folder, saved / ADAPTER)
    load_tokenizer(config.model).save_pretrained(saved / ADAPTER)
    exports = make_exports(ExportSettings(merged_16bit=True), lora, saved)
    plain = exports[0].model_copy(update={"base": config.model.id})
    forgot = exports[1].model_copy(update={"path": str(tmp_path / "forgot")})
    shutil.copytree(saved / MERGED, forgot.path)
    shutil.copy2(f"{config.model.id}/config.json", forgot.path)
    with pytest.raises(UnprovenError) as caught:
        prove([*exports, plain, forgot], trained, lora.model)
    said = str(caught.value).splitlines()[1:]
    assert len(said) == 2, "the two of plain positions, and neither sound one"
    assert all("its positions are {'rope_type': 'default'" in line for line in said)
    merged = json.loads((saved / MERGED / "config.json").read_text())
    assert merged["rope_parameters"] == told["rope_parameters"]
    assert not (saved / MERGED / HF_OVERRIDES).exists()

    start = {"train.start_from": str(adapter.folder), "lora": config.lora.model_dump()}
    held = starting_adapter(str(adapter.folder))
    require_same_shape(held, make_config({**start, "model.rope_scaling": YARN}))
    for other, made in ((None, "yarn, factor: 4"), (LINEAR, "yarn, factor: 4")):
        with pytest.raises(LoraError, match=f"model.rope_scaling: .*trained with .*{made}"):
            require_same_shape(held, make_config({**start, "model.rope_scaling": other}))
