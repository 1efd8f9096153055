"""What the tests on a GPU share: a small random Llama, and a training in a row.

``make test-gpu`` (``python -m pytest -n4 -m gpu tests/gpu``), by hand before a release: the rest of the tests run on CPUs,
where unsloth trains by transformers' own forward pass and trl's loss. It needs the training stack and
this checkout alone, and takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """Skip all of it where PyTorch sees no GPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(autouse=True)
def eager(
    gpu: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Compile nothing but in the tests marked ``compiled``, where all is as for users.

    unsloth compiles each model's layers, and pieces of its losses by themselves whatever
    UNSLOTH_BLOCK_COMPILE says: 20 to 30 s a model, which change no figure but its last digits. The
    stance is PyTorch's own way to run all that is compiled as it stands; Triton's kernels stay.
    """
    import torch

    if request.node.get_closest_marker("compiled") is not None:
        yield
        return
    monkeypatch.setenv("UNSLOTH_BLOCK_COMPILE", "0")
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="session")
def small_model(gpu: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random four-layer Llama with heads of 64, as unsloth's kernels like them."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        dtype="float32",
        **special,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def on_gpu(small_model, make_config, preference_config):
    """``on_gpu(objective, overrides)``: a configuration of the small model, in 32 bit."""

    def configure(objective="sft", overrides=None):
        settings = {
            "model.id": str(small_model),
            "train.learning_rate": 0.003,
            "train.lr_scheduler": "constant",
            "train.warmup_steps": 0,
            **(overrides or {}),
        }
        return (
            make_config(settings) if objective == "sft" else preference_config(objective, settings)
        )

    return configure


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """At the end of a test its model is let go of."""
    from llm_engineering.model import live

    yield
    live.release()
