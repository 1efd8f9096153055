"""A Llama of a given shape with random weights, made where it is used: nothing to fetch or to copy.

The weight file is sparse: its header says what the tensors are, its contents are a hole that reads
as zeros. So `load_model` reads it as it reads any other, and the weights are drawn on the GPU.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {  # to try a benchmark without a GPU
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "135m": {  # SmolLM2-135M
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "1b": {  # Llama-3.2-1B
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8b": {  # Llama-3.1-8B
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}


def write_model(shape: str, tokenizer: Path, folder: Path) -> Path:
    """Write ``folder/shape`` with a configuration, a tokenizer and empty weights, if it is missing.

    Args:
        shape: A key of ``SHAPES``.
        tokenizer: Folder of a tokenizer with at most as many tokens as the shape.
        folder: Of all such models.
    """
    model = folder / shape
    if (model / "config.json").is_file():
        return model
    model.mkdir(parents=True, exist_ok=True)
    for path in tokenizer.iterdir():
        if "tokenizer" in path.name or path.suffix == ".jinja":
            shutil.copy(path, model)
    config = SHAPES[shape] | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    write_weights(_tensors(config), model)
    (model / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return model


def draw_weights(model: Any, seed: int = 0) -> None:
    """Fill a loaded model with random weights, in place; norms are left at one."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in list(model.named_parameters()):
            owner = model.get_submodule(name.rpartition(".")[0])
            if "norm" in name:
                parameter.fill_(1.0)
            elif hasattr(owner, "hold"):  # in FP8: the same numbers, then rounded
                drawn = torch.empty(
                    parameter.shape, dtype=owner.compute_dtype, device=parameter.device
                )
                owner.hold(drawn.normal_(0.0, 0.02))
            elif parameter.is_floating_point():
                parameter.normal_(0.0, 0.02)


def write_weights(tensors: dict[str, list[int]], model: Path) -> None:
    """Write a sparse ``model.safetensors`` of bf16 zeros into a model's folder.

    Args:
        tensors: Shapes by name.
        model: The folder.
    """
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    # Named by a digest, as the Hub's cache does it, so that nothing reads the hole to hash it.
    blob = model / hashlib.sha256(text).hexdigest()
    with blob.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (model / "model.safetensors").symlink_to(blob.name)


def _tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    hidden, inner, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    found = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.self_attn.q_proj.weight": [queries, hidden],
            f"{at}.self_attn.k_proj.weight": [keys, hidden],
            f"{at}.self_attn.v_proj.weight": [keys, hidden],
            f"{at}.self_attn.o_proj.weight": [hidden, queries],
            f"{at}.mlp.gate_proj.weight": [inner, hidden],
            f"{at}.mlp.up_proj.weight": [inner, hidden],
            f"{at}.mlp.down_proj.weight": [hidden, inner],
            f"{at}.input_layernorm.weight": [hidden],
            f"{at}.post_attention_layernorm.weight": [hidden],
        }
    return found
