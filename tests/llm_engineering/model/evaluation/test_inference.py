"""Tests of ``llm_engineering.model.evaluation.inference``: a model runs as it is trained, and comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_engineering.model.evaluation.inference import inference


class Model(torch.nn.Module):
    """16-bit weights beside a 32-bit adapter, as PEFT keeps one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(8, 64, dtype=dtype)
        self.adapter = torch.nn.Linear(64, 64, bias=False, dtype=torch.float32)
        self.dropout = torch.nn.Dropout(0.5)

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.adapter(self.embedding(ids).to(self.adapter.weight.dtype)))


IDS = torch.arange(8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beside_16_bit_weights_an_adapter_computes_in_their_type(dtype: torch.dtype) -> None:
    model = Model(dtype)
    with inference(model):
        found = model(IDS)
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        as_trained = model.eval()(IDS)
    with torch.inference_mode():
        exact = model(IDS)

    assert found.dtype == dtype
    assert torch.equal(found, as_trained)
    assert not torch.equal(found.float(), exact)


def test_beside_32_bit_weights_nothing_is_rounded() -> None:
    model = Model(torch.float32)
    with inference(model):
        found = model(IDS)
    with torch.inference_mode():
        assert torch.equal(found, model.eval()(IDS))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_that_a_model_came_in_is_its_mode_again(training: bool) -> None:
    model = Model(torch.float32).train(training)
    with inference(model):
        assert not model.training
        assert not model(IDS).requires_grad
    assert model.training is training


class FlaggedLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.gradient_checkpointing = True
        self.dropout = torch.nn.Dropout(0.5)


class FlaggedModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([FlaggedLayer(), FlaggedLayer()])
        self.embeddings = torch.nn.Embedding(3, 2)
        self.config = SimpleNamespace(use_cache=False)

    def get_input_embeddings(self):
        return self.embeddings


def unsloths_for_inference(model):
    """What ``generate`` does on a GPU: it clears the flags, and restores them in training mode only."""
    model._flag_for_generation = True
    model.gradient_checkpointing = False
    model.config.use_cache = True
    for part in model.modules():
        part.training = False
        if isinstance(part, FlaggedLayer):
            part.gradient_checkpointing = False
            part._flag_for_generation = True


@pytest.fixture
def model():
    model = FlaggedModel().train()
    model.layers[1].dropout.eval()  # one module in another mode than the rest
    model.layers[1].gradient_checkpointing = "unsloth"
    return model


def modes(model):
    return [
        (
            part.training,
            vars(part).get("gradient_checkpointing"),
            "_flag_for_generation" in vars(part),
        )
        for part in model.modules()
    ], vars(model.config)


def test_samples_on_the_way_leave_checkpointing_dropout_and_cache_as_they_were(model):
    before = modes(model)
    with inference(model):
        assert not any(part.training for part in model.modules())
        unsloths_for_inference(model)
    assert modes(model) == before
    assert model.layers[1].gradient_checkpointing == "unsloth"
    assert "gradient_checkpointing" not in vars(model), "nothing new is left behind"


def fail(model):
    unsloths_for_inference(model)
    raise ZeroDivisionError


def test_so_it_is_after_an_error(model):
    before = modes(model)
    with pytest.raises(ZeroDivisionError), inference(model):
        fail(model)
    assert modes(model) == before


def test_there_are_no_gradients_inside(model):
    with inference(model) as device:
        assert device.type == "cpu"
        assert not (model.layers[0].weight * 2).requires_grad
    assert (model.layers[0].weight * 2).requires_grad
