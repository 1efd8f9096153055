"""Held-out measurements on a model that is none: when, which weights are best, and patience."""

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import HardwareError
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.finetuning.callbacks import held_out as module
from llm_engineering.model.finetuning.callbacks.held_out import HeldOut
from llm_engineering.model.finetuning.callbacks.stop_request import StopRequest
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.model.live import LiveModel
from llm_engineering.peers import ALONE
from llm_engineering.training.messages import SilentDisplay


class Best:
    """Remembers at which measurement weights were kept, and whether they were taken."""

    def __init__(self):
        self.kept, self.loaded, self.restored = [], 0, []

    def keep(self, model):
        self.kept.append(model.step)

    def load_into(self, model):
        self.loaded += 1
        model.step = self.kept[-1]

    def restore_from(self, checkpoint):
        self.restored.append(checkpoint)


@pytest.fixture
def make(monkeypatch):
    """A callback whose model has these losses by step; each change of the model is a step."""

    def make(losses, resumes_from=None, changed_later=False, validation=None, **train):
        model = SimpleNamespace(step=0)

        def metrics(model, rows, **more):
            chosen = validation if rows == ["validation row"] else losses
            return HeldOutMetrics(
                loss=chosen[model.step], token_accuracy=0.5, tokens=2, rows=1, row_losses=[1.0]
            )

        monkeypatch.setattr(module, "objective_metrics", metrics)
        record, best = TrainingRecord(), Best()
        callback = HeldOut(
            LiveModel(model, SimpleNamespace(pad_token_id=0)),
            ["row"],
            validation and ["validation row"],
            record,
            TrainSettings(evaluate_every=1, **train),
            EvaluateSettings(),
            best=best,
            resumes_from=resumes_from,
            display=SilentDisplay(),
            stop=StopRequest(None, ALONE),
            peers=ALONE,
            changed_later=changed_later,
            clock=Clock(),
        )
        return callback, model, record, best

    return make


def go(callback, model, steps):
    """All steps, or as many as the callback lets pass."""
    control = SimpleNamespace(should_training_stop=False)
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=steps), control)
    for step in range(1, steps + 1):
        model.step = step
        state = SimpleNamespace(global_step=step, max_steps=steps)
        callback.on_step_end(None, state, control)
        if control.should_training_stop:
            break
    callback.on_train_end(None, state, control)
    return step


def test_it_measures_before_in_passing_and_after(make):
    callback, model, record, best = make([3.0, 2.0, 2.5])
    go(callback, model, 2)
    assert [(p.step, p.metrics.loss) for p in record.held_out] == [(0, 3.0), (1, 2.0), (2, 2.5)]
    assert [bool(p.metrics.row_losses) for p in record.held_out] == [True, False, True]
    assert best.kept == []
    assert record.kept_step is None


def test_the_best_weights_are_kept_and_taken(make):
    callback, model, record, best = make([3.0, 2.0, 2.5, 2.7], keep_best=True)
    go(callback, model, 3)
    assert best.loaded == 1
    assert (record.kept_step, model.step) == (1, 1)
    assert record.after.loss == 2.0
    assert record.after.row_losses, "measured again, for the rows' own losses"


def test_the_last_weights_are_the_best_where_the_loss_only_falls(make):
    callback, model, record, best = make([3.0, 2.0, 1.0], keep_best=True)
    go(callback, model, 2)
    assert (record.kept_step, best.loaded) == (2, 0)


def test_patience_ends_training(make):
    callback, model, record, _ = make([3.0, 2.0, 2.1, 2.2, 1.0], early_stopping_patience=2)
    assert go(callback, model, 4) == 3
    assert record.stopped_early


def test_validation_rows_choose_and_others_judge(make):
    """Each set of rows likes another step best: the choice is by one, the figures are of the other."""
    callback, model, record, _ = make(
        [3.0, 2.9, 1.0, 2.8], validation=[3.0, 1.0, 2.0, 2.0], keep_best=True
    )
    go(callback, model, 3)
    assert (record.kept_step, model.step) == (1, 1)
    assert [p.metrics.loss for p in record.validation] == [3.0, 1.0, 2.0, 2.0]
    assert [(p.step, p.metrics.loss) for p in record.held_out] == [(0, 3.0), (1, 2.9)]
    assert record.after.loss == 2.9
    assert record.after.row_losses


def test_patience_looks_at_validation_rows(make):
    callback, model, record, _ = make(
        [3.0, 2.0, 1.0, 0.5, 0.1], validation=[3.0, 2.0, 2.1, 2.2, 1.0], early_stopping_patience=2
    )
    assert go(callback, model, 4) == 3
    assert record.stopped_early
    assert [(p.step, p.metrics.loss) for p in record.held_out] == [(0, 3.0), (3, 0.5)]


def test_resumed_it_does_not_measure_the_base_model_again(make, tmp_path):
    callback, model, record, best = make([3.0, 2.0], resumes_from=tmp_path)
    callback.measure(0)
    before = record.held_out[0]
    go(callback, model, 1)
    assert record.held_out[0] is before
    assert best.restored == [tmp_path]


def test_what_changes_later_is_not_measured_twice(make):
    callback, model, record, _ = make([3.0, 2.0], changed_later=True)
    go(callback, model, 1)
    assert [p.step for p in record.held_out] == [0]


def test_out_of_memory_says_what_to_lower(make, monkeypatch):
    import torch

    def fail(*args, **more):
        raise torch.OutOfMemoryError

    callback, _, _, _ = make([])
    monkeypatch.setattr(module, "objective_metrics", fail)
    with pytest.raises(HardwareError, match=r"lower evaluate.batch_size \(4\)"):
        callback.measure(1)
