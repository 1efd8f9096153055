"""A new initialisation is one file: this one, which the pipeline begins, checkpoints and finishes by."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from llm_engineering.initialisations import INITIALISATIONS, Initialisation
from llm_engineering.initialisations.adapted_modules import adapted_modules
from llm_engineering.model import live
from llm_engineering.model.finetuning.adapter_folder import live_trained_model

pytestmark = pytest.mark.slow


class Tenfold(Initialisation):
    """A starts ten times as large, and gives that to B at the end: ``B A`` stays the same."""

    name: ClassVar[str] = "tenfold"
    changes_at_end: ClassVar[bool] = True

    def begin(self, model, beginning):
        if beginning.checkpoint is None:
            self._scale(model, 10.0, 1.0)
        else:
            assert (beginning.checkpoint / "tenfold.txt").read_text() == "by 10"

    def add_to(self, checkpoint):
        (checkpoint / "tenfold.txt").write_text("by 10")

    def finish(self, model):
        self._scale(model, 0.1, 10.0)

    def _scale(self, model, a, b):
        with torch.no_grad():
            for _, layer, adapter in adapted_modules(model):
                layer.lora_A[adapter].weight.mul_(a)
                layer.lora_B[adapter].weight.mul_(b)


@pytest.fixture
def tenfold(monkeypatch):
    monkeypatch.setitem(INITIALISATIONS, "tenfold", Tenfold)


def product(adapter):
    tensors = load_file(adapter.folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "q_proj.lora_A" in name)
    return tensors[name], tensors[name.replace("lora_A", "lora_B")]


def test_it_is_configured_trained_and_resumed(tenfold, run, run_interrupted, make_config, tmp_path):
    changes = {"lora.init": "tenfold", "train.max_steps": 6, "train.learning_rate": 0.01}
    lora, _, whole_adapter, whole = run(make_config(changes), tmp_path / "whole")
    trained = live_trained_model(lora, whole_adapter)
    a, b = product(whole_adapter)
    layer = next(
        layer for name, layer, _ in adapted_modules(trained.model) if name.endswith("q_proj")
    )
    assert torch.equal(layer.lora_A["default"].weight, a)
    assert b.abs().max() > 0.1, "ten times what 6 steps of 0.01 can change"
    assert whole.after.loss < whole.before.loss
    assert [point.step for point in whole.held_out] == [0, 6]
    live.release()
    _, _, adapter, record = run_interrupted(make_config(changes), tmp_path / "cut", step=5)
    assert record.resumed_from_step == 4
    assert adapter.digest == whole_adapter.digest
    live.release()


def test_unknown_it_is_refused_by_name(make_config):
    with pytest.raises(ValueError, match="Input should be 'default', 'gaussian', 'pissa', 'loftq'"):
        make_config({"lora.init": "tenfold"})
