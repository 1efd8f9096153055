"""What makes two trainings equal, and what another."""

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.training.identity import identity_of


def identity(plan=(2, 4), sharded=False, seed=0, **train):
    lora = SimpleNamespace(model=SimpleNamespace(digest="model"), digest="lora")
    dataset = SimpleNamespace(summary=SimpleNamespace(digest="rows"))
    settings = TrainSettings(**{"effective_batch": 8, **train})
    chosen = BatchPlan(
        micro_batch=plan[0],
        gradient_accumulation=plan[1],
        gradient_checkpointing="none",
        sharded=sharded,
    )
    return identity_of(lora, dataset, settings, None, seed, chosen)


@pytest.mark.parametrize(
    "same",
    [
        {"log_every": 5},
        {"keep_checkpoints": 1},
        {"trackers": ["mlflow"]},
        {"evaluate_every": 2},
        {"effective_batch": None, "micro_batch": 4, "gradient_accumulation": 2},
        {"plan": (4, 2)},
    ],
)
def test_what_is_only_kept_or_shown_or_split_makes_no_other(same):
    assert identity(**same) == identity()


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 1e-5},
        {"effective_batch": 4},
        {"weight_decay": 0.1},
        {"seed": 1},
        {"sharded": True},
        {"evaluate_every": 2, "keep_best": True},
    ],
)
def test_what_is_learned_makes_another(other):
    found, usual = identity(**other), identity()
    assert found["training settings"] != usual["training settings"]
    assert found["data"] == usual["data"]


def test_when_held_out_rows_decide_it_matters_how_often_they_are_looked_at():
    often, seldom = (identity(evaluate_every=n, keep_best=True) for n in (2, 3))
    assert often != seldom


def test_kto_learns_by_micro_batches():
    assert identity(objective="kto", plan=(4, 2)) != identity(objective="kto", plan=(2, 4))
    assert identity(objective="dpo", plan=(4, 2)) == identity(objective="dpo", plan=(2, 4))


def test_these_very_digests_let_checkpoints_of_earlier_versions_resume():
    assert identity() == {
        "model": "model",
        "adapter": "lora",
        "data": "rows",
        "training settings": "7d739e7c095c70ac06e44f11d0b7b2439a72d9cd5beede06cf7ff946d19f22df",
        "starting adapter": "",
    }
