"""A stand-in for an OpenAI-compatible endpoint: the chat completions protocol over real HTTP, with faults.

After the API reference of POST /v1/chat/completions: the key as a bearer, a JSON body with ``model`` and
``messages``; answers are ``chat.completion`` objects, errors ``{"error": {...}}`` with their status.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["429", "500", "slow", "nonsense", "not json", "no choices", "no text"]
KEY = "test-key-of-the-judge-0123456789"  # what the environment variable holds
SLOW_S = 1.5


def prefers_longer(first: str, second: str) -> str:
    """The honest judge of these tests: the longer answer wins."""
    if len(first) == len(second):
        return "tie"
    return "A" if len(first) > len(second) else "B"


class JudgeServer:
    """Judges by ``prefer``; the next requests meet ``faults``, one each, in their order."""

    def __init__(self, prefer: Callable[[str, str], str] = prefers_longer) -> None:
        self.prefer = prefer
        self.faults: list[Fault] = []
        self.retry_after = "0.05"
        self.key: str | None = KEY
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> JudgeServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.times.append(time.monotonic())
                if self.path != "/v1/chat/completions":
                    return self._error(404, f"unknown path {self.path}")
                given = self.headers.get("Authorization", "")
                if service.key is not None and given != f"Bearer {service.key}":
                    # As OpenAI's own does, it repeats what it was given.
                    return self._error(401, f"Incorrect API key provided: {given[7:]}")
                asked = json.loads(body)
                if not isinstance(asked.get("model"), str) or not asked.get("messages"):
                    return self._error(400, "model and messages are required")
                service.requests.append(asked)
                fault = service.faults.pop(0) if service.faults else None
                if fault == "429":
                    return self._error(429, "slow down", {"Retry-After": service.retry_after})
                if fault == "500":
                    return self._error(500, "the server had an error")
                if fault == "slow":
                    time.sleep(SLOW_S)
                if fault == "not json":
                    return self._send(200, b"<html>gateway</html>", {"Content-Type": "text/html"})
                text: str | None = json.dumps({"winner": service.winner(asked)})
                if fault == "nonsense":
                    text = "Both are fine answers, I could not say."
                if fault == "no text":
                    text = None
                choice = {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
                completion = {
                    "id": "chatcmpl-1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": asked["model"],
                    "choices": [] if fault == "no choices" else [choice],
                }
                self._send(200, json.dumps(completion).encode())

            def _error(self, status: int, message: str, headers: Any = None) -> None:
                body = json.dumps({"error": {"message": message, "type": "error", "code": None}})
                self._send(status, body.encode(), headers)

            def _send(self, status: int, body: bytes, headers: Any = None) -> None:
                try:
                    self.send_response(status)
                    told = {"Content-Type": "application/json", **(headers or {})}
                    for name, value in told.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except BrokenPipeError:  # the client waited no longer
                    pass

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        return Handler

    def winner(self, asked: dict[str, Any]) -> str:
        text = asked["messages"][-1]["content"]
        found = re.search(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\nReply", text, re.DOTALL)
        assert found is not None
        return self.prefer(found[1], found[2])
