"""One family's life in one process: train, evaluate, save, merge, prove, and read with plain PEFT."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe


@dataclass(frozen=True)
class Lived:
    """What came of it."""

    lora: LoraRecipe
    adapter: AdapterFolder
    record: TrainingRecord
    evaluation: Evaluation
    proofs: list[ParityProof]
    folder: Path
    seconds: float


def live_through(config: FinetuningConfig, dataset: PreparedDataset, folder: Path) -> Lived:
    """The command's steps, without ZenML and without the processes that it starts."""
    from llm_engineering.export.exports import make_exports, prove_exports
    from llm_engineering.model.finetuning.inject import inject_lora
    from llm_engineering.model.finetuning.load import load_model
    from llm_engineering.model.tokenizer import load_tokenizer
    from llm_engineering.training.evaluate import evaluate
    from llm_engineering.training.run import train

    began = time.perf_counter()
    lora = inject_lora(load_model(config.model), config.lora)
    adapter, record = train(
        lora, dataset, config.train, config.evaluate,
        seed=config.run.seed, work=folder / "work", name="run",
    )  # fmt: skip
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    assert evaluation.trained_probe is not None
    shutil.copytree(adapter.folder, folder / "adapter")
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = lora.model.chat_template
    tokenizer.save_pretrained(folder / "adapter")
    with reading_in_this_process():
        exports = make_exports(ExportSettings(merged_16bit=True), lora, folder)
        proofs = prove_exports(exports, evaluation.trained_probe, lora)
    seconds = time.perf_counter() - began
    return Lived(lora, adapter, record, evaluation, proofs, folder, seconds)


@contextmanager
def reading_in_this_process() -> Iterator[None]:
    """The proof's own process takes ten seconds to start: ``test_parity`` tests that it is one."""
    from llm_engineering.export import parity, reload

    def run(command: list[str], **_: Any) -> Any:
        reload.main(*command[-2:])
        return SimpleNamespace(returncode=0, stderr="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # half a second a model, beside pytest's objects
        patch.setitem(sys.modules, "sklearn", sys.modules.get("sklearn"))  # main() hides it
        patch.setattr(parity, "subprocess", SimpleNamespace(run=run, DEVNULL=None))
        yield
