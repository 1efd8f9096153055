"""What receives an adapter, chosen on the meta device from a model's modules alone."""

from __future__ import annotations

from typing import Any

import pytest
from families.shapes import FAMILIES, REFUSED

from llm_engineering.configuration.lora import HANDBOOK_TARGET_MODULES, LoraSettings
from llm_engineering.errors import LoraError
from llm_engineering.model.finetuning.targets import choose_targets
from llm_engineering.model.recipes import AdapterTargets
from llm_engineering.model_class import model_class
from llm_engineering.training_stack import import_unsloth

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")

BUILT = {**FAMILIES, "llama4": REFUSED}


def meta(name: str) -> Any:
    import_unsloth()
    import torch

    config = BUILT[name].configuration()
    if BUILT[name].vision:
        config.architectures = [
            f"{BUILT[name].config.removesuffix('Config')}ForConditionalGeneration"
        ]
    with torch.device("meta"):
        return model_class(config).from_config(config)


def chosen(name: str, *, quantised: bool = False, **changes: Any) -> AdapterTargets:
    return choose_targets(meta(name), LoraSettings(**changes), quantised=quantised)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("llama", HANDBOOK_TARGET_MODULES),
        ("phi3", ("down_proj", "o_proj", "qkv_proj", "gate_up_proj")),
        ("glm4", ("q_proj", "k_proj", "v_proj", "down_proj", "o_proj", "gate_up_proj")),
        ("starcoder2", ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")),
        ("gpt2", ("c_attn", "c_proj", "c_fc")),
        ("gpt_neox", ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")),
        ("lfm2", ("q_proj", "k_proj", "v_proj", "in_proj", "out_proj", "w1", "w3", "w2")),
    ],
)
def test_auto_takes_the_familys_own_names_and_the_handbooks_where_they_exist(
    name: str, modules: tuple[str, ...]
) -> None:
    assert chosen(name) == AdapterTargets(modules=modules)


def test_auto_takes_a_mixtures_experts_and_leaves_its_router_alone() -> None:
    found = chosen("mixtral")
    assert (found.modules, found.parameters, found.experts) == (ATTENTION, EXPERTS, 4)
    assert not found.frozen_experts
    llama4 = chosen("llama4")  # whose router is a linear module
    assert "router" not in llama4.modules
    assert llama4.parameters == EXPERTS
    assert "shared_expert_gate" not in chosen("qwen2_moe").modules


def test_all_linear_leaves_the_experts_frozen_and_says_so() -> None:
    found = chosen("qwen3_moe", target_modules="all-linear")
    assert (found.modules, found.parameters, found.frozen_experts) == (ATTENTION, (), True)


def test_shared_experts_that_peft_would_take_for_experts_are_adapted_as_parameters() -> None:
    found = chosen("deepseek_v3")
    assert (
        "gate_proj" not in found.modules
    )  # PEFT would turn it into the experts', of twice the rank
    assert {f"shared_experts.{one}_proj.weight" for one in ("gate", "up", "down")} <= set(
        found.parameters
    )
    assert {f"mlp.{one}_proj.weight" for one in ("gate", "up", "down")} <= set(found.parameters)

    in_4_bit = chosen("deepseek_v3", quantised=True)
    assert in_4_bit.parameters == EXPERTS
    assert set(in_4_bit.left_out) == {"gate_proj", "up_proj", "down_proj"}


def test_a_state_space_layers_output_is_left_out_with_the_reason() -> None:
    found = chosen("falcon_h1")
    assert "in_proj" in found.modules
    assert found.left_out == {
        "out_proj": "the state-space kernel reads its weight past any adapter"
    }
    with pytest.raises(LoraError, match="out_proj cannot be adapted here: the state-space kernel"):
        chosen("falcon_h1", target_modules=["q_proj", "out_proj"])


def test_a_vision_towers_projections_of_the_same_names_are_excluded() -> None:
    import re

    found = chosen("gemma3")
    assert found.modules == HANDBOOK_TARGET_MODULES
    assert found.exclude is not None
    names = [name for name, _ in meta("gemma3").named_modules() if name.endswith("q_proj")]
    kept = [name for name in names if not re.fullmatch(found.exclude, name)]
    assert kept == [f"model.language_model.layers.{n}.self_attn.q_proj" for n in range(2)]


def test_biases_of_a_vision_tower_are_not_trained_by_accident() -> None:
    with pytest.raises(
        LoraError, match=r"lora\.bias: all would also train biases of the parts that"
    ):
        chosen("gemma3", bias="all")


def test_a_router_beside_experts_that_are_modules_of_their_own_stays_frozen() -> None:
    """As models that bring their own code have them."""
    import_unsloth()
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 3, bias=False)
            self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
            self.down_proj = nn.Linear(8, 8)

    model = nn.Module()
    model.layers = nn.ModuleList([Block(), Block()])
    found = choose_targets(model, LoraSettings(), quantised=False)
    assert (found.modules, found.experts) == (
        ("down_proj", "experts.0", "experts.1", "experts.2"),
        3,
    )
    assert not found.frozen_experts


def test_names_may_be_those_of_linear_modules_or_of_expert_parameters() -> None:
    found = chosen("qwen3_moe", target_modules=["q_proj", "experts.down_proj"])
    assert (found.modules, found.parameters) == (("q_proj",), ("experts.down_proj",))
    attention = chosen("qwen3_moe", target_modules=["q_proj", "v_proj"])
    assert (attention.parameters, attention.frozen_experts) == ((), True)


def test_a_name_that_a_mixture_lacks_is_refused_with_what_it_has() -> None:
    with pytest.raises(LoraError) as error:
        chosen("qwen3_moe", target_modules=list(HANDBOOK_TARGET_MODULES))
    assert str(error.value) == (
        "lora.target_modules: up_proj, gate_proj matches no linear module of this model; it has "
        "q_proj (2), k_proj (2), v_proj (2), o_proj (2), experts.gate_up_proj (2), "
        "experts.down_proj (2). Set lora.target_modules: auto to take what it has"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_dropout": 0.1}, "lora.lora_dropout: 0.1 cannot go with adapters on the experts"),
        ({"use_dora": True}, "lora.use_dora: True cannot go with"),
        ({"init": "pissa"}, "lora.init: pissa cannot go with"),
        ({"bias": "all"}, "lora.bias: all would also train biases of a mixture's router"),
        ({"rank_pattern": {"c_attn": 4}}, "lora.rank_pattern: 'c_attn' matches no target module"),
    ],
)
def test_what_does_not_go_with_a_mixture_is_refused_by_its_key(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(LoraError) as error:
        chosen("mixtral", **changes)
    assert str(error.value).startswith(said)
    if "rank_pattern" not in changes and "bias" not in changes:
        chosen("mixtral", target_modules=["q_proj"], **changes)  # what the message advises
