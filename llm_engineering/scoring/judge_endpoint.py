"""The judge's endpoint: OpenAI's client with retries, a budget of requests, and replies that are kept.

The key is read from the environment when a request is made. It is in no message, no record and no file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_engineering.configuration.answers import JudgeSettings
from llm_engineering.model.base_model import cache_folder

logger = logging.getLogger(__name__)


class UnansweredError(Exception):
    """The judge has given no verdict; says why."""


class JudgeEndpoint:
    """Answers questions; stops asking for good once the budget is spent, or the endpoint refuses.

    Args:
        settings: Address, model, budget.
        cache: Where replies are kept; default: this project's cache folder.
    """

    def __init__(self, settings: JudgeSettings, cache: Path | None = None) -> None:
        self.calls = 0
        """Requests that were sent, repeated ones included."""
        self.from_cache = 0
        self._settings = settings
        self._cache = cache_folder() / "judge" if cache is None else cache
        self._refusal = ""
        self._client: Any = None

    def ask(self, question: str, *, again: bool = False) -> str:
        """The judge's reply.

        Args:
            question: The user's message.
            again: Whether a kept reply will not do.

        Raises:
            UnansweredError: There is none: the budget is spent, the endpoint refuses, or does not
                answer after all retries.
        """
        kept = self._path(question)
        if not again and kept.is_file():
            self.from_cache += 1
            reply: str = json.loads(kept.read_text(encoding="utf-8"))["reply"]
            return reply
        if self._refusal:
            raise UnansweredError(self._refusal)
        left = self._settings.max_calls - self.calls
        if left <= 0:
            raise UnansweredError(
                f"evaluate.answers.judge.max_calls ({self._settings.max_calls}) is spent; raise it to "
                "judge every row"
            )
        return self._request(question, retries=min(self._settings.retries, left - 1))

    def remember(self, question: str, reply: str) -> None:
        """Keep a reply that held a verdict: an equal question is not asked, and paid for, again."""
        path = self._path(question)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps({"reply": reply}), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            logger.warning(
                "%s: the judge's replies cannot be kept (%s)", path.parent, error.strerror
            )

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(self, question: str, *, retries: int) -> str:
        import openai

        client = self._client = self._client or self._connect()
        try:
            reply = client.with_options(max_retries=retries).chat.completions.create(
                model=self._settings.model,
                messages=[{"role": "user", "content": question}],
                **self._parameters(),
            )
            content = reply.choices[0].message.content
        except openai.APIStatusError as error:
            said = self._without_key(f"{error.status_code}: {error.message}")
            if error.status_code in (400, 401, 403, 404, 405, 422):  # asking again helps nobody
                self._refusal = f"the endpoint refuses ({said[:200]})"
                raise UnansweredError(self._refusal) from None
            raise UnansweredError(
                f"the endpoint failed {retries + 1} times ({said[:200]})"
            ) from None
        except (openai.APIError, ValueError) as error:
            cause = f"{type(error).__name__}: {error.__cause__ or error}"
            raise UnansweredError(
                f"no reply after {retries + 1} attempts ({self._without_key(cause)[:200]})"
            ) from None
        except (AttributeError, IndexError, TypeError):
            raise UnansweredError("the reply is no chat completion") from None
        if not isinstance(content, str):
            raise UnansweredError("the reply has no text")
        return content

    def _parameters(self) -> dict[str, Any]:
        """Others than the client's own go as they stand: endpoints have their own."""
        return {"extra_body": self._settings.parameters} if self._settings.parameters else {}

    def _connect(self) -> Any:
        import openai

        count: Callable[[Any], None] = self._count
        return openai.OpenAI(
            api_key=self._key() or "none",
            base_url=self._settings.endpoint,
            timeout=self._settings.timeout_s,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [count]}, follow_redirects=False
            ),
        )

    def _count(self, request: Any) -> None:
        self.calls += 1

    def _key(self) -> str:
        variable = self._settings.key_variable
        return os.environ.get(variable, "") if variable else ""

    def _without_key(self, text: str) -> str:
        """A message of the endpoint's, which may repeat the key that it was given."""
        key = self._key()
        return text.replace(key, "***") if key else text

    def _path(self, question: str) -> Path:
        settings = self._settings
        asked = [settings.endpoint, settings.model, settings.parameters, question]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"
