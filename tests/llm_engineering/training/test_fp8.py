"""A training on FP8 weights, which CPUs reckon in 32 bit: what is learned, merged and proven."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import UnprovenError
from llm_engineering.export.exports import ADAPTER, make_exports, prove_exports
from llm_engineering.model import live
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS
from llm_engineering.model.finetuning.inject import live_lora_model
from llm_engineering.model.fp8 import Fp8Linear
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.planning import hardware
from llm_engineering.training.evaluate import evaluate

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_it_learns_what_16_bit_weights_learn_and_is_proven(run, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "what_prevents_quantisation", lambda settings: None)
    losses = {}
    for kind in ("none", "fp8"):
        config = make_config(
            {
                "model.quantisation": kind,
                "model.dtype": "auto",
                "train.max_steps": 12,
                "train.learning_rate": 0.01,
                "evaluate.parity_rows": 3,
            }
        )
        lora, dataset, adapter, record = run(config, tmp_path / kind)
        losses[kind] = [point.metrics.loss for point in record.held_out]
    assert losses["fp8"][-1] < 0.99 * losses["fp8"][0]
    assert losses["fp8"] == pytest.approx(losses["none"], rel=0.005)
    assert losses["fp8"] != losses["none"]
    assert lora.model.quantisation == "fp8"
    held = [m for m in live_lora_model(lora).model.modules() if isinstance(m, Fp8Linear)]
    assert len(held) == 14

    trained = evaluate(lora, adapter, dataset, record, config.evaluate).trained_probe
    saved = tmp_path / "saved" / ADAPTER
    shutil.copytree(adapter.folder, saved)
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = lora.model.chat_template
    tokenizer.save_pretrained(saved)
    exports = make_exports(ExportSettings(merged_16bit=True), lora, saved.parent)
    proofs = prove_exports(exports, trained, lora)
    assert [(proof.export, proof.against) for proof in proofs] == [
        ("adapter", "the trained model in memory, its base model in FP8"),
        ("merged_16bit", "the adapter on the original 16-bit weights"),
    ]
    whole = load_file(saved / ADAPTER_WEIGHTS)
    negated = {name: -tensor if "lora_B" in name else tensor for name, tensor in whole.items()}
    save_file(negated, saved / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UnprovenError):
        prove_exports(exports[:1], trained, lora)
    live.release()
