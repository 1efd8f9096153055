"""Tests of ``llm_engineering.export.parity``: sound exports pass, and each kind of broken one is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_engineering.errors import ExportError
from llm_engineering.export.merge import merge
from llm_engineering.export.parity import (
    TOLERANCES,
    _output_faults,
    prove,
    reload,
    tolerance,
)
from llm_engineering.export.reload import Export
from llm_engineering.model.evaluation.probe import (
    Logits,
    Probe,
    ProbeRow,
    TrainedProbe,
    mean_kl,
    render,
    take_probe,
)
from llm_engineering.model.recipes import ModelRecipe

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
PAIRS = [
    ("What does `len` return?", "The number of items of a container, as an integer."),
    ("What is `os.sep`?", "The character that the system separates folders by."),
    ("Sort a list.", "Call its sort method, or give it to sorted for a new one."),
]


@pytest.fixture(scope="module")
def model_recipe(tiny_model: Path) -> ModelRecipe:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return ModelRecipe(
        id=str(tiny_model),
        revision=None,
        architecture="LlamaForCausalLM",
        dtype="float32",
        quantisation="none",
        max_seq_length=128,
        chat_template=str(tokenizer.chat_template),
        stop_ids=(tokenizer.eos_token_id,),
        trust_remote_code=False,
        weight_digests={},
        parameters=1,
    )


@pytest.fixture(scope="module")
def trained(tiny_model: Path, adapter: Path, model_recipe: ModelRecipe) -> TrainedProbe:
    """The probe of base model and adapter in this process."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = []
    for number, (question, reply) in enumerate(PAIRS):
        messages = [{"role": "user", "content": question}]
        prompt = render(tokenizer, messages)
        answer = tokenizer(reply)["input_ids"]
        rows.append(
            ProbeRow(
                origin=f"held_out.jsonl:{number + 1}",
                input_ids=prompt + answer,
                prompt_ids=prompt,
                messages=messages,
                rendered_ids=prompt,
            )
        )
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter)
    stop_ids, pad_id = model_recipe.stop_ids, tokenizer.pad_token_id
    probe = take_probe(model, rows, pad_id=pad_id, stop_ids=stop_ids)
    with model.disable_adapter():
        bare = take_probe(model, rows, pad_id=pad_id, stop_ids=stop_ids, same_as=probe)
    return TrainedProbe(rows=rows, probe=probe, effect=mean_kl(probe, bare))


@pytest.fixture(scope="module")
def merged(
    tiny_model: Path, adapter: Path, model_recipe: ModelRecipe, tmp_path_factory: Any
) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "merged"
    merge(tiny_model, adapter, folder, stop_ids=model_recipe.stop_ids)
    return Path(folder)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def swap_layers(tensors: dict[str, torch.Tensor]) -> None:
    first, second = (f"model.layers.{layer}.self_attn.v_proj.weight" for layer in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def drop_factor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]


def forget_eos(folder: Path) -> None:
    edit_json(folder / "generation_config.json", eos_token_id=None)
    edit_json(folder / "config.json", eos_token_id=None)


ADAPTER_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "wrong scaling": (
        lambda folder: edit_json(folder / "adapter_config.json", lora_alpha=16),
        "its logits differ by up to",
    ),
    "missing factor": (
        lambda folder: edit_tensors(folder / "adapter_model.safetensors", drop_factor),
        "missing adapter keys",
    ),
}
MERGED_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "swapped layers": (
        lambda folder: edit_tensors(folder / WEIGHTS, swap_layers),
        "its logits differ by up to",
    ),
    "missing tensor": (
        lambda folder: edit_tensors(folder / WEIGHTS, drop_one),
        "1 tensors are missing or of another shape, as model.layers.1.mlp.up_proj.weight",
    ),
    "wrong chat template": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        ),
        "its chat template renders held_out.jsonl:1 as",
    ),
    "no EOS": (forget_eos, "its generation configuration stops at no token, not at"),
    "cut file": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        "cannot be loaded",
    ),
}


@pytest.fixture(scope="module")
def findings(
    tiny_model: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedProbe,
    model_recipe: ModelRecipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What is said of every broken export; all are read back by one process."""
    exports = []
    for name, (spoil, _) in (ADAPTER_FAULTS | MERGED_FAULTS).items():
        of_adapter = name in ADAPTER_FAULTS
        folder = tmp_path_factory.mktemp("broken") / name
        shutil.copytree(adapter if of_adapter else merged, folder)
        spoil(folder)
        kind, base = ("adapter", str(tiny_model)) if of_adapter else ("merged_16bit", None)
        exports.append(Export(kind=kind, path=str(folder), base=base))  # type: ignore[arg-type]
    with pytest.raises(ExportError) as caught:
        prove(exports, trained, model_recipe)
    first, *lines = str(caught.value).splitlines()
    assert first == "an export is not what was trained:"
    return dict(zip(ADAPTER_FAULTS | MERGED_FAULTS, lines, strict=True))


@pytest.mark.parametrize("name", ADAPTER_FAULTS | MERGED_FAULTS)
def test_a_broken_export_is_caught_and_described(name: str, findings: dict[str, str]) -> None:
    _, says = (ADAPTER_FAULTS | MERGED_FAULTS)[name]
    assert says in findings[name]


def test_sound_exports_pass_far_below_what_the_adapter_does(
    tiny_model: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedProbe,
    model_recipe: ModelRecipe,
) -> None:
    exports = [
        Export(kind="adapter", path=str(adapter), base=str(tiny_model)),
        Export(kind="merged_16bit", path=str(merged)),
    ]

    proofs = prove(exports, trained, model_recipe)

    assert [proof.export for proof in proofs] == ["adapter", "merged_16bit"]
    assert [proof.precision for proof in proofs] == ["float32", "16-bit weights"]
    for proof in proofs:
        assert proof.passed
        assert proof.positions > 3 * 16
        assert proof.effect is not None
        assert proof.mean_kl < proof.effect / 100
    assert proofs[0].same_answers == 3
    assert proofs[0].mean_kl < proofs[1].mean_kl  # the merged weights are rounded


def test_a_merge_is_held_against_its_own_16_bit_model_where_the_live_one_answers_otherwise(
    tiny_model: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedProbe,
    model_recipe: ModelRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after QLoRA: in NF4 the trained model's answers are others, and of another length."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    coarse = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in coarse.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    monkeypatch.setattr("llm_engineering.model.evaluation.probe.NEW_TOKENS", 5)
    live = take_probe(
        coarse,
        trained.rows,
        pad_id=AutoTokenizer.from_pretrained(tiny_model).pad_token_id,
        stop_ids=model_recipe.stop_ids,
    )
    exports = [
        Export(kind="adapter", path=str(adapter), base=str(tiny_model), is_proven=False),
        Export(kind="merged_16bit", path=str(merged), against=0),
    ]

    (proof,) = prove(exports, trained.model_copy(update={"probe": live}), model_recipe)

    assert proof.against == "the adapter on the original 16-bit weights"
    assert proof.positions == 3 * (16 + 17)  # at the 16-bit model's own answers
    assert proof.passed


def a_probe(values: list[float], answer: int) -> Probe:
    """A row's one position, and an answer of one token."""
    one = Logits(ids=[[0, 1, 2]], values=[values], log_sums=[values[0]])
    return Probe(rows=[one], greedy=[[answer]], answers=[one])


@pytest.mark.parametrize(
    ("dtype", "answer", "says"),
    [
        ("bfloat16", 0, None),
        ("bfloat16", 1, None),  # 1.5 worse: rounding moves each of the two by up to 1.0
        ("bfloat16", 2, "by a token whose logit was 3 below the best, where 2 could be rounding"),
        ("float32", 1, "by a token whose logit was 1.5 below the best, where 0.005 could be"),
    ],
)
def test_an_answer_that_equal_logits_do_not_explain_is_another(
    dtype: str, answer: int, says: str | None, trained: TrainedProbe, model_recipe: ModelRecipe
) -> None:
    """As of generation with another cache, mask or configuration than the logits'."""
    ours, theirs = (a_probe([5.0, 3.5, 2.0], token) for token in (0, answer))
    export = Export(kind="adapter", path="adapter")
    recipe = model_recipe.model_copy(update={"dtype": dtype})

    faults = list(_output_faults(export, theirs, ours, trained, recipe))

    assert len(faults) == (says is not None)
    assert says is None or says in faults[0]


@pytest.mark.parametrize(
    ("dtype", "effect", "kl", "told"),
    [
        ("bfloat16", 0.88, 0.015, True),
        ("bfloat16", 0.04, 0.01, True),
        ("bfloat16", 0.0151, 0.003775, True),
        ("bfloat16", 0.015, 0.015, False),
        ("bfloat16", None, 0.015, False),
        ("float32", 2e-5, 5e-6, True),
        ("float32", 9e-6, 1e-5, False),
    ],
)
def test_a_quarter_of_the_effect_is_tolerated_where_outputs_can_tell(
    dtype: str,
    effect: float | None,
    kl: float,
    told: bool,
    trained: TrainedProbe,
    model_recipe: ModelRecipe,
) -> None:
    found = tolerance(
        Export(kind="adapter", path="adapter"),
        trained.model_copy(update={"effect": effect}),
        model_recipe.model_copy(update={"dtype": dtype}),
    )

    assert found[0].kl == pytest.approx(kl)
    assert found[0].logit == TOLERANCES[dtype].logit
    assert found[1] is told


def test_a_process_that_dies_is_told(
    trained: TrainedProbe, model_recipe: ModelRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")

    with pytest.raises(ExportError) as caught:
        reload([], trained, model_recipe)

    assert "ended with status 1" in str(caught.value)
