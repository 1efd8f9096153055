"""Requirements read from poetry.lock, the one list of versions.

Needs nothing but ``packaging``: the set-up runs this before the project's own packages are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from re import Pattern
from typing import Any

from packaging.markers import Marker

GPU_ONLY = re.compile(
    r"nvidia-.*|cuda-.*|triton(-windows)?|xformers|bitsandbytes|torchvision|torchao"
)


def locked_requirements(
    lock: Mapping[str, Any],
    *,
    groups: frozenset[str],
    environment: Mapping[str, str] | None,
    leave_out: Pattern[str],
    hashes: bool = False,
) -> list[str]:
    """``name==version`` of each locked package that an environment needs, in the lock's order.

    Args:
        lock: The parsed poetry.lock (lock file version 2.1, which names each package's groups).
        groups: Dependency groups; a package of any of them is needed.
        environment: Values of PEP 508's marker variables; None: this interpreter's own.
        leave_out: Names that are not wanted, matched as a whole.
        hashes: Whether each line also has the digests of the package's files, as pip reads them.
    """
    return [
        " ".join(
            [f"{package['name']}=={package['version']}", *(_digests(package) if hashes else [])]
        )
        for package in lock["package"]
        if not leave_out.fullmatch(package["name"])
        and any(_is_needed(package, group, environment) for group in groups)
    ]


def _digests(package: Mapping[str, Any]) -> list[str]:
    return [f"--hash={file['hash']}" for file in package["files"]]


def _is_needed(
    package: Mapping[str, Any], group: str, environment: Mapping[str, str] | None
) -> bool:
    if group not in package["groups"]:
        return False
    # One marker for all groups, or one for each group that has a condition.
    marker = package.get("markers")
    if isinstance(marker, Mapping):
        marker = marker.get(group)
    return not marker or Marker(marker).evaluate(dict(environment) if environment else None)
