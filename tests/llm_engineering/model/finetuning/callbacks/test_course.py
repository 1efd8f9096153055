"""The record of a course: what is counted, and a loss that is not finite."""

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.callbacks.course import Course
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.model.finetuning.token_count import TokenCount
from llm_engineering.peers import ALONE, Alone
from llm_engineering.planning import hardware
from llm_engineering.training.messages import SilentDisplay


def state(step):
    return SimpleNamespace(global_step=step, max_steps=4, epoch=step / 2)


def logs(loss):
    return {"loss": loss, "learning_rate": 0.1, "grad_norm": 2.0}


class Asked(Alone):
    """Two processes that did the same; counts how often they exchange."""

    def __init__(self):
        self.exchanges = 0

    def all_values(self, value):
        self.exchanges += 1
        return [value, value]


def make(peers=ALONE):
    record, shown = TrainingRecord(train_tokens=100, train_seconds=1.0), []
    settings = TrainSettings(effective_batch=8)
    clock, tokens = Clock(1.0), TokenCount(len)
    made = Course(
        record, settings, SilentDisplay(), peers, lambda r: shown.append(r.steps),
        clock=clock, tokens=tokens,
    )  # fmt: skip
    made.on_train_begin(None, state(0), None)
    return made, record, shown, tokens.collating(list)


@pytest.fixture
def course():
    made, record, shown, _ = make()
    return made, record, shown


def test_a_point_is_of_what_came_since_the_last(monkeypatch):
    now = 10.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    made, record, shown, collate = make()
    made.on_epoch_begin(None, state(0), None)
    collate([[1] * 150, [1] * 20])
    for step, (seconds, last) in enumerate([(2.0, 30), (1.0, 0)], 1):
        collate([[1] * last])  # one micro-batch is put together ahead
        if step == 1:
            collate([[1] * 50])
        now += seconds
        made.on_substep_end(None, state(step - 1), None)
        made.on_step_end(None, state(step), None)
        made.on_log(None, state(step), None, logs(3.0 - step))
    assert record.effective_batch == 8
    assert (record.steps, record.epochs) == (2, 1.0)
    assert record.train_seconds == 4.0
    assert [(p.step, p.loss, p.tokens_per_second) for p in record.points] == [
        (1, 2.0, 100.0),  # 200 tokens in 2 s: those of the checkpoint do not count again
        (2, 1.0, 50.0),
    ]
    assert shown == [1, 2]


def test_between_logged_steps_nothing_is_exchanged_and_no_device_is_asked(monkeypatch):
    peers = Asked()
    made, record, _, collate = make(peers)
    made.on_epoch_begin(None, state(0), None)
    for step in (1, 2, 3):
        collate([[1] * 10])
        with monkeypatch.context() as asked:
            asked.setattr(hardware, "peak_memory_bytes", None)
            asked.setattr(hardware, "wait_for_device", None)
            made.on_step_end(None, state(step), None)
    assert peers.exchanges == 0
    made.on_log(None, state(3), None, logs(1.0))
    assert peers.exchanges == 1
    assert record.train_tokens == 100 + 2 * 30


def test_a_checkpoint_and_the_end_are_up_to_date():
    made, record, _, collate = make()
    for event in (made.on_save, made.on_train_end):
        made.on_epoch_begin(None, state(0), None)
        collate([[1] * 10])
        made.on_step_end(None, state(1), None)
        before = record.train_tokens
        event(None, state(1), None)
        assert record.train_tokens == before + 10
        assert record.peak_memory_bytes > 0


def test_what_is_no_step_makes_no_point(course):
    made, record, _ = course
    made.on_log(None, state(4), None, {"train_runtime": 3.0})
    assert record.points == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_and_names_the_rate(course, loss):
    made, _, _ = course
    with pytest.raises(TrainingError, match=r"at step 3: lower train.learning_rate \(0.0003\)"):
        made.on_log(None, state(3), None, logs(loss))
