"""A tokenizer that knows the special tokens of any chat template."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[4] / "data" / "stdlib_qa" / "train.jsonl"
_SPECIAL = re.compile(r"<\|?/?[A-Za-z_][\w▁.:-]*\|?>|<\|\\?\"\|>|<｜[^｜<>]+｜>|\[/?[A-Z_]+\]")
_WORDS = {"<think>", "</think>", "<tool_call>", "</tool_call>"}  # not special in models either

TokenizerFor = Callable[..., Any]


@pytest.fixture(scope="session")
def tokenizer_for() -> TokenizerFor:
    """Make a byte-level BPE tokenizer with a template, its special tokens, and ``eos_token``."""
    from transformers import PreTrainedTokenizerFast

    bare = _train_bpe()

    def make(template: str, eos_token: str = "</s>") -> Any:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=copy.deepcopy(bare), bos_token="<s>", eos_token=eos_token
        )
        found = sorted(set(_SPECIAL.findall(template)) - _WORDS)
        tokenizer.add_special_tokens({"extra_special_tokens": found})
        tokenizer.chat_template = template
        return tokenizer

    return make


def _train_bpe() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with DATA.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"] for line in islice(lines, 200)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
