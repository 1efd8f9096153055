"""Finding versions without reading all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import event
from zenml.client import Client

from llm_engineering.errors import RegistryError
from llm_engineering.registry.stages import promote_by_hand, roll_back
from llm_engineering.registry.versions import find_version, newest_versions, rolled_back_versions

AddVersion = Callable[..., str]


@pytest.fixture
def queries() -> Iterator[list[str]]:
    """What is asked of the local store's database."""
    asked: list[str] = []
    engine = Client().zen_store.engine

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many versions come back from each request, with their figures."""
    sizes: list[int] = []
    store = type(Client().zen_store)
    real = store.list_model_versions

    def listing(self: object, *arguments: object, hydrate: bool = False, **named: object) -> object:
        page = real(self, *arguments, hydrate=hydrate, **named)
        sizes.append(len(page.items) if hydrate else 0)
        return page

    monkeypatch.setattr(store, "list_model_versions", listing)
    return sizes


def test_forward_and_back_read_a_few_of_many_versions(
    model: str, add_version: AddVersion, queries: list[str], loaded: list[int]
) -> None:
    def cost(*names: str) -> tuple[int, int]:
        for name in names:
            add_version(name)
        queries.clear()
        loaded.clear()
        promote_by_hand(model, "2")
        roll_back(model)
        return len(queries), sum(loaded)

    for name in ("one", "two"):
        add_version(name)
    promote_by_hand(model, "one")
    few = cost()
    many = cost(*(f"v{number}" for number in range(3, 28)))
    assert many[1] <= few[1] + 1, "another production version is read, no more"
    assert many[0] <= few[0] * 1.2


def test_the_newest_are_read_and_all_are_counted(
    model: str, add_version: AddVersion, loaded: list[int]
) -> None:
    Client().create_model(f"{model}-other")
    for number in range(1, 9):
        add_version(f"v{number}")
    Client().create_model_version(model, "killed before its adapter was saved")
    loaded.clear()
    versions, total = newest_versions(model, 4)
    assert [version.name for version in versions] == ["v8", "v7", "v6"]
    assert (total, loaded) == (9, [4])
    assert newest_versions("no-such-model") == ([], 0)


def test_a_version_is_found_by_its_name_before_its_number(
    model: str, add_version: AddVersion
) -> None:
    for name in ("one", "v1", "x1"):
        add_version(name)
    assert find_version(model, "v1").number == 2
    assert find_version(model, "3").name == "x1"
    for unknown in ("9", "v", "one-two"):
        with pytest.raises(RegistryError, match=r"newest: 3 \(x1\), 2 \(v1\), 1 \(one\)"):
            find_version(model, unknown)


def test_what_was_rolled_back_and_not_forgiven_is_found(
    model: str, add_version: AddVersion
) -> None:
    for name in ("one", "two", "three"):
        promote_by_hand(model, add_version(name))
    roll_back(model)
    assert [version.name for version in rolled_back_versions(model)] == ["three"]
    promote_by_hand(model, "three")
    assert rolled_back_versions(model) == []
