"""Alerts go to the user's command, else to the stack's alerter; one that fails is only logged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.alert import send_alert


def test_the_command_gets_the_message_on_standard_input(alert_command, tmp_path):
    message = "It failed: `id` $(id) ; \"quotes\" 'and' more\nin two lines\n"
    send_alert(message, ScheduleSettings(alert_command=alert_command))
    assert (tmp_path / "alerts.txt").read_text() == message


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nonexistent/program"], "No such file"),
        (["sh", "-c", "echo no route to host >&2; exit 3"], "ended with 3 and said: no route"),
    ],
)
def test_an_alert_that_cannot_be_sent_is_logged(command, said, caplog):
    send_alert("It failed", ScheduleSettings(alert_command=command))
    assert "the alert could not be sent" in caplog.text
    assert said in caplog.text


@pytest.mark.parametrize(
    ("answer", "logged"), [(True, ""), (False, "the alerter chat did not take it")]
)
def test_without_a_command_the_stacks_alerter_is_asked(monkeypatch, caplog, answer, logged):
    from zenml import client

    posted = []
    alerter = SimpleNamespace(name="chat", post=lambda message: posted.append(message) or answer)
    stack = SimpleNamespace(alerter=alerter)
    monkeypatch.setattr(client, "Client", lambda: SimpleNamespace(active_stack=stack))
    send_alert("It failed", ScheduleSettings())
    assert posted == ["It failed"]
    assert logged in caplog.text
    assert bool(caplog.text) == bool(logged)


def test_with_nobody_to_tell_the_log_says_what_to_set(monkeypatch, caplog):
    from zenml import client

    stack = SimpleNamespace(alerter=None)
    monkeypatch.setattr(client, "Client", lambda: SimpleNamespace(active_stack=stack))
    send_alert("It failed", ScheduleSettings())
    assert "set schedule.alert_command" in caplog.text
