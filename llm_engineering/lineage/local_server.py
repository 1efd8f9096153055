"""ZenML's own local server: started, stopped, and connected to this user's ZenML.

It serves the database and the files that ZenML uses without a server, so that every run is there
whichever way it was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_engineering.errors import SetupError

if TYPE_CHECKING:
    from zenml.zen_server.deploy import LocalServerDeployment

_FIRST_PORT, _LAST_PORT = 8237, 8257  # ZenML's own, and where to go if others have it
_LOG_LINES = 5


def remote_server() -> str | None:
    """Address of the server that ZenML is connected to; None without one, or if it is the local."""
    from zenml.config.global_config import GlobalConfiguration
    from zenml.enums import StoreType

    store = GlobalConfiguration().store_configuration
    if store.type != StoreType.REST or store.url == _address():
        return None
    return store.url


def start_local_server() -> str:
    """Start the local server, or find it running, and connect to it.

    Returns:
        Its address.

    Raises:
        SetupError: ZenML keeps its runs in a database of its own choice, which the local server
            would not show; no port is free; or the server does not come up.
    """
    from zenml.config.global_config import GlobalConfiguration
    from zenml.enums import ServerProviderType
    from zenml.zen_server.deploy import LocalServerDeployer, LocalServerDeploymentConfig
    from zenml.zen_server.deploy.exceptions import ServerDeploymentError

    configuration = GlobalConfiguration()
    store, default = configuration.store_configuration.url, configuration.get_default_store().url
    if store not in (default, _address()):
        raise SetupError(
            f"ZenML keeps its runs in {store}, which its local server does not serve: connect to "
            "the server of that database by `zenml login URL`"
        )
    deployer = LocalServerDeployer()
    found = _deployment()
    try:
        if found is None or not _url(found):
            port = _free_port(found)
            config = LocalServerDeploymentConfig(provider=ServerProviderType.DAEMON, port=port)
            found = deployer.deploy_server(config)
        address = str(_url(found))
        if store != address:
            deployer.connect_to_server()
    except (OSError, RuntimeError, ServerDeploymentError) as error:
        tail = "\n".join(_last_lines())
        stop_local_server()
        raise SetupError(f"ZenML's local server did not start: {error}\n{tail}".strip()) from error
    return address


def skip_survey() -> None:
    """Answer the questions that the dashboard asks before it shows anything; nothing is sent on.

    For the local server's one user only: those of other servers answer for themselves.
    """
    from zenml.client import Client
    from zenml.constants import CURRENT_USER, FINISHED_ONBOARDING_SURVEY_KEY
    from zenml.models import UserUpdate
    from zenml.zen_stores.rest_zen_store import RestZenStore

    client = Client()
    user, store = client.active_user, client.zen_store
    if user.email_opted_in is None and isinstance(store, RestZenStore):
        answers = {**user.user_metadata, FINISHED_ONBOARDING_SURVEY_KEY: True}
        # Not client.update_user: on its way the server drops email_opted_in.
        store.put(CURRENT_USER, UserUpdate(email_opted_in=False, user_metadata=answers))


def stop_local_server() -> str | None:
    """Stop the local server and go back to ZenML without one; a remote connection stays.

    Returns:
        The address at which it was, None where there was none.
    """
    from zenml.zen_server.deploy import LocalServerDeployer

    address = _address()
    if address is None:
        return None
    _disconnect(address)
    LocalServerDeployer().remove_server()
    return address


def leave_dead_server() -> str | None:
    """Go back to ZenML without a server where the local one that it is connected to has ended.

    After a restart of the host, no command would work otherwise; nothing is lost, since the
    server has no data of its own.

    Returns:
        The address that was left, None where nothing had to be done.
    """
    found = _deployment()
    if found is None or _url(found) or not _disconnect(_address()):
        return None
    return _address()


def _disconnect(address: str | None) -> bool:
    from zenml.config.global_config import GlobalConfiguration

    configuration = GlobalConfiguration()
    if configuration.store_configuration.url != address:
        return False
    configuration.set_default_store()
    return True


def _deployment() -> LocalServerDeployment | None:
    from zenml.utils.server_utils import get_local_server

    return get_local_server()


def _url(deployment: LocalServerDeployment) -> str | None:
    """Where the server answers now."""
    return deployment.status.url if deployment.status else None


def _address() -> str | None:
    """Where the server is, or was when it ran."""
    found = _deployment()
    return None if found is None else _url(found) or found.config.url


def _free_port(found: LocalServerDeployment | None) -> int:
    from zenml.utils.networking_utils import lookup_preferred_or_free_port

    before = getattr(found.config, "port", _FIRST_PORT) if found else _FIRST_PORT
    try:
        return lookup_preferred_or_free_port([before], range=(_FIRST_PORT, _LAST_PORT))
    except OSError as error:
        raise SetupError(
            f"no port from {_FIRST_PORT} to {_LAST_PORT} is free for ZenML's local server: end "
            "what uses one of them, or start it yourself by `zenml login --local --port PORT`"
        ) from error


def _last_lines() -> list[str]:
    """The end of the server's log, which says why it did not start."""
    from zenml.zen_server.deploy import LocalServerDeployer
    from zenml.zen_server.deploy.exceptions import ServerDeploymentNotFoundError

    try:
        return list(LocalServerDeployer().get_server_logs(tail=_LOG_LINES))
    except (ServerDeploymentNotFoundError, OSError):
        return []
