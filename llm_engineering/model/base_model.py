"""Locating a base model: its folder, its commit, its files and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_engineering.configuration.model import ModelSettings, RopeScaling
from llm_engineering.errors import ModelError
from llm_engineering.model.rope_scaling import overrides, stretched_folder

TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py")
INDEX = "model.safetensors.index.json"
_ONE_FILE = "model.safetensors"
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


_relocated: dict[str, Path] = {}


def relocate(model_id: str, folder: Path) -> None:
    """Say where the model named ``model_id`` lies on this host.

    A remote job has the weights in an input channel; the recipes it makes still carry the id
    of the configuration.
    """
    _relocated[model_id] = folder


def relocations() -> dict[str, Path]:
    """What ``relocate`` was told, for another process of this host."""
    return dict(_relocated)


def is_hub_model(settings: ModelSettings) -> bool:
    """Whether ``model.id`` names a model on the Hub rather than a folder, there or missing."""
    folder = Path(settings.id).expanduser()
    return (
        not folder.is_dir()
        and _HUB_ID.match(settings.id) is not None
        and not folder.parent.is_dir()
        and folder.parts[0] != "models"
    )


def model_folder(settings: ModelSettings, *, weights: bool) -> Path:
    """Return the folder that a base model is loaded from: its own, or one of stretched positions.

    Raises:
        ModelError: As ``original_folder``, or its positions cannot be stretched as configured.
    """
    folder = original_folder(settings, weights=weights)
    if settings.rope_scaling is None:
        return folder
    return stretched_folder(folder, settings.rope_scaling, cache_folder())


def original_folder(settings: ModelSettings, *, weights: bool) -> Path:
    """Return the folder of a base model, fetching a Hub model into the Hub's own cache.

    Args:
        settings: ``id`` is a folder, or a Hub id.
        weights: Whether the weight files are needed too, or only configuration and tokenizer.

    Raises:
        ModelError: Neither a folder nor a Hub model that can be had, or files are missing.
    """
    folder = _relocated.get(settings.id, Path(settings.id).expanduser())
    if folder.is_dir():
        pass
    elif is_hub_model(settings):
        folder = _fetch(settings, weights=weights)
    else:
        hint = "; run `make model`" if folder.parts[:1] == ("models",) else ""
        raise ModelError(
            f"model.id: no folder {settings.id}{hint or ', and not a Hub id owner/name'}"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.id: {settings.id} has no config.json, so it is no model folder")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model, after checking that they are all there and whole.

    Only headers are read, so this costs no more than a look at the folder.

    Raises:
        ModelError: No safetensors file, a shard named in the index is missing, or one is cut.
    """
    paths = [folder / name for name in weight_names(folder)]
    if not paths:
        raise ModelError(
            f"model.id: {folder} holds no .safetensors file; other weight formats are not read"
        )
    for path in paths:
        if not path.is_file():
            raise ModelError(
                f"model.id: {path} is missing (the index names it); fetch the model anew"
            )
        _check_whole(path)
    return paths


def weight_names(folder: Path) -> list[str]:
    """The weight files that transformers reads: those of the index, or the one file, if it is there.

    A repository may hold the same weights once more (Mistral's ``consolidated.safetensors``).
    """
    index = folder / INDEX
    if index.is_file():
        try:
            stated = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return sorted({str(name) for name in stated})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(
                f"{index}: is not an index of safetensors files; fetch the model anew"
            ) from None
    if (folder / _ONE_FILE).is_file():
        return [_ONE_FILE]
    return sorted(path.name for path in folder.glob("*.safetensors"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    A file of the Hub's cache is stored under its digest, and a local file's digest is remembered
    by size and modification time, so that large weights are read for this at most once.
    """
    resolved = path.resolve()
    if _SHA256.match(resolved.name):
        return resolved.name
    stat = resolved.stat()
    key = hashlib.sha256(f"{resolved}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()
    remembered = cache_folder() / "digests" / key
    if remembered.is_file() and _SHA256.match(known := remembered.read_text().strip()):
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # no place to remember it in: read again next time
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(digest)
    return digest


def weight_digests(settings: ModelSettings) -> dict[str, str]:
    """SHA-256 of each weight file by name.

    Those of a Hub model are in the names of its cached files; the Hub is asked only where they are
    not all in its cache.

    Raises:
        ModelError: There are no safetensors, or the Hub is asked and does not answer.
    """
    folder = original_folder(settings, weights=False)
    if not is_hub_model(settings) or settings.id in _relocated:
        return {path.name: file_digest(path) for path in weight_files(folder)}
    names = weight_names(folder)
    if names and all((folder / name).is_file() for name in names):
        return {path.name: file_digest(path) for path in weight_files(folder)}
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(settings.id, revision=folder.name, files_metadata=True)
    except Exception as error:  # the library raises whatever its transport raised
        raise hub_error(settings, error) from error
    files = {f.rfilename: f.lfs.sha256 for f in info.siblings or [] if f.lfs is not None}
    wanted = names or [name for name in files if name == _ONE_FILE]
    wanted = wanted or [name for name in files if name.endswith(".safetensors")]
    missing = [name for name in wanted if name not in files]
    if missing or not wanted:
        raise ModelError(
            f"model.id: {settings.id} has no {', '.join(missing) or '.safetensors file'} on the Hub"
        )
    return {name: files[name] for name in wanted}


def require_positions(settings: ModelSettings) -> None:
    """Check that the model knows positions for rows as long as the configuration lets them be.

    Raises:
        ModelError: It does not; says both figures.
    """
    known = known_positions(settings)
    if known is not None and settings.max_seq_length > known:
        raise ModelError(
            f"model.max_seq_length: {settings.max_seq_length} tokens are more than the {known} "
            f"positions that {settings.id} was made for (its config.json), and what it computes "
            f"beyond them is not what it learned. Set model.max_seq_length to at most {known}, or "
            f"take a model of longer context{_stretching(settings, known)}"
        )


def known_positions(settings: ModelSettings) -> int | None:
    """Positions that the model has, stretched ones included; None: its configuration does not say."""
    config = read_config(model_folder(settings, weights=False))
    text = config.get("text_config")
    if isinstance(text, dict):
        config = {**config, **text}
    return next((config[key] for key in _POSITIONS if isinstance(config.get(key), int)), None)


def _stretching(settings: ModelSettings, known: int) -> str:
    """The ``model.rope_scaling`` that would do, as an advice; none where it would be refused."""
    scaling = settings.rope_scaling
    made_for = known / scaling.factor if scaling else known
    factor = -(-settings.max_seq_length // (made_for / 10)) / 10  # rounded up to a tenth
    config = read_config(original_folder(settings, weights=False))
    try:
        overrides(config, RopeScaling(rope_type="yarn", factor=factor), settings.id)
    except ModelError:
        return ""
    return (
        f", or stretch its positions (model.rope_scaling: {{rope_type: yarn, factor: {factor:g}}})"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder.

    Raises:
        ModelError: It is not a JSON object.
    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected an object")
    return value


def cache_folder() -> Path:
    """Where this project keeps what it would else compute, or ask for, again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llm-engineering-finetuning"


def _fetch(settings: ModelSettings, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(revision: str | None, patterns: Sequence[str]) -> Path:
        asked: dict[str, Any] = {"revision": revision, "allow_patterns": list(patterns)}
        try:
            return Path(snapshot_download(settings.id, **asked))
        except Exception as error:  # the library raises whatever its transport raised
            # Offline it asks for the list of a commit's files, unless an earlier call has kept it.
            with contextlib.suppress(Exception):
                return Path(snapshot_download(settings.id, **asked, local_files_only=True))
            raise hub_error(settings, error) from error

    folder = fetch(settings.revision, TOKENIZER_FILES)
    if not weights:
        return folder
    # Only what will be read: a repository may hold its weights in two forms.
    wanted = weight_names(folder) if (folder / INDEX).is_file() else [_ONE_FILE]
    if not all((folder / name).is_file() for name in wanted):
        fetch(folder.name, wanted)
    if not weight_names(folder):
        fetch(folder.name, ["*.safetensors"])
    return folder


def hub_error(settings: ModelSettings, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    return ModelError(
        f"model.id: {settings.id} is no folder here, and the Hub did not give it "
        f"({type(error).__name__}: {reason}); check the id, model.revision, the network and, "
        "for a gated model, your Hub login"
    )


def _check_whole(path: Path) -> None:
    """A safetensors file is 8 bytes of header length, the header, then exactly its tensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        end = max(
            (v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0
        )
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(f"{path}: is not a safetensors file; fetch the model anew") from None
    if size != 8 + length + end:
        raise ModelError(
            f"{path}: has {size} bytes, its header says {8 + length + end}; fetch the model anew"
        )
