"""Models of known families at their full width but with few layers, with random weights.

Configurations are those of the Hub's models; the names and shapes of the weights are what transformers
builds from them, under the names that a checkpoint has.

    python benchmarks/cut_models.py qwen3-30b-a3b 12 FOLDER [--tokenizer FOLDER]

writes such a model with weights drawn at random, for the whole command; in memory they are drawn anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from random_llama import write_weights

_VOCABULARY = 32000
_POSITIONS = {"phi3-mini": 4096, "llama-3.1-8b": 131072}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "dtype": "bfloat16"}

MODELS: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "qwen3-8b": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
        "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"],
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
        "sliding_window": None,
    },
    "gemma3-4b": {
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "mm_tokens_per_image": 256, "image_token_index": 5, "boi_token_index": 6,
        "eoi_token_index": 7,
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "head_dim": 256, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 262208, "sliding_window": 1024,
            "query_pre_attn_scalar": 256, "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
            "num_attention_heads": 16, "num_hidden_layers": 27, "image_size": 896, "patch_size": 14,
            "vision_use_head": False,
        },
    },
    "gemma3-1b": {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26, "head_dim": 256,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 262144,
        "sliding_window": 512, "query_pre_attn_scalar": 256, "tie_word_embeddings": True,
    },
    "phi3-mini": {
        "model_type": "phi3", "architectures": ["Phi3ForCausalLM"],
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
        "num_hidden_layers": 48, "head_dim": 128, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 151936, "decoder_sparse_step": 1,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"],
        "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "num_local_experts": 32,
        "num_experts_per_tok": 4, "vocab_size": 201088, "sliding_window": 128,
    },
}  # fmt: skip


def write_cut_model(name: str, layers: int, tokenizer: Path, folder: Path) -> Path:
    """Write ``folder/name-layers`` with a configuration, a tokenizer and empty weights.

    Args:
        name: A key of ``MODELS``.
        layers: How many of its layers.
        tokenizer: Folder of a tokenizer whose special tokens are among the model's rows.
        folder: Of all such models.
    """
    model = folder / f"{name}-{layers}"
    if (model / "config.json").is_file():
        return model
    model.mkdir(parents=True, exist_ok=True)
    for path in tokenizer.iterdir():
        if "tokenizer" in path.name or path.suffix == ".jinja":
            shutil.copy(path, model)
    _cut_vocabulary(model / "tokenizer.json")
    config = MODELS[name] | _TOKENS
    cut = {
        "num_hidden_layers": layers,
        "max_position_embeddings": _POSITIONS.get(name, 32768),
    }
    if "text_config" in config:
        config["text_config"] = config["text_config"] | cut
    else:
        config |= cut
    text = json.dumps(config, indent=2)
    (model / "config.json").write_text(text, encoding="utf-8")
    try:
        write_weights(_stored_tensors(model), model)
    except BaseException:
        (model / "config.json").unlink()
        raise
    return model


def _cut_vocabulary(path: Path) -> None:
    """Leave a byte-level BPE tokenizer its first tokens: those of every model here are more."""
    stated = json.loads(path.read_text(encoding="utf-8"))
    bpe = stated["model"]
    bpe["vocab"] = {token: number for token, number in bpe["vocab"].items() if number < _VOCABULARY}
    bpe["merges"] = [
        pair
        for pair in bpe["merges"]
        if "".join(pair.split(" ") if isinstance(pair, str) else pair) in bpe["vocab"]
    ]
    path.write_text(json.dumps(stated), encoding="utf-8")


def _stored_tensors(model: Path) -> dict[str, list[int]]:
    """Shapes by name, as a checkpoint has them: a mixture's experts one by one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    state = revert_weight_conversion(built, dict(built.state_dict()))
    tied = set(getattr(built, "all_tied_weights_keys", {}) or {})
    return {name: list(tensor.shape) for name, tensor in state.items() if name not in tied}


def fill_weights(model: Path) -> None:
    """Draw the weights of a written model into its file; norms are one, biases zero."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with (model / "model.safetensors").open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name == "__metadata__" or name.endswith("bias"):
                continue
            begin, end = tensor["data_offsets"]
            drawn = torch.empty((end - begin) // 2, dtype=torch.bfloat16, device=device)
            drawn = drawn.fill_(1.0) if "norm" in name else drawn.normal_(0.0, 0.02)
            file.seek(8 + length + begin)
            file.write(memoryview(drawn.cpu().view(torch.uint8).numpy()))


def main() -> None:
    """Write a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("layers", type=int)
    parser.add_argument("folder", type=Path)
    embedded = Path(__file__).resolve().parents[1] / "models" / "SmolLM2-135M-Instruct"
    parser.add_argument("--tokenizer", type=Path, default=embedded)
    options = parser.parse_args()
    model = write_cut_model(options.name, options.layers, options.tokenizer, options.folder)
    fill_weights(model)
    print(model)


if __name__ == "__main__":
    main()
