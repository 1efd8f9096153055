"""Room on the disk: what a run writes, and the refusal before it begins."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from llm_engineering.errors import DiskError
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning.disk import plan_disk, require_disk

Usage = namedtuple("Usage", "total used free")


def need(config):
    shape = trained_shape(config.model, config.lora)
    return plan_disk(config, shape), shape.adapter.parameters, shape.model.parameters


def test_an_adapter_is_kept_three_times_and_each_checkpoint_with_its_moments(make_config):
    plan, trained, _ = need(
        make_config({"train.keep_checkpoints": 3, "train.optimizer": "adamw_torch"})
    )
    assert plan.adapter == 3 * 4 * trained
    assert plan.checkpoints == 4 * 12 * trained
    assert (plan.merged, plan.gguf) == (0, 0)
    eight, _, _ = need(make_config({"train.keep_checkpoints": 3, "train.optimizer": "adamw_8bit"}))
    assert eight.checkpoints == 4 * 6 * trained
    none, _, _ = need(make_config({"train.checkpoint_every": None}))
    assert none.checkpoints == 0


def test_a_merged_model_and_a_gguf_are_of_all_parameters(make_config):
    plan, _, parameters = need(make_config({"export.merged_16bit": True, "export.gguf": "q8_0"}))
    assert plan.merged == 2 * parameters
    assert plan.gguf == pytest.approx(parameters * 34 / 32)


def test_the_estimate_is_near_what_a_checkpoint_and_an_adapter_take(make_config, run, tmp_path):
    config = make_config(
        {"train.max_steps": 2, "train.checkpoint_every": 2, "train.keep_checkpoints": 1}
    )
    run(config, tmp_path)
    plan, _, _ = need(config)
    (checkpoint,) = (tmp_path / "work" / "run" / "checkpoints").glob("checkpoint-*")
    files = [path for path in checkpoint.iterdir() if path.suffix in (".safetensors", ".pt")]
    written = sum(path.stat().st_size for path in files)
    assert plan.checkpoints / 2 == pytest.approx(written, rel=0.15)
    adapter = (tmp_path / "work" / "run" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert plan.adapter / 3 == pytest.approx(adapter, rel=0.05)


def test_a_run_without_room_is_refused_with_what_takes_it_and_a_way_out(
    make_config, monkeypatch, tmp_path
):
    config = make_config({"export.merged_16bit": True})
    shape = trained_shape(config.model, config.lora)
    asked = []

    def usage(path):
        asked.append(Path(path))
        return Usage(0, 0, 50_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(
        DiskError, match=r"run\.output_dir: the disk of .*outputs has 0\.0 GiB free.*--disk"
    ):
        require_disk(config, shape)
    assert asked == [tmp_path], "the folder is not there yet: its disk is that of the one above"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10**12))
    require_disk(config, shape)
