"""What the families share: one tokenizer, a dozen rows, and what each family lived through."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from families.lifecycle import Lived, live_through
from families.shapes import FAMILIES, write_model
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset

DATA = Path(__file__).resolve().parents[2] / "data" / "stdlib_qa"
SHORT = 250
"""Characters of a line, in which a row of at most 128 tokens has room."""

MakeFamily = Callable[..., FinetuningConfig]


@pytest.fixture(scope="session")
def family_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows of this session."""
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="session")
def family_config(tiny_model: Path, family_root: Path) -> MakeFamily:
    """A configuration by a family's name, and keys that differ; its model is written once."""
    for split, count in {"train": 12, "held_out": 4}.items():
        with (DATA / f"{split}.jsonl").open(encoding="utf-8") as lines:
            short = list(islice((line for line in lines if len(line) < SHORT), count))
        (family_root / f"{split}.jsonl").write_text("".join(short), encoding="utf-8")

    def make(name: str, changes: dict[str, Any] | None = None) -> FinetuningConfig:
        model = family_root / "models" / name
        if not model.is_dir():
            write_model(FAMILIES[name], model, tiny_model)
        values: dict[str, Any] = {
            "run": {"output_dir": str(family_root / "outputs")},
            "model": {"id": str(model), "max_seq_length": 128, "dtype": "float32"},
            "data": {
                "sources": [{"source": str(family_root / "train.jsonl")}],
                "held_out": {"source": str(family_root / "held_out.jsonl")},
            },
            "lora": {"r": 4, "lora_alpha": 8},
            "train": {
                "max_steps": FAMILIES[name].steps, "micro_batch": 2, "gradient_accumulation": 1,
                "warmup_steps": 0, "learning_rate": 0.02, "log_every": 1, "checkpoint_every": None,
            },
            "evaluate": {
                "samples": 1, "max_new_tokens": 2, "generic_passages": 1, "parity_rows": 2,
            },
        }  # fmt: skip
        for key, value in (changes or {}).items():
            section, _, last = key.rpartition(".")
            values.setdefault(section, {})[last] = value
        return FinetuningConfig.model_validate(values)

    return make


@pytest.fixture(scope="session")
def family_rows(family_config: MakeFamily, family_root: Path) -> PreparedDataset:
    """The rows as tokens of the tokenizer that all the tiny models share."""
    from llm_engineering.data.prepare import prepare_data

    config = family_config("llama")
    folder = family_root / "dataset"
    return prepare_data(config.data, config.model, objective="sft", folder=folder, validates=False)


@pytest.fixture(scope="session")
def lived(
    family_config: MakeFamily, family_rows: PreparedDataset, family_root: Path
) -> Callable[[str], Lived]:
    """What a family lived through, once a session."""
    known: dict[str, Lived] = {}

    def find(name: str) -> Lived:
        if name not in known:
            folder = family_root / "runs" / name
            known[name] = live_through(family_config(name), family_rows, folder)
        return known[name]

    return find
