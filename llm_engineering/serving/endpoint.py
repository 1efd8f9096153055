"""Where a server listens, under which name it serves, and what to type to try it."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from llm_engineering.errors import TalkError

LOCAL = "127.0.0.1"
_LOCAL_NAMES = (LOCAL, "localhost", "::1")


@dataclass(frozen=True)
class Endpoint:
    """Host, port, and the name that a request's ``model`` gives."""

    host: str
    port: int
    model: str

    @property
    def url(self) -> str:
        """Base address of an OpenAI client."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    @property
    def is_local(self) -> bool:
        """Whether only this host reaches it."""
        return self.host in _LOCAL_NAMES

    def curl(self) -> str:
        """A command that asks it one question."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "What is a list?"}]}
        return (
            f"curl {self.url}/chat/completions -H 'Content-Type: application/json' "
            f"-d '{json.dumps(body)}'"
        )


def listen(host: str, port: int) -> socket.socket:
    """Take the port, before a model is loaded for it.

    Args:
        host: Name or address of this host.
        port: 0 takes a free one.

    Raises:
        TalkError: It is taken, or this host has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TalkError(
            f"--host {host} --port {port}: cannot listen there: {reason}; name another port, or "
            "--port 0 for a free one"
        ) from None
    return taken
