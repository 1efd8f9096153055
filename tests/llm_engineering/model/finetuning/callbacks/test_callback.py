"""A callback is all that the trainer calls, whatever it defines itself."""

import pytest

from llm_engineering.model.finetuning.callbacks.callback import Callback


class Steps(Callback):
    def on_step_end(self, args, state, control, **kwargs):
        return "step"


def test_every_event_of_transformers_can_be_called():
    from transformers import TrainerCallback

    events = [name for name in dir(TrainerCallback) if name.startswith("on_")]
    assert len(events) > 10
    for name in events:
        expected = "step" if name == "on_step_end" else None
        assert getattr(Steps(), name)(None, None, None, logs={}) == expected


def test_it_has_nothing_else():
    with pytest.raises(AttributeError, match="Steps has no save"):
        _ = Steps().save
