"""Tests of ``llm_engineering.registry.lock``."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from zenml.client import Client

from llm_engineering.errors import RegistryError
from llm_engineering.registry import lock
from llm_engineering.registry.lock import promotion_lock


def test_a_second_holder_waits_for_the_first(model: str) -> None:
    order = []

    def second() -> None:
        with promotion_lock(model):
            order.append("second")

    with promotion_lock(model):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(timeout=30)

    assert order == ["first", "second"]


def test_another_model_is_not_waited_for(model: str) -> None:
    with promotion_lock(model), promotion_lock(f"{model}-other", wait_seconds=0):
        pass


def test_a_holder_that_failed_lets_go(model: str) -> None:
    with pytest.raises(RuntimeError, match="on the way"), promotion_lock(model):
        raise RuntimeError("on the way")

    with promotion_lock(model, wait_seconds=0):
        pass


def test_a_lock_that_is_held_too_long_names_the_way_out(model: str) -> None:
    Client().create_tag(f"promoting {model}")

    held = promotion_lock(model, wait_seconds=0.3)

    with pytest.raises(RegistryError, match=f"zenml tag delete 'promoting {model}'"), held:
        pass


def test_the_lock_of_a_killed_promotion_is_broken(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Client().create_tag(f"promoting {model}")
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.5)
    time.sleep(0.6)

    with promotion_lock(model, wait_seconds=5):
        pass


def test_a_hosts_own_clock_breaks_no_lock(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an hour ahead of the server's: the holder is at work all the same."""
    Client().create_tag(f"promoting {model}")
    real = time.time

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(lock, "datetime", Ahead)
    with pytest.raises(RegistryError, match="another promotion has held"):  # noqa: SIM117
        with promotion_lock(model, wait_seconds=0.3):
            pass
    assert not Client().list_tags(name="contains:waiting").items


def test_a_lock_that_is_released_while_it_is_looked_at_is_taken(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under load: it is there when it is counted, and gone when it is fetched."""
    tag = Client().create_tag(f"promoting {model}")
    store = type(Client().zen_store)
    listed = store.list_tags

    def released_after_the_count(self: Any, *arguments: Any, **options: Any) -> Any:
        page = listed(self, *arguments, **options)
        if page.items and page.items[0].id == tag.id:
            self.delete_tag(tag.id)
            page.items.clear()
        return page

    monkeypatch.setattr(store, "list_tags", released_after_the_count)
    with promotion_lock(model, wait_seconds=5):
        pass
