"""A model comes out of inference as it went in, whatever was done to it meanwhile."""

from types import SimpleNamespace

import pytest
import torch

from llm_engineering.model.evaluation.inference import inference


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.gradient_checkpointing = True
        self.dropout = torch.nn.Dropout(0.5)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(), Layer()])
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
        if isinstance(part, Layer):
            part.gradient_checkpointing = False
            part._flag_for_generation = True


@pytest.fixture
def model():
    model = Model().train()
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
