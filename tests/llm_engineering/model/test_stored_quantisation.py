"""Checkpoints that are quantised on disk: FP8 by blocks is read as what it stands for, others are refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model import live
from llm_engineering.model.finetuning.load import live_base_model, load_model
from llm_engineering.model.fp8 import FP8, LARGEST
from llm_engineering.model.stored_quantisation import require_readable_weights

SIDE = 160  # the tiny model's largest: a block is a whole matrix


@pytest.fixture(scope="module")
def published(tiny_model, tmp_path_factory):
    """The tiny model as DeepSeek and Qwen publish theirs, and the numbers that its weights stand for."""
    folder = tmp_path_factory.mktemp("published") / "tiny-fp8"
    shutil.copytree(tiny_model, folder)
    tensors, meant = {}, {}
    for name, tensor in load_file(tiny_model / "model.safetensors").items():
        tensors[name] = meant[name] = tensor
        if name.endswith("_proj.weight"):
            scale = (tensor.abs().max() / LARGEST).reshape(1, 1)
            tensors[name] = (tensor / scale).to(FP8)
            tensors[f"{name}_scale_inv"] = scale
            meant[name] = tensors[name].float() * scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    quantised_by(
        folder, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[SIDE, SIDE]
    )
    return folder, meant


def quantised_by(folder, **stated):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))


def test_fp8_by_blocks_is_read_as_the_numbers_it_stands_for(published):
    folder, meant = published
    recipe = load_model(ModelSettings(id=str(folder), dtype="float32", max_seq_length=128))
    model = live_base_model(recipe).model
    live.release()
    found = dict(model.named_parameters())
    assert len(found) > 14
    for name, parameter in found.items():
        assert parameter.dtype == torch.float32
        assert torch.allclose(parameter, meant[name], rtol=1e-6), name
    assert not getattr(model.config, "quantization_config", None)  # trainers refuse such a model
    assert recipe.quantisation == "none"


@pytest.mark.parametrize(
    ("method", "quantisation", "says"),
    [
        ("fp8", "nf4", "are in FP8 on disk, and rounded twice they would lose more"),
        ("compressed-tensors", "none", r"on disk \(compressed-tensors\), which takes the package"),
        (
            "fbgemm_fp8",
            "fp8",
            r"on disk \(fbgemm_fp8\), which takes the package fbgemm_gpu to read",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_weight_is(
    published, tmp_path, method, quantisation, says
):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(published[0] / "config.json", folder)
    quantised_by(folder, quant_method=method)
    with pytest.raises(ModelError, match=says):
        require_readable_weights(ModelSettings(id=str(folder), quantisation=quantisation))
