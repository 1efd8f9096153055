"""model.tar.gz: an inventory written in the job, and a wary extraction and check afterwards.

The inventory lies in the archive itself. So it finds damage and what is missing, not forgery: who
may write the archive's object in S3 can alter both. ``anchor`` holds its digest against the job's log.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from llm_engineering.errors import LaunchError

INVENTORY = "inventory.json"
MAX_BYTES = 20 * 2**30  # adapter, tokenizer and report of any model have far less


def write_inventory(folder: Path) -> Path:
    """Write inventory.json, the SHA-256 of every file under a folder by POSIX path; return it.

    Raises:
        LaunchError: Something in the folder is neither a file nor a folder, such as a link.
    """
    path = folder / INVENTORY
    digests = {name: _digest(file) for name, file in _files(folder).items()}
    path.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def verify_inventory(folder: Path) -> None:
    """Check for damage: that a folder holds what its inventory.json lists, and nothing else.

    Raises:
        LaunchError: Lists every missing, unlisted and altered file, or says what is wrong with
            the inventory itself.
    """
    listed = _read_inventory(folder / INVENTORY)
    files = _files(folder)
    problems = [f"missing: {name}" for name in sorted(listed.keys() - files.keys())]
    problems += [f"not listed: {name}" for name in sorted(files.keys() - listed.keys())]
    problems += [
        f"altered: {name} (sha256 {digest}, listed {listed[name]})"
        for name, file in files.items()
        if name in listed and (digest := _digest(file)) != listed[name]
    ]
    if problems:
        raise LaunchError(
            f"{folder}: is not what the job listed as saved ({'; '.join(problems)}); download it "
            "again, and if it stays so, do not use it"
        )


def extract(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Extract a tar.gz whose contents are not trusted: all of it, or nothing.

    Only plain files and folders are taken, with this process's default permissions.

    Args:
        archive: The tar.gz.
        folder: Receives the files; made if missing, and empty otherwise.
        max_bytes: Most bytes that all files may have together, uncompressed.

    Raises:
        LaunchError: Names the member with a path outside of the folder, or that is a link, a
            device, a duplicate, or too much; or the archive is cut or no tar.gz. ``folder`` is
            then as it was.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LaunchError(f"{folder}: is not an empty folder; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".extract-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        try:
            with tarfile.open(archive, "r:gz") as members:
                _extract_members(archive, members, whole, max_bytes)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise LaunchError(
                f"{archive}: is cut, or is no tar.gz ({error}); download it again"
            ) from None
        os.replace(whole, folder)


def _extract_members(archive: Path, members: tarfile.TarFile, folder: Path, max_bytes: int) -> None:
    seen: dict[PurePosixPath, tarfile.TarInfo] = {}
    parents: set[PurePosixPath] = set()
    left = max_bytes
    for member in members:
        path = PurePosixPath(member.name)
        left -= member.size
        problem = _problem(member, path)
        if problem is None and (path in seen or (path in parents and not member.isdir())):
            problem = "is there twice"
        if problem is None and any(not seen[up].isdir() for up in path.parents if up in seen):
            problem = "lies in a file"
        if problem is None and left < 0:
            problem = f"takes the archive over {max_bytes:,} bytes uncompressed"
        if problem is not None:
            raise LaunchError(f"{archive}: {member.name!r} {problem}; nothing was extracted")
        seen[path] = member
        parents.update(path.parents)
        target = folder / path
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = members.extractfile(member)
        if source is not None:
            with source, target.open("xb") as file:
                shutil.copyfileobj(source, file)


def _problem(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """Why a member is not taken, in words that follow its name; None if it may be."""
    if path.is_absolute():
        return "is an absolute path"
    if ".." in path.parts:
        return "leads out of the folder"
    if member.issym() or member.islnk():
        return f"is a link to {member.linkname!r}"
    if member.issparse():
        return "is a sparse file"
    if not (member.isreg() or member.isdir()):
        return "is a device or another special file"
    if member.size < 0:
        return "has a negative size"
    return None


def _files(folder: Path) -> dict[str, Path]:
    """Every file under a folder but the inventory itself, by POSIX path, sorted."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise LaunchError(f"{path}: is a link or a special file; only plain files are saved")
        if path.is_file() and name != INVENTORY:
            files[name] = path
    return files


def _read_inventory(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise LaunchError(
            f"{path.parent}: has no {INVENTORY}, so the job did not save all of it; see its log"
        ) from None
    except ValueError as error:
        raise LaunchError(f"{path}: is not JSON ({error}); download the archive again") from None
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        raise LaunchError(f"{path}: is no table of digests; download the archive again")
    return listed


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
