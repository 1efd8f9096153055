"""The source that a training job runs: this package's own files, listed, capped, scanned, packed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.secret_scan import require_no_secrets
from llm_engineering.sagemaker.start import SOURCE

PACKAGE = "llm_engineering"
SUFFIXES = frozenset({".py", ".jinja", ".css", ".js", ".txt"})
MAX_BYTES = 5_000_000
START = "start.py"


@dataclass(frozen=True)
class SourceListing:
    """What is sent as source."""

    files: dict[str, int]  # size in bytes of each, by POSIX path in the folder, sorted
    total_bytes: int
    digest: str  # SHA-256 over names and contents


def stage_source(root: Path, folder: Path, extra: Mapping[str, str]) -> SourceListing:
    """Copy the source that a job needs into a folder, if all of it may leave this machine.

    Only Python files, templates, style sheets and texts of ``llm_engineering/`` are taken, so data,
    models, outputs, caches, ``.env`` and ``.git`` never are. Nothing is written unless all is well.

    Args:
        root: Folder that holds ``llm_engineering/``.
        folder: Receives the files; made if missing, and empty otherwise.
        extra: Text of further files by relative POSIX path, e.g. "requirements.txt".

    Raises:
        LaunchError: The source is missing or larger than 5 MB, a link leads out of it, or
            ``folder`` is not empty.
        SecretError: Something in a file looks like a secret.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise LaunchError(f"{folder}: is not empty, and all in it would be sent; empty it")
    contents = {path.relative_to(root).as_posix(): path.read_bytes() for path in _sources(root)}
    if not contents:
        raise LaunchError(f"{root / PACKAGE}: holds no source; launch from a checkout")
    for name, text in extra.items():
        contents[_inner(name, taken=contents)] = text.encode("utf-8")
    contents = dict(sorted(contents.items()))
    listing = _list(contents)
    _require_small(listing)
    for name, content in contents.items():
        require_no_secrets(name, content.decode("utf-8", errors="replace"))
    for name, content in contents.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return listing


def pack_source(staged: Path, folder: Path) -> Path:
    """Pack staged source as the two files that a job's ``code`` channel has.

    ``source.tar.gz`` has the same bytes whenever the source has: it lies in S3 under their digest,
    once, however often it is sent. ``start.py`` unpacks it.

    Args:
        staged: What ``stage_source`` made.
        folder: Receives both; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(path for path in staged.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(staged).as_posix())  # no owner, no time
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
    with (folder / SOURCE).open("wb") as target, gzip.GzipFile(
        filename="", mode="wb", fileobj=target, mtime=0
    ) as compressed:  # fmt: skip
        compressed.write(packed.getvalue())
    start = Path(__file__).with_name(START)
    (folder / START).write_bytes(start.read_bytes())
    return folder


def _sources(root: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(root / PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        names = [name for name in names if Path(name).suffix in SUFFIXES and name[0] != "."]
        for path in (Path(parent, name) for name in (*folders, *names)):
            if path.is_symlink():
                _require_file_inside(path, root / PACKAGE)
        yield from (Path(parent, name) for name in names)


def _require_file_inside(link: Path, package: Path) -> None:
    """A link to a file of the package is sent as that file; no other link is followed."""
    target = link.resolve()
    if not target.is_file() or not target.is_relative_to(package.resolve()):
        raise LaunchError(
            f"{link}: is a link to {os.readlink(link)}, which is not sent; put the real thing there"
        )


def _inner(name: str, taken: Mapping[str, bytes]) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() in taken:
        raise ValueError(f"not a new path inside the source: {name!r}")
    return path.as_posix()


def _list(contents: Mapping[str, bytes]) -> SourceListing:
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    files = {name: len(content) for name, content in contents.items()}
    return SourceListing(files, sum(files.values()), digest.hexdigest())


def _require_small(listing: SourceListing) -> None:
    if listing.total_bytes <= MAX_BYTES:
        return
    largest = sorted(listing.files.items(), key=lambda item: (-item[1], item[0]))[:3]
    raise LaunchError(
        f"the source of the job has {listing.total_bytes:,} bytes, more than {MAX_BYTES:,}; "
        f"move what is no source out of {PACKAGE}/. The largest files: "
        + ", ".join(f"{name} ({size:,})" for name, size in largest)
    )
