"""Tests of ``llm_engineering.training.save``: what is proven is left, and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import ExportError
from llm_engineering.model import live
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.training.evaluate import evaluate
from llm_engineering.training.run import train
from llm_engineering.training.save import _export, save_model

pytestmark = pytest.mark.slow


def trained(config: Any, folder: Path) -> tuple[Any, ...]:
    """Everything that the save step is given."""
    dataset = prepare_data(config.data, config.model, seed=0, folder=folder / "data")
    lora = inject_lora(load_model(config.model), config.lora)
    adapter, record = train(
        lora, dataset, config.train, config.evaluate, seed=0, work=folder / "work", name="run"
    )
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    return dataset, lora, adapter, record, evaluation


def test_a_run_with_a_merged_model_and_one_whose_adapter_was_altered(
    make_config: Any, tmp_path: Path
) -> None:
    """Trained once; the second save has an adapter of another scaling than was probed."""
    config = make_config({"export.merged_16bit": True, "train.learning_rate": 0.05})
    dataset, lora, adapter, record, evaluation = trained(config, tmp_path)

    saved = save_model(
        config, dataset, lora, adapter, record, evaluation, name="sound", started=time.time()
    )

    manifest = json.loads((saved.folder / "manifest.json").read_text())
    assert [proof["export"] for proof in manifest["parity"]] == ["adapter", "merged_16bit"]
    assert saved.metrics["parity_adapter_kl"] < 1e-6 < evaluation.trained_probe.effect
    assert saved.metrics["generic_loss_before"] > 0
    assert (saved.folder / "merged" / "model.safetensors").is_file()
    assert "merged with a LoRA adapter" in (saved.folder / "merged" / "README.md").read_text()
    assert live.find(adapter.digest) is None  # the proof's process has the memory to itself

    settings = adapter.folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"lora_alpha": 320}))
    with pytest.raises(ExportError) as caught:
        save_model(
            config, dataset, lora, adapter, record, evaluation, name="broken", started=time.time()
        )

    assert "adapter: its logits differ by up to" in str(caught.value)
    outputs = Path(config.run.output_dir)
    assert sorted(path.name for path in outputs.iterdir()) == [".work", "latest", "sound"]
    assert (outputs / "latest").readlink() == Path("sound")
    assert list((outputs / ".work" / "broken").iterdir()) == []


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
