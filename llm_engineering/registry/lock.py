"""One promotion at a time, whatever host it runs on: a lock in the ZenML server itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from uuid import uuid4

from llm_engineering.errors import RegistryError

STALE_SECONDS = 120.0
"""A holder needs less than a second; one that is older was killed."""

_LOOK_SECONDS = 2.0


@contextmanager
def promotion_lock(model: str, *, wait_seconds: float = 300.0) -> Iterator[None]:
    """Hold the model's lock. It is a ZenML tag, whose name the server lets exist only once.

    Raises:
        RegistryError: Others held it for ``wait_seconds``.
    """
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError

    client = Client()
    name = f"promoting {model}"
    deadline, look = time.monotonic() + wait_seconds, 0.0
    while True:
        try:
            tag = client.create_tag(name)
            break
        except EntityExistsError:
            if time.monotonic() >= look:
                _break_if_stale(name)
                look = time.monotonic() + _LOOK_SECONDS
        if time.monotonic() > deadline:
            raise RegistryError(
                f"model {model}: another promotion has held the lock for {wait_seconds:.0f} s; "
                f"if none runs, remove it: zenml tag delete '{name}'"
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        with suppress(KeyError):  # broken as stale meanwhile
            client.delete_tag(tag.id)


def _break_if_stale(name: str) -> None:
    """Remove a lock that a killed promotion left, by the server's clock alone: hosts' clocks differ."""
    from zenml.client import Client

    # A list, which is empty if the lock was released meanwhile: ``get_tag`` looks twice, and raises an
    # IndexError if that happens in between.
    for tag in Client().list_tags(name=f"equals:{name}").items:
        if (_server_time(name) - tag.created).total_seconds() > STALE_SECONDS:
            with suppress(KeyError):  # released, or broken by another
                Client().delete_tag(tag.id)


def _server_time(name: str) -> datetime:
    """Now, as the server would write it on a lock: a tag of a name that nobody else has is made for it."""
    from zenml.client import Client

    probe = Client().create_tag(f"{name}, waiting {uuid4().hex}")
    Client().delete_tag(probe.id)
    return probe.created
