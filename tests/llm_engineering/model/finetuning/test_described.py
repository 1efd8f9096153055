"""What is told of a model by its files alone, held against what PyTorch and PEFT say of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.errors import LoraError, ModelError
from llm_engineering.model import weight_headers as headers
from llm_engineering.model.base_model import read_config
from llm_engineering.model.finetuning import described
from llm_engineering.model.finetuning.inject import describe_lora
from llm_engineering.model.finetuning.load import count_parameters, describe_model, meta_model
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.training_stack import import_unsloth

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DENSE = [
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "cohere2", "olmo2", "phi3",
    "glm4", "lfm2", "nemotron", "gpt_neox",
]  # fmt: skip
MIXTURES = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "qwen2_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
    },
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip
UNTOLD = {
    "granitemoe": "a mixture of experts, and how granitemoe keeps them is not known here",
    "gpt2": "gpt2 keeps its projections in another form",
    "falcon_h1": "falcon_h1 has state-space layers",
}


@pytest.fixture(scope="module")
def recipe_of_family(tmp_path_factory):
    """The recipe of a tiny model of a family, saved as that family's models are."""
    made = {}

    def make(kind):
        if kind not in made:
            import_unsloth()
            from transformers import CONFIG_MAPPING, AutoModelForCausalLM

            more = {"lfm2": {"layer_types": ["conv", "full_attention"]}, **MIXTURES}
            config = CONFIG_MAPPING[kind](**{**SMALL, **more.get(kind, {})})
            folder = tmp_path_factory.mktemp("families") / kind
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            made[kind] = ModelRecipe(
                id=str(folder), revision=None, architecture="", dtype="float32",
                quantisation="none", max_seq_length=64, chat_template="", stop_ids=(2,),
                trust_remote_code=False, weight_digests={}, parameters=0,
            )  # fmt: skip
        return made[kind]

    return make


def in_any_order(lora):
    values = {**lora.model_dump(), "matched": sorted(map(str, lora.matched))}
    for key in ("modules", "parameters"):
        values["targets"][key] = sorted(values["targets"][key])
    return values


def outline(recipe, **config):
    tensors = headers.weight_headers(recipe.settings)
    return described.outline_of(read_config(Path(recipe.id)) | config, tensors)


@pytest.mark.parametrize("kind", DENSE)
def test_a_dense_family_is_told_as_peft_tells_it(recipe_of_family, kind, monkeypatch):
    recipe = recipe_of_family(kind)
    settings = LoraSettings(
        r=4, lora_alpha=8, target_modules="all-linear", bias="lora_only", use_dora=True,
        rank_pattern={r"layers\.1\..*": 2}, alpha_pattern={"o_proj|dense": 6},
    )  # fmt: skip
    if kind not in ("llama", "qwen2"):  # others' modules have other names
        settings = LoraSettings(r=4, target_modules="all-linear", bias="all")
    theirs = describe_lora(recipe, settings)
    parameters = count_parameters(meta_model(recipe.settings))
    monkeypatch.setattr(described, "describe_lora", lambda *_: pytest.fail("asked PyTorch"))
    found = outline(recipe)
    assert found.parameters == parameters
    ours = described.describe_launched_lora(recipe, settings)
    assert in_any_order(ours) == in_any_order(theirs)


EXPERTS = {"target_modules": ["q_proj", "experts.gate_up_proj"]}


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"target_modules": "all-linear", "use_dora": True},
        {"rank_pattern": {"experts.down_proj": 2, "q_proj": 8}, "alpha_pattern": {"o_proj": 3}},
        {"use_rslora": True, **EXPERTS},
        {"target_modules": ["self_attn.v_proj", "down_proj"]},
    ],
    ids=["auto", "dora", "patterns", "rslora", "named"],
)
@pytest.mark.parametrize("quantisation", ["none", "nf4"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixture_is_told_as_peft_tells_it(
    recipe_of_family, kind, quantisation, lora, monkeypatch
):
    recipe = recipe_of_family(kind).model_copy(update={"quantisation": quantisation})
    settings = LoraSettings(r=4, **lora)
    theirs = describe_lora(recipe, settings)
    monkeypatch.setattr(described, "describe_lora", lambda *_: pytest.fail("asked PyTorch"))
    assert outline(recipe).parameters == count_parameters(meta_model(recipe.settings))
    ours = described.describe_launched_lora(recipe, settings)
    assert in_any_order(ours) == in_any_order(theirs)


def require_refused_alike(recipe, wrong):
    said = []
    for describe in (described.describe_launched_lora, describe_lora):
        with pytest.raises(LoraError) as error:
            describe(recipe, LoraSettings(**wrong))
        said.append(str(error.value).partition("; it has")[0])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_modules": ["gate"]},
        {"target_modules": ["w1"]},
        {"bias": "all"},
        {"use_dora": True},
        {"lora_dropout": 0.1, **EXPERTS},
        {"rank_pattern": {"gate": 8}},
    ],
)
def test_what_a_mixture_cannot_take_is_refused_as_with_pytorch(recipe_of_family, wrong):
    recipe = recipe_of_family("mixtral")
    require_refused_alike(recipe, wrong)


def test_experts_that_are_held_otherwise_are_not_guessed_at(recipe_of_family):
    recipe = recipe_of_family("mixtral")
    tensors = headers.weight_headers(recipe.settings)
    config = read_config(Path(recipe.id))

    def told(change, **more):
        return described.outline_of(config | more, {**tensors, **change})

    one = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    router = "model.layers.0.block_sparse_moe.gate.weight"
    joined = {"model.layers.0.mlp.experts.gate_up_proj": headers.StoredTensor("F32", (4, 96, 32))}
    assert isinstance(told({}), described.Outline)
    assert "of unlike shapes" in told({one: headers.StoredTensor("F32", (40, 32))})
    assert "of unlike shapes" in told({router: headers.StoredTensor("F32", (3, 32))})
    assert "of unlike shapes" in told({}, num_local_experts=8)
    assert "another form" in told(joined)
    assert "with layers that have none" in told({}, num_hidden_layers=3)


def test_a_module_of_one_layer_is_refused_here_and_there(recipe_of_family, monkeypatch):
    """PEFT is told last names, and which other modules have them, in whatever layer."""
    recipe = recipe_of_family("llama")
    settings = LoraSettings(r=4, target_modules=["0.self_attn.q_proj"])
    with pytest.raises(LoraError, match="leave the layer's number out"):
        described.describe_launched_lora(recipe, settings)
    monkeypatch.setattr(described, "has_pytorch", lambda: False)
    with pytest.raises(ModelError, match=r"others have the names.*run `make setup`"):
        described.describe_launched_lora(recipe, settings)


def test_named_targets_and_their_refusals(recipe_of_family):
    recipe = recipe_of_family("llama")
    settings = LoraSettings(r=4, use_rslora=True)
    assert described.describe_launched_lora(recipe, settings) == describe_lora(recipe, settings)
    for wrong in (
        {"target_modules": ["query"]},
        {"target_modules": ["q_proj"], "rank_pattern": {"k_proj": 8}},
        {"target_modules": ["lm_head"]},
    ):
        require_refused_alike(recipe, wrong)


@pytest.mark.parametrize("kind", UNTOLD)
def test_what_files_do_not_tell_is_asked_of_pytorch_or_refused(recipe_of_family, kind, monkeypatch):
    recipe = recipe_of_family(kind)
    assert UNTOLD[kind] in outline(recipe)
    asked = []
    monkeypatch.setattr(described, "describe_lora", lambda *given: asked.append(given))
    described.describe_launched_lora(recipe, LoraSettings())
    assert asked
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "torch" else real(name)
    )
    with pytest.raises(ModelError, match=rf"{UNTOLD[kind]}\).*run `make setup`"):
        described.describe_launched_lora(recipe, LoraSettings())


def test_quantised_weights_other_senses_and_own_code_are_not_guessed_at(recipe_of_family):
    recipe = recipe_of_family("llama")
    assert "quantised" in outline(recipe, quantization_config={"bits": 4})
    assert "more than text" in outline(recipe, vision_config={"depth": 1})
    tensors = headers.weight_headers(recipe.settings)
    one = {"model.layers.0.mlp.up_proj.weight": headers.StoredTensor("U8", (96, 1))}
    assert "quantised: U8" in described.outline_of(read_config(Path(recipe.id)), tensors | one)


def test_what_is_stored_and_not_loaded_is_not_counted(recipe_of_family):
    recipe = recipe_of_family("llama")
    tensors = headers.weight_headers(recipe.settings)
    config = read_config(Path(recipe.id))
    plain = described.outline_of(config, tensors)
    more = {
        "model.layers.2.mlp.up_proj.weight": headers.StoredTensor("F32", (48, 32)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": headers.StoredTensor("F32", (4,)),
    }
    assert described.outline_of(config, tensors | more) == plain
    tied = described.outline_of(config | {"tie_word_embeddings": True}, tensors)
    assert tied.parameters == plain.parameters - 96 * 32


def test_a_models_recipe_is_that_of_pytorch(make_config):
    settings = make_config().model
    assert described.describe_launched_model(settings, dtype="bfloat16") == describe_model(
        settings, dtype="bfloat16"
    )


def test_headers_of_a_hub_model_are_fetched_alone(tmp_path, monkeypatch):
    """Only configuration and tokenizer are in the cache."""
    import huggingface_hub
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    folder = tmp_path / "0123abc"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tensor = TensorInfo(dtype="BF16", shape=[8, 4], data_offsets=(0, 64))
    file = SafetensorsFileMetadata(metadata={}, tensors={"a.weight": tensor})
    asked = []

    def metadata(repo, *, revision):
        asked.append((repo, revision))
        return SafetensorsRepoMetadata(
            metadata={}, sharded=False, weight_map={}, files_metadata={"model.safetensors": file}
        )

    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", metadata)
    monkeypatch.setattr(headers, "model_folder", lambda *_, **__: folder)
    settings = ModelRecipe(
        id="owner/name", revision=None, architecture="", dtype="bfloat16", quantisation="none",
        max_seq_length=64, chat_template="", stop_ids=(), trust_remote_code=False,
        weight_digests={}, parameters=0,
    ).settings  # fmt: skip
    found = headers.weight_headers(settings)
    assert asked == [("owner/name", "0123abc")]
    assert found == {"a.weight": headers.StoredTensor("BF16", (8, 4))}
    assert found["a.weight"].size == 32
