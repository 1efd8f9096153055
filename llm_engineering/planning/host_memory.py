"""How much memory this process can have: the machine's, or less where its container has a limit.

Needs nothing but the standard library: the set-up asks it before any package is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def total_host_bytes() -> int | None:
    """Bytes of memory that this process could have on an idle machine; None where Linux's /proc is not."""
    total = _meminfo("MemTotal")
    return None if total is None else min([total, *(limit for _, limit in _limits())])


def free_host_bytes() -> int | None:
    """Bytes that it can have now without swapping, others' use taken off; None without /proc."""
    free = _meminfo("MemAvailable")
    if free is None:
        return None
    return max(0, min([free, *(limit - _held(group) for group, limit in _limits())]))


def _meminfo(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next((int(kibibytes) * 1024 for kibibytes in values), None)


def _limits() -> Iterator[tuple[Path, int]]:
    """This process's control group and those above it, each with its limit in bytes."""
    try:
        lines = _OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = _GROUPS / controllers  # version 2 has one tree, version 1 one for each controller
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(top):
                break
            limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
            if limit is not None:
                yield folder, limit


def _held(group: Path) -> int:
    """Bytes that a group holds and the kernel cannot drop: files that were read can go."""
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return used
    counts = dict(line.split() for line in lines)
    cached = counts.get("total_inactive_file", counts.get("inactive_file", "0"))
    return max(0, used - int(cached))


def _number(path: Path) -> int | None:
    """What a file says, None where it is not there or says "max"."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
