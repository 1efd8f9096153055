"""Tests of ``llm_engineering.export.stored_tensors``: what files must hold, and what rounding leaves.

Attacks on whole exports are in ``test_attacks``; here are single tensors, and GGUF by its own package.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families.shapes import FAMILIES, write_model
from safetensors.torch import load_file, save_file

from llm_engineering.export import stored_tensors
from llm_engineering.export.merge import merge
from llm_engineering.export.stored_tensors import (
    ROWS,
    Finding,
    compare_adapter,
    compare_gguf,
    compare_merged,
)
from llm_engineering.model.evaluation.trained_tensors import (
    TrainedTensors,
    is_of_adapter,
    trained_tensors,
)

pytestmark = pytest.mark.slow

WEIGHTS = "adapter_model.safetensors"
UP = "model.layers.0.mlp.up_proj.weight"  # no target
DOWN = "model.layers.0.mlp.down_proj.weight"  # a target


def tensors_of(base: Path, adapter: Path) -> TrainedTensors:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return trained_tensors(PeftModel.from_pretrained(model, adapter, is_trainable=True))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, adapter: Path) -> TrainedTensors:
    return tensors_of(tiny_model, adapter)


@pytest.fixture(scope="module")
def merged(tiny_model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "merged"
    merge(tiny_model, adapter, folder, stop_ids=(2,))
    return folder


def edited(
    folder: Path,
    to: Path,
    change: Callable[[dict[str, torch.Tensor]], Any],
    file: str = "model.safetensors",
) -> Path:
    shutil.copytree(folder, to)
    tensors = load_file(to / file)
    change(tensors)
    save_file(tensors, to / file, metadata={"format": "pt"})
    return to


def names_of(trained: TrainedTensors) -> list[str]:
    """As PEFT, having read a sound adapter, says them."""
    return [name for name in trained.digests if ".lora_" in name]


def test_a_sound_adapter_is_found_sound(adapter: Path, trained: TrainedTensors) -> None:
    found = compare_adapter(adapter, trained, trained.scaling, names_of(trained))

    assert found == Finding(tensors=12)  # A and B of three projections in two layers
    assert trained.digests.keys() == load_file(adapter / WEIGHTS).keys()


Q = "base_model.model.model.layers.0.self_attn.q_proj"
EXTRA = f"{Q}.lora_A.extra"


def next_number(tensors: dict[str, torch.Tensor]) -> None:
    bits = tensors[f"{Q}.lora_A.weight"].view(torch.int32)
    bits.view(-1)[-1] += 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda tensors: tensors.pop(f"{Q}.lora_B.weight"),
            f"1 tensors are missing from its file, as {Q}.lora_B.weight",
        ),
        (
            lambda tensors: tensors.update({EXTRA: torch.zeros(1)}),
            f"1 tensors in its file were not trained, as {EXTRA}",
        ),
        (
            next_number,
            "1 tensors in its file are not to the bit those that were trained, as "
            f"{Q}.lora_A.weight",
        ),
        (  # of the same values in another shape
            lambda tensors: tensors.update(
                {f"{Q}.lora_A.weight": tensors[f"{Q}.lora_A.weight"].reshape(64, -1)}
            ),
            "1 tensors in its file are not to the bit those that were trained, as ",
        ),
    ],
)
def test_an_adapters_file_with_other_tensors_is_found(
    change: Callable[[dict[str, torch.Tensor]], Any],
    says: str,
    adapter: Path,
    trained: TrainedTensors,
    tmp_path: Path,
) -> None:
    broken = edited(adapter, tmp_path / "broken", change, WEIGHTS)

    found = compare_adapter(broken, trained, trained.scaling, names_of(trained))

    assert str(found.fault).startswith(says)


def test_a_sound_file_that_peft_reads_otherwise_is_found(
    adapter: Path, trained: TrainedTensors, tmp_path: Path
) -> None:
    sound, scaling = names_of(trained), trained.scaling

    def fault(scaling: dict[str, float], names: list[str]) -> str:
        return str(compare_adapter(adapter, trained, scaling, names).fault)

    assert fault(scaling, [name for name in sound if name != f"{Q}.lora_A.weight"]) == (
        "1 tensors in its file are not used by PEFT, by its adapter_config.json, as "
        f"{Q}.lora_A.weight"
    )
    other = f"its adapter_config.json gives {Q} the scaling {{}}, not 2 as trained"
    assert fault(scaling | {Q: 2.00001}, sound) == other.format(2.00001)
    assert fault(scaling | {Q: 1.99999}, sound) == other.format(1.99999)
    assert fault(scaling | {Q: 2.0000001}, sound) == "None"
    weak = trained.model_copy(update={"scaling": {Q: 0.01}})  # a millionth of it, not of 1
    assert compare_adapter(adapter, weak, {Q: 0.0100001}, sound).fault is not None
    assert fault({name: x for name, x in scaling.items() if name != Q}, sound) == other.format(
        "None"
    )
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    broken = compare_adapter(tmp_path, trained, scaling, sound)
    assert str(broken.fault).startswith("its tensors cannot be read: SafetensorError: ")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"layers.1.self_attn.v_proj": 64}},
        {"bias": "all"},
        {"bias": "lora_only", "use_dora": True},
    ],
    ids=["lora", "rslora", "dora", "patterns", "bias", "bias-dora"],
)
def test_a_sound_merge_is_found_sound_and_that_of_a_part_is_not(
    options: dict[str, Any], tiny_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    base = tiny_model
    if "bias" in options:
        base = biased(tiny_model, tmp_path / "base")
    adapter = make_adapter(base, **options)
    trained = tensors_of(base, adapter)
    merge(base, adapter, tmp_path / "merged", stop_ids=(2,))

    found = compare_merged(base, adapter, tmp_path / "merged", trained)

    assert found.fault is None
    assert found.tensors == len(load_file(tmp_path / "merged" / "model.safetensors"))
    assert found.update_kept is None  # the base model is of 32 bit
    for part in ("lora_B", "lora_magnitude_vector", "q_proj.base_layer.bias"):
        if any(part in name for name in trained.digests):
            weaker = edited(adapter, tmp_path / part, partly(part), WEIGHTS)
            merge(base, weaker, tmp_path / f"merged {part}", stop_ids=(2,))
            other = compare_merged(base, adapter, tmp_path / f"merged {part}", trained)
            assert "is not base model + adapter, rounded once to BF16" in str(other.fault)


def partly(part: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    """One tensor of a kind by a hundredth larger."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[min(name for name in tensors if part in name)].mul_(1.01)

    return change


def biased(tiny: Path, folder: Path) -> Path:
    """A copy of a tiny model whose attention has biases."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(tiny, attention_bias=True)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def test_whole_numbers_are_the_base_models(
    tiny_model: Path, adapter: Path, merged: Path, trained: TrainedTensors, tmp_path: Path
) -> None:
    """As some models keep positions; they are no type's rounding."""

    def counted(last: int) -> Callable[[dict[str, torch.Tensor]], Any]:
        return lambda tensors: tensors.update({"positions": torch.tensor([0, 1, last])})

    base = edited(tiny_model, tmp_path / "base", counted(2))
    same, other = (edited(merged, tmp_path / f"{n}", counted(n)) for n in (2, 3))

    assert compare_merged(base, adapter, same, trained).fault is None
    assert compare_merged(base, adapter, other, trained).fault == (
        "positions is not the base model's"
    )


def test_what_the_adapter_changes_must_be_there(
    tiny_model: Path, adapter: Path, merged: Path, trained: TrainedTensors
) -> None:
    """As of a base model whose modules have other names than its tensors."""
    gone = "base_model.model.model.layers.9.self_attn.q_proj"
    wider = trained.model_copy(update={"scaling": trained.scaling | {gone: 2.0}})

    found = compare_merged(tiny_model, adapter, merged, wider)

    assert found.fault == (
        "the adapter changes model.layers.9.self_attn.q_proj.weight, which no tensor of it is "
        "named by"
    )


def one_step(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    """The next number of bfloat16 in one place of the last row."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        bits = tensors[name].view(torch.int16)
        bits.view(-1)[-1] += 1

    return change


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[UP]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.extra.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] = tensors[UP].T.contiguous()


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors[DOWN][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_step(DOWN), f"{DOWN} is not base model + adapter, rounded once to BF16, at 1 of the"),
        (one_step(UP), f"{UP} is not the base model's, rounded once to BF16, at 1 of the"),
        (one_step("model.norm.weight"), "model.norm.weight is not the base model's, rounded once"),
        (one_step("lm_head.weight"), "lm_head.weight is not the base model's"),
        (not_a_number, f"{DOWN} is not base model + adapter"),
        (drop, f"1 tensors are not in both it and the base model, as {UP}"),
        (add, "1 tensors are not in both it and the base model, as model.extra.weight"),
        (reshape, f"{UP} has the shape"),
    ],
)
def test_one_number_that_is_another_is_found(
    change: Callable[[dict[str, torch.Tensor]], Any],
    says: str,
    tiny_model: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedTensors,
    tmp_path: Path,
) -> None:
    broken = edited(merged, tmp_path / "broken", change)

    found = compare_merged(tiny_model, adapter, broken, trained)

    assert found.fault is not None
    assert says in found.fault


@pytest.mark.parametrize(
    ("strength", "kept"), [(1.0, (0.99, 1.01)), (1e-3, (0.6, 1.01)), (1e-6, (0.0, 0.1))]
)
def test_how_much_of_a_change_is_left_by_rounding_is_told(
    strength: float,
    kept: tuple[float, float],
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
) -> None:
    """A base model of 16 bit is on the grid that it is rounded to: small changes vanish."""
    base = edited(tiny_model, tmp_path / "base", to_bfloat16)
    weak = shutil.copytree(adapter, tmp_path / "weak")
    factors = load_file(weak / "adapter_model.safetensors")
    for name, tensor in factors.items():
        tensor.mul_(strength if "lora_B" in name else 1.0)
    save_file(factors, weak / "adapter_model.safetensors", metadata={"format": "pt"})
    merge(base, weak, tmp_path / "merged", stop_ids=(2,))

    found = compare_merged(base, weak, tmp_path / "merged", tensors_of(base, weak))

    assert found.update_kept is not None
    assert kept[0] < found.update_kept < kept[1]
    assert (found.fault is None) == (strength > 1e-6)
    if found.fault:
        assert found.fault.endswith("export the adapter alone (export.merged_16bit: false)")
        assert "rounding to 16 bit leaves only 3% of what the adapter changes" in found.fault


def to_bfloat16(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name] = tensors[name].bfloat16()


def as_gguf(merged: Path, kind: str) -> Any:
    """The merged model after a way through GGUF's own quantisation."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    quantisation = GGMLQuantizationType[kind.upper()]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # llama.cpp keeps vectors in 32 bit
                data = quantize(parameter.numpy(), quantisation)
                parameter.copy_(torch.from_numpy(dequantize(data, quantisation).copy()))
    return model


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("read_as", [torch.float32, torch.bfloat16])
def test_a_gguf_is_the_merged_model_within_what_its_type_can_hold(
    kind: str, read_as: torch.dtype, merged: Path
) -> None:
    model = as_gguf(merged, kind).to(read_as)

    found = compare_gguf(model, merged, kind)

    assert found.fault is None
    assert found.tensors == len(load_file(merged / "model.safetensors"))


def halve(weight: torch.Tensor) -> torch.Tensor:
    return weight / 2


def permute(weight: torch.Tensor) -> torch.Tensor:
    return weight.roll(1, dims=0)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("attack", [torch.zeros_like, torch.neg, halve, permute])
def test_a_gguf_of_other_tensors_is_found(
    attack: Callable[[torch.Tensor], torch.Tensor], kind: str, merged: Path
) -> None:
    model = as_gguf(merged, kind)
    weight = model.get_parameter(DOWN)
    weight.data = attack(weight.data)

    found = compare_gguf(model, merged, kind)

    assert found.fault == f"{DOWN} is not the merged model's, beyond what {kind} is"


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_a_gguf_without_the_adapters_change_to_one_module_is_found(
    kind: str, tiny_model: Path, merged: Path
) -> None:
    model = as_gguf(merged, kind)
    base = load_file(tiny_model / "model.safetensors")[DOWN]
    model.get_parameter(DOWN).data = base

    assert DOWN in str(compare_gguf(model, merged, kind).fault)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_a_gguf_without_a_trained_tokens_row_is_found(kind: str, merged: Path) -> None:
    model = as_gguf(merged, kind)
    row = 5
    model.lm_head.weight.data[row] *= 2
    assert compare_gguf(model, merged, kind).fault is None
    assert "lm_head" in str(compare_gguf(model, merged, kind, {"lm_head.weight": [row]}).fault)


BIG, SMALL = 1.0, 0.0078125  # largest of the first 32 numbers of each row, and of the second


@pytest.fixture
def synthetic(tmp_path: Path) -> Any:
    """Compare tensors that transformers might have read with these of a merged model's file.

    A matrix of two blocks of 32 a row, one whose rows are no whole blocks, and a vector.
    """
    blocks = torch.cat([torch.full((4, 32), BIG), torch.full((4, 32), SMALL)], dim=1)
    stored = {"blocks": blocks, "rest": torch.full((4, 48), BIG), "vector": torch.full((64,), BIG)}
    stored = {name: tensor.bfloat16() for name, tensor in stored.items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})

    def compare(kind: str, name: str, column: int, off: float, dtype: torch.dtype) -> str | None:
        found = {key: tensor.float() for key, tensor in stored.items()}
        found[name][..., column] += off
        found = {key: tensor.to(dtype) for key, tensor in found.items()}
        model = SimpleNamespace(state_dict=lambda: found)
        return compare_gguf(model, tmp_path, kind).fault

    return compare


@pytest.mark.parametrize(
    ("kind", "name", "column", "passes", "fails"),
    [  # half a step of float16 at 1 is 4.9e-4, of bfloat16 3.9e-3, of a block's scale 3.9e-3
        ("f16", "blocks", 0, 4e-4, 6e-4),
        ("bf16", "blocks", 0, 3.8e-3, 4.1e-3),
        ("q8_0", "blocks", 0, 4.7e-3, 5.1e-3),
        ("q8_0", "blocks", 63, 3.6e-5, 4.4e-5),
        ("f16", "blocks", 63, 5e-6, 7e-6),
        ("q8_0", "rest", 0, 3.8e-3, 4.1e-3),
        ("q8_0", "vector", 0, 3.8e-3, 4.1e-3),
    ],
)
def test_a_gguf_may_be_off_by_what_its_type_rounds_and_no_more(
    kind: str, name: str, column: int, passes: float, fails: float, synthetic: Any
) -> None:
    said = f"{name} is not the merged model's, beyond what {kind} is"
    for sign in (1, -1):
        assert synthetic(kind, name, column, sign * passes, torch.float32) is None
        assert synthetic(kind, name, column, sign * fails, torch.float32) == said
    assert synthetic(kind, name, column, torch.nan, torch.float32) == said


def test_what_a_gguf_is_read_as_may_round_it_too(synthetic: Any) -> None:
    """1.0045, which q8_0 may make of 1, is 1.0078 in bfloat16."""
    assert synthetic("q8_0", "blocks", 0, 4.5e-3, torch.bfloat16) is None
    assert synthetic("q8_0", "blocks", 0, 7.5e-3, torch.float32) is not None
    assert synthetic("q8_0", "blocks", 0, 1.2e-2, torch.bfloat16) is not None


def test_a_gguf_without_a_tensor_or_with_one_of_another_shape_is_found(tmp_path: Path) -> None:
    stored = {"a": torch.zeros(2, 3), "b": torch.zeros(2)}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})

    def fault(**found: torch.Tensor) -> str | None:
        return compare_gguf(SimpleNamespace(state_dict=lambda: found), tmp_path, "f16").fault

    assert fault(**stored, more=torch.zeros(1)) is None  # as of tied embeddings
    assert fault(b=stored["b"]) == "it lacks 1 tensors of the merged model, as a"
    assert fault(a=torch.zeros(3, 2), b=stored["b"]) == "a has the shape (3, 2), not (2, 3)"


def test_rows_from_the_first_to_the_last_are_looked_at(
    tiny_model: Path, adapter: Path, merged: Path, trained: TrainedTensors, tmp_path: Path
) -> None:
    """Of the embeddings' 600 rows, those in between are not read."""
    name = "model.embed_tokens.weight"
    seen = []
    for row in (0, 1, 599):

        def change(tensors: dict[str, torch.Tensor], row: int = row) -> None:
            tensors[name][row] += 1.0

        broken = edited(merged, tmp_path / f"{row}", change)
        seen.append(compare_merged(tiny_model, adapter, broken, trained).fault is not None)
    assert ROWS < 600
    assert seen == [True, False, True]


# --- experts -------------------------------------------------------------------------------------

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.fixture(scope="module", params=["qwen3_moe", "gpt_oss"])
def mixture(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    make_adapter: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, Path, TrainedTensors]:
    """A mixture in 16 bit, an adapter of its experts, both merged, and the trained tensors.

    Qwen's experts are a file's matrix each, gpt-oss's are stored together, in x out.
    """
    folder = tmp_path_factory.mktemp("mixture")
    made = write_model(FAMILIES[request.param], folder / "32 bit", tiny_model)
    base = edited(made, folder / "base", to_bfloat16)
    adapter = make_adapter(base, target_modules=["q_proj"], target_parameters=EXPERTS)
    merge(base, adapter, folder / "merged", stop_ids=(2,))
    return base, adapter, folder / "merged", tensors_of(base, adapter)


def test_a_sound_merge_of_experts_is_found_sound(
    mixture: tuple[Path, Path, Path, TrainedTensors],
) -> None:
    base, adapter, merged, trained = mixture

    found = compare_merged(base, adapter, merged, trained)

    assert found.fault is None
    assert found.tensors == len(load_file(merged / "model.safetensors"))
    assert found.update_kept == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("experts", "told"), [([2], "(expert 2)"), ([0, 3], "(expert 0, 3)"), (range(4), "(expert 0, ")]
)
def test_an_expert_whose_change_is_another_is_named(
    experts: Any,
    told: str,
    mixture: tuple[Path, Path, Path, TrainedTensors],
    tmp_path: Path,
) -> None:
    base, adapter, merged, trained = mixture

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for expert in experts:
            together = [name for name in tensors if name.endswith("layers.1.mlp.experts.down_proj")]
            if together:
                tensors[together[0]][expert, 0, 0] += 1.0
            else:
                tensors[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"][0, 0] += 1.0

    found = compare_merged(base, adapter, edited(merged, tmp_path / "broken", change), trained)

    assert found.fault is not None
    assert "layers.1.mlp.experts.down_proj" in found.fault
    assert "is not base model + adapter, rounded once to BF16" in found.fault
    assert told in found.fault


def test_experts_that_were_not_trained_are_the_base_models(
    mixture: tuple[Path, Path, Path, TrainedTensors], make_adapter: Any, tmp_path: Path
) -> None:
    base = mixture[0]
    adapter = make_adapter(base, target_modules=["q_proj"])
    merge(base, adapter, tmp_path / "merged", stop_ids=(2,))
    trained = tensors_of(base, adapter)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        last = max(name for name in tensors if "layers.1.mlp.experts" in name)
        tensors[last].view(-1)[0] += 1.0

    assert compare_merged(base, adapter, tmp_path / "merged", trained).fault is None
    broken = edited(tmp_path / "merged", tmp_path / "broken", change)
    fault = str(compare_merged(base, adapter, broken, trained).fault)
    assert "layers.1.mlp.experts" in fault
    assert "is not the base model's, rounded once to BF16" in fault


# --- trained tokens ------------------------------------------------------------------------------

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def with_tokens(
    tiny_model: Path, make_adapter: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, TrainedTensors]:
    """An adapter that trained two tokens in both matrices, merged, and the trained tensors."""
    rows = {"embed_tokens": [9, 5], "lm_head": [9, 5]}
    adapter = make_adapter(tiny_model, trainable_token_indices=rows)
    folder = tmp_path_factory.mktemp("tokens") / "merged"
    merge(tiny_model, adapter, folder, stop_ids=(2,))
    return adapter, folder, tensors_of(tiny_model, adapter)


@pytest.mark.parametrize("at_once", [1, 6, 4096])
@pytest.mark.parametrize(
    ("name", "row", "whose"),
    [
        (EMBEDDINGS, None, ""),
        (EMBEDDINGS, 5, "the trained token's"),
        (HEAD, 9, "the trained token's"),
        (EMBEDDINGS, 6, "the base model's"),
        (EMBEDDINGS, 0, "the base model's"),
        (HEAD, 598, "the base model's"),  # none of the sampled ones
    ],
)
def test_every_row_of_a_matrix_with_trained_tokens_is_looked_at(
    name: str,
    row: int | None,
    whose: str,
    at_once: int,
    with_tokens: tuple[Path, Path, TrainedTensors],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_tensors, "_ROWS_AT_ONCE", at_once)
    adapter, merged, trained = with_tokens
    if row is None:
        found = compare_merged(tiny_model, adapter, merged, trained)
        assert found == Finding(len(load_file(merged / "model.safetensors")))
        return

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][row, 3] += 1.0

    broken = edited(merged, tmp_path / "broken", change)
    assert compare_merged(tiny_model, adapter, broken, trained).fault == (
        f"row {row} of {name} is not {whose}, rounded once to BF16"
    )


def test_trained_tokens_that_peft_puts_elsewhere_are_found(
    with_tokens: tuple[Path, Path, TrainedTensors],
) -> None:
    adapter, _, trained = with_tokens
    names = [name for name in trained.digests if is_of_adapter(name)]
    rows = trained.token_rows
    module = min(rows)

    def fault(given: dict[str, list[int]]) -> str | None:
        return compare_adapter(adapter, trained, trained.scaling, names, given).fault

    assert fault(rows) is None
    assert fault(rows | {module: [5, 8]}) == (
        f"its adapter_config.json puts the trained tokens of {module} in the rows [5, 8], not "
        f"{rows[module]} as trained"
    )
    assert fault({}) is not None


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float32, "F32"),
        (torch.float64, "F64"), (torch.int64, ""),
    ],
)  # fmt: skip
def test_types_have_the_names_of_safetensors(dtype: torch.dtype, name: str) -> None:
    assert stored_tensors._stored_as(torch.zeros(1, dtype=dtype)) == name


# --- k-quants ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "within"), [("q5_k_m", 0.08), ("q4_k_m", 0.12)])
def test_a_k_quants_matrix_may_be_off_by_a_share_of_its_size(
    kind: str, within: float, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    stored = {"matrix": torch.randn(16, 64, generator=generator), "vector": torch.ones(64)}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    noise = torch.randn(16, 64, generator=generator)
    noise *= stored["matrix"].norm() / noise.norm()

    def fault(**changes: torch.Tensor) -> str | None:
        model = SimpleNamespace(state_dict=lambda: stored | changes)
        return compare_gguf(model, tmp_path, kind).fault

    assert fault() is None
    assert fault(matrix=stored["matrix"] + noise * (within - 0.001)) is None
    told = str(fault(matrix=stored["matrix"] + noise * (within + 0.011)))
    assert told == (
        f"matrix is {within + 0.011:.0%} off the merged model's, where {kind} is within {within:.0%}"
    )
    assert fault(matrix=stored["matrix"] * torch.nan) is not None
    vector = stored["vector"].clone()  # which llama.cpp keeps in 32 bit
    vector[0] += 0.01
    assert fault(vector=vector) == f"vector is not the merged model's, beyond what {kind} is"
