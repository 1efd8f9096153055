"""The families: a tiny model of each, two layers and random weights, by transformers' own configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY = 600
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAMBA = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}  # fmt: skip
_DELTA = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_EYES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
_QWEN_EYES = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32,
    "patch_size": 14,
}  # fmt: skip
_QWEN_TOKENS = {
    "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8,
    "tie_word_embeddings": False,
}  # fmt: skip
_MULTIMODAL_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_TIED = {"tie_word_embeddings": True}


@dataclass(frozen=True)
class Family:
    """One family's configuration class and what differs from the sizes that all share."""

    title: str
    config: str
    values: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None
    vision: dict[str, Any] | None = None
    steps: int = 3

    def configuration(self) -> Any:
        """transformers' configuration of the tiny model."""
        import transformers

        made = getattr(transformers, self.config)
        if self.vision is None:
            return made(**(_SIZES | self.values))
        text = _SIZES | (self.text or {})
        return made(text_config=text, vision_config=self.vision, **self.values)


FAMILIES: dict[str, Family] = {
    "llama": Family("Llama", "LlamaConfig"),
    "mistral": Family("Mistral", "MistralConfig"),
    "qwen2": Family("Qwen2, Qwen2.5", "Qwen2Config"),
    "qwen3": Family("Qwen3", "Qwen3Config"),
    "gemma": Family("Gemma", "GemmaConfig", _TIED),
    "gemma2": Family("Gemma 2", "Gemma2Config", _TIED),
    "gemma3_text": Family("Gemma 3, text (1B)", "Gemma3TextConfig", _TIED),
    "granite": Family("Granite", "GraniteConfig"),
    "cohere2": Family("Command R7B (Cohere2)", "Cohere2Config", _TIED),
    "olmo2": Family("OLMo 2", "Olmo2Config"),
    "olmo3": Family("OLMo 3", "Olmo3Config"),
    "smollm3": Family("SmolLM3", "SmolLM3Config"),
    "stablelm": Family("StableLM", "StableLmConfig"),
    "ernie4_5": Family("Ernie 4.5", "Ernie4_5Config"),
    "exaone4": Family("EXAONE 4", "Exaone4Config"),
    "seed_oss": Family("Seed-OSS", "SeedOssConfig"),
    "hunyuan": Family("Hunyuan dense", "HunYuanDenseV1Config"),
    "phi": Family("Phi-1, Phi-2", "PhiConfig"),
    "phi3": Family("Phi-3, Phi-4", "Phi3Config"),
    "glm4": Family("GLM-4", "Glm4Config"),
    "starcoder2": Family("StarCoder2", "Starcoder2Config"),
    "nemotron": Family("Nemotron", "NemotronConfig"),
    "gpt_neox": Family("GPT-NeoX, Pythia", "GPTNeoXConfig"),
    "gpt2": Family("GPT-2", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "lfm2": Family(
        "LFM2", "Lfm2Config",
        {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "falcon_h1": Family(
        "Falcon-H1", "FalconH1Config", _MAMBA | {"mamba_d_ssm": 32, "mamba_n_heads": 4}
    ),
    "mixtral": Family("Mixtral", "MixtralConfig", _LOCAL),
    "qwen2_moe": Family(
        "Qwen2-MoE", "Qwen2MoeConfig", _SPARSE | {"shared_expert_intermediate_size": 24}
    ),
    "qwen3_moe": Family("Qwen3-MoE", "Qwen3MoeConfig", _SPARSE),
    "gpt_oss": Family(
        "gpt-oss", "GptOssConfig",
        _LOCAL | {
            "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "olmoe": Family("OLMoE", "OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": Family("Granite-MoE", "GraniteMoeConfig", _LOCAL),
    "granitemoehybrid": Family(
        "Granite 4, hybrid", "GraniteMoeHybridConfig",
        _LOCAL | _MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 24},
        steps=9,
    ),
    "deepseek_v3": Family(
        "DeepSeek-V3", "DeepseekV3Config",
        _ROUTED | {
            "head_dim": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16,
            "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
        },
    ),
    "glm4_moe": Family("GLM-4.5 (GLM4-MoE)", "Glm4MoeConfig", _ROUTED),
    "qwen3_next": Family(
        "Qwen3-Next", "Qwen3NextConfig",
        _SPARSE | _DELTA | {"shared_expert_intermediate_size": 24},
    ),
    "ernie4_5_moe": Family(
        "Ernie 4.5 MoE", "Ernie4_5_MoeConfig",
        {
            "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16,
            "moe_num_shared_experts": 1, "moe_layer_start_index": 1, "moe_layer_end_index": 1,
            "moe_layer_interval": 1,
        },
    ),
    "lfm2_moe": Family(
        "LFM2-MoE", "Lfm2MoeConfig",
        _SPARSE | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    ),
    "gemma3": Family(
        "Gemma 3 (4B and more)", "Gemma3Config",
        {"mm_tokens_per_image": 4, "image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7},
        text=_TIED, vision=_EYES | {"model_type": "siglip_vision_model"}, steps=9,
    ),
    "qwen2_5_vl": Family(
        "Qwen2.5-VL", "Qwen2_5_VLConfig", _QWEN_TOKENS,
        text={"rope_parameters": _MULTIMODAL_ROPE},
        vision=_QWEN_EYES | {"fullatt_block_indexes": [0]},
    ),
    "qwen3_vl": Family(
        "Qwen3-VL", "Qwen3VLConfig", _QWEN_TOKENS,
        text={"rope_parameters": _MULTIMODAL_ROPE | {"mrope_interleaved": True}},
        vision=_QWEN_EYES | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    ),
    "qwen3_5": Family(
        "Qwen3.5", "Qwen3_5Config", _QWEN_TOKENS,
        text=_DELTA | {
            "rope_parameters": _MULTIMODAL_ROPE
            | {"mrope_interleaved": True, "partial_rotary_factor": 1.0}
        },
        vision=_QWEN_EYES | {"num_position_embeddings": 16},
    ),
    "mistral3": Family(
        "Mistral Small 3", "Mistral3Config", {"image_token_index": 5},
        text={"model_type": "mistral"}, vision=_EYES | {"model_type": "pixtral", "head_dim": 8},
    ),
}  # fmt: skip


REFUSED = Family(
    "Llama 4", "Llama4Config", {"image_token_index": 5},
    text={
        "model_type": "llama4_text", "num_local_experts": 4, "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48, "interleave_moe_layer_step": 2,
    },
    vision=_EYES | {
        "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
        "model_type": "llama4_vision_model",
    },
)  # fmt: skip
"""Its text part is a whole model, with a head of its own."""


def write_model(family: Family, folder: Path, tokenizer_of: Path) -> Path:
    """Write a family's tiny model in float32, with the tokenizer of another one.

    Its names in the files are those that transformers saves, which are the published checkpoints'.
    """
    import shutil

    import torch
    from transformers import GenerationConfig

    from llm_engineering.model_class import model_class

    config = family.configuration()
    config.architectures = [_class_name(config, family)]
    torch.manual_seed(0)
    model = model_class(config).from_config(config).to(torch.float32)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy2(tokenizer_of / name, folder / name)
    return folder


def _class_name(config: Any, family: Family) -> str:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if family.vision else MODEL_FOR_CAUSAL_LM_MAPPING
    return str(mapping[type(config)].__name__)
