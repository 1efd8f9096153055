"""model.tar.gz is what a serving container takes, and comes home as what a local run leaves."""

from __future__ import annotations

import re

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.serving_layout import (
    LAYOUT,
    PROPERTIES,
    ServedFrom,
    arrange,
    restore,
    unservable,
)

HUB = ServedFrom(name="tiny-qa", base="owner/name", revision="0123abc")


def make_config(changes) -> FinetuningConfig:
    """A configuration: ``make_config({"lora.r": 8})``."""
    values = {
        "model": {"id": "owner/name"},
        "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
    }
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return FinetuningConfig.model_validate(values)


@pytest.fixture
def folder(tmp_path):
    """A model folder before it is arranged: ``folder(merged=True)``."""

    def make(merged=False):
        made = tmp_path / "model"
        for name in ("adapter", "records", *(["merged"] if merged else [])):
            (made / name).mkdir(parents=True)
        (made / "adapter" / "adapter_model.safetensors").write_bytes(b"lora")
        (made / "manifest.json").write_text("{}")
        if merged:
            (made / "merged" / "config.json").write_text('{"model_type": "llama"}')
            (made / "merged" / "model.safetensors").write_bytes(b"all")
        return made

    return make


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def properties(folder):
    lines = (folder / PROPERTIES).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_an_adapter_lies_in_its_folder_beside_its_base(folder):
    made = folder()
    before = files(made)
    config = make_config({"lora.r": 20})
    layout = arrange(made, HUB, config)
    assert (made / "adapters" / "tiny-qa" / "adapter_model.safetensors").read_bytes() == b"lora"
    assert not (made / "adapter").exists()
    assert properties(made) == {
        "engine": "Python",
        "option.model_id": "owner/name",
        "option.revision": "0123abc",
        "option.enable_lora": "true",
        "option.max_lora_rank": "32",
    }
    assert layout.text == "LMI: the adapter tiny-qa, on owner/name"
    assert restore(made) == layout.text
    (made / LAYOUT).unlink()
    assert files(made) == before


def test_a_merged_model_lies_at_the_root_without_lora(folder):
    made = folder(merged=True)
    before = files(made)
    arrange(made, HUB, make_config({"export.merged_16bit": True, "lora.use_dora": True}))
    assert (made / "config.json").is_file()
    assert (made / "model.safetensors").is_file()
    assert properties(made) == {"engine": "Python"}, "a container takes the root itself"
    assert not (made / "adapters").exists()
    restore(made)
    (made / LAYOUT).unlink()
    assert files(made) == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lora.use_dora": True}, "no DoRA adapter"),
        ({"lora.trainable_tokens": ["<a>"]}, r"trained tokens \(lora.trainable_tokens\)"),
        ({"lora.bias": "all"}, r"trained biases \(lora.bias: all\)"),
        ({"lora.r": 300, "lora.init": "pissa"}, "of rank 600, at most 512"),
        ({"lora.r": 8, "lora.rank_pattern": {"q_proj": 600}}, "of rank 600"),
    ],
)
def test_what_no_container_takes_is_said(folder, changes, why):
    made = folder()
    config = make_config(changes)
    layout = arrange(made, HUB, config)
    assert re.search(rf"none: vLLM takes .*{why}.*export.merged_16bit: true", layout.text)
    assert not (made / PROPERTIES).exists()
    assert restore(made) == layout.text
    assert unservable(config) in layout.text
    assert unservable(make_config({**changes, "export.merged_16bit": True})) is None


def test_another_chat_template_than_the_base_models_is_told(folder):
    layout = arrange(folder(), HUB, make_config({"model.chat_template": "alpaca"}))
    assert "not model.chat_template: send rendered prompts" in layout.text


def test_the_ranks_of_the_saved_adapter_count(folder):
    config = make_config({"lora.r": 16, "lora.init": "pissa", "lora.rank_pattern": {"q_proj": 48}})
    made = folder()
    arrange(made, HUB, config)
    assert properties(made)["option.max_lora_rank"] == "128"


def test_an_archive_of_before_is_left_as_it_is(folder):
    made = folder()
    before = files(made)
    assert restore(made) == ""
    assert files(made) == before


@pytest.mark.parametrize(
    "note",
    [
        '{"adapter": "adapters/../../x", "text": ""}',
        '{"adapter": "/etc", "text": ""}',
        '{"merged": ["../x"], "text": ""}',
        "[]",
    ],
)
def test_a_note_that_leads_elsewhere_is_refused(folder, note):
    made = folder()
    (made / LAYOUT).write_text(note)
    with pytest.raises(LaunchError, match="no layout that a job writes"):
        restore(made)
