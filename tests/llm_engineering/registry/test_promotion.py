"""The gate on real adapters: a better, an equal and a worse one, and rows that changed."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from zenml.client import Client
from zenml.utils import source_utils

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.registry import CheckName
from llm_engineering.model import live
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.registry import promotion
from llm_engineering.registry.decision import Decision
from llm_engineering.registry.stages import promote_by_hand, roll_back
from llm_engineering.registry.versions import all_versions, artifact, find_version
from llm_engineering.reporting.formats import prose

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
BAD, GOOD = {"train.max_steps": 2}, {"train.max_steps": 12, "train.learning_rate": 0.003}

ASKED = {"evaluate.samples": 2, "evaluate.max_new_tokens": 6}
CHECKS = [name for name in get_args(CheckName) if name != "parity"]

Run = Callable[..., Decision]


@pytest.fixture
def run(make_config: Callable[..., FinetuningConfig], model: str) -> Run:
    """Run the pipeline; returns the decision that it left in the run's folder."""
    source_utils.set_custom_source_root(str(ROOT))
    from pipelines.finetuning import finetuning

    def start(name: str, changes: dict[str, Any]) -> Decision:
        quick = {"evaluate.samples": 0, "evaluate.parity_rows": 0, "registry.checks": CHECKS}
        config = make_config({"registry.model": model, **quick, **changes})
        name = f"{model}-{name}"
        finetuning.with_options(run_name=name)(config=config)
        text = (Path(config.run.output_dir) / name / "promotion.json").read_text()
        return Decision.model_validate(json.loads(text))

    return start


def told_of_production(report: str) -> list[str]:
    """The texts in the column of production, without marks."""
    found = re.findall(r'>Production</h3>.*?<div class="text[^>]*>(.*?)</div>', report, re.DOTALL)
    texts = [html.unescape(re.sub("<[^>]+>", "", one)) for one in found]
    return [text.removeprefix("(empty)") for text in texts]


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def stages(model: str) -> dict[str, str | None]:
    return {str(v.name).removeprefix(f"{model}-"): v.stage for v in all_versions(model)}


@pytest.mark.long
def test_better_is_promoted_equal_and_worse_are_not(run: Run, model: str, tmp_path: Path) -> None:
    first = run("first", BAD)
    assert first.promoted
    assert first.reason == "the first version to pass all 7 checks"

    equal = run("equal", BAD)  # from the cache: the gate decides all the same
    assert not equal.promoted
    assert failed(equal) == ["better_than_production"]
    assert "at least +0.00% better" in equal.reason

    better = run("better", {**GOOD, **ASKED})
    assert better.promoted
    assert (better.production, better.reason) == (
        f"{model}-first",
        f"better than {model}-first, and passed all 7 checks",
    )

    worse = run("worse", {**BAD, **ASKED})
    assert not worse.promoted
    assert failed(worse) == ["better_than_production"]
    assert "higher than that of" in worse.reason
    assert stages(model) == {
        "worse": None,
        "better": "production",
        "equal": None,
        "first": "archived",
    }

    # The decision is told where a user looks for it.
    report = (tmp_path / "outputs" / f"{model}-worse" / "report.html").read_text()
    assert "Not promoted" in report
    assert prose(worse.reason) in report
    assert f"Production is the version <code>{model}-better</code>" in report
    own = artifact(find_version(model, f"{model}-better"), "evaluation").samples
    assert told_of_production(report) == [one.after for one in own]
    finished = Client().get_pipeline_run(f"{model}-better")
    assert finished.steps["promote"].run_metadata["decision"]["promoted"] is True
    version = find_version(model, f"{model}-better")
    assert finished.steps["save_model"].model_version == version
    for name in (
        *("dataset", "trained_model", "adapter"),
        *("training_record", "evaluation", "manifest"),
    ):
        assert artifact(version, name) is not None
    metrics = json.loads((tmp_path / "outputs" / version.name / "metrics.json").read_text())
    assert version.run_metadata["held_out_loss_after"] == metrics["held_out_loss_after"]

    # What was rolled back does not come again by itself.
    roll_back(model)
    again = run("again", GOOD)
    assert failed(again) == ["not_rolled_back"]
    assert stages(model)["first"] == "production"


def test_production_is_measured_again_when_the_held_out_rows_changed(
    run: Run, model: str, make_config: Callable[..., FinetuningConfig], tmp_path: Path
) -> None:
    run("first", GOOD)
    held_out = Path(make_config().data.held_out.source or "")
    held_out.write_text("".join(held_out.read_text().splitlines(keepends=True)[:10]))
    changed = {**BAD, **ASKED, "data.held_out": {"source": str(held_out)}}
    seen: list[list[float] | None] = []
    real = promotion.run_checks

    def spy(candidate: promotion.Candidate, settings: Any) -> Any:
        assert candidate.production is not None
        seen.append(candidate.production.row_losses)
        return real(candidate, settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promotion, "run_checks", spy)
        decision = run("second", changed)
    assert not decision.promoted
    assert (
        "(10 rows)" in next(c for c in decision.checks if c.name == "better_than_production").detail
    )

    # The figures are those of production's adapter on the new rows, whoever loads it.
    live.release()
    first, second = (find_version(model, f"{model}-{name}") for name in ("first", "second"))
    held = live_trained_model(artifact(first, "trained_model"), artifact(first, "adapter"))
    rows = artifact(second, "dataset").split("held_out")
    expected = held_out_metrics(held.model, rows, batch_size=4, pad_id=held.tokenizer.pad_token_id)
    assert seen == [pytest.approx(expected.row_losses, rel=1e-5)]

    # So are the answers beside those of the run.
    report = (tmp_path / "outputs" / f"{model}-second" / "report.html").read_text()
    prompts = choose_prompts(rows, 2, held.tokenizer)
    stop_ids = frozenset(artifact(first, "trained_model").model.stop_ids)
    said = answers(held.model, held.tokenizer, prompts, max_new_tokens=6, stop_ids=stop_ids)
    assert told_of_production(report) == said


@pytest.mark.long
def test_production_is_not_judged_on_rows_that_it_was_trained_on(run: Run, model: str) -> None:
    share = {"data.held_out": {"fraction": 0.4}}
    run("first", {**BAD, **share})

    same = run("same", {**GOOD, **share, "run.seed": 1})
    assert same.promoted  # the run's seed moves no row

    other = run("other", {**GOOD, **share, "data.seed": 1})
    assert failed(other) == ["better_than_production"]
    assert "held-out rows, on which its loss would flatter; keep data.seed" in other.reason


def test_another_base_model_is_not_compared(run: Run, model: str, tiny_model: Path) -> None:
    run("first", BAD)
    with pytest.MonkeyPatch.context() as patch:  # as if the weights behind the same id were new
        patch.setattr(promotion, "weights_digest", lambda reference: "0" * 64)
        decision = run("second", GOOD)
    assert not decision.promoted
    assert f"it adapts another base model ({tiny_model})" in decision.reason


@pytest.mark.long
def test_an_evaluation_that_cannot_be_read_is_made_again(run: Run, model: str) -> None:
    """An upgrade of this project may change what is stored with a version."""
    run("first", GOOD)
    evaluation = find_version(model, f"{model}-first").get_artifact("evaluation")
    assert evaluation is not None
    (Path(evaluation.uri) / "data.json").write_text(json.dumps({"of": "another time"}))

    decision = run("second", BAD)

    assert not decision.promoted
    assert failed(decision) == ["better_than_production"]
    assert f"higher than that of {model}-first" in decision.reason


@pytest.mark.long
def test_one_that_is_overtaken_is_compared_again(run: Run, model: str) -> None:
    """Between comparing and promoting, another version becomes production."""
    run("first", BAD)
    run("rival", {**GOOD, "registry.promote": False})
    real = promotion.promote_if_unchallenged
    calls: list[str | None] = []

    def overtaken(*arguments: Any, **options: Any) -> bool:
        if not calls:
            thread = threading.Thread(target=promote_by_hand, args=(model, f"{model}-rival"))
            thread.start()
            thread.join()
        calls.append(options["expected"])
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promotion, "promote_if_unchallenged", overtaken)
        decision = run("late", {"train.max_steps": 3})  # better than first, worse than rival
    assert calls == [f"{model}-first"]
    assert not decision.promoted
    assert decision.production == f"{model}-rival"
    assert stages(model)["rival"] == "production"


def test_promotion_can_be_turned_off(run: Run, model: str) -> None:
    decision = run("only", {**BAD, "registry.promote": False})

    assert (decision.promoted, decision.checks) == (False, [])
    assert stages(model) == {"only": None}
