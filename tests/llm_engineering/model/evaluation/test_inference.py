"""Tests of ``llm_engineering.model.evaluation.inference``: a model runs as it is trained, and comes back."""

from __future__ import annotations

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
