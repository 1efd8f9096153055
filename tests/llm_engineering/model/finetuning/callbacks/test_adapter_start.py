"""The adapter's start goes through a training, and what the end changes is measured."""

from types import SimpleNamespace

import pytest

from llm_engineering.initialisations import Initialisation
from llm_engineering.initialisations.initialisation import Beginning
from llm_engineering.model.finetuning.callbacks.adapter_start import AdapterStart
from llm_engineering.model.finetuning.record import TrainingRecord

STATE = SimpleNamespace(global_step=7)


class Noted(Initialisation):
    """Notes what it is asked."""

    def begin(self, model, beginning):
        model.append(("begin", beginning.seed))

    def finish(self, model):
        model.append("finish")


class NotedToTheEnd(Noted):
    changes_at_end = True


@pytest.mark.parametrize(
    ("kind", "kept", "calls"),
    [
        (Noted, None, [("begin", 3)]),
        (NotedToTheEnd, None, [("begin", 3), "finish", ("measure", 7)]),
        (NotedToTheEnd, 5, [("begin", 3), "finish", ("measure", 5)]),
    ],
)
def test_it_begins_and_finishes(kind, kept, calls, tmp_path):
    done = []
    held_out = SimpleNamespace(measure=lambda step: done.append(("measure", step)))
    record = TrainingRecord(kept_step=kept)
    beginning = Beginning(seed=3, checkpoint=None, weight_files=list)
    start = AdapterStart(done, kind(tmp_path), beginning, held_out, record)
    start.on_train_begin(None, STATE, None)
    start.on_train_end(None, STATE, None)
    assert done == calls
