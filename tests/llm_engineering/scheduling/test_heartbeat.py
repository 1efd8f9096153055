"""The heartbeat: asked for once a call, and never a reason to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.heartbeat import send_heartbeat


@pytest.fixture
def service() -> Iterator[tuple[str, list[str]]]:
    """An address, and the paths that were asked for there; ``/fail`` is answered with 500."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(500 if self.path == "/fail" else 200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_the_address_is_asked_for_with_secrets_filled_in(service, add_secret):
    address, asked = service
    send_heartbeat(ScheduleSettings())
    send_heartbeat(ScheduleSettings(heartbeat_url=f"{address}/beat"))
    name = add_secret(url=f"{address}/private")
    send_heartbeat(ScheduleSettings(heartbeat_url=f"{{{{{name}.url}}}}?me"))
    assert asked == ["/beat", "/private?me"]


def test_what_goes_wrong_is_logged_alone(service, caplog, add_secret):
    address, _ = service
    name = add_secret(url=f"{address}/fail", file="file:///etc/passwd")
    send_heartbeat(ScheduleSettings(heartbeat_url=f"{{{{{name}.url}}}}"))
    assert "no heartbeat was sent: HTTP Error 500" in caplog.text
    send_heartbeat(ScheduleSettings(heartbeat_url=f"{{{{{name}.file}}}}"))
    assert "its scheme is file, not http or https" in caplog.text
    send_heartbeat(ScheduleSettings(heartbeat_url="http://127.0.0.1:1/"))
    assert "refused" in caplog.text


@pytest.mark.parametrize("url", ["file:///etc/passwd", "hc-ping.com/1", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValidationError, match="expected an http"):
        ScheduleSettings(heartbeat_url=url)
