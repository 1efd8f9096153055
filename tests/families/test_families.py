"""Every family that people train: a tiny model of it lives the whole life of a run, in seconds.

Trained, evaluated before and after, saved, merged, proven against what was in memory, and read back by
plain transformers and PEFT (which is what the proof does). ``docs/models.md`` says what came of it:
``UPDATE_MODELS=1 pytest -n0 tests/families`` writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from families.lifecycle import Lived, reading_in_this_process
from families.matrix import row, write_row, written_rows
from families.shapes import FAMILIES, REFUSED, write_model
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import model_folder
from llm_engineering.model.file_tensors import FileTensors, file_shapes
from llm_engineering.model.finetuning.load import meta_model
from llm_engineering.model.finetuning.preflight import check_adapter

pytestmark = pytest.mark.slow

MIXTURES = sorted(
    {"mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe", "granitemoe",
     "granitemoehybrid", "deepseek_v3", "glm4_moe", "qwen3_next", "ernie4_5_moe", "lfm2_moe"}
)  # fmt: skip
SEEING = [name for name, family in FAMILIES.items() if family.vision]
KINDS = {
    "llama", "qwen3", "gemma3_text", "phi3", "gpt2", "lfm2", "falcon_h1", "qwen3_moe", "gpt_oss",
    "deepseek_v3", "qwen3_next", "gemma3",
}  # fmt: skip
"""One of each kind of layer and of names in files: in `make test`; the others in `make test-long`."""


def every_day(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: one of each kind every day, the others before a release."""
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.long) for name in names]


@pytest.mark.parametrize("name", every_day(FAMILIES))
def test_a_family_is_trained_evaluated_merged_proven_and_read_back(
    name: str, lived: Callable[[str], Lived]
) -> None:
    one = lived(name)
    assert one.evaluation.after.loss < one.evaluation.before.loss
    assert {proof.export for proof in one.proofs} == {"adapter", "merged_16bit"}
    assert all(proof.passed for proof in one.proofs)
    untrained = [
        key
        for key, tensor in load_file(one.adapter.folder / "adapter_model.safetensors").items()
        if "lora_B" in key and not tensor.any()
    ]
    assert not untrained  # each was reached by a gradient
    assert bool(one.lora.targets.experts) == (name in MIXTURES)

    settings = one.lora.model.settings
    shapes = file_shapes(model_folder(settings, weights=True))
    line = row(name, one, meta_model(settings), list(shapes))
    if os.environ.get("UPDATE_MODELS"):
        write_row(name, line)
    assert line in written_rows()


def test_the_document_has_these_families_and_no_others() -> None:
    assert len(FAMILIES) >= 24
    titles = [one.split(" | ")[0].removeprefix("| ") for one in written_rows()]
    assert titles == [family.title for family in FAMILIES.values()]


def test_a_family_whose_loss_cannot_be_computed_is_refused_by_its_modules(
    tiny_model: Path, family_config: Any, tmp_path: Path
) -> None:
    folder = write_model(REFUSED, tmp_path / "llama4", tiny_model)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelError, match="Llama4ForConditionalGeneration gives no hidden states"):
        check_adapter(family_config("llama", {"model.id": str(folder)}))


@pytest.mark.parametrize("name", every_day(MIXTURES))
def test_each_expert_has_an_adapter_and_the_router_is_frozen(
    name: str, lived: Callable[[str], Lived]
) -> None:
    one = lived(name)
    experts = [target for target in one.lora.matched if target.experts > 1]
    assert {target.name for target in experts} == {"experts.gate_up_proj", "experts.down_proj"}
    assert all(target.experts == 4 for target in experts)
    names = load_file(one.adapter.folder / "adapter_model.safetensors")
    assert not [key for key in names if "router" in key or ".gate.lora" in key]
    # As the family has it: DeepSeek-V3's router is balanced without a loss, and Granite's code computes
    # none, whatever its configuration says.
    config = meta_model(one.lora.model.settings).config.get_text_config()
    has_one = bool(getattr(config, "router_aux_loss_coef", None)) and name not in (
        "granitemoe", "granitemoehybrid",
    )  # fmt: skip
    assert all((point.aux_loss is not None) == has_one for point in one.record.points)


@pytest.mark.parametrize("name", every_day(SEEING))
def test_of_a_model_that_sees_the_text_part_alone_is_trained(
    name: str, lived: Callable[[str], Lived]
) -> None:
    one = lived(name)
    adapted = load_file(one.adapter.folder / "adapter_model.safetensors")
    assert not [key for key in adapted if "vision" in key or "visual" in key]
    base, merged = (_tensors(Path(folder)) for folder in (one.lora.model.id, one.folder / "merged"))
    assert base.keys() == merged.keys()
    for key in base:
        if "vision" in key or "visual" in key:
            assert torch.equal(base[key].to(torch.bfloat16), merged[key])


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        key: value
        for path in folder.glob("*.safetensors")
        for key, value in load_file(path).items()
    }


@pytest.mark.parametrize("name", every_day(["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"]))
def test_a_merge_that_loses_the_change_of_one_expert_is_caught(
    name: str, lived: Callable[[str], Lived], tmp_path: Path
) -> None:
    """The base model's tensor is put back for one expert alone; outputs hardly tell."""
    import shutil

    from safetensors.torch import save_file

    from llm_engineering.errors import UnprovenError
    from llm_engineering.export.parity import prove
    from llm_engineering.export.reload import Export

    one = lived(name)
    base = Path(one.lora.model.id)
    shutil.copytree(one.folder / "merged", tmp_path / "merged")
    files = FileTensors(meta_model(one.lora.model.settings), file_shapes(base))
    target = next(
        key for key, _ in meta_model(one.lora.model.settings).named_parameters()
        if key.endswith("layers.1.mlp.experts.down_proj")
    )  # fmt: skip
    names = files.names_of(target)
    tensors, original = _tensors(tmp_path / "merged"), _tensors(base)
    if len(names) > 1:
        tensors[names[2]] = original[names[2]].to(torch.bfloat16)
    else:
        tensors[names[0]][2] = original[names[0]][2].to(torch.bfloat16)
    save_file(tensors, tmp_path / "merged" / "model.safetensors", metadata={"format": "pt"})
    export = Export(
        kind="merged_16bit", path=str(tmp_path / "merged"), base=str(base),
        adapter=str(one.folder / "adapter"),
    )  # fmt: skip
    assert one.evaluation.trained_probe is not None
    with reading_in_this_process(), pytest.raises(UnprovenError, match=r"\(expert 2\)"):
        prove([export], one.evaluation.trained_probe, one.lora.model)


def test_a_mixtures_training_goes_on_from_its_checkpoint_to_the_same_adapter(
    family_config: Any, family_rows: Any, tmp_path: Path
) -> None:
    from llm_engineering.model.finetuning.inject import inject_lora
    from llm_engineering.model.finetuning.load import load_model
    from llm_engineering.training.run import train

    config = family_config("qwen3_moe", {"train.max_steps": 4, "train.checkpoint_every": 2})

    def run(name: str, on_progress: Any = None, resume: Any = "never") -> Any:
        lora = inject_lora(load_model(config.model), config.lora)
        return train(
            lora, family_rows, config.train, config.evaluate, seed=0, work=tmp_path, name=name,
            on_progress=on_progress, resume=resume,
        )  # fmt: skip

    class Interruption(Exception):
        pass

    def interrupt(record: Any) -> None:
        if record.steps == 3:  # the checkpoint of the second is complete
            raise Interruption

    with pytest.raises(Interruption):
        run("broken", interrupt)
    resumed, record = run("resumed", resume="required")
    assert record.resumed_from_step == 2
    whole, _ = run("whole")
    assert resumed.digest == whole.digest


@pytest.mark.parametrize("name", every_day(["llama", "gemma3_text", "qwen3_moe", *SEEING]))
def test_the_loss_is_the_same_however_a_step_is_split(
    name: str, family_config: Any, family_rows: Any, tmp_path: Path
) -> None:
    """Some classes of transformers do not take the step's number of tokens (``accepts_loss_kwargs``)."""
    from llm_engineering.model.finetuning.inject import inject_lora
    from llm_engineering.model.finetuning.load import load_model
    from llm_engineering.training.run import train

    one_step = {"train.max_steps": 1, "evaluate.samples": 0}
    found = []
    for micro_batch, accumulation in ((4, 1), (1, 4)):
        split = {"train.micro_batch": micro_batch, "train.gradient_accumulation": accumulation}
        config = family_config(name, one_step | split)
        lora = inject_lora(load_model(config.model), config.lora)
        _, record = train(
            lora, family_rows, config.train, config.evaluate, seed=0, work=tmp_path,
            name=str(micro_batch),
        )  # fmt: skip
        found.append(record.points[0])
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)
    assert found[1].grad_norm == pytest.approx(found[0].grad_norm, rel=1e-4)
