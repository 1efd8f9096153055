"""Pytest plugin of the mutation check: what its many sessions, forks of one process, share."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from mutmut.state import state


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: most mutants are killed by one."""
    seconds = state().duration_by_test
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the fork, load the training stack and make what tests/conftest.py makes once a process.

    Nothing here may start a thread: it would be missing in the fork, and waited for.
    """
    import numpy  # noqa: F401

    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "tiny_model" in asked:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for module in [*sys.modules.values()]:
            if make := vars(module).get("make_tiny_model"):
                make()
    gc.freeze()  # else each fork walks through, and so copies, all that is loaded
