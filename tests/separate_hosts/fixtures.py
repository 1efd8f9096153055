"""The stack of separate hosts, active for as long as a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from separate_hosts import be_importable


@contextmanager
def separate_hosts(folder: Path, **settings: Any) -> Iterator[Path]:
    """Activate the stack; its store lies in the folder that is given out, its disks beside it."""
    from zenml.client import Client
    from zenml.enums import StackComponentType

    from separate_hosts.artifact_store import SCHEME

    be_importable()
    store, disks = folder / "store", folder / "disks"
    for path in (store, disks):
        path.mkdir(exist_ok=True)
    client, before = Client(), Client().active_stack_model
    parts = {
        StackComponentType.ORCHESTRATOR: (
            "orchestrator.SeparateHostsFlavor",
            "separate_hosts",
            {"disks": str(disks), **settings},
        ),
        StackComponentType.ARTIFACT_STORE: (
            "artifact_store.BucketFlavor",
            "bucket",
            {"path": f"{SCHEME}{store}"},
        ),
    }
    made = {}
    for kind, (source, flavor, values) in parts.items():
        if not client.list_flavors(name=flavor).total:
            client.create_flavor(f"separate_hosts.{source}", kind)
        name = f"{flavor}-{folder.name}-{len(client.list_stacks())}"
        made[kind] = client.create_stack_component(name, flavor, kind, values).name
    stack = client.create_stack(f"hosts-{folder.name}-{len(client.list_stacks())}", made)
    client.activate_stack(stack.id)
    try:
        yield store
    finally:
        client.activate_stack(before.id)
