"""A wrong setting is refused by the modules alone: no weight is read for it."""

from __future__ import annotations

import pytest

from llm_engineering.errors import ExportError, LoraError, ModelError
from llm_engineering.model.base_model import read_config
from llm_engineering.model.finetuning.preflight import check_adapter, describe_targets
from llm_engineering.model.recipes import AdapterTargets


@pytest.fixture
def no_weights(tiny_model, tmp_path):
    """The tiny model's configuration and tokenizer, without its weights."""
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"lora.target_modules": ["query"]}, LoraError, "query matches no linear module"),
        ({"lora.rank_pattern": {"c_attn": 4}}, LoraError, "matches no target module"),
        ({"model.max_seq_length": 513}, ModelError, "513 tokens are more than the 512 positions"),
    ],
)
def test_wrong_settings_are_refused_without_weights(make_config, no_weights, changes, kind, said):
    with pytest.raises(kind, match=said):
        check_adapter(make_config(changes | {"model.id": str(no_weights)}))


def test_a_configuration_that_no_library_knows_is_refused_by_its_file(make_config, no_weights):
    import json

    config = read_config(no_weights) | {"model_type": "unheard_of"}
    (no_weights / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cannot build a language model from .*config\.json"):
        check_adapter(make_config({"model.id": str(no_weights)}))


def test_files_of_another_architecture_are_refused_by_a_tensors_name(
    make_config, tiny_model, tmp_path
):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_model, tmp_path / "renamed")
    stored = load_file(folder / "model.safetensors")
    renamed = {name.replace("self_attn", "attention"): one for name, one in stored.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"no tensor of its files becomes model\.layers\.0\.self_attn"
    ):
        check_adapter(make_config({"model.id": str(folder)}))


def test_a_gguf_that_could_not_be_proven_is_refused(make_config, tiny_model, tmp_path):
    from families.shapes import FAMILIES, write_model

    folder = write_model(FAMILIES["granite"], tmp_path / "granite", tiny_model)
    changes = {"model.id": str(folder), "model.max_seq_length": 128, "export.merged_16bit": True}
    check_adapter(make_config(changes))
    with pytest.raises(ExportError, match=r"export\.gguf: transformers reads no GGUF of granite"):
        check_adapter(make_config(changes | {"export.gguf": "q8_0"}))


def test_what_was_chosen_is_said_in_words():
    targets = AdapterTargets(
        modules=("q_proj",),
        parameters=("experts.down_proj", "shared_expert.up_proj.weight"),
        experts=8,
        exclude="vision.*",
        left_out={"out_proj": "a reason"},
        token_rows={"model.embed_tokens": (7, 9), "lm_head": (7, 9)},
    )
    assert describe_targets(targets, ["<a>", "<b>"]) == [
        "adapters on q_proj, experts.down_proj, shared_expert.up_proj",
        "trained tokens, each a row of model.embed_tokens and lm_head: <a> <b>",
        "a mixture of 8 experts a layer: the router is frozen",
        "not adapted, though of these names: vision.*",
        "out_proj has no adapter: a reason",
    ]
