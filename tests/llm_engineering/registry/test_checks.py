"""Tests of ``llm_engineering.registry.checks``: what each check lets pass, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file

from llm_engineering.configuration.registry import CheckName, RegistrySettings
from llm_engineering.data.summary import DatasetSummary
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.benchmarks import Benchmark
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.generic import GenericLoss
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    HeldOutPoint,
    TrainingPoint,
    TrainingRecord,
)
from llm_engineering.registry.checks import CHECKS, Candidate, Production, run_checks

BASE = [30.0 + index for index in range(20)]
OURS = [loss * 0.8 for loss in BASE]


def metrics(row_losses: list[float]) -> HeldOutMetrics:
    tokens = 10 * len(row_losses)
    return HeldOutMetrics(
        loss=sum(row_losses) / tokens,
        token_accuracy=0.5,
        tokens=tokens,
        rows=len(row_losses),
        row_losses=row_losses,
        row_tokens=[10] * len(row_losses),
    )


def proof(**changes: Any) -> ParityProof:
    values: dict[str, Any] = {
        "export": "adapter",
        "against": "the trained model in memory",
        "precision": "float32",
        "rows": 4,
        "positions": 100,
        "largest_difference": 0.001,
        "mean_kl": 1e-6,
        "tolerated_difference": 0.01,
        "tolerated_kl": 1e-5,
        "same_answers": 4,
        "effect": 0.5,
    }
    return ParityProof(**(values | changes))


def evaluation(before: list[float], after: list[float], *, generic: float = 0.0) -> Evaluation:
    """``generic`` is the change of the loss on general text, as a share."""
    text = GenericLoss(before=metrics(BASE), after=metrics([x * (1 + generic) for x in BASE]))
    return Evaluation(before=metrics(before), after=metrics(after), samples=[], generic=text)


def adapter(folder: Path, **tensors: torch.Tensor) -> AdapterFolder:
    folder.mkdir(exist_ok=True)
    path = folder / "adapter_model.safetensors"
    save_file({f"model.q_proj.{name}.weight": value for name, value in tensors.items()}, path)
    return AdapterFolder(folder, file_digest(path))


@pytest.fixture
def candidate(tmp_path: Path) -> Any:
    def make(**changes: Any) -> Candidate:
        audit = LabelAudit(
            rows=20,
            tokens=400,
            trained_tokens=200,
            longest_row=30,
            length_bin=2,
            rows_by_length=[20],
            truncated_rows=0,
            stop_tokens=changes.pop("stop_tokens", 20),
            example_origin="train.jsonl:1",
            example=[],
        )
        losses = changes.pop("train_losses", [3.0, 2.0])
        record = TrainingRecord(
            points=[
                TrainingPoint(
                    step=step, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens_per_second=1.0
                )
                for step, loss in enumerate(losses, 1)
            ],
            held_out=[HeldOutPoint(step=0, metrics=metrics(BASE))],
        )
        values: dict[str, Any] = {
            "summary": DatasetSummary(
                sources=[],
                bad_rows=[],
                train=audit,
                held_out=audit,
                digest="d",
                held_out_digest="h",
            ),
            "adapter": adapter(tmp_path / "adapter", lora_A=torch.ones(2), lora_B=torch.ones(2)),
            "record": record,
            "evaluation": evaluation(BASE, OURS),
            "rolled_back": {},
            "production": None,
            "parity": [proof()],
        }
        return Candidate(**(values | changes))

    return make


def outcome(name: CheckName, candidate: Candidate, **settings: Any) -> tuple[bool, str]:
    (check,) = run_checks(candidate, RegistrySettings(checks=[name], **settings))
    assert check.name == name
    return check.passed, check.detail


def test_every_name_of_the_configuration_is_a_check() -> None:
    assert set(CHECKS) == set(get_args(CheckName))


def test_a_sound_run_passes_all_in_the_configured_order(candidate: Any) -> None:
    checks = run_checks(candidate(), RegistrySettings())

    assert [check.name for check in checks] == list(get_args(CheckName))
    assert all(check.passed for check in checks), checks


def test_only_the_configured_checks_run(candidate: Any) -> None:
    settings = RegistrySettings(checks=["finite_losses"])

    assert len(run_checks(candidate(stop_tokens=0), settings)) == 1


def test_a_loss_that_is_not_finite(candidate: Any) -> None:
    passed, detail = outcome("finite_losses", candidate(train_losses=[3.0, float("nan")]))

    assert (passed, detail) == (False, "the loss is nan at step 2")


@pytest.mark.parametrize(("stop_tokens", "passed"), [(20, True), (11, True), (10, False)])
def test_most_answers_must_have_ended(stop_tokens: int, passed: bool, candidate: Any) -> None:
    said = f"{stop_tokens} end-of-turn tokens are trained in 20 rows"
    if not passed:
        said += ": most answers were cut before they ended"

    assert outcome("trained_end_of_turn", candidate(stop_tokens=stop_tokens)) == (passed, said)


def test_an_adapter_that_was_altered(candidate: Any, tmp_path: Path) -> None:
    altered = AdapterFolder(adapter(tmp_path / "a", lora_B=torch.ones(2)).folder, "0" * 64)

    passed, detail = outcome("intact_adapter", candidate(adapter=altered))

    assert not passed
    assert "SHA-256 differs" in detail


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.tensor([1.0, float("inf")]), "model.q_proj.lora_B.weight holds a value that is not"),
        (torch.zeros(2), "every lora_B is zero"),
        (torch.tensor([1.0, float("nan")]).bfloat16(), "holds a value that is not finite"),
        (torch.tensor([0.0, -0.0]).bfloat16(), "every lora_B is zero"),
        (torch.tensor([1.0, float("inf")]).half(), "holds a value that is not finite"),
    ],
)
def test_an_adapter_that_is_not_sound(
    value: torch.Tensor, says: str, candidate: Any, tmp_path: Path
) -> None:
    broken = adapter(tmp_path / "b", lora_A=torch.ones(2), lora_B=value)

    passed, detail = outcome("intact_adapter", candidate(adapter=broken))

    assert not passed
    assert says in detail


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_adapter_is_sound_in_any_type(
    dtype: torch.dtype, candidate: Any, tmp_path: Path
) -> None:
    learned = adapter(tmp_path / "d", lora_B=torch.tensor([0.0, 2.0, 0.0], dtype=dtype))

    passed, detail = outcome("intact_adapter", candidate(adapter=learned))

    assert passed, detail


def test_one_layer_that_learned_is_enough(candidate: Any, tmp_path: Path) -> None:
    """As of an expert that no row was routed to; the names of tensors ascend in the file."""
    some = adapter(
        tmp_path / "c", lora_A=torch.ones(2), lora_B=torch.ones(2), lora_B1=torch.zeros(2)
    )

    passed, detail = outcome("intact_adapter", candidate(adapter=some))

    assert passed
    assert detail.startswith("3 tensors, all finite")


def test_an_adapter_that_was_rolled_back(candidate: Any) -> None:
    made = candidate()
    again = candidate(rolled_back={made.adapter.digest: "run-7"})

    assert outcome("not_rolled_back", again) == (
        False,
        "this very adapter was rolled back, as run-7",
    )


@pytest.mark.parametrize(
    ("parity", "passed", "says"),
    [
        ([proof(), proof(export="gguf")], True, ", proven by outputs; gguf: logits within"),
        ([proof()], True, "adapter: logits within 0.001 (tolerated: 0.01), mean KL 1e-06 nats"),
        ([proof(), proof(export="merged_16bit", mean_kl=2e-5)], False, "mean KL 2e-05 nats (tol"),
        ([proof(largest_difference=0.02)], False, "logits within 0.02 (tolerated: 0.01)"),
        ([], False, "no export was held against the trained model"),
    ],
)
def test_every_export_must_be_what_was_trained(
    parity: list[ParityProof], passed: bool, says: str, candidate: Any
) -> None:
    found, detail = outcome("parity", candidate(parity=parity))

    assert found is passed
    assert says in detail


@pytest.mark.parametrize(
    ("change", "settings", "passed"),
    [
        (-0.1, {}, True),
        (0.2, {}, True),
        (0.3, {}, False),
        (0.3, {"max_forgetting": 0.4}, True),
        (0.01, {"max_forgetting": 0.0}, False),
        (0.0, {"max_forgetting": 0.0}, True),
    ],
)
def test_general_text_may_be_forgotten_a_little(
    change: float, settings: dict[str, float], passed: bool, candidate: Any
) -> None:
    forgetful = candidate(evaluation=evaluation(BASE, OURS, generic=change))

    found, detail = outcome("forgetting", forgetful, **settings)

    assert found is passed
    assert f"({change:+.1%}; up to" in detail


def test_forgetting_that_was_not_measured_does_not_pass(candidate: Any) -> None:
    unknown = Evaluation(before=metrics(BASE), after=metrics(OURS), samples=[])

    assert outcome("forgetting", candidate(evaluation=unknown)) == (
        False,
        "the loss on general text was not measured",
    )


def test_no_better_than_the_base_model(candidate: Any) -> None:
    worse = Evaluation(before=metrics(OURS), after=metrics(BASE), samples=[])

    passed, detail = outcome("better_than_base", candidate(evaluation=worse))

    assert not passed
    assert "25.00% higher than that of the base model" in detail


def test_the_first_version_has_nothing_to_beat(candidate: Any) -> None:
    assert outcome("better_than_production", candidate())[0]


@pytest.mark.parametrize(
    ("production", "settings", "passed", "says"),
    [
        ([loss * 1.1 for loss in OURS], {}, True, "9.09% lower than that of run-1; at 95%"),
        (
            OURS,
            {},
            False,
            "0.00% lower than that of run-1; at 95% confidence at least +0.00% better (",
        ),
        ([loss * 0.99 for loss in OURS], {}, False, "1.01% higher than that of run-1;"),
        (
            [loss * 1.1 for loss in OURS],
            {"min_improvement": 0.2},
            False,
            "at least +9.09% better, 20.00% is asked for (20 rows)",
        ),
        ([loss * 1.1 for loss in OURS], {"min_improvement": 0.05}, True, "5.00% is asked for"),
    ],
)
def test_better_equal_and_worse_than_production(
    production: list[float], settings: dict[str, float], passed: bool, says: str, candidate: Any
) -> None:
    held_against = candidate(production=Production("run-1", production))

    found, detail = outcome("better_than_production", held_against, **settings)

    assert found is passed, detail
    assert says in detail


def test_a_production_version_that_cannot_be_compared_is_not_beaten(candidate: Any) -> None:
    held_against = candidate(production=Production("run-1", None, "it adapts another base model"))

    assert outcome("better_than_production", held_against) == (
        False,
        "cannot be compared with run-1: it adapts another base model",
    )


def test_a_handful_of_rows_proves_nothing(candidate: Any) -> None:
    few = Evaluation(before=metrics(BASE[:7]), after=metrics(OURS[:7]), samples=[])

    passed, detail = outcome("better_than_base", candidate(evaluation=few))

    assert not passed
    assert "7 held-out rows are too few" in detail

    enough = Evaluation(before=metrics(BASE[:8]), after=metrics(OURS[:8]), samples=[])
    assert outcome("better_than_base", candidate(evaluation=enough))[0]


@pytest.mark.parametrize(
    ("limits", "passed", "says"),
    [
        ({"sums": 0.25}, True, "sums acc 0.500 -> 0.400 (20.0% lost; up to 25.0% is let pass)"),
        ({"sums": 0.1}, False, "sums acc 0.500 -> 0.400 (20.0% lost; up to 10.0% is let pass)"),
        ({"sums": 0.2}, True, "20.0% lost; up to 20.0% is let pass"),
        ({"others": 0.1}, False, "others was not measured (measured: sums)"),
        ({"others": 0.1, "sums": 0.2}, False, "sums acc 0.500 -> 0.400 (20.0% lost"),
        ({"general_text": 0.0, "sums": 0.5}, False, "+1.0%; up to +0.0% is let pass"),
        ({"sums": 0.5}, True, "+1.0%; up to +25.0% is let pass"),
    ],
)
def test_a_benchmark_that_is_forgotten(
    limits: dict[str, float], passed: bool, says: str, candidate: Any
) -> None:
    measured = evaluation(BASE, OURS, generic=0.01)
    lost = Benchmark(task="sums", metric="acc", before=0.5, after=0.4, rows=16)
    found = outcome(
        "forgetting",
        candidate(evaluation=measured.model_copy(update={"benchmarks": [lost]})),
        max_forgetting=limits,
    )
    assert found[0] is passed
    assert says in found[1]
