"""Tests of ``llm_engineering.export.merge``: the weights against PEFT's own, files, refusals, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families.shapes import FAMILIES, write_model
from safetensors.torch import load_file, save_file

from llm_engineering.errors import ExportError
from llm_engineering.export.merge import merge, require_mergeable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
STOP_IDS = (2,)
BFLOAT16_ROUNDING = 2**-8  # relative, of one rounding
FLOAT16_ROUNDING = 2**-11


def peft_merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The same by ``merge_and_unload``, in 32 bit."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return dict(merged.state_dict())


def merged_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder."""
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"layers.1.self_attn.v_proj": 64}},
        {"target_modules": "all-linear"},
    ],
    ids=["lora", "rslora", "dora", "patterns", "all-linear"],
)
def test_weights_are_pefts_rounded_once(
    options: dict[str, Any], tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    adapter = make_adapter(**options)

    merge(tiny_model, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    expected, found = peft_merged(tiny_model, adapter), merged_tensors(tmp_path / "merged")
    base = merged_tensors(tiny_model)
    assert found.keys() == base.keys()
    changed = 0
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(
            tensor.float(), expected[name], rtol=BFLOAT16_ROUNDING, atol=1e-6
        )
        changed += not torch.equal(tensor, base[name].bfloat16())
    assert changed >= 3  # a merge that adds nothing would be close for a weak adapter


def test_a_float16_base_model_is_merged_in_float16(
    tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    """bfloat16 would throw away three bits that its weights have; bfloat16's half step is 8 times it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    half = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float16)
    half.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    adapter = make_adapter(base)

    merge(base, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    expected, found = peft_merged(base, adapter), merged_tensors(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float16"
    for name, tensor in found.items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), expected[name], rtol=FLOAT16_ROUNDING, atol=1e-6)


def with_biases(base: Path, folder: Path) -> Path:
    """A copy of a tiny model whose attention has biases, and whose embeddings are tied."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(base, attention_bias=True, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_shards_biases_and_tied_embeddings(
    tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    base = with_biases(tiny_model, tmp_path / "base")
    adapter = make_adapter(base, bias="all")

    merge(base, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    expected, found = peft_merged(base, adapter), merged_tensors(tmp_path / "merged")
    assert "lm_head.weight" not in found
    assert any(name.endswith("q_proj.bias") for name in found)
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor.float(), expected[name], rtol=BFLOAT16_ROUNDING, atol=1e-6
        )
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in found.values())


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_a_mixtures_experts_are_pefts_rounded_once(
    family: str, options: dict[str, Any], tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    """In Qwen's files each expert has matrices of its own, in gpt-oss's all are in one."""
    from transformers import AutoModelForCausalLM

    base = write_model(FAMILIES[family], tmp_path / "base", tiny_model)
    experts = ["experts.gate_up_proj", "experts.down_proj"]
    adapter = make_adapter(base, target_modules=["q_proj"], target_parameters=experts, **options)

    merge(base, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    found, expected = model.state_dict(), peft_merged(base, adapter)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=BFLOAT16_ROUNDING, atol=1e-6)


def test_trained_tokens_rows_take_the_place_of_the_base_models(
    tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    rows = {"embed_tokens": [9, 5], "lm_head": [9, 5]}
    adapter = make_adapter(trainable_token_indices=rows)

    merge(tiny_model, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    expected, found = peft_merged(tiny_model, adapter), merged_tensors(tmp_path / "merged")
    base = merged_tensors(tiny_model)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        torch.testing.assert_close(
            found[name].float(), expected[name], rtol=BFLOAT16_ROUNDING, atol=1e-6
        )
        changed = (found[name] != base[name].bfloat16()).any(1).nonzero().flatten().tolist()
        assert changed == [5, 9]


@pytest.mark.parametrize("has_index", [False, True])
def test_whole_numbers_stay_so_and_an_index_is_written_where_there_is_one(
    has_index: bool, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    tensors = load_file(base / "model.safetensors") | {"positions": torch.tensor([0, 1, 70_000])}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    index = "model.safetensors.index.json"
    places = dict.fromkeys(tensors, "model.safetensors")
    if has_index:
        (base / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    merge(base, adapter, tmp_path / "deep" / "merged", stop_ids=STOP_IDS)

    found = merged_tensors(tmp_path / "deep" / "merged")
    assert torch.equal(found["positions"], tensors["positions"])
    written = tmp_path / "deep" / "merged" / index
    assert written.is_file() == has_index
    if has_index:
        assert json.loads(written.read_text())["weight_map"] == places


@pytest.mark.parametrize(
    ("stated", "stored"),
    [
        ({"torch_dtype": "float16"}, torch.float16),  # as older versions of transformers wrote it
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float32"}, torch.bfloat16),
    ],
)
def test_the_configuration_says_one_type_and_no_place(
    stated: dict[str, str], stored: torch.dtype, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config.pop("dtype", None)
    (base / "config.json").write_text(json.dumps(config | stated | {"_name_or_path": "here"}))
    (base / "generation_config.json").unlink(missing_ok=True)
    (base / "modeling_mine.py").write_text("# brings its own code")

    merge(base, adapter, tmp_path / "merged", stop_ids=STOP_IDS)

    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written["dtype"] == str(stored).removeprefix("torch.")
    assert not {"torch_dtype", "_name_or_path"} & written.keys()
    assert {tensor.dtype for tensor in merged_tensors(tmp_path / "merged").values()} == {stored}
    generation = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": 2}
    assert (tmp_path / "merged" / "modeling_mine.py").read_text() == "# brings its own code"


def test_what_lies_beside_the_weights(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    adapter = shutil.copytree(adapter, tmp_path / "adapter")
    (base / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": 0}')
    (adapter / "chat_template.jinja").write_text("{{ 'mine' }}")
    (adapter / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')  # and no more

    merge(base, adapter, tmp_path / "merged", stop_ids=(2, 5))

    generation = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert generation == {"temperature": 0.6, "eos_token_id": [2, 5]}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == "{{ 'mine' }}"
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save (modules trained in full)"),
        ({"peft_type": "LOHA"}, "peft_type LOHA"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    changes: dict[str, Any], says: str, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(adapter, tmp_path / "adapter")
    edit_json(other / "adapter_config.json", **changes)

    with pytest.raises(ExportError) as caught:
        merge(tiny_model, other, tmp_path / "merged", stop_ids=STOP_IDS)

    assert says in str(caught.value)


def test_an_adapted_lm_head_is_refused_by_name(
    tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    """PEFT stores its whole weight beside the adapter, which would be merged twice."""
    with pytest.raises(ExportError) as caught:
        merge(
            tiny_model,
            make_adapter(target_modules=["lm_head"]),
            tmp_path / "merged",
            stop_ids=STOP_IDS,
        )

    assert "lm_head.base_layer.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        (lambda name: name.replace("layers.1", "layers.7"), "no module model.layers.7."),
        (lambda name: name.replace("lora_A", "lora_C"), "lora_C"),
        (lambda name: name.replace("q_proj", "embed_tokens").replace("A.weight", "A"), "lora_A"),
    ],
)
def test_tensors_that_have_no_place_are_named(
    rename: Any, says: str, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(other / "adapter_model.safetensors")
    renamed = {rename(name): tensor for name, tensor in weights.items()}
    save_file(renamed, other / "adapter_model.safetensors")

    with pytest.raises(ExportError) as caught:
        merge(tiny_model, other, tmp_path / "merged", stop_ids=STOP_IDS)

    assert says in str(caught.value)


def test_a_quantised_base_model_is_refused_before_training(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    edit_json(base / "config.json", quantization_config={"load_in_4bit": True})

    with pytest.raises(ExportError) as caught:
        require_mergeable(base)

    assert "quantised on disk" in str(caught.value)


MEASURE = """
import resource, sys
from pathlib import Path
import torch, safetensors
from llm_engineering.export.merge import merge
from llm_engineering.model.adapted_parameters import adapted_parameters, read_peft_config
from llm_engineering.model.meta import meta_model
# What transformers and PEFT take for themselves, whatever the model.
adapted_parameters(meta_model(Path(sys.argv[1]), trust_remote_code=False), read_peft_config(Path(sys.argv[2])))
torch.ones(8, 8).addmm_(torch.ones(8, 8), torch.ones(8, 8))  # what PyTorch takes for itself
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
merge(*map(Path, sys.argv[1:]), stop_ids=(2,))
print(peak() - before)
"""


def test_peak_memory_is_below_the_largest_shard(tmp_path: Path) -> None:
    """Three shards of 48 MiB: the whole model would take 144 MiB, a shard and its copy 96."""
    base, adapter, rank, layers = tmp_path / "base", tmp_path / "adapter", 8, 12
    base.mkdir()
    adapter.mkdir()
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "hidden_size": 2048, "num_attention_heads": 8, "head_dim": 128, "vocab_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 3 * layers,
    }  # fmt: skip
    (base / "config.json").write_text(json.dumps(config))
    factors, places = {}, {}
    for shard in range(3):
        tensors = {}
        for layer in range(layers):
            name = f"model.layers.{shard * layers + layer}.self_attn.q_proj"
            tensors[f"{name}.weight"] = torch.zeros(1024, 2048, dtype=torch.bfloat16)
            factors[f"base_model.model.{name}.lora_A.weight"] = torch.ones(rank, 2048)
            factors[f"base_model.model.{name}.lora_B.weight"] = torch.ones(1024, rank)
        file = f"model-0000{shard + 1}-of-00003.safetensors"
        save_file(tensors, base / file)
        places |= dict.fromkeys(tensors, file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 16, "r": rank, "target_modules": ["q_proj"]})
    )
    largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
    adapter_size = (adapter / "adapter_model.safetensors").stat().st_size

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(base), str(adapter), str(tmp_path / "merged")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert int(done.stdout) < 1.3 * largest + adapter_size
    merged = load_file(tmp_path / "merged" / "model-00003-of-00003.safetensors")
    assert all(bool((tensor == 2 * rank).all()) for tensor in merged.values())
