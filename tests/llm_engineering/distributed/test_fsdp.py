"""What ranks that share the weights bring together, in a process group of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from llm_engineering.distributed.fsdp import other_adapter, sharded_trainer
from llm_engineering.errors import LoraError

pytestmark = pytest.mark.slow


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def share(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


def test_a_checkpoint_brings_together_what_is_trained_and_nothing_frozen(alone, monkeypatch):
    from torch.distributed.tensor import DTensor

    frozen, trained = torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)
    frozen.requires_grad_(False)
    model = torch.nn.Sequential(frozen, trained)
    expected = {f"1.{name}": value.clone() for name, value in trained.named_parameters()}
    share(model)
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


def lora_on_shared_weights():
    from peft import LoraConfig, get_peft_model

    linear = torch.nn.Linear(8, 8)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    base = torch.nn.Sequential(linear, torch.nn.Tanh())
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"]))
    share(model)
    return model, weight, bias


def test_another_adapter_takes_the_place_of_ones_own_for_a_while(alone, tmp_path):
    model, weight, bias = lora_on_shared_weights()
    rows = torch.randn(3, 8)
    names = [f"base_model.model.0.lora_{part}.weight" for part in "AB"]
    other = {names[0]: torch.randn(2, 8), names[1]: torch.randn(8, 2)}
    save_file(other, tmp_path / "adapter_model.safetensors")
    own = model(rows)

    with other_adapter(model, tmp_path / "adapter_model.safetensors"):
        during = model(rows)

    scaling = 8 / 2  # PEFT's default lora_alpha by r
    expected = weight + scaling * other[names[1]] @ other[names[0]]
    assert torch.allclose(during, torch.tanh(rows @ expected.T + bias), atol=1e-5)
    assert torch.equal(model(rows), own)


@pytest.mark.parametrize(
    "tensors",
    [
        {"base_model.model.0.lora_A.weight": torch.zeros(2, 8)},
        {
            "base_model.model.0.lora_A.weight": torch.zeros(4, 8),
            "base_model.model.0.lora_B.weight": torch.zeros(8, 4),
        },
    ],
    ids=["missing", "rank"],
)
def test_an_adapter_of_another_shape_is_refused(alone, tmp_path, tensors):
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with (
        pytest.raises(LoraError, match="of its tensors are not this adapter's, as base_model"),
        other_adapter(lora_on_shared_weights()[0], tmp_path / "adapter_model.safetensors"),
    ):
        pass
