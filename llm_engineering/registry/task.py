"""Whether two runs that share a registered model by its default name are of one task.

The default is made of the base model's and the data's names, and ``data/train.jsonl`` has the same
name everywhere. Data are the same task's if they are in the same place, or have a file in common:
held-out rows mostly, where training rows grow in a checkout that moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.data.read.files import find_files
from llm_engineering.data.read.sources import is_artifact, is_file, sources_of
from llm_engineering.errors import DataError, RegistryError
from llm_engineering.model.base_model import file_digest
from llm_engineering.registry.versions import model_name, newest_versions, production_version

PLACES, FILES = "data_places", "data_files"
_MOST = 50
ROOT = Path(__file__).resolve().parents[2]


def task_figures(config: FinetuningConfig) -> dict[str, Any]:
    """What tells a version's task: where its data are, and digests of the files."""
    files, sources = set(), list(sources_of(config.data))
    for _, source, asked in sources:
        if is_file(source) and not is_artifact(source):
            try:
                found = find_files(source, split=asked.split, default_split=asked.default_split)
            except DataError:  # it is elsewhere: where a step runs, or gone since it was read
                continue
            files |= {file_digest(file.local) for file in found if file.local is not None}
    return {PLACES: [_place(source) for _, source, _ in sources], FILES: sorted(files)[:_MOST]}


def require_same_task(config: FinetuningConfig, run: str | None = None) -> None:
    """Refuse to add a version to a model that another task has by accident.

    Args:
        config: The run's.
        run: Name of the run, whose own version does not count.

    Raises:
        RegistryError: The default name is another task's; says how to tell them apart.
    """
    if config.registry.model is not None:
        return
    name = model_name(config)
    production = production_version(name)
    known = [*newest_versions(name, 5)[0], *([production] if production else [])]
    others = [one for one in known if PLACES in one.run_metadata and one.name != run]
    ours = task_figures(config)
    if not others or any(_in_common(ours, one.run_metadata) for one in others):
        return
    theirs = others[0]
    raise RegistryError(
        f"registry.model: {name}, which model and data are called, has versions of other data "
        f"({theirs.name}: {_shown(theirs.run_metadata[PLACES])}) than this run's "
        f"({_shown(ours[PLACES])}). If it is the same task, set registry.model: {name}; if not, "
        "set another name there"
    )


def _in_common(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours[PLACES][0] == theirs[PLACES][0] or bool({*ours[FILES]} & {*theirs.get(FILES, [])})


def _place(source: str) -> str:
    """A source as it is known: a file of this project alike in every checkout, others by their path."""
    if is_artifact(source):
        return source.partition("@")[0]
    if not is_file(source) or "://" in source:
        return source
    path = Path(source).expanduser().absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _shown(places: Any) -> str:
    return f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else str(places[0])
