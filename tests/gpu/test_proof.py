"""The proof of an adapter on float16 and on NF4 weights: it passes, and no altered adapter does."""

from __future__ import annotations

import math
import shutil

import pytest
from adapter_attacks import ADAPTER_ATTACKS

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import UnprovenError
from llm_engineering.export import parity
from llm_engineering.export.exports import ADAPTER, make_exports, prove_exports
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.training.evaluate import evaluate

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize(
    "settings",
    [
        {"model.load_in_4bit": True, "model.dtype": "bfloat16"},
        {"model.quantisation": "fp8", "model.dtype": "bfloat16"},
        {"model.dtype": "float16"},
        {"model.rope_scaling": {"rope_type": "yarn", "factor": 2}, "model.dtype": "bfloat16"},
    ],
    ids=["nf4", "fp8", "float16", "yarn"],
)
def test_it_learns_and_is_proven_and_no_attack_is(run, on_gpu, tmp_path, monkeypatch, settings):
    """One process reads all of them back, as it would one; it takes longer to start than to read."""
    config = on_gpu("sft", {**settings, "train.max_steps": 30, "evaluate.parity_rows": 4})
    lora, dataset, adapter, record = run(config, tmp_path)
    assert lora.model.dtype == settings["model.dtype"]
    assert all(math.isfinite(point.loss) for point in record.points)
    assert record.after.loss < record.before.loss - 0.1
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    assert len(evaluation.samples) == config.evaluate.samples
    trained = evaluation.trained_probe
    assert trained is not None

    saved = tmp_path / "saved" / ADAPTER
    shutil.copytree(adapter.folder, saved)
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = lora.model.chat_template
    tokenizer.save_pretrained(saved)
    (sound,) = make_exports(ExportSettings(), lora, saved.parent)
    exports = {"sound": sound}
    for name, attack in ADAPTER_ATTACKS.items():
        folder = tmp_path / name / ADAPTER
        shutil.copytree(saved, folder)
        attack(folder)
        exports[name] = sound.model_copy(update={"path": str(folder)})
    if config.model.rope_scaling:
        exports["plain positions"] = sound.model_copy(update={"base": config.model.id})
    read_back = parity.reload(list(exports.values()), trained, lora.model)
    found = {id(export): one for export, one in zip(exports.values(), read_back, strict=True)}
    monkeypatch.setattr(parity, "reload", lambda asked, *_: [found[id(one)] for one in asked])

    (proof,) = prove_exports([sound], trained, lora)
    assert proof.effect > 10 * proof.mean_kl
    passed = [name for name, one in exports.items() if is_proven(one, trained, lora)]
    assert passed == ["sound"]


def is_proven(export, trained, lora):
    try:
        prove_exports([export], trained, lora)
    except UnprovenError:
        return False
    return True
