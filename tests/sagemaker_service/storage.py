"""Copies between S3 and a job's folders: input channels, checkpoints, the model and the output."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from threading import Event, Thread
from typing import Any

from sagemaker_service.account import split_uri


class RoleDenied(Exception):
    """The job's role may not do what the service must do for the job."""


def download(uri: str, folder: Path, s3: Any) -> None:
    """Copy every object whose key begins with the URI's key into ``folder``.

    One object is copied under its own name, a prefix ``.../train`` with its contents right in the
    folder. As in S3, the prefix also matches ``.../train-2/...``: such keys keep their last folder.
    """
    bucket, prefix = split_uri(uri)
    for key in _keys(bucket, prefix, s3):
        if key.endswith("/"):
            continue
        target = folder / _relative(key, prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))


def upload_archive(folders: Sequence[Path], uri: str, s3: Any, kms_key: str | None) -> None:
    """Pack what lies in the folders as one .tar.gz and put it at ``uri``.

    The folders are those of a cluster's instances; of files of one name the last one's stays.
    """
    archive = folders[0].with_name(f"{folders[0].name}.tar.gz")
    files = {
        path.relative_to(folder).as_posix(): path
        for folder in folders
        for path in sorted(folder.rglob("*"))
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, path in sorted(files.items()):
            tar.add(path, arcname=name, recursive=False)
    _upload(archive, uri, s3, kms_key)
    archive.unlink()


def upload_folder(folder: Path, uri: str, s3: Any, kms_key: str | None) -> None:
    """Put each file of ``folder`` under ``uri``, by its relative path."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _upload(path, f"{uri}/{path.relative_to(folder)}", s3, kms_key)


class CheckpointSync:
    """Copies new and changed files of a folder to S3 again and again.

    A file that the job deletes is deleted in S3 too, as AWS documents it: what a job throws away is
    gone, and its role needs the permission.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        s3: Any,
        every_s: float,
        require: Callable[[str, str], None] = lambda action, uri: None,
    ) -> None:
        """``require(action, uri)`` raises where the job's role may not do that.

        ``problem`` is what it raised while copying: the job has failed by it.
        """
        self._folder = folder
        self._uri = uri.rstrip("/")
        self._s3 = s3
        self._every_s = every_s
        self._require = require
        self.problem: Exception | None = None
        self._seen: dict[Path, tuple[int, int]] = {}
        self._stopped = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def restore(self) -> None:
        """Copy what S3 holds into the folder: at every start of the job, also its first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        download(f"{self._uri}/", self._folder, self._s3)
        self._seen = dict(self._files())

    def start(self) -> None:
        self._thread.start()

    def stop(self, last_copy: bool) -> None:
        """End the copying, after one more when ``last_copy``."""
        self._stopped.set()
        self._thread.join()
        if last_copy:
            self._copy()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._copy()

    def _copy(self) -> None:
        try:
            self._mirror()
        except RoleDenied as problem:
            self.problem = problem

    def _mirror(self) -> None:
        bucket, prefix = split_uri(self._uri)
        for path in [path for path in self._seen if not path.is_file()]:
            place = path.relative_to(self._folder).as_posix()
            self._require("s3:DeleteObject", f"{self._uri}/{place}")
            self._s3.delete_object(Bucket=bucket, Key=str(PurePosixPath(prefix) / place))
            del self._seen[path]
        for path, state in self._files():
            if self._seen.get(path) == state:
                continue
            try:
                # Read at once, as it is now: the job may be writing or deleting it.
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            place = path.relative_to(self._folder).as_posix()
            self._require("s3:PutObject", f"{self._uri}/{place}")
            key = str(PurePosixPath(prefix) / place)
            self._s3.put_object(Bucket=bucket, Key=key, Body=content)
            self._seen[path] = state

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for path in sorted(self._folder.rglob("*")):
            try:
                if path.is_file():
                    status = path.stat()
                    yield path, (status.st_size, status.st_mtime_ns)
            except FileNotFoundError:
                continue


def _keys(bucket: str, prefix: str, s3: Any) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (each["Key"] for each in page.get("Contents", []))


def _relative(key: str, prefix: str) -> str:
    if key == prefix:
        return PurePosixPath(key).name
    folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    if key.startswith(folder):
        return key.removeprefix(folder)
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")


def _upload(path: Path, uri: str, s3: Any, kms_key: str | None) -> None:
    bucket, key = split_uri(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    s3.upload_file(str(path), bucket, key, ExtraArgs=encryption)
