"""The memory estimate against runs measured on one H100."""

from __future__ import annotations

import pytest

from llm_engineering.configuration.schema import FinetuningConfig, LoraSettings
from llm_engineering.model.memory import estimate_memory
from llm_engineering.model.references import LoraReference, ModelReference

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}


def estimate(micro_batch, checkpointing="none", quantisation="none", optimizer="adamw_torch"):
    config = FinetuningConfig.model_validate(
        {
            "model": {"id": "a/b"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "train": {"micro_batch": micro_batch, "optimizer": optimizer},
        }
    )
    model = ModelReference(
        id="a/b",
        revision=None,
        architecture="LlamaForCausalLM",
        dtype="bfloat16",
        quantisation=quantisation,
        max_seq_length=2048,
        chat_template="",
        stop_ids=(2,),
        trust_remote_code=False,
        weight_digests={},
        parameters=8_030_261_248,
    )
    lora = LoraReference(
        model=model,
        settings=LoraSettings(),
        gradient_checkpointing=checkpointing,
        matched=(),
        trainable_parameters=83_886_080,
        total_parameters=8_114_147_328,
        scaling=1.0,
    )
    return estimate_memory(config, lora, LLAMA_8B)


# Peak GB of the 8B shape, rank 32 on seven projections, rows of 2,048 tokens, bf16.
@pytest.mark.parametrize(("micro_batch", "measured_gb"), [(2, 33.4), (4, 49.4), (8, 81.1)])
def test_without_checkpointing_it_is_a_little_above_what_was_measured(micro_batch, measured_gb):
    assert 1.0 < estimate(micro_batch).total / 1e9 / measured_gb < 1.10


def test_checkpointing_and_quantisation_take_less():
    plain, unsloth = estimate(4, "plain").total, estimate(4, "unsloth").total
    assert estimate(4).total > plain > unsloth
    assert estimate(4, "unsloth", "nf4").weights < 0.3 * estimate(4, "unsloth").weights
    assert estimate(4, optimizer="adamw_8bit").adapter < estimate(4).adapter


def test_the_largest_part_is_named():
    assert estimate(8).largest().startswith("activations ")
    assert estimate(2, "unsloth").largest().startswith("weights ")
