"""An adapter that the model's code goes past ends the training at its first step."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.errors import LoraError
from llm_engineering.model.finetuning.callbacks.reached import Reached


class TwoLayers(torch.nn.Module):
    def __init__(self, *, goes_past: bool) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        # An expert that no token is sent to has no gradient yet.
        self.mlp = torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(2, 2)])})
        self.second = torch.nn.Linear(2, 2, bias=False)
        self._goes_past = goes_past

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.second.weight
        x = self.first(x)
        return x @ (weight.detach() if self._goes_past else weight)


@pytest.mark.parametrize("goes_past", [False, True])
def test_a_tensor_without_a_gradient_is_named_at_the_first_step(goes_past: bool) -> None:
    model = TwoLayers(goes_past=goes_past)
    model(torch.ones(1, 2)).sum().backward()
    reached = Reached(model)
    if goes_past:
        said = r"1 of 5 trained tensors are reached by no gradient, as second\.weight"
        with pytest.raises(LoraError, match=said):
            reached.on_pre_optimizer_step(None, None, None)
    reached.on_pre_optimizer_step(None, None, None)  # once is enough
