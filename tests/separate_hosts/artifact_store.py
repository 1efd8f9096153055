"""An artifact store that is not local: a folder behind paths that no file system knows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from zenml.artifact_stores import (
    BaseArtifactStore,
    BaseArtifactStoreConfig,
    BaseArtifactStoreFlavor,
)

SCHEME = "bucket://"


class BucketConfig(BaseArtifactStoreConfig):
    """``bucket:///folder`` is that folder, seen through the store alone."""

    SUPPORTED_SCHEMES: ClassVar[set[str]] = {SCHEME}


def _file(path: Any) -> str:
    text = os.fsdecode(path)
    assert text.startswith(SCHEME), f"{text} is no path of the store"
    return text.removeprefix(SCHEME)


class Bucket(BaseArtifactStore):
    """What a store must do, on a folder."""

    def open(self, path, mode="r"):
        return open(_file(path), mode)

    def copyfile(self, src, dst, overwrite=False):
        assert overwrite or not os.path.exists(_file(dst))
        shutil.copyfile(_file(src), _file(dst))

    def exists(self, path):
        return os.path.exists(_file(path))

    def glob(self, pattern):
        return [f"{SCHEME}{found}" for found in Path("/").glob(_file(pattern).lstrip("/"))]

    def isdir(self, path):
        return os.path.isdir(_file(path))

    def listdir(self, path):
        return os.listdir(_file(path))

    def makedirs(self, path):
        os.makedirs(_file(path), exist_ok=True)

    def mkdir(self, path):
        os.makedirs(_file(path), exist_ok=True)

    def remove(self, path):
        os.remove(_file(path))

    def rename(self, src, dst, overwrite=False):
        os.replace(_file(src), _file(dst))

    def rmtree(self, path):
        shutil.rmtree(_file(path))

    def size(self, path):
        return os.path.getsize(_file(path))

    def stat(self, path):
        return os.stat(_file(path))

    def walk(self, top, topdown=True, onerror=None):
        for folder, names, files in os.walk(_file(top), topdown, onerror):
            yield f"{SCHEME}{folder}", names, files


class BucketFlavor(BaseArtifactStoreFlavor):
    """Its flavour."""

    name = "bucket"
    config_class = BucketConfig
    implementation_class = Bucket
