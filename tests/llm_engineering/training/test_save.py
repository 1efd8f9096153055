"""Tests of ``llm_engineering.training.save``: what is proven is left, and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import ExportError, UnprovenError
from llm_engineering.model import live
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.training.evaluate import evaluate
from llm_engineering.training.run import train
from llm_engineering.training.save import _export, save_model

pytestmark = pytest.mark.slow


def trained(config: Any, folder: Path) -> tuple[Any, ...]:
    """Everything that the save step is given."""
    dataset = prepare_data(config.data, config.model, folder=folder / "data")
    lora = inject_lora(load_model(config.model), config.lora)
    adapter, record = train(
        lora, dataset, config.train, config.evaluate, seed=0, work=folder / "work", name="run"
    )
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    return dataset, lora, adapter, record, evaluation


@pytest.mark.long
def test_a_run_with_a_merged_model_and_one_whose_adapter_was_altered(
    make_config: Any, tmp_path: Path
) -> None:
    """Trained once; the second save has an adapter of another scaling than was probed."""
    config = make_config({"export.merged_16bit": True, "train.learning_rate": 0.05, "data.seed": 3})
    dataset, lora, adapter, record, evaluation = trained(config, tmp_path)

    saved = save_model(
        config, dataset, lora, adapter, record, evaluation, name="sound", started=time.time()
    )

    manifest = json.loads((saved.folder / "manifest.json").read_text())
    assert [proof["export"] for proof in manifest["parity"]] == ["adapter", "merged_16bit"]
    assert (manifest["seed"], manifest["data_seed"]) == (0, 3)
    assert saved.metrics["parity_adapter_kl"] < 1e-6 < evaluation.trained_probe.effect
    assert saved.metrics["generic_loss_before"] > 0
    assert (saved.folder / "merged" / "model.safetensors").is_file()
    assert "merged with a LoRA adapter" in (saved.folder / "merged" / "README.md").read_text()
    assert live.find(adapter.digest) is None  # the proof's process has the memory to itself

    settings = adapter.folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"lora_alpha": 320}))
    with pytest.raises(UnprovenError) as caught:
        save_model(
            config, dataset, lora, adapter, record, evaluation, name="broken", started=time.time()
        )

    said = str(caught.value)
    assert "adapter: its adapter_config.json gives base_model.model.model.layers.0." in said
    assert "; its logits differ by up to" in said
    outputs = Path(config.run.output_dir)
    kept = outputs / "broken-unproven"
    assert f"the trained adapter is in {kept / 'adapter'}, unproven, and unproven.json" in said
    assert sorted(path.name for path in outputs.iterdir()) == [
        ".work", "broken-unproven", "latest", "sound",
    ]  # fmt: skip
    assert (outputs / "latest").readlink() == Path("sound")
    assert list((outputs / ".work" / "broken").iterdir()) == []
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"):
        assert (kept / "adapter" / name).is_file()
    # What was found wrong can be looked into: the merge of 320 is not that of the trained 32.
    assert (kept / "merged" / "model.safetensors").is_file()
    found = json.loads((kept / "unproven.json").read_text())
    assert "its logits differ by up to" in found["error"]
    assert Evaluation.model_validate(found["evaluation"]) == evaluation
    assert found["adapter_digest"] == adapter.digest


def test_whatever_keeps_an_export_from_being_made_the_adapter_stays(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The disk is full while weights are merged; then the file is not the one that was trained."""
    config = make_config({"export.merged_16bit": True, "train.max_steps": 2})
    given = trained(config, tmp_path)
    adapter = given[2]

    def full(base: Path, adapter: Path, folder: Path, **_: Any) -> None:
        folder.mkdir()
        (folder / "half.safetensors").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm_engineering.export.exports.merge", full)
    outputs = Path(config.run.output_dir)
    with pytest.raises(OSError, match="No space left"):
        save_model(config, *given, name="full", started=time.time())
    assert sorted(path.name for path in (outputs / "full-unproven").iterdir()) == [
        "adapter", "unproven.json",
    ]  # fmt: skip
    assert f"the trained adapter is in {outputs / 'full-unproven' / 'adapter'}" in caplog.text

    weights = adapter.folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values()))[0] += 1e-6
    save_file(tensors, weights)
    with pytest.raises(UnprovenError, match="is not the file that training wrote"):
        save_model(config, *given, name="full", started=time.time())
    assert (outputs / "full-unproven-2" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (outputs / "latest").is_symlink()


@pytest.mark.parametrize(
    ("export", "part"), [({"merged_16bit": True}, "merged"), ({"gguf": "f16"}, "gguf")]
)
def test_what_a_job_exported_is_taken_from_its_results(
    tmp_path: Path, export: dict[str, Any], part: str
) -> None:
    """The job merged and converted on its own host: here its folders are moved, or said to lack."""
    config = FinetuningConfig.model_validate(
        {
            "run": {"output_dir": str(tmp_path)},
            "model": {"id": "owner/name"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "export": {"merged_16bit": True, **export},
        }
    )
    record = SimpleNamespace(job=SimpleNamespace(name="job-1", parity=["proof"]))
    results, folder = tmp_path / ".work" / "run" / "job", tmp_path / "saved"
    folder.mkdir()
    for name in ("merged", "gguf"):
        (results / name).mkdir(parents=True)
        (results / name / "file").write_text(name)
    assert _export(config, None, record, None, folder, "run") == ["proof"]
    assert (folder / part / "file").read_text() == part
    assert (folder / "gguf").is_dir() == ("gguf" in export)
    with pytest.raises(ExportError, match=r"export\.merged_16bit: the job job-1 trained for"):
        _export(config, None, record, None, folder, "run")
