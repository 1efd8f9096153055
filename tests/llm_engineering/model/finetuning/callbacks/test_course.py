"""The record of a course: what is counted, and a loss that is not finite."""

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.callbacks.course import Course
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.peers import ALONE
from llm_engineering.training.messages import SilentDisplay


def state(step, tokens=0):
    return SimpleNamespace(
        global_step=step, max_steps=4, epoch=step / 2, num_input_tokens_seen=tokens
    )


def logs(loss):
    return {"loss": loss, "learning_rate": 0.1, "grad_norm": 2.0}


@pytest.fixture
def course():
    record, shown = TrainingRecord(train_tokens=100, train_seconds=1.0), []
    settings = TrainSettings(effective_batch=8)
    made = Course(record, settings, SilentDisplay(), ALONE, lambda r: shown.append(r.steps))
    made.on_train_begin(None, state(0), None)
    return made, record, shown


def test_a_point_is_of_what_came_since_the_last(course, monkeypatch):
    made, record, shown = course
    clock = iter([10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    for step, tokens in ((1, 300), (2, 350)):
        made.on_step_begin(None, state(step), None)
        made.on_step_end(None, state(step, tokens), None)
        made.on_log(None, state(step), None, logs(3.0 - step))
    assert record.effective_batch == 8
    assert (record.steps, record.epochs) == (2, 1.0)
    assert record.train_seconds == 4.0
    assert [(p.step, p.loss, p.tokens_per_second) for p in record.points] == [
        (1, 2.0, 100.0),  # 200 tokens in 2 s: those of the checkpoint do not count again
        (2, 1.0, 50.0),
    ]
    assert shown == [1, 2]


def test_what_is_no_step_makes_no_point(course):
    made, record, _ = course
    made.on_log(None, state(4), None, {"train_runtime": 3.0})
    assert record.points == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_and_names_the_rate(course, loss):
    made, _, _ = course
    with pytest.raises(TrainingError, match=r"at step 3: lower train.learning_rate \(0.0003\)"):
        made.on_log(None, state(3), None, logs(loss))
