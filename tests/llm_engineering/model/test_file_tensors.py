"""Names in files against names in the model, and where each number of a file goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.shapes import FAMILIES, write_model
from safetensors.torch import load_file

from llm_engineering.errors import ModelError
from llm_engineering.model.file_tensors import (
    FileTensors,
    file_shapes,
    is_converted,
    names_in_files,
    require_in_files,
)
from llm_engineering.model.meta import meta_model


@pytest.fixture(scope="module")
def mixture(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(FAMILIES["qwen3_moe"], tmp_path_factory.mktemp("m") / "moe", tiny_model)


def files_of(folder: Path) -> FileTensors:
    return FileTensors(meta_model(folder, trust_remote_code=False), file_shapes(folder))


EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"


def test_a_mixtures_parameter_is_loaded_of_its_experts_files_as_transformers_does(
    mixture: Path,
) -> None:
    from transformers import AutoModelForCausalLM

    files, stored = files_of(mixture), load_file(mixture / "model.safetensors")
    names = files.names_of(EXPERTS)
    assert len(names) == 8
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in names
    model = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
    loaded = dict(model.named_parameters())[EXPERTS]
    assert torch.equal(files.load(EXPERTS, lambda name: stored[name]), loaded)


def test_what_is_added_to_a_parameter_reaches_the_file_that_holds_that_part(mixture: Path) -> None:
    files = files_of(mixture)
    whole = torch.randn(4, 32, 32)

    def change(parameter: str, expert: int | None) -> Any:
        return whole[expert : expert + 1] if parameter == EXPERTS and expert is not None else None

    added = files.change("model.layers.0.mlp.experts.2.up_proj.weight", change)
    assert torch.equal(added, whole[2, 16:])  # the gate's rows stand first in the parameter
    assert files.change("model.layers.1.mlp.experts.2.up_proj.weight", change) is None


def test_an_adapted_parameter_that_no_file_holds_is_refused_by_its_name(mixture: Path) -> None:
    model = meta_model(mixture, trust_remote_code=False)
    names = names_in_files(mixture)
    assert names is not None
    require_in_files(model, [EXPERTS], names)
    lacking = [name for name in names if ".layers.0.mlp.experts." not in name]
    with pytest.raises(ModelError, match=f"no tensor of its files becomes {EXPERTS}"):
        require_in_files(model, [EXPERTS], lacking)


def test_a_dense_models_files_hold_its_parameters_as_they_are(
    tiny_model: Path, mixture: Path
) -> None:
    for folder, converted in ((tiny_model, False), (mixture, True)):
        names = names_in_files(folder)
        assert is_converted(meta_model(folder, trust_remote_code=False), names or []) is converted
