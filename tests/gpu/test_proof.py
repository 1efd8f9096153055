"""The proof of an adapter on 16-bit and on NF4 weights: it passes, and an altered adapter does not."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import ExportError
from llm_engineering.export.exports import ADAPTER, make_exports, prove_exports
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.training.evaluate import evaluate

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ATTACKS = {"empty": 0.0, "negated": -1.0}


@pytest.mark.parametrize("settings", [{"model.load_in_4bit": True, "model.dtype": "bfloat16"},
                                      {"model.quantisation": "fp8", "model.dtype": "bfloat16"},
                                      {"model.dtype": "float16"}], ids=["nf4", "fp8", "float16"])  # fmt: skip
def test_an_adapter_is_proven_and_its_attacks_are_not(run, on_gpu, tmp_path, settings):
    config = on_gpu("sft", {**settings, "train.max_steps": 30, "evaluate.parity_rows": 4})
    lora, dataset, adapter, record = run(config, tmp_path)
    trained = evaluate(lora, adapter, dataset, record, config.evaluate).trained_probe
    assert trained is not None
    saved = tmp_path / "saved" / ADAPTER
    shutil.copytree(adapter.folder, saved)
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = lora.model.chat_template
    tokenizer.save_pretrained(saved)
    exports = make_exports(ExportSettings(), lora, saved.parent)
    (proof,) = prove_exports(exports, trained, lora)
    assert proof.passed
    assert proof.effect > 10 * proof.mean_kl
    whole = load_file(saved / ADAPTER_WEIGHTS)
    for attack, factor in ATTACKS.items():
        altered = {n: t * factor if "lora_B" in n else t for n, t in whole.items()}
        save_file(altered, saved / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        assert is_refused(exports, trained, lora), f"the {attack} adapter passed"


def is_refused(exports, trained, lora):
    try:
        prove_exports(exports, trained, lora)
    except ExportError:
        return True
    return False
