"""The request to stop: when it is heeded, by whom, and what is said."""

import threading
from types import SimpleNamespace

import pytest

from llm_engineering.errors import TrainingStoppedError
from llm_engineering.model.finetuning.callbacks.stop_request import StopRequest
from llm_engineering.peers import ALONE, Alone

ARGS = SimpleNamespace(output_dir="work/checkpoints", logging_steps=2)


def control():
    return SimpleNamespace(should_save=False, should_training_stop=False)


def state(step):
    return SimpleNamespace(global_step=step, max_steps=4)


class Pair(Alone):
    """Another process has been asked."""

    def ranks(self):
        return 2

    def any_rank(self, flag):
        return True


def after(step, *, asked, peers=ALONE):
    stop, told = threading.Event(), control()
    if asked:
        stop.set()
    request = StopRequest(stop, peers)
    request.on_step_end(ARGS, state(step), told)
    return request, told


def test_a_checkpoint_is_saved_and_said_to_be_there():
    request, told = after(2, asked=True)
    assert request.heeded
    assert told.should_save
    assert told.should_training_stop
    with pytest.raises(TrainingStoppedError, match=r"after step 2 of 4; .* in work/checkpoints"):
        request.on_train_end(ARGS, state(2), told)


def test_unasked_or_at_the_last_step_training_ends_as_ever():
    for request, told in (after(2, asked=False), after(4, asked=True)):
        assert not request.heeded
        assert not told.should_training_stop
        request.on_train_end(ARGS, state(4), told)


def test_what_one_process_is_asked_all_of_them_heed():
    request, told = after(2, asked=False, peers=Pair())
    assert request.heeded
    assert told.should_save


def test_several_processes_ask_each_other_at_logged_steps_and_every_tenth():
    heeded = [step for step in (1, 2, 3, 4) if heeds(step, logging_steps=2)]
    assert heeded == [2]  # 4 is the last step
    assert [step for step in range(1, 31) if heeds(step, logging_steps=25, last=40)] == [
        10,
        20,
        25,
        30,
    ]


def heeds(step, *, logging_steps, last=4):
    request = StopRequest(threading.Event(), Pair())
    arguments = SimpleNamespace(output_dir="", logging_steps=logging_steps)
    request.on_step_end(arguments, SimpleNamespace(global_step=step, max_steps=last), control())
    return request.heeded
