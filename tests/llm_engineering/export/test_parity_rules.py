"""Each rule of the parity proof, on probes made by hand; real exports are read back in test_parity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.errors import ExportError, UnprovenError
from llm_engineering.export import parity
from llm_engineering.export.parity import TOLERANCES, Tolerance, precision, prove, reload, tolerance
from llm_engineering.export.reload import Export, Reloaded, ReloadRequest, ReloadResponse
from llm_engineering.export.stored_tensors import Finding
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.probe import Logits, Probe, ProbeRow, TrainedProbe
from llm_engineering.model.evaluation.trained_tensors import TrainedTensors
from llm_engineering.model.recipes import ModelRecipe

ORIGINS = ("held_out.jsonl:4", "held_out.jsonl:7")
TEMPLATE = "{{ messages }}"
PROMPTS = [[5, 6, 7], [8, 9]]
LOGITS = [3.0, 2.9, 0.0]
EFFECT = 0.2
TENSORS = TrainedTensors(digests={"lora_A": "0"}, scaling={"q_proj": 2.0})


def a_recipe(dtype: str = "bfloat16", **changes: Any) -> ModelRecipe:
    values = {
        "id": "model", "revision": None, "architecture": "LlamaForCausalLM", "dtype": dtype,
        "quantisation": "none", "max_seq_length": 128, "chat_template": TEMPLATE,
        "stop_ids": (2, 3), "trust_remote_code": True, "weight_digests": {}, "parameters": 1,
    }  # fmt: skip
    return ModelRecipe(**(values | changes))


def logits(values: list[float], answer: list[int]) -> Logits:
    """The same logits at every position of an answer."""
    places = range(len(answer))
    return Logits(
        ids=[[0, 1, 2] for _ in places],
        values=[list(values) for _ in places],
        log_sums=[4.0 for _ in places],
    )


def a_probe(
    values: list[float] | None = None, greedy: tuple[list[int], list[int]] = ([0, 0], [0])
) -> Probe:
    shown = logits(values or LOGITS, [0])
    return Probe(
        rows=[shown, shown],
        greedy=[list(one) for one in greedy],
        answers=[logits(values or LOGITS, [0, 0]), logits(values or LOGITS, [0])],
    )


def a_trained(**changes: Any) -> TrainedProbe:
    rows = [
        ProbeRow(
            origin=origin, input_ids=[*prompt, 1], prompt_ids=prompt, messages=[],
            rendered_ids=prompt,
        )
        for origin, prompt in zip(ORIGINS, PROMPTS, strict=True)
    ]  # fmt: skip
    values = {
        "rows": rows, "probe": a_probe(), "effect": EFFECT, "tensors": TENSORS,
        "vocabulary": "words",
    }  # fmt: skip
    return TrainedProbe(**(values | changes))


def found(**changes: Any) -> Reloaded:
    """An export that says what the trained model said."""
    values = {
        "probe": a_probe(), "rendered_ids": PROMPTS, "chat_template": TEMPLATE,
        "vocabulary": "words", "stop_ids": [3, 2, 9],
    }  # fmt: skip
    return Reloaded(**(values | changes))


ADAPTER = Export(kind="adapter", path="adapter", base="base")
MERGED = Export(kind="merged_16bit", path="merged", base="base", adapter="adapter")
RIGHT = Finding(tensors=4, update_kept=0.9)
GGUF = Export(kind="gguf", path="model-q8_0.gguf", base="merged")


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prove exports that say this of themselves; the stored tensors are found to be right."""

    def go(
        said: dict[str, Any] | list[Reloaded] | None = None,
        *,
        exports: tuple[Export, ...] = (ADAPTER,),
        trained: TrainedProbe | None = None,
        recipe: ModelRecipe | None = None,
        stored: Finding | None = RIGHT,
    ) -> list[ParityProof]:
        answers = said if isinstance(said, list) else [found(**(said or {})) for _ in exports]
        monkeypatch.setattr(parity, "reload", lambda *arguments: answers)
        monkeypatch.setattr(parity, "_stored", lambda *arguments: stored)
        return prove(exports, trained or a_trained(), recipe or a_recipe())

    return go


@pytest.fixture
def fault(proven: Any) -> Any:
    """What is said of one export that is not proven."""

    def go(said: dict[str, Any] | None = None, **settings: Any) -> str:
        with pytest.raises(UnprovenError) as caught:
            proven(said, **settings)
        first, line = str(caught.value).splitlines()
        assert first == "an export is not what was trained:"
        return line

    return go


# --- the figures -------------------------------------------------------------------------------


def test_a_sound_export_is_proven_with_its_figures(proven: Any) -> None:
    other = a_probe([2.9, 2.9, 0.0], ([0, 0], [1]))

    (proof,) = proven({"probe": other})

    assert proof.passed
    assert proof.largest_difference == pytest.approx(0.1)
    assert proof.mean_kl > 0
    assert proof == ParityProof(
        export="adapter",
        against="the trained model in memory",
        precision="bfloat16",
        rows=2,
        positions=5,
        largest_difference=proof.largest_difference,
        mean_kl=proof.mean_kl,
        tolerated_difference=TOLERANCES["bfloat16"].logit,
        tolerated_kl=TOLERANCES["bfloat16"].kl,
        same_answers=1,
        effect=EFFECT,
        proven_by="outputs and stored tensors",
        tensors=4,
        update_kept=0.9,
    )


@pytest.mark.parametrize(
    ("effect", "stored", "proven_by", "tensors"),
    [
        (EFFECT, None, "outputs", 0),
        (EFFECT, Finding(tensors=3), "outputs and stored tensors", 3),
        (0.001, Finding(tensors=3), "stored tensors", 3),
        (None, Finding(tensors=3), "stored tensors", 3),
    ],
)
def test_it_says_what_the_proof_rests_on(
    effect: float | None, stored: Finding | None, proven_by: str, tensors: int, proven: Any
) -> None:
    (proof,) = proven(trained=a_trained(effect=effect), stored=stored)

    assert (proof.proven_by, proof.tensors, proof.update_kept) == (proven_by, tensors, None)


def test_each_export_is_held_against_what_it_names(proven: Any) -> None:
    """The second answers as the first does, which the live model in NF4 does not."""
    coarse = a_probe([9.0, 0.0, 0.0], ([2, 2], [2]))
    exports = (ADAPTER.model_copy(update={"is_proven": False}), MERGED.model_copy(
        update={"against": 0}
    ))  # fmt: skip

    (proof,) = proven(exports=exports, trained=a_trained(probe=coarse))

    assert proof.export == "merged_16bit"
    assert proof.against == "the adapter on the original 16-bit weights"
    assert (proof.largest_difference, proof.same_answers) == (0.0, 2)


def test_the_live_model_in_nf4_is_told(proven: Any) -> None:
    (proof,) = proven(recipe=a_recipe(quantisation="nf4"))

    assert proof.against == "the trained model in memory, its base model in NF4"


def test_all_that_is_wrong_is_told_of_every_export(proven: Any) -> None:
    sound, broken = found(), found(vocabulary="others", stop_ids=[2])

    with pytest.raises(UnprovenError) as caught:
        proven([broken, sound, found(probe=None, error="OSError: gone")],
               exports=(ADAPTER, MERGED, GGUF))  # fmt: skip

    assert str(caught.value).splitlines() == [
        "an export is not what was trained:",
        "adapter: its tokenizer has another vocabulary than that of training; its generation "
        "configuration stops at [2], not at [3], which ends an answer",
        "gguf: cannot be loaded: OSError: gone",
    ]
    assert caught.value.kinds == {"adapter", "gguf"}


# --- text --------------------------------------------------------------------------------------


def test_another_chat_template_is_named_by_the_first_row_that_shows_it(fault: Any) -> None:
    assert fault({"rendered_ids": [PROMPTS[0], [8]]}) == (
        "adapter: its chat template renders held_out.jsonl:7 as 1 tokens that are not the 2 of "
        "training"
    )
    assert "renders held_out.jsonl:4 as 2 tokens that are not the 3" in fault(
        {"rendered_ids": [[5, 6], [8]]}
    )


def test_a_template_that_no_row_shows_is_told_by_its_text(fault: Any) -> None:
    line = fault({"chat_template": TEMPLATE + " "})

    assert line == "adapter: its chat template is another text than that of training"


def test_a_configuration_that_stops_nowhere(fault: Any) -> None:
    assert "stops at no token, not at [2, 3], which ends an answer" in fault({"stop_ids": []})


def test_a_vocabulary_that_was_not_recorded_is_not_compared(proven: Any) -> None:
    assert proven({"vocabulary": "any"}, trained=a_trained(vocabulary=None))


# --- outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "faulty"), [(0.49, False), (0.5, False), (0.51, True)], ids=["in", "at", "beyond"]
)
def test_a_logit_may_differ_by_what_the_type_explains(
    by: float, faulty: bool, proven: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "float16", Tolerance(logit=0.5, kl=9.0))
    settings = {"trained": a_trained(effect=40.0), "recipe": a_recipe("float16")}
    said = {"probe": a_probe([3.0, 2.9, 0.0 - by])}

    if faulty:
        assert fault(said, **settings).startswith(
            "adapter: its logits differ by up to 0.51 (tolerated: 0.5) and a mean KL of "
        )
    else:
        assert proven(said, **settings)


def test_the_kl_may_not_be_more_either(fault: Any) -> None:
    """Within the logits' tolerance, and far from what was trained."""
    line = fault({"probe": a_probe([3.0, 1.9, 0.0])})

    assert line.startswith("adapter: its logits differ by up to 1 (tolerated: 4) and a mean KL of ")
    assert line.endswith("nats (tolerated: 0.015; without the adapter: 0.2)")


def test_what_is_no_number_is_a_fault(fault: Any) -> None:
    assert "its logits differ by up to nan" in fault({"probe": a_probe([float("nan")] * 3)})


@pytest.mark.parametrize(
    ("trained_greedy", "greedy", "says"),
    [
        (([0, 0], [0]), ([0, 2], [0]), f"its greedy answer to {ORIGINS[0]} is another, by a token"),
        (([0, 0], [0]), ([0, 0], [2]), f"its greedy answer to {ORIGINS[1]} is another, by a token"),
        (([0, 0], [0]), ([0, 2], [2]), f"its greedy answer to {ORIGINS[0]} is another, by a token"),
        # A token that is not among those whose logits are kept: no better than the least of these.
        (
            ([0, 0], [0]),
            ([0, 7], [0]),
            "by a token whose logit was 3 below the best, where 2 could",
        ),
        (
            ([8, 0], [0]),
            ([2, 0], [0]),
            "by a token whose logit was 3 below the best, where 2 could",
        ),
    ],
)
def test_an_answer_by_a_token_that_was_far_from_the_best(
    trained_greedy: Any, greedy: Any, says: str, fault: Any
) -> None:
    trained = a_trained(probe=a_probe(greedy=trained_greedy))

    line = fault({"probe": a_probe(greedy=greedy)}, trained=trained)

    assert says in line
    assert line.count("greedy answer") == 1


@pytest.mark.parametrize("greedy", [([0, 1], [0]), ([1, 2], [0]), ([0], [0]), ([0, 0, 2], [0])])
def test_an_answer_that_rounding_explains(greedy: Any, proven: Any) -> None:
    """The first other token was near the best; what follows it, or that one ends, says nothing."""
    assert proven({"probe": a_probe(greedy=greedy)})


def test_what_moved_may_change_places(
    proven: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap of 1.2: logits that moved by 0.6 may have changed places, those that did not may not."""
    monkeypatch.setitem(TOLERANCES, "16-bit weights", Tolerance(logit=1.0, kl=9.0))
    settings = {"trained": a_trained(probe=a_probe([3.0, 1.8, 0.0]), effect=9.0),
                "recipe": a_recipe("float16")}  # fmt: skip
    settings["exports"] = (MERGED,)
    one = ([0, 1], [0])

    assert "logit was 1.2 below the best, where 0.5 could be rounding" in fault(
        {"probe": a_probe([3.0, 1.8, 0.0], one)}, **settings
    )
    assert proven({"probe": a_probe([3.0, 1.8, -0.6], one)}, **settings)


# --- outputs that cannot tell ------------------------------------------------------------------


def test_a_stored_tensors_fault_is_a_fault(fault: Any) -> None:
    assert fault(stored=Finding(fault="lora_A is another")) == "adapter: lora_A is another"


@pytest.mark.parametrize("effect", [0.015, None])
def test_outputs_that_cannot_tell_are_no_proof(effect: float | None, fault: Any) -> None:
    line = fault(trained=a_trained(effect=effect), stored=None)

    assert f"the adapter's effect ({effect or 'not known'}) is no larger than" in line


def test_an_export_that_is_only_compared_with_needs_no_proof_of_its_own(proven: Any) -> None:
    aside = ADAPTER.model_copy(update={"is_proven": False})
    far = found(probe=a_probe([9.0, 0.0, 0.0]))

    assert proven([far], exports=(aside,), trained=a_trained(effect=None), stored=None) == []


def test_what_could_not_be_loaded_is_nothing_to_be_held_against(fault: Any, proven: Any) -> None:
    exports = (ADAPTER.model_copy(update={"is_proven": False}), MERGED.model_copy(
        update={"against": 0}
    ))  # fmt: skip
    answers = [found(probe=None, error="OSError: gone"), found()]

    with pytest.raises(UnprovenError) as caught:
        proven(answers, exports=exports)

    assert str(caught.value).splitlines()[1:] == [
        "adapter: cannot be loaded: OSError: gone",
        "merged_16bit: what it is held against could not be loaded",
    ]


# --- tolerances --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("export", "dtype", "key"),
    [
        (ADAPTER, "bfloat16", "bfloat16"),
        (ADAPTER, "float32", "float32"),
        (ADAPTER, "float16", "float16"),
        (ADAPTER.model_copy(update={"quantisation": "fp8"}), "bfloat16", "FP8 weights"),
        (MERGED, "float32", "16-bit weights"),
        (MERGED, "float16", "16-bit weights"),
        (MERGED, "bfloat16", "bfloat16"),
        (GGUF, "float32", "8-bit weights"),
        (GGUF, "bfloat16", "8-bit weights"),
        (GGUF.model_copy(update={"path": "model-f16.gguf"}), "float32", "16-bit weights"),
        (GGUF.model_copy(update={"path": "model-q5_k_m.gguf"}), "float32", "5-bit weights"),
        (GGUF.model_copy(update={"path": "model-q4_k_m.gguf"}), "bfloat16", "4-bit weights"),
    ],
)
def test_an_export_is_judged_by_its_own_precision(export: Export, dtype: str, key: str) -> None:
    assert precision(export, a_recipe(dtype)) == key
    allowed, told = tolerance(export, a_trained(effect=0.88), a_recipe(dtype))
    assert (allowed, told) == (TOLERANCES[key], True)
    larger, _ = tolerance(export, a_trained(effect=8.8), a_recipe(dtype))
    assert larger.kl == pytest.approx(10 * allowed.kl)
    assert larger.logit == allowed.logit


# --- stored tensors ----------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    for name in ("compare_adapter", "compare_merged"):
        monkeypatch.setattr(
            parity,
            name,
            lambda *args, name=name, **_: calls.append((name, *args)) or Finding(tensors=7),
        )
    return calls


def test_an_adapters_tensors_are_compared_with_the_trained(compared: list[Any]) -> None:
    rows = {"embed_tokens": [7]}
    said = found(scaling={"q_proj": 4.0}, adapter_names=["a"], token_rows=rows)

    assert parity._stored(ADAPTER, said, a_trained(), a_recipe()) == Finding(tensors=7)
    assert compared == [("compare_adapter", Path("adapter"), TENSORS, {"q_proj": 4.0}, ["a"], rows)]


def test_merged_tensors_are_compared_with_base_and_adapter(compared: list[Any]) -> None:
    assert parity._stored(MERGED, found(), a_trained(), a_recipe()) == Finding(tensors=7)
    paths = (Path("base"), Path("adapter"), Path("merged"))
    assert compared == [("compare_merged", *paths, TENSORS)]


def test_a_ggufs_tensors_were_compared_where_it_was_read(compared: list[Any]) -> None:
    said = found(tensors=9, tensor_fault="one is another")

    assert parity._stored(GGUF, said, a_trained(), a_recipe()) == Finding(9, "one is another")
    assert (
        parity._stored(GGUF.model_copy(update={"base": None}), said, a_trained(), a_recipe())
        is None
    )


@pytest.mark.parametrize(
    ("export", "said", "trained"),
    [
        (ADAPTER, found(), a_trained(tensors=None)),
        (MERGED, found(), a_trained(tensors=None)),
        (ADAPTER, found(probe=None), a_trained()),
        (MERGED.model_copy(update={"base": None}), found(), a_trained()),
        (MERGED.model_copy(update={"adapter": None}), found(), a_trained()),
    ],
)
def test_there_may_be_nothing_to_compare_with(
    export: Export, said: Reloaded, trained: TrainedProbe, compared: list[Any]
) -> None:
    assert parity._stored(export, said, trained, a_recipe()) is None
    assert compared == []


def test_each_export_is_proven_by_its_own_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    exports, trained, recipe = [ADAPTER, MERGED], a_trained(), a_recipe()
    answers = [found(vocabulary="words"), found(stop_ids=[2, 3])]
    read_back: list[Any] = []
    compared: list[Any] = []

    def answered(*arguments: Any) -> list[Reloaded]:
        read_back.append(arguments)
        return answers

    def stored(*arguments: Any) -> Finding:
        compared.append(arguments)
        return Finding(tensors=len(compared))

    monkeypatch.setattr(parity, "reload", answered)
    monkeypatch.setattr(parity, "_stored", stored)

    proofs = prove(exports, trained, recipe)

    assert read_back == [(exports, trained, recipe)]
    assert compared == [
        (export, answer, trained, recipe) for export, answer in zip(exports, answers, strict=True)
    ]
    assert [(proof.export, proof.tensors) for proof in proofs] == [
        ("adapter", 1),
        ("merged_16bit", 2),
    ]


# --- the process that reads them back ----------------------------------------------------------


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of the process: notes what it was asked, and ends as it is told."""
    seen = SimpleNamespace(status=0, error="", answers=True, request=None)

    def run(command: list[str], **options: Any) -> Any:
        seen.command, seen.options = command, options
        seen.request = ReloadRequest.model_validate_json(Path(command[3]).read_bytes())
        if seen.answers:
            response = ReloadResponse(exports=[found(), found(error="x")])
            Path(command[4]).write_text(response.model_dump_json(), encoding="utf-8")
        return subprocess.CompletedProcess(command, seen.status, stdout="", stderr=seen.error)

    monkeypatch.setattr(parity.subprocess, "run", run)
    return seen


def test_the_process_is_asked_for_all_exports_and_rows(
    process: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    trained = a_trained()

    answers = reload([ADAPTER, MERGED], trained, a_recipe("float16"))

    assert answers == [found(), found(error="x")]
    assert process.request == ReloadRequest(
        exports=[ADAPTER, MERGED], rows=trained.rows, live=trained.probe, dtype="float16",
        stop_ids=[2, 3], trust_remote_code=True,
    )  # fmt: skip
    assert process.command[:3] == [sys.executable, "-m", "llm_engineering.export.reload"]
    environment = process.options["env"]
    assert environment["PYTHONPATH"] == os.pathsep.join((str(parity.ROOT), "mine"))
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    assert process.options["stdin"] == subprocess.DEVNULL  # it may ask nobody
    assert not Path(process.command[3]).exists()


def test_the_package_is_found_where_the_path_names_nothing(
    process: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    reload([ADAPTER], a_trained(), a_recipe())

    assert process.options["env"]["PYTHONPATH"] == str(parity.ROOT)
    assert (parity.ROOT / "llm_engineering" / "export" / "reload.py").is_file()


@pytest.mark.parametrize(
    ("status", "error", "answers", "says"),
    [
        (
            1,
            "Traceback\nMemoryError: no room\n",
            True,
            "ended with status 1: MemoryError: no room;",
        ),
        (-9, "", True, "ended with status -9: no message;"),
        (0, "", False, "ended with status 0: no message;"),
    ],
)
def test_a_process_that_ends_without_an_answer(
    status: int, error: str, answers: bool, says: str, process: SimpleNamespace
) -> None:
    process.status, process.error, process.answers = status, error, answers

    with pytest.raises(ExportError) as caught:
        reload([ADAPTER], a_trained(), a_recipe())

    assert says in str(caught.value)
    assert not isinstance(caught.value, UnprovenError)
    assert json.loads(process.request.model_dump_json())["exports"][0]["path"] == "adapter"
