"""One loss an objective: what is trained, logged and measured, however a step is split."""

import json
from pathlib import Path

import pytest

from llm_engineering.model import live
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.objectives.objective import MISMATCHED

pytestmark = pytest.mark.slow

OBJECTIVES = ["sft", "dpo", "orpo", "kto"]
SPLITS = [(2, 4), (4, 2), (8, 1)]
EXACT = 1e-5


@pytest.fixture
def configured(make_config, preference_config):
    """A configuration of an objective whose rate moves all of its losses."""

    def configured(objective, rows, **train):
        make = (
            make_config if objective == "sft" else lambda more: preference_config(objective, more)
        )
        source = make({}).data.sources[0].source
        if objective == "kto":
            source = mostly_good_answers(source)
        return make(
            {
                "data.sources": [{"source": source, "max_rows": rows}],
                "train.learning_rate": 0.01,
                "train.lr_scheduler": "constant",
                "train.warmup_steps": 0,
                **{f"train.{key}": value for key, value in train.items()},
            }
        )

    return configured


def mostly_good_answers(pairs):
    """Three good answers and a bad one in turn: all answers get likelier, so that kto's reference
    point leaves zero."""
    path = Path(pairs).with_name("judged.jsonl")
    rows = [json.loads(line) for line in Path(pairs).read_text().splitlines()]
    judged = [
        {
            "prompt": row["prompt"],
            "completion": row["rejected" if index % 4 == 3 else "chosen"],
            "label": index % 4 != 3,
        }
        for index, row in enumerate(rows)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in judged))
    return str(path)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_is_the_same_however_a_step_is_split(run, configured, tmp_path, objective):
    """The last step of an epoch has fewer rows, and its last micro-batch fewer still."""
    found = []
    for micro_batch, accumulation in SPLITS:
        config = configured(
            objective, 23, max_steps=7, micro_batch=micro_batch, gradient_accumulation=accumulation
        )
        _, dataset, _, record = run(config, tmp_path / str(micro_batch))
        live.release()
        found.append(record)
    rows = len(dataset.split("train"))
    assert rows % 8 == 7, "the last micro-batch is no whole one"
    first, *others = found
    assert len(first.points) == 7
    assert len({round(point.loss, 4) for point in first.points}) > 5, "it moves"
    for other in others:
        for a, b in zip(first.points, other.points, strict=True):
            assert b.loss == pytest.approx(a.loss, abs=EXACT)
        assert other.after.loss == pytest.approx(first.after.loss, abs=EXACT)
        assert other.after.row_losses == pytest.approx(first.after.row_losses, rel=1e-4)
        assert other.train_tokens == first.train_tokens


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_trained_is_what_is_measured(run, configured, tmp_path, objective):
    """All rows in every step: the loss of a step is that of the weights before it, on all rows."""
    one = configured(objective, 8, max_steps=1, micro_batch=2, gradient_accumulation=4)
    lora, dataset, adapter, record = run(one, tmp_path / "one")
    trained = live_trained_model(lora, adapter)
    rows = dataset.split("train")
    assert len(rows) == 8

    def measure(reference=None):
        return objective_metrics(
            trained.model, rows, objective=objective, beta=record.beta, reference=reference,
            batch_size=4, pad_id=trained.tokenizer.pad_token_id,
        )  # fmt: skip

    with trained.model.disable_adapter():
        before = measure()
    after = measure(before.rewards.log_probabilities if before.rewards else None)
    if objective == "kto":
        apart = [
            a - b
            for a, b in zip(
                after.rewards.log_probabilities[MISMATCHED],
                before.rewards.log_probabilities[MISMATCHED],
                strict=True,
            )
        ]
        assert sum(apart) > 1, "the reference point is above zero, where it tells"
    live.release()
    two = configured(objective, 8, max_steps=2, micro_batch=2, gradient_accumulation=4)
    _, _, _, longer = run(two, tmp_path / "two")
    assert longer.points[0].loss == pytest.approx(before.loss, rel=EXACT)
    assert longer.points[1].loss == pytest.approx(after.loss, rel=EXACT)
    assert after.loss != pytest.approx(before.loss, rel=1e-3)
