"""Which instance types have a local NVMe store of a fixed size, by EC2's own catalogue."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import moto


@cache
def _catalogue() -> dict[str, Any]:
    path = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
    return dict(json.loads(gzip.decompress(path.read_bytes())))


def local_storage_gb(instance_type: str) -> int | None:
    """GB of the local store; None for a type that has EBS alone (or that EC2 no longer lists)."""
    found = _catalogue().get(instance_type.removeprefix("ml."), {})
    size = found.get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    return None if size is None else int(size)
