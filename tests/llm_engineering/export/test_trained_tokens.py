"""Tokens that the base model never learned: their rows alone are learned, merged and proven, or caught."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_attacks import edit
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import UnprovenError
from llm_engineering.export.exports import make_exports
from llm_engineering.export.merge import merge
from llm_engineering.export.parity import prove
from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.training.evaluate import evaluate

pytestmark = pytest.mark.slow

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
START = "<|im_start|>"


@pytest.fixture
def blanked(tiny_model: Path, tmp_path: Path) -> Any:
    """A model whose chat template writes a token of zeros, which is not what begins a text."""

    def make(*, tied: bool = False, dtype: str = "float32") -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / "blank")
        weights = load_file(folder / "model.safetensors")
        weights = {name: one.to(getattr(torch, dtype)) for name, one in weights.items()}
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer.pop("bos_token")
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        config = json.loads((folder / "config.json").read_text())
        weights[EMBEDDINGS][start_id(folder)] = 0
        if tied:
            del weights[HEAD]
            config["tie_word_embeddings"] = True
        (folder / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def start_id(folder: Path) -> int:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return int(next(token["id"] for token in vocabulary if token["content"] == START))


def exported(config: Any, run: Any, folder: Path) -> Any:
    """Recipe, trained probe, and the exports in ``folder``/run."""
    lora, dataset, adapter, record = run(config, folder)
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    shutil.copytree(adapter.folder, folder / "run" / "adapter")
    tokenizer = load_tokenizer(
        config.model, tokens=config.lora.trainable_tokens, template=lora.model.chat_template
    )
    tokenizer.save_pretrained(folder / "run" / "adapter")
    exports = make_exports(ExportSettings(merged_16bit=True), lora, folder / "run")
    return lora, evaluation.trained_probe, exports


def changed_rows(base: Path, merged: Path, name: str) -> dict[int, float]:
    """Rows of a matrix that are not the base model's, and by how much."""
    old = load_file(base / "model.safetensors")[name]
    new = load_file(merged / "model.safetensors")[name]
    change = (old.to(new.dtype).float() - new.float()).abs().amax(1)
    return {row: float(change[row]) for row in change.nonzero().flatten().tolist()}


SETTINGS = {"lora.trainable_tokens": [START], "train.learning_rate": 0.01, "train.max_steps": 12}


@pytest.mark.parametrize(
    ("tied", "dtype"), [(False, "float32"), pytest.param(True, "bfloat16", marks=pytest.mark.long)]
)
def test_their_rows_alone_are_learned_merged_and_proven_and_broken_ones_are_caught(
    tied: bool, dtype: str, blanked: Any, make_config: Any, run: Any, tmp_path: Path
) -> None:
    base = blanked(tied=tied, dtype=dtype)
    config = make_config({"model.id": str(base), "model.dtype": dtype, **SETTINGS})
    lora, trained, exports = exported(config, run, tmp_path)
    own, matrices = start_id(base), [EMBEDDINGS] if tied else [EMBEDDINGS, HEAD]
    per_row = 64 * len(matrices)
    assert lora.trainable_parameters == per_row + sum(t.adapter_parameters for t in lora.matched)
    merged = tmp_path / "run" / "merged"
    for name in matrices:
        assert list(changes := changed_rows(base, merged, name)) == [own]
        assert changes[own] > 0.02, "by its gradient, and not by weight decay alone"
    proofs = prove(exports, trained, lora.model)
    assert [proof.export for proof in proofs] == ["adapter", "merged_16bit"]

    def broken(name: str) -> Path:
        return shutil.copytree(tmp_path / "run", tmp_path / name)

    attacks = {}
    for row, name in [(own, one) for one in matrices] + [
        (own + 1, EMBEDDINGS),
        (599, matrices[-1]),
    ]:
        folder = broken(f"row {row} of {name}") / "merged"
        weights = load_file(folder / "model.safetensors")
        if row == own:
            weights[name][row] = load_file(base / "model.safetensors")[name][row]
        else:
            weights[name][row, 3] += 1.0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        attacks[f"row {row} of {name} is not"] = exports[1].model_copy(update={"path": str(folder)})
    empty = broken("empty") / "adapter"
    edit(empty, lambda tensors: [t.zero_() for n, t in tensors.items() if n.endswith(TRAINED_ROWS)])
    attacks["are not to the bit those that were trained"] = exports[0].model_copy(
        update={"path": str(empty)}
    )
    moved = broken("moved") / "adapter"
    values = json.loads((moved / "adapter_config.json").read_text())
    values["trainable_token_indices"] = {
        name: [own + 1] for name in values["trainable_token_indices"]
    }
    (moved / "adapter_config.json").write_text(json.dumps(values))
    attacks["puts the trained tokens of"] = exports[0].model_copy(update={"path": str(moved)})
    of_moved = tmp_path / "merged of moved"
    merge(base, moved, of_moved, stop_ids=lora.model.stop_ids)
    attacks[f"row {own} of "] = exports[1].model_copy(update={"path": str(of_moved)})
    others = [one.model_copy(update={"is_proven": False}) for one in exports]
    with pytest.raises(UnprovenError) as raised:
        prove([*others, *attacks.values()], trained, lora.model)
    _, *lines = str(raised.value).splitlines()
    assert len(lines) == len(attacks), raised.value
    for said, line in zip(attacks, lines, strict=True):
        assert said in line, line


def test_a_new_token_takes_a_spare_row_and_is_in_the_saved_tokenizer(
    tiny_model: Path, make_config: Any, run: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "padded"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.resize_token_embeddings(604)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    template = tmp_path / "new.jinja"
    template.write_text((tiny_model / "chat_template.jinja").read_text().replace(START, "<|turn|>"))
    new = {"lora.trainable_tokens": ["<|turn|>"], "model.chat_template": str(template)}
    config = make_config({"model.id": str(base), **SETTINGS, **new})

    lora, trained, exports = exported(config, run, tmp_path)

    assert [proof.rows for proof in prove(exports, trained, lora.model)] == [2, 2]
    merged = tmp_path / "run" / "merged"
    assert list(changed_rows(base, merged, EMBEDDINGS)) == [600]
    for folder in (tmp_path / "run" / "adapter", merged):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}], tokenize=True, return_dict=False
        )
        assert rendered[0] == 600
        assert tokenizer.decode([600, 300], skip_special_tokens=True) == tokenizer.decode([300])
