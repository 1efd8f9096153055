"""Each way to ship another model than was trained, tried on trainings of every strength: all are caught.

The trainings are real ones of a tiny model. A short one, or a preference objective's at its default
rate, changes the outputs by less than bfloat16 rounds. The reading process is this one here (that it is
one of its own, ``test_parity`` tests), so that a hundred models are read in a minute.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapter_attacks import ADAPTER_ATTACKS, TEXT_ATTACKS, WEIGHT_ATTACKS
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import ExportError, UnprovenError
from llm_engineering.export import parity, reload
from llm_engineering.export.exports import make_exports
from llm_engineering.export.merge import merge
from llm_engineering.export.parity import TOLERANCES, precision, prove
from llm_engineering.export.reload import Export
from llm_engineering.model.evaluation.probe import TrainedProbe
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.training.evaluate import evaluate

pytestmark = pytest.mark.slow

MERGED = ExportSettings(merged_16bit=True)
# The sixteen values of NF4 (arXiv 2305.14314, appendix E), to a quarter of a percent.
NF4 = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
       0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a proof is given, and the folder that it is about."""

    lora: LoraRecipe
    trained: TrainedProbe
    folder: Path
    base: Path
    """What the merged model is made of."""


@pytest.fixture(autouse=True)
def reads_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> Any:
        reload.main(*command[-2:])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr("gc.collect", lambda: 0)  # half a second a model, beside pytest's objects
    monkeypatch.setitem(sys.modules, "sklearn", sys.modules.get("sklearn"))  # main() hides it
    monkeypatch.setattr(parity, "subprocess", SimpleNamespace(run=run, DEVNULL=None))


def stored_as(tiny: Path, folder: Path, dtype: torch.dtype, *, nf4: bool = False) -> Path:
    """A copy of a model in another type; with ``nf4``, of what loading in NF4 makes of its weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    code = torch.tensor(NF4)
    for module in model.model.modules():
        if nf4 and isinstance(module, torch.nn.Linear):
            blocks = module.weight.data.reshape(-1, 32)
            largest = blocks.abs().amax(1, keepdim=True)
            nearest = (blocks / largest).unsqueeze(-1).sub(code).abs().argmin(-1)
            module.weight.data = (code[nearest] * largest).reshape(module.weight.shape)
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def trained_run(config: Any, run: Any, folder: Path, base: Path) -> Run:
    lora, dataset, adapter, record = run(config, folder)
    evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    shutil.copytree(adapter.folder, folder / "run" / "adapter")
    tokenizer = load_tokenizer(config.model)
    tokenizer.chat_template = lora.model.chat_template
    tokenizer.save_pretrained(folder / "run" / "adapter")
    assert evaluation.trained_probe is not None
    return Run(lora, evaluation.trained_probe, folder / "run", base)


def attacked(one: Run, sound: list[Export], folder: Path) -> dict[str, Export]:
    """Every broken export, by what was done to it; a merged one is made of a broken adapter."""
    adapter, merged = sound[0], sound[-1]
    found: dict[str, Export] = {}
    for name, attack in ADAPTER_ATTACKS.items():
        broken = shutil.copytree(adapter.path, folder / f"adapter, {name}")
        attack(broken)
        found[f"adapter, {name}"] = adapter.model_copy(update={"path": str(broken)})
        of_it = folder / f"merged, {name}"
        if name in TEXT_ATTACKS:
            shutil.copytree(merged.path, of_it)
            attack(of_it)
        elif name in WEIGHT_ATTACKS:
            merge(one.base, broken, of_it, stop_ids=one.lora.model.stop_ids)
        else:
            continue
        found[f"merged, {name}"] = merged.model_copy(update={"path": str(of_it)})
    return found


def caught(exports: list[Export], attacks: dict[str, Export], one: Run) -> dict[str, str]:
    """What is said of each attack, by its name; others stand before them to be compared with."""
    others = [each.model_copy(update={"is_proven": False}) for each in exports]
    with pytest.raises(UnprovenError) as raised:
        prove([*others, *attacks.values()], one.trained, one.lora.model)
    _, *lines = str(raised.value).splitlines()
    assert len(lines) == len(attacks), raised.value  # each is caught, and none of the sound ones
    return dict(zip(attacks, lines, strict=True))


SHORT = {"train.max_steps": 3, "train.learning_rate": 3e-4}
REAL = {"train.max_steps": 24, "train.learning_rate": 0.02}
TRAININGS = ("sft of 3 steps", "dpo at its default rate", "real sft", "qlora")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", TRAININGS)
def test_every_attack_is_caught_and_the_sound_export_passes(
    training: str,
    dtype: str,
    make_config: Any,
    preference_config: Any,
    run: Any,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    torch_dtype = getattr(torch, dtype)
    base = stored_as(tiny_model, tmp_path / "base", torch_dtype)
    trains_on = base
    if training == "qlora":  # whose 4 bits PyTorch has on no CPU: the weights that they stand for
        trains_on = stored_as(base, tmp_path / "nf4", torch_dtype, nf4=True)
    changes = {"model.id": str(trains_on), "model.dtype": dtype}
    if training == "dpo at its default rate":
        changes |= {"train.max_steps": 16, "train.learning_rate": 2e-6}
        config = preference_config("dpo", changes)
    else:
        config = make_config(changes | (REAL if training in ("real sft", "qlora") else SHORT))
    one = trained_run(config, run, tmp_path, base)
    effect = one.trained.effect
    assert effect is not None

    if training == "qlora":
        exports = qlora_exports(one)
    else:
        exports = make_exports(MERGED, one.lora, one.folder)
    if training.startswith("dpo") and dtype == "bfloat16":
        # Its steps are below half a step of the stored type: the merge is sound and worth nothing.
        with pytest.raises(UnprovenError, match="merged_16bit: rounding to 16 bit leaves only "):
            prove(exports, one.trained, one.lora.model)
        merged_attacks = False
    else:
        merged_attacks = True
    proofs = prove(exports if merged_attacks else exports[:1], one.trained, one.lora.model)

    for proof in proofs:
        assert proof.passed
        allowed = TOLERANCES[proof.precision]
        told = effect > allowed.kl
        assert proof.proven_by == ("outputs and stored tensors" if told else "stored tensors")
        assert proof.tolerated_kl == (
            min(allowed.kl * max(1, effect / 0.88), effect / 4) if told else allowed.kl
        )
        assert proof.tensors == (28 if proof.export == "adapter" else 21)
    if training.startswith(("dpo", "sft")):  # what this test is about
        assert effect < TOLERANCES["bfloat16"].kl
        assert precision(exports[0], one.lora.model) == dtype

    attacks = attacked(one, exports, tmp_path)
    if not merged_attacks:
        exports = exports[:1]
        attacks = {name: each for name, each in attacks.items() if name.startswith("adapter")}
    said = caught(exports, attacks, one)
    for name, line in said.items():
        assert line.startswith("adapter: " if name.startswith("adapter") else "merged_16bit: ")
    assert "is another text than that of training" in said["adapter, wrong template"]
    assert "another vocabulary" in said["adapter, stale tokenizer"]
    assert "are not to the bit those that were trained" in said["adapter, negated"]
    assert "the scaling" in said["adapter, wrong alpha"]
    assert "are not used by PEFT" in said["adapter, a target not named"]
    if merged_attacks:
        assert "layers.1." in said["merged, one layer empty"]
        assert "base model + adapter, rounded once to" in said["merged, one module empty"]

    edit_weights(trains_on)  # another revision, in its place
    with pytest.raises(ExportError, match="is not the file that the run loaded"):
        make_exports(ExportSettings(), one.lora, one.folder)


def edit_weights(model: Path) -> None:
    """One number moves by a percent: nothing that outputs would show."""
    path = model / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] *= 1.01
    save_file(tensors, path, metadata={"format": "pt"})


def qlora_exports(one: Run) -> list[Export]:
    """As ``make_exports`` gives after a training in NF4: the merge is into the original weights."""
    adapter = Export(kind="adapter", path=str(one.folder / "adapter"), base=one.lora.model.id)
    original = adapter.model_copy(update={"base": str(one.base), "is_proven": False})
    merge(one.base, one.folder / "adapter", one.folder / "merged", stop_ids=one.lora.model.stop_ids)
    merged = Export(
        kind="merged_16bit",
        path=str(one.folder / "merged"),
        base=str(one.base),
        adapter=adapter.path,
        against=1,
    )
    return [adapter, original, merged]


@pytest.mark.parametrize(
    "options",
    [
        {"lora.use_dora": True},
        {"lora.use_rslora": True},
        {"lora.rank_pattern": {"down_proj": 64}, "lora.alpha_pattern": {"q_proj": 8}},
        {"lora.init": "pissa"},
        {"lora.bias": "all", "lora.target_modules": ["q_proj", "v_proj"]},
        {"lora.bias": "lora_only", "lora.use_dora": True},
    ],
    ids=["dora", "rslora", "patterns", "pissa", "bias", "bias-dora"],
)
def test_every_kind_of_adapter_is_proven_and_attacked(
    options: dict[str, Any], make_config: Any, run: Any, tiny_model: Path, tmp_path: Path
) -> None:
    base = tiny_model
    if "lora.bias" in options:
        base = with_biases(tiny_model, tmp_path / "biased")
    config = make_config({"model.id": str(base), **SHORT, **options})
    one = trained_run(config, run, tmp_path, base)
    exports = make_exports(MERGED, one.lora, one.folder)

    adapter, merged = prove(exports, one.trained, one.lora.model)

    assert adapter.passed
    assert merged.passed
    assert adapter.tensors == len(load_file(one.folder / "adapter" / ADAPTER_WEIGHTS))
    assert one.trained.effect is not None
    assert one.trained.effect > 0  # where biases are trained, of the base model loaded again
    if "lora.bias" in options:
        trained = one.trained.tensors
        assert trained is not None
        assert sum(name.endswith(".bias") for name in trained.digests) >= 4
    caught(exports, attacked(one, exports, tmp_path), one)


def with_biases(tiny: Path, folder: Path) -> Path:
    """A copy of a tiny model whose attention has biases."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(tiny, attention_bias=True)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def test_without_the_trained_tensors_a_weak_adapter_is_not_said_to_be_proven(
    make_config: Any, run: Any, tiny_model: Path, tmp_path: Path
) -> None:
    config = make_config({"train.max_steps": 2, "train.learning_rate": 1e-7})
    one = trained_run(config, run, tmp_path, tiny_model)
    exports = make_exports(ExportSettings(), one.lora, one.folder)

    (proof,) = prove(exports, one.trained, one.lora.model)
    assert proof.proven_by == "stored tensors"
    with pytest.raises(UnprovenError, match="outputs cannot prove it, since the adapter's effect"):
        prove(exports, one.trained.model_copy(update={"tensors": None}), one.lora.model)
