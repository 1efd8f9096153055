"""``--dashboard``: the newest run in ZenML's dashboard, on the server that ZenML is connected to."""

from __future__ import annotations

import os
import sys

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.errors import SetupError

_PIPELINE = "finetuning"


def start() -> None:
    """Print the link of the newest run, and open it where there is a desktop.

    Without a server, ZenML's own local one is started and connected first.

    Raises:
        SetupError: The server cannot be started, or does not let us in.
    """
    set_up_terminal()
    from zenml.exceptions import AuthorizationException, CredentialsNotValid
    from zenml.utils.dashboard_utils import show_dashboard_with_url

    from llm_engineering.lineage.local_server import (
        remote_server,
        skip_survey,
        start_local_server,
    )

    remote = remote_server()
    server = remote or start_local_server()
    try:
        if remote is None:
            skip_survey()
        newest = _newest_run()
    except (RuntimeError, CredentialsNotValid, AuthorizationException) as error:
        raise SetupError(
            f"the ZenML server at {server} cannot be used: {error}\nLog in again by "
            f"`zenml login {server}`, or leave it by `zenml logout`"
        ) from error
    if newest is None:
        print("no run yet; `make finetune` makes one")
    print(f"dashboard      {newest or server}")
    if remote is None:
        print("to stop it     tools/run.py --dashboard --stop")
    if _has_desktop():
        show_dashboard_with_url(newest or server)


def stop() -> None:
    """Stop ZenML's local server, and go back to ZenML without one; a remote server is left alone.

    Raises:
        SetupError: A run of this host is going on, which writes to that server.
    """
    set_up_terminal()
    from llm_engineering.lineage.local_server import remote_server, stop_local_server
    from llm_engineering.lineage.store import store_is_held

    remote = remote_server()
    if remote is None and store_is_held():
        raise SetupError(
            "--dashboard --stop: a run is going on, and writes to ZenML's local server; wait for its "
            "end (--dashboard shows it), or end it first"
        )
    address = stop_local_server()
    if address:
        print(f"stopped ZenML's local server at {address}; the runs are kept")
    elif remote is None:
        print("ZenML's local server is not running")
    if remote:
        print(f"still connected to {remote}; `zenml logout` ends that")


def _newest_run() -> str | None:
    from zenml.client import Client
    from zenml.utils.dashboard_utils import get_run_url

    runs = Client().list_pipeline_runs(pipeline_name=_PIPELINE, sort_by="desc:created", size=1)
    return get_run_url(runs[0]) if runs.items else None


def _has_desktop() -> bool:
    """Whether a browser would open a window, rather than take over the terminal."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
