"""Feed-forward blocks in tiles of tokens: the numbers of one pass, less kept for them."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.model.finetuning.tiles import tile_feed_forward
from llm_engineering.planning.shape import is_feed_forward
from llm_engineering.training_stack import import_unsloth


@pytest.fixture(autouse=True)
def unsloth():
    import_unsloth()


def adapted(dropout=0.0):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=64,
    )  # fmt: skip
    lora = LoraConfig(
        target_modules=["q_proj", "gate_proj", "down_proj"], init_lora_weights=False, r=4,
        lora_dropout=dropout,
    )  # fmt: skip
    return get_peft_model(LlamaForCausalLM(config), lora).train()


def learned(model):
    """Loss and gradients of two rows of 37 tokens, which are four tiles and a part of one."""
    torch.manual_seed(1)
    ids = torch.randint(0, 64, (2, 37))
    model.zero_grad()
    torch.manual_seed(2)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), **grads}


@pytest.fixture
def seen(monkeypatch):
    """The tokens of each pass through a block's first projection."""
    found = []
    real = torch.nn.Linear.forward

    def noting(self, x):
        if self.out_features == 48:
            found.append(x.numel() // x.shape[-1])
        return real(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", noting)
    return found


def test_loss_and_gradients_are_those_of_one_pass(seen):
    model = adapted()
    expected = learned(model)
    assert set(seen) == {74}
    seen.clear()
    tile_feed_forward(model, True)
    found = learned(model)
    assert set(seen) == {16, 74 - 4 * 16}
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert found.keys() == expected.keys()


def test_they_go_through_in_one_again_and_twice_tiled_is_once(seen):
    model = adapted()
    tile_feed_forward(model, True)
    tile_feed_forward(model, True)
    learned(model)
    assert min(seen) > 1
    passes = len(seen)
    seen.clear()
    tile_feed_forward(model, False)
    learned(model)
    assert set(seen) == {74}
    assert len(seen) < passes
    assert all("forward" not in vars(module) for module in model.modules())


def test_what_was_put_in_the_place_of_a_block_goes_on_being_used():
    model, calls = adapted(), []
    block = model.base_model.model.model.layers[1].mlp

    def own(x, forward=block.forward):
        calls.append(x.shape)
        return forward(x)

    block.forward = own
    tile_feed_forward(model, True)
    learned(model)
    assert len(calls) > 5
    tile_feed_forward(model, False)
    assert block.forward is own


def test_dropout_is_drawn_alike_when_a_tile_is_worked_out_again():
    """Else gradients would belong to other outputs than those that the loss was worked out from."""
    model = adapted(dropout=0.5)
    tile_feed_forward(model, True)
    parameter = model.base_model.model.model.layers[0].mlp.down_proj.lora_B["default"].weight
    gradient = learned(model)["base_model.model.model.layers.0.mlp.down_proj.lora_B.default.weight"]
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        parameter.add_(step)
    up = learned(model)["loss"]
    with torch.no_grad():
        parameter.sub_(2 * step)
    down = learned(model)["loss"]
    assert (up - down).item() / 2e-3 == pytest.approx(gradient.norm().item(), rel=0.02)


def test_a_mixture_of_experts_has_no_such_block():
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            Qwen3MoeConfig(
                hidden_size=16, intermediate_size=32, moe_intermediate_size=8, num_experts=4,
                num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=64,
            )
        )  # fmt: skip
    assert not any(is_feed_forward(name, module) for name, module in model.named_modules())
