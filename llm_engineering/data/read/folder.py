"""Which files of a folder hold the rows of a split, and which hold none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

from llm_engineering.errors import DataError

_METADATA = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
)
_NO_ROWS = frozenset(("readme", "license", "licence", "notice", "changelog", "requirements"))
_SAVED_DATA = "data-*.arrow"  # beside state.json, where datasets' caches may lie too
# Names of splits as the Hub takes them from files and folders (its "Data files configuration").
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CANONICAL = {word: name for name, words in _SPLITS.items() for word in words}
_WORD = re.compile(rf"(?:^|[-._ 0-9/])({'|'.join(_CANONICAL)})(?=$|[-._ 0-9/])")
_NUMBERED = re.compile(r"(?:^|/)([\w.-]+?)-\d{5}-of-\d{5}[^/]*$")


def rows_of_folder(
    source: str,
    paths: Sequence[str],
    kinds: Sequence[str],
    split: str | None,
    default_split: str,
    unread: Counter[str],
) -> list[str]:
    """The paths of the files whose rows are read, of those below a folder.

    Descriptions of a data set are left out, and text beside files of rows. A folder that
    ``datasets`` saved gives its tables. Where files or folders name splits, as on the Hub, those of
    one split are read.

    Args:
        source: The folder as it is configured.
        paths: Of its files, relative to it, in order.
        kinds: What kind each is: its suffix, without that of its compression; "" if unknown.
        split: The split that is meant; None: ``default_split``, where files name splits.
        default_split: That.
        unread: Counts the files that are left out.

    Raises:
        DataError: The split is not there.
    """
    kept = [path for path, kind in zip(paths, kinds, strict=True) if kind and not _describes(path)]
    saved = {str(PurePosixPath(path).parent) for path in paths if _name(path) == "state.json"}
    if saved:
        kept = [
            path
            for path in kept
            if str(PurePosixPath(path).parent) in saved and fnmatch(_name(path), _SAVED_DATA)
        ]
    kind_of = dict(zip(paths, kinds, strict=True))
    if any(kind_of[path] != ".txt" for path in kept):
        kept = [path for path in kept if kind_of[path] != ".txt"]
    kept = _of_split(source, kept, bool(saved), split, default_split)
    for path in paths:
        if path not in kept:
            unread[f"file {path if path.isprintable() else repr(path)}"] += 1
    return kept


def _of_split(
    source: str, paths: list[str], saved: bool, split: str | None, default_split: str
) -> list[str]:
    name_of = {path: _saved_split(path) if saved else _split(path) for path in paths}
    names = list(dict.fromkeys(name for name in name_of.values() if name is not None))
    if not names:
        if split is not None:
            raise DataError(
                f"data source {source}: split {split!r}, and no file or folder in it names a split; "
                "drop it"
            )
        return paths
    wanted = split or default_split
    wanted = wanted if wanted in names else _CANONICAL.get(wanted, wanted)
    found = [path for path in paths if name_of[path] == wanted]
    if not found:
        raise DataError(
            f"data source {source}: no file in it is of split {wanted!r}; they name "
            f"{', '.join(names)}: say which with split, or name the files, e.g. {source}/*"
        )
    return found


def _saved_split(path: str) -> str | None:
    return PurePosixPath(path).parent.name or None


def _split(path: str) -> str | None:
    pure = PurePosixPath(path)
    named = _NUMBERED.search(str(pure.with_name(pure.name.partition(".")[0])))
    if named:
        return _CANONICAL.get(named[1].lower(), named[1])
    for text in (pure.name.partition(".")[0], str(pure.parent)):
        words = _WORD.findall(text.lower())
        if words:
            return _CANONICAL[words[-1]]
    return None


def _describes(path: str) -> bool:
    name = _name(path)
    return name in _METADATA or name.partition(".")[0].lower() in _NO_ROWS


def _name(path: str) -> str:
    return PurePosixPath(path).name
