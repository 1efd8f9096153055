"""ZenML's local server where it cannot be started, or has ended under a client's feet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.config.store_config import StoreConfiguration
from zenml.zen_stores.rest_zen_store import RestZenStoreConfiguration
from zenml.zen_stores.sql_zen_store import SqlZenStoreConfiguration

from llm_engineering.errors import SetupError
from llm_engineering.lineage import local_server

DEAD = "http://127.0.0.1:8237"
REMOTE = "https://zenml.example.com"

Connect = Callable[[StoreConfiguration], GlobalConfiguration]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect ZenML as its configuration file would at a start: nothing is asked yet."""
    configuration = GlobalConfiguration()
    before = configuration.store

    def connect_to(store: StoreConfiguration) -> GlobalConfiguration:
        configuration.store, configuration._zen_store = store, None
        return configuration

    yield connect_to
    configuration.store, configuration._zen_store = before, None


def test_a_server_that_has_ended_is_left_and_zenml_works_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a restart of the host leaves it: connected to a local server that is not there."""
    ended = SimpleNamespace(status=None, config=SimpleNamespace(url=DEAD))
    monkeypatch.setattr(local_server, "_deployment", lambda: ended)
    configuration = connect(RestZenStoreConfiguration(url=DEAD))
    assert local_server.leave_dead_server() == DEAD
    assert configuration.store_configuration.url.startswith("sqlite:")
    assert Client().active_user.name == "default"
    assert local_server.leave_dead_server() is None


def test_a_remote_server_is_left_alone(connect: Connect) -> None:
    connect(RestZenStoreConfiguration(url=REMOTE))
    assert local_server.leave_dead_server() is None
    assert local_server.stop_local_server() is None
    assert local_server.remote_server() == REMOTE


def test_a_database_of_the_users_own_is_not_passed_over(connect: Connect) -> None:
    url = "mysql://someone:secret@db.example.com:3306/zenml"
    connect(SqlZenStoreConfiguration(url=url))
    with pytest.raises(SetupError, match=r"db\.example\.com.* `zenml login URL`") as error:
        local_server.start_local_server()
    assert "secret" not in str(error.value)


def test_when_all_ports_are_taken_it_says_how_to_choose_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zenml.utils.networking_utils.port_available", lambda *_, **__: False)
    with pytest.raises(SetupError, match=r"8237 to 8257 .* --port PORT"):
        local_server.start_local_server()
