"""ZenML's own server as a team runs it: a process of its own that asks for an account.

Its database is a file, so that it can be killed and started again with what it knew.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

ADMIN, ADMIN_PASSWORD = "admin", "the-admins-own"
_SECONDS_TO_START = 240.0


class ZenMLServer:
    """Start it with ``start``; ``kill`` leaves what ``kill -9`` leaves.

    Tokens are signed with a key of the process, so that a restart makes all of them invalid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._token: str | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ZENML_")
        }
        environment |= {
            "ZENML_SERVER": "true",
            "ZENML_CONFIG_PATH": str(self.folder),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_SERVER_AUTH_SCHEME": "OAUTH2_PASSWORD_BEARER",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            "ZENML_DEFAULT_USER_NAME": ADMIN,
            "ZENML_DEFAULT_USER_PASSWORD": ADMIN_PASSWORD,
        }
        command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "server.log").read_text()[-3000:])
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = self._token = None

    def add_user(self, name: str, password: str) -> None:
        """Create an account that is no administrator's."""
        account = {"name": name, "password": password, "active": True, "is_admin": False}
        self.ask("POST", "users", account)

    def add_service_account(self, name: str) -> str:
        """Create a service account; returns its API key."""
        account = self.ask("POST", "service_accounts", {"name": name, "active": True})
        key = self.ask("POST", f"service_accounts/{account['id']}/api_keys", {"name": "tests"})
        value: str = key["body"]["key"]
        return value

    def ask(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Ask the API as the administrator."""
        if self._token is None:
            form = {"username": ADMIN, "password": ADMIN_PASSWORD}
            answer = requests.post(f"{self.url}/api/v1/login", data=form, timeout=60)
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
        answer = requests.request(
            method,
            f"{self.url}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json()

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.RequestException:
            return False
