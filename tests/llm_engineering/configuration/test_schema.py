"""The JSON Schema that editors read, and what people are told of a key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llm_engineering.configuration.schema import explain, json_schema, keys
from llm_engineering.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_the_file_is_current() -> None:
    """``UPDATE_SCHEMA=1 pytest -n0 PATH`` writes it anew."""
    file = CONFIGS / "schema.json"
    text = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SCHEMA"):
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("path", CONFIGS.glob("*.yaml"), ids=lambda path: path.name)
def test_editors_find_it_and_accept_our_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert not list(_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 0), ("rank", 8), ("init", "magic"), ("lora_dropout", 1.0), ("use_dora", "perhaps")],
)
def test_editors_mark_what_is_wrong(key: str, value: Any) -> None:
    values = yaml.safe_load((CONFIGS / "finetuning.yaml").read_text(encoding="utf-8"))
    values["lora"][key] = value
    (error,) = _errors(values)
    assert key in str(error)


def _errors(values: Any) -> Any:
    # As editors read YAML (1.2): PyYAML takes 2e-3 for text.
    rate = values["train"].get("learning_rate")
    if rate not in (None, "auto"):
        values["train"]["learning_rate"] = float(rate)
    return jsonschema.Draft202012Validator(json_schema()).iter_errors(values)


def test_every_key_is_described() -> None:
    assert not [key.name for key in keys() if not key.description]


def test_a_key_is_told_with_its_range_and_default() -> None:
    (rank,) = explain("lora.r")
    assert (rank.values, rank.default) == ("integer (more than 0)", "32")
    (quantisation,) = explain("model.quantisation")
    assert quantisation.values == '"none", "nf4", "fp8"'
    (model,) = explain("model.id")
    assert model.default is None
    assert explain("data.sources.0.form") == explain("data.sources.form")
    names = [key.name for key in explain("lora")]
    assert names[:2] == ["lora", "lora.r"]


@pytest.mark.parametrize(
    ("name", "alike"),
    [("learning_rate", "train.learning_rate"), ("lora.rr", "lora.r"), ("trian", "train")],
)
def test_another_name_is_refused_with_the_nearest(name: str, alike: str) -> None:
    with pytest.raises(ConfigError, match=rf"no key {name}; did you mean .*{alike}"):
        explain(name)
