"""Alerts go to the user's command, else to the stack's alerter; one that fails is only logged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling import alert
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


def test_a_command_that_hangs_is_given_up_and_its_arguments_are_not_shown(monkeypatch, caplog):
    monkeypatch.setattr(alert, "_TIMEOUT_SECONDS", 0.2)
    hanging = ["sh", "-c", "sleep 30", "https://hooks.example.com/private"]
    assert not send_alert("It failed", ScheduleSettings(alert_command=hanging))
    assert "sh did not end within 0.2 s" in caplog.text
    assert "private" not in caplog.text


def test_a_secret_is_filled_in_and_never_said(tmp_path, caplog, add_secret):
    name = add_secret(url="https://hooks.example.com/private")
    told = f"cat > {tmp_path}/said; echo $0 > {tmp_path}/url; echo $0 is wrong >&2; exit 1"
    settings = ScheduleSettings(alert_command=["sh", "-c", told, f"{{{{{name}.url}}}}"])
    assert not send_alert("It failed", settings)
    assert (tmp_path / "said").read_text() == "It failed"
    assert (tmp_path / "url").read_text() == "https://hooks.example.com/private\n"
    assert "*** is wrong" in caplog.text
    assert "private" not in caplog.text


def test_a_secret_that_is_not_there_is_named(caplog, add_secret):
    name = add_secret(url="x")
    send_alert("It failed", ScheduleSettings(alert_command=["true", "{{no-such-secret.url}}"]))
    assert "zenml secret create no-such-secret --url=..." in caplog.text
    send_alert("It failed", ScheduleSettings(alert_command=["true", f"{{{{ {name}.adress }}}}"]))
    assert f"the ZenML secret {name} has no key adress; it has: url" in caplog.text
