"""Tests of ``llm_engineering.registry.lock``: against tags of our own, and two against ZenML's store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.client import Client
from zenml.exceptions import EntityExistsError

from llm_engineering.errors import RegistryError
from llm_engineering.registry import lock
from llm_engineering.registry.lock import STALE_SECONDS, promotion_lock

NAME = "promoting my-model"


class Tags:
    """As ZenML's client and the clock, as far as the lock asks them."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.now = 0.0
        self.naps: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def create_tag(self, name: str) -> Any:
        if any(tag.name == name for tag in self.made):
            raise EntityExistsError(name)
        return self.hold(name)

    def list_tags(self, name: str) -> Any:
        return SimpleNamespace(items=[tag for tag in self.made if f"equals:{tag.name}" == name])

    def delete_tag(self, number: int) -> None:
        (tag,) = [tag for tag in self.made if tag.id == number] or [None]
        if tag is None:
            raise KeyError(number)
        self.made.remove(tag)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        self.meanwhile()

    def hold(self, name: str = NAME, age: float = 0.0) -> Any:
        created = datetime.now(UTC) - timedelta(seconds=age)
        tag = SimpleNamespace(id=object(), name=name, created=created)
        self.made.append(tag)
        return tag

    @property
    def names(self) -> list[str]:
        return [tag.name for tag in self.made]


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> Tags:
    made = Tags()
    monkeypatch.setattr("zenml.client.Client", lambda: made)
    monkeypatch.setattr(lock, "time", made)
    return made


def test_the_lock_is_there_as_long_as_it_is_held(tags: Tags) -> None:
    with promotion_lock("my-model"):
        assert tags.names == [NAME]

    assert tags.names == []
    assert tags.naps == []


def test_another_model_is_not_waited_for(tags: Tags) -> None:
    with promotion_lock("my-model"), promotion_lock("another", wait_seconds=0):
        assert tags.names == [NAME, "promoting another"]


def test_a_holder_that_failed_lets_go(tags: Tags) -> None:
    with pytest.raises(RuntimeError, match="on the way"), promotion_lock("my-model"):
        raise RuntimeError("on the way")

    assert tags.names == []


def test_it_is_taken_once_another_lets_go(tags: Tags) -> None:
    held = tags.hold()
    tags.meanwhile = lambda: tags.delete_tag(held.id) if len(tags.naps) == 3 else None

    with promotion_lock("my-model"):
        assert tags.names == [NAME]

    assert tags.naps == [0.1] * 3


@pytest.mark.parametrize(
    ("settings", "waits"), [({"wait_seconds": 1.0}, 1), ({"wait_seconds": 0}, 0), ({}, 300)]
)
def test_a_lock_that_is_held_too_long_names_the_way_out(
    settings: dict[str, float], waits: int, tags: Tags
) -> None:
    tags.hold()
    held = promotion_lock("my-model", **settings)

    with pytest.raises(RegistryError, match=f"for {waits} s; .* zenml tag delete '{NAME}'"), held:
        pass

    assert waits <= tags.now <= waits + 0.2
    assert tags.names == [NAME]  # the other's


def test_the_lock_of_a_killed_promotion_is_broken(tags: Tags) -> None:
    killed = tags.hold(age=STALE_SECONDS + 1)
    others = tags.hold("promoting another", age=9 * STALE_SECONDS)

    with promotion_lock("my-model", wait_seconds=5):
        assert killed not in tags.made
        assert tags.names == [others.name, NAME]

    assert tags.naps == [0.1]


def test_a_lock_that_may_still_be_held_is_not_broken(tags: Tags) -> None:
    tags.hold(age=STALE_SECONDS - 5)

    with pytest.raises(RegistryError), promotion_lock("my-model", wait_seconds=1):
        pass

    assert tags.names == [NAME]


def test_a_stale_lock_that_two_break_at_once(tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    stale, delete = tags.hold(age=2 * STALE_SECONDS), tags.delete_tag

    def broken_by_another(number: Any) -> None:
        if stale in tags.made and number is stale.id:
            tags.made.remove(stale)
        delete(number)

    monkeypatch.setattr(tags, "delete_tag", broken_by_another)

    with promotion_lock("my-model"):  # nor is it there to be let go of
        assert tags.names == [NAME]


# --- ZenML's own -------------------------------------------------------------------------------


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
