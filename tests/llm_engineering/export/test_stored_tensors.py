"""Tests of ``llm_engineering.export.stored_tensors``: what files must hold, and what rounding leaves.

Attacks on whole exports are in ``test_attacks``; here are single tensors, and GGUF by its own package.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_engineering.export.merge import merge
from llm_engineering.export.stored_tensors import ROWS, compare_gguf, compare_merged
from llm_engineering.model.evaluation.trained_tensors import TrainedTensors, trained_tensors

pytestmark = pytest.mark.slow

UP = "model.layers.0.mlp.up_proj.weight"  # no target
DOWN = "model.layers.0.mlp.down_proj.weight"  # a target


def tensors_of(base: Path, adapter: Path) -> TrainedTensors:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return trained_tensors(PeftModel.from_pretrained(model, adapter, is_trainable=True))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, adapter: Path) -> TrainedTensors:
    return tensors_of(tiny_model, adapter)


@pytest.fixture(scope="module")
def merged(tiny_model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "merged"
    merge(tiny_model, adapter, folder, stop_ids=(2,))
    return folder


def edited(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_a_sound_merge_is_found_sound(
    tiny_model: Path, adapter: Path, merged: Path, trained: TrainedTensors
) -> None:
    found = compare_merged(tiny_model, adapter, merged, trained)

    assert found.fault is None
    assert found.tensors == len(load_file(merged / "model.safetensors"))
    assert found.update_kept is None  # the base model is of 32 bit


def one_step(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    """The next number of bfloat16 in one place of the last row."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        bits = tensors[name].view(torch.int16)
        bits.view(-1)[-1] += 1

    return change


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[UP]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.extra.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] = tensors[UP].T.contiguous()


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors[DOWN][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_step(DOWN), f"{DOWN} is not base model + adapter, rounded once to BF16, at 1 of the"),
        (one_step(UP), f"{UP} is not the base model's, rounded once to BF16, at 1 of the"),
        (one_step("model.norm.weight"), "model.norm.weight is not the base model's, rounded once"),
        (one_step("lm_head.weight"), "lm_head.weight is not the base model's"),
        (not_a_number, f"{DOWN} is not base model + adapter"),
        (drop, f"1 tensors are not in both it and the base model, as {UP}"),
        (add, "1 tensors are not in both it and the base model, as model.extra.weight"),
        (reshape, f"{UP} has the shape"),
    ],
)
def test_one_number_that_is_another_is_found(
    change: Callable[[dict[str, torch.Tensor]], Any],
    says: str,
    tiny_model: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedTensors,
    tmp_path: Path,
) -> None:
    broken = edited(merged, tmp_path / "broken", change)

    found = compare_merged(tiny_model, adapter, broken, trained)

    assert found.fault is not None
    assert says in found.fault


@pytest.mark.parametrize(
    ("strength", "kept"), [(1.0, (0.99, 1.01)), (1e-3, (0.6, 1.01)), (1e-6, (0.0, 0.1))]
)
def test_how_much_of_a_change_is_left_by_rounding_is_told(
    strength: float,
    kept: tuple[float, float],
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
) -> None:
    """A base model of 16 bit is on the grid that it is rounded to: small changes vanish."""
    base = edited(tiny_model, tmp_path / "base", to_bfloat16)
    weak = shutil.copytree(adapter, tmp_path / "weak")
    factors = load_file(weak / "adapter_model.safetensors")
    for name, tensor in factors.items():
        tensor.mul_(strength if "lora_B" in name else 1.0)
    save_file(factors, weak / "adapter_model.safetensors", metadata={"format": "pt"})
    merge(base, weak, tmp_path / "merged", stop_ids=(2,))

    found = compare_merged(base, weak, tmp_path / "merged", tensors_of(base, weak))

    assert found.update_kept is not None
    assert kept[0] < found.update_kept < kept[1]
    assert (found.fault is None) == (strength > 1e-6)
    if found.fault:
        assert "rounding to 16 bit leaves only 3% of what the adapter changes" in found.fault


def to_bfloat16(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name] = tensors[name].bfloat16()


def as_gguf(merged: Path, kind: str) -> Any:
    """The merged model after a way through GGUF's own quantisation."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    quantisation = GGMLQuantizationType[kind.upper()]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # llama.cpp keeps vectors in 32 bit
                data = quantize(parameter.numpy(), quantisation)
                parameter.copy_(torch.from_numpy(dequantize(data, quantisation).copy()))
    return model


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("read_as", [torch.float32, torch.bfloat16])
def test_a_gguf_is_the_merged_model_within_what_its_type_can_hold(
    kind: str, read_as: torch.dtype, merged: Path
) -> None:
    model = as_gguf(merged, kind).to(read_as)

    found = compare_gguf(model, merged, kind)

    assert found.fault is None
    assert found.tensors == len(load_file(merged / "model.safetensors"))


def halve(weight: torch.Tensor) -> torch.Tensor:
    return weight / 2


def permute(weight: torch.Tensor) -> torch.Tensor:
    return weight.roll(1, dims=0)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("attack", [torch.zeros_like, torch.neg, halve, permute])
def test_a_gguf_of_other_tensors_is_found(
    attack: Callable[[torch.Tensor], torch.Tensor], kind: str, merged: Path
) -> None:
    model = as_gguf(merged, kind)
    weight = model.get_parameter(DOWN)
    weight.data = attack(weight.data)

    found = compare_gguf(model, merged, kind)

    assert found.fault == f"{DOWN} is not the merged model's, beyond what {kind} is"


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_a_gguf_without_the_adapters_change_to_one_module_is_found(
    kind: str, tiny_model: Path, merged: Path
) -> None:
    model = as_gguf(merged, kind)
    base = load_file(tiny_model / "model.safetensors")[DOWN]
    model.get_parameter(DOWN).data = base

    assert DOWN in str(compare_gguf(model, merged, kind).fault)


def test_rows_from_the_first_to_the_last_are_looked_at(
    tiny_model: Path, adapter: Path, merged: Path, trained: TrainedTensors, tmp_path: Path
) -> None:
    """Of the embeddings' 600 rows, those in between are not read."""
    name = "model.embed_tokens.weight"
    seen = []
    for row in (0, 1, 599):

        def change(tensors: dict[str, torch.Tensor], row: int = row) -> None:
            tensors[name][row] += 1.0

        broken = edited(merged, tmp_path / f"{row}", change)
        seen.append(compare_merged(tiny_model, adapter, broken, trained).fault is not None)
    assert ROWS < 600
    assert seen == [True, False, True]
