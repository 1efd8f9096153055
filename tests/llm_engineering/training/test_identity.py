"""What makes two trainings equal, and what another."""

import json
from types import SimpleNamespace

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.export import ExportSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.training.identity import deciding_settings, identity_of


def identity(plan=(2, 4), sharded=False, seed=0, start=None, **train):
    lora = SimpleNamespace(model=SimpleNamespace(digest="model"), digest="lora")
    dataset = SimpleNamespace(summary=SimpleNamespace(digest="rows"))
    settings = TrainSettings(**{"effective_batch": 8, **train})
    chosen = BatchPlan(
        micro_batch=plan[0],
        gradient_accumulation=plan[1],
        gradient_checkpointing="none",
        sharded=sharded,
    )
    return identity_of(lora, dataset, settings, start, seed, chosen)


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


@pytest.mark.parametrize("kind", [{"sharded": True}, {"objective": "orpo"}])
@pytest.mark.parametrize("other", [{"learning_rate": 1e-5}, {"seed": 1}])
def test_it_does_so_too_where_checkpoints_or_the_loss_are_of_another_kind(kind, other):
    assert identity(**kind, **other) != identity(**kind)


def test_another_adapter_to_start_from_is_named_as_such():
    found = identity(start=SimpleNamespace(digest="adapter of before"))
    assert found == identity() | {"starting adapter": "adapter of before"}


def test_when_held_out_rows_decide_it_matters_how_often_they_are_looked_at():
    often, seldom = (identity(evaluate_every=n, keep_best=True) for n in (2, 3))
    assert often != seldom


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_objective_learns_by_micro_batches(objective):
    assert identity(objective=objective, plan=(4, 2)) == identity(objective=objective, plan=(2, 4))


def test_a_loss_that_was_defined_anew_goes_on_from_no_checkpoint_of_before(monkeypatch):
    now = identity(objective="orpo")
    monkeypatch.setattr(OBJECTIVES["orpo"], "definition", 1, raising=False)
    assert identity(objective="orpo")["training settings"] != now["training settings"]


def deciding(evaluate=None, *, there=False, export=None, **train):
    return deciding_settings(
        TrainSettings(**train),
        EvaluateSettings(**(evaluate or {})),
        evaluated_there=there,
        exported_there=None if export is None else ExportSettings(**export),
    )


def test_each_setting_that_decides_stands_below_its_section():
    """As the dashboard shows them beside the step that they are a parameter of."""
    found = deciding(
        {"samples_every": 5}, export={"hub_repo": "me/it"}, trackers=["mlflow"], log_every=7
    )

    assert found["evaluate"] == {"samples_every": 5, "samples": 4, "max_new_tokens": 64}
    assert found["export"] == {"merged_16bit": False, "gguf": None}
    assert set(found["train"]) == set(TrainSettings.model_fields) - {
        "log_every", "checkpoint_every", "keep_checkpoints",
    }  # fmt: skip
    assert found["train"]["trackers"] == ["mlflow"]
    assert json.loads(json.dumps(found)) == found, "a step's parameter is kept as JSON"
    assert list(deciding()) == ["train", "evaluate"]
    assert deciding()["evaluate"] == {}


def test_what_that_host_exports_decides_but_not_where_it_is_pushed():
    made = {"merged_16bit": True}
    pushed = {"hub_repo": "me/it", "hub_merged_repo": "me/all-of-it", "hub_private": False}
    assert deciding(export=made | pushed) == deciding(export=made)
    assert deciding(export=made) != deciding(export={})


NOTHING_TAUGHT = [
    {"samples": 2},
    {"parity_rows": 0},
    {"max_new_tokens": 9},
    {"generic_passages": 0},
]


@pytest.mark.parametrize(
    "same", [{"log_every": 5}, {"keep_checkpoints": 1}, {"checkpoint_every": 3}]
)
def test_a_setting_that_teaches_nothing_does_not_train_again(same):
    assert deciding(**same) == deciding()


@pytest.mark.parametrize("there", [False, True])
def test_how_answers_are_scored_trains_nothing_again_wherever_they_are_made(there):
    judge = {"endpoint": "http://127.0.0.1:1/v1", "model": "m"}
    asked = [
        {"answers": {"scorers": scorers, **others}}
        for scorers, others in (
            (["exact"], {}),
            (["rouge_l", {"python": "a:b"}], {}),
            (["judge"], {"judge": judge}),
        )
    ]
    first, *others = (deciding(one, there=there) for one in asked)
    assert [first] * len(others) == others
    longer = deciding({"answers": {"scorers": ["exact"], "max_new_tokens": 9}}, there=there)
    assert (longer != first) == there, "answers are made where it is trained"


@pytest.mark.parametrize("same", [*NOTHING_TAUGHT, {"batch_size": 2}])
def test_nor_does_what_only_the_evaluation_heeds(same):
    assert deciding(same) == deciding()
    assert deciding(same, there=True) != deciding(there=True), "made where it is trained"


@pytest.mark.parametrize(
    "other",
    [{"learning_rate": 1e-5}, {"evaluate_every": 2}, {"trackers": ["mlflow"]}, {"micro_batch": 4}],
)
def test_what_is_learned_or_only_training_can_show_trains_again(other):
    assert deciding(**other) != deciding()


def test_samples_on_the_way_are_only_to_be_had_by_training():
    assert deciding({"samples_every": 5}) != deciding()
    assert deciding({"samples_every": 5, "samples": 2}) != deciding({"samples_every": 5})
    assert deciding({"samples_every": 5, "parity_rows": 0}) == deciding({"samples_every": 5})


def test_these_very_digests_let_checkpoints_of_earlier_versions_resume():
    assert identity() == {
        "model": "model",
        "adapter": "lora",
        "data": "rows",
        "training settings": "7d739e7c095c70ac06e44f11d0b7b2439a72d9cd5beede06cf7ff946d19f22df",
        "starting adapter": "",
    }
