"""Ctrl-C, SIGTERM and SIGHUP, during training and outside of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from llm_engineering.signals import Stopped, end_as_by_ctrl_c, signal_of, stop_after_step

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As a command has them; pytest's own come back."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    end_as_by_ctrl_c()
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_a_training_it_ends_at_once_and_says_by_what(number):
    with pytest.raises(KeyboardInterrupt) as caught:
        send(number)
    assert signal_of(caught.value) == number


@pytest.mark.parametrize("number", SIGNALS)
def test_in_a_training_the_first_asks_and_the_second_ends(number, caplog):
    def train() -> None:
        with stop_after_step() as asked:
            assert not asked.is_set()
            send(number)
            assert asked.is_set()
            assert asked.number == number
            assert f"{number.name}: stopping after the step under way" in caplog.text
            send(number)
            pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        train()


def test_what_no_step_was_left_to_heed_ends_it_afterwards():
    def train() -> None:
        with stop_after_step() as asked:
            send(signal.SIGTERM)
            assert asked.is_set()

    with pytest.raises(Stopped) as caught:
        train()
    assert caught.value.number == signal.SIGTERM


def test_a_training_that_heeded_it_is_not_ended_twice():
    def train() -> None:
        with stop_after_step():
            send(signal.SIGTERM)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train()
    with pytest.raises(Stopped):
        send(signal.SIGTERM)


def test_an_event_of_others_and_another_thread_leave_signals_alone():
    event, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    with stop_after_step(event) as asked:
        assert asked is event
        assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def work() -> None:
        with stop_after_step() as asked:
            seen.append((asked.is_set(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_as_by_ctrl_c()
    send(signal.SIGHUP)
    with stop_after_step() as asked:
        send(signal.SIGHUP)
        assert not asked.is_set()
