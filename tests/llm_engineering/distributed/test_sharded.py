"""What ranks that share the weights bring together, in a process group of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from llm_engineering.distributed.sharded import sharded_trainer


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_checkpoint_brings_together_what_is_trained_and_nothing_frozen(alone, monkeypatch):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    frozen, trained = torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)
    frozen.requires_grad_(False)
    model = torch.nn.Sequential(frozen, trained)
    expected = {f"1.{name}": value.clone() for name, value in trained.named_parameters()}
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    gathered = []
    full_tensor = DTensor.full_tensor
    monkeypatch.setattr(
        DTensor, "full_tensor", lambda part: gathered.append(part.shape) or full_tensor(part)
    )
    saved = {}
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(output_dir="checkpoint"),
        _save=lambda folder, state_dict: saved.update({folder: state_dict}),
    )

    sharded_trainer().save_model(trainer)

    assert gathered == [(2, 8), (2,)]
    assert saved["checkpoint"].keys() == expected.keys()
    assert all(torch.equal(saved["checkpoint"][name], expected[name]) for name in expected)
