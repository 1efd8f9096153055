"""The files that a source names: one file, a folder, a glob, here or behind a URL."""

from __future__ import annotations

import glob
import gzip
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from llm_engineering.data.read.folder import rows_of_folder
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".txt", ".parquet", ".arrow")
_UNCOMPRESSED = (".parquet", ".arrow")  # are compressed in themselves, and read from their end
COMPRESSIONS = (".gz", ".zst")
WHAT_TO_GIVE = (
    f"give a {', '.join(KINDS)} file ({' and '.join(COMPRESSIONS)} too), a folder or a glob of "
    "them, a URL such as s3://bucket/rows.jsonl, zenml://ARTIFACT, or a Hub id owner/name"
)
_GCS_RETRIES = timedelta(seconds=10)  # Arrow's own limit is a quarter of an hour
_GLOB = frozenset("*?[")
# What tells, by file system, that a remote file's contents are others than before.
_VERSION_KEYS = (
    *("ETag", "etag", "blob_id", "md5Hash", "crc32c", "version_id", "sha256"),
    *("mtime", "LastModified", "last_modified", "updated", "created", "size"),
)


@dataclass(frozen=True)
class DataFile:
    """One file of rows; ``kind`` is its suffix without that of its compression."""

    name: str
    path: str
    kind: str
    compression: str = ""
    filesystem: AbstractFileSystem | None = field(default=None, compare=False)
    split: str | None = None
    """Which list of a JSON object of them is meant; None: ``default_split``."""
    default_split: str = "train"

    @property
    def local(self) -> Path | None:
        """Its path on this machine; None where it is remote."""
        return Path(self.path) if self.filesystem is None else None

    @property
    def size(self) -> int:
        """Bytes as stored."""
        if self.filesystem is None:
            return Path(self.path).stat().st_size
        return int(self.filesystem.info(self.path).get("size") or 0)

    def version(self) -> str:
        """What changes with a remote file's contents: its tag or digest, time and size."""
        if self.filesystem is None:
            raise ValueError("a local file is told by its digest")
        info = self.filesystem.info(self.path)
        return f"{self.name} " + " ".join(f"{k}={info[k]}" for k in _VERSION_KEYS if info.get(k))

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, decompressed as they are read: never more than a buffer of them."""
        with ExitStack() as opened:
            stream: IO[bytes]
            if self.filesystem is None:
                stream = opened.enter_context(Path(self.path).open("rb"))
            else:
                stream = opened.enter_context(self.filesystem.open(self.path, "rb"))
            if self.compression == ".gz":
                stream = cast(IO[bytes], opened.enter_context(gzip.GzipFile(fileobj=stream)))
            elif self.compression == ".zst":
                import pyarrow

                source = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd")
                stream = io.BufferedReader(opened.enter_context(source), 2**20)
            yield stream


def find_files(
    source: str,
    *,
    split: str | None = None,
    default_split: str = "train",
    unread: Counter[str] | None = None,
) -> list[DataFile]:
    """The files of a source, sorted by name; in a folder, those of a known kind at any depth.

    Args:
        source: A file, a folder, a glob, or a URL of one.
        split: The split that is meant of a folder whose files name some, or of a JSON object.
        default_split: That where none is stated.
        unread: Counts the files of a folder that are left out.

    Raises:
        DataError: There is none, one is of an unknown kind or empty, the place is out of reach, or
            it has no such split.
    """
    picked = _Split(split, default_split, Counter() if unread is None else unread)
    try:
        files = _remote(source, picked) if "://" in source else _local(source, picked)
        empty = next((file for file in files if file.size == 0), None)
    except FileNotFoundError:
        raise DataError(f"data source {source}: no such file; {WHAT_TO_GIVE}") from None
    except OSError as error:
        raise _unreadable(source, error) from None
    if empty is not None:
        raise DataError(f"data source {empty.name}: the file is empty")
    return files


class _Split(NamedTuple):
    """The split that is meant, and where is counted what is not of it."""

    stated: str | None
    default: str
    unread: Counter[str]


def _local(source: str, split: _Split) -> list[DataFile]:
    path = Path(source)
    if path.is_dir():
        inside = (one for one in path.rglob("*") if one.is_file() and not _hidden(one, path))
        relative = sorted(one.relative_to(path).as_posix() for one in inside)
        return _of_folder(source, f"{source.rstrip('/')}/", relative, None, split)
    if path.exists() or not _GLOB.intersection(source):
        if not path.exists():
            raise FileNotFoundError
        return [_one_file(_file(source, None), split)]
    found = [one for one in glob.glob(source, recursive=True) if Path(one).is_file()]
    return _of_glob(source, sorted(found), None, split)


def _remote(source: str, split: _Split) -> list[DataFile]:
    filesystem, path = _filesystem(source)
    if _GLOB.intersection(path):
        return _of_glob(source, sorted(filesystem.glob(path)), filesystem, split)
    if filesystem.isdir(path):
        root = f"{path.strip('/')}/"
        found = sorted(filesystem.find(path))
        first = f"{found[0][: found[0].find(root)]}{root}" if found else root
        relative = [one.removeprefix(first) for one in found]
        return _of_folder(source, first, relative, filesystem, split)
    if not filesystem.exists(path):
        raise FileNotFoundError
    return [_one_file(_file(path, filesystem, source), split)]


def _filesystem(source: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it; those of S3 and GCS come with Arrow."""
    import fsspec

    scheme, _, path = source.partition("://")
    try:
        if scheme in ("s3", "s3a", "gs", "gcs"):
            return _arrow_filesystem(scheme, path), path
        return cast("tuple[AbstractFileSystem, str]", fsspec.core.url_to_fs(source))
    except ImportError as error:
        raise DataError(
            f"data source {source}: {error}; pip install that package into .venv"
        ) from None
    except ValueError as error:
        known = "s3, gs, hf, https, zenml and those of fsspec's installed file systems"
        raise DataError(f"data source {source}: {error}; known: {known}") from None
    except OSError as error:
        raise _unreadable(source, error) from None


def _arrow_filesystem(scheme: str, path: str) -> AbstractFileSystem:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    if scheme in ("gs", "gcs"):
        return ArrowFSWrapper(fs.GcsFileSystem(retry_time_limit=_GCS_RETRIES))
    # As other AWS clients: an endpoint of its own, and a region, come from the environment.
    options: dict[str, Any] = {"connect_timeout": 10}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["scheme"], _, options["endpoint_override"] = endpoint.rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not endpoint:
        region = fs.resolve_s3_region(path.partition("/")[0])
    return ArrowFSWrapper(fs.S3FileSystem(**options, **({"region": region} if region else {})))


def _of_folder(
    source: str, root: str, paths: list[str], where: AbstractFileSystem | None, split: _Split
) -> list[DataFile]:
    kinds = [kind if (kind := _kind(path)[0]) in KINDS else "" for path in paths]
    kept = rows_of_folder(source, paths, kinds, split.stated, split.default, split.unread)
    files = [_file(f"{root}{path}", where, source) for path in kept]
    if not files:
        raise DataError(
            f"data source {source}: the folder holds no {', '.join(KINDS)} file "
            f"({' and '.join(COMPRESSIONS)} too)"
        )
    return files


def _of_glob(
    source: str, paths: list[str], where: AbstractFileSystem | None, split: _Split
) -> list[DataFile]:
    if not paths:
        raise DataError(f"data source {source}: no file matches")
    if split.stated is not None:
        raise DataError(
            f"data source {source}: split {split.stated!r}, and a glob says itself which files; "
            "drop it"
        )
    return [_file(path, where, source) for path in paths]


def _one_file(file: DataFile, split: _Split) -> DataFile:
    if file.kind == ".json":
        return replace(file, split=split.stated, default_split=split.default)
    if split.stated is not None:
        raise DataError(
            f"data source {file.name}: split {split.stated!r}, and a {file.kind} file has no splits; "
            "drop it"
        )
    return file


def _file(path: str, where: AbstractFileSystem | None, source: str = "") -> DataFile:
    name = path if where is None else f"{source.partition('://')[0]}://{path.lstrip('/')}"
    if not name.isprintable():  # no text, or text that would steer a terminal
        name = name.encode("unicode_escape", "backslashreplace").decode()
    kind, compression = _kind(path)
    if kind not in KINDS:
        raise DataError(
            f"data source {name}: unknown kind {kind or '(no suffix)'!r}; known: "
            f"{', '.join(KINDS)}, and {' and '.join(COMPRESSIONS)} of those of text"
        )
    return DataFile(name, path, kind, compression, where)


def _kind(path: str) -> tuple[str, str]:
    """A file's kind and compression, by its suffixes."""
    pure = PurePosixPath(path)
    if pure.suffix not in COMPRESSIONS:
        return pure.suffix, ""
    inner = PurePosixPath(pure.stem).suffix
    return (
        (inner, pure.suffix) if inner in KINDS and inner not in _UNCOMPRESSED else (pure.suffix, "")
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _unreadable(source: str, error: OSError) -> DataError:
    reason = error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"data source {source}: cannot be read ({reason})")
