"""The output folder: outputs/<run name>/, outputs/latest, and the work folder of unfinished runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError

UNPROVEN = "-unproven"
"""Ending of the folder of a run whose exports failed their proof."""

ANSWERS = "answers.json"
"""In a run's folder: every answer to the rows of evaluate.answers, and its scores."""


def work_folder(output_dir: str | Path) -> Path:
    """The folder of all unfinished runs: checkpoints, and what is not yet complete."""
    return Path(output_dir) / ".work"


def run_name(config: FinetuningConfig, now: datetime) -> str:
    """``run.name``, else model, data and time: ``SmolLM2-135M-Instruct-stdlib_qa-20261124-210900``.

    Raises:
        ConfigError: The name is configured and taken.
    """
    name = config.run.name
    if name is not None:
        interrupted = work_folder(config.run.output_dir) / name / "checkpoints"
        output = Path(config.run.output_dir) / name
        taken = [output, unproven(output), interrupted]
        if name == "latest" or any(path.exists() for path in taken):
            raise ConfigError(
                f"run.name: {name} is taken in {config.run.output_dir}/; choose another (a resumed "
                "run takes a new name too), or leave it out"
            )
        return name
    return f"{model_and_data(config)}-{now.strftime('%Y%m%d-%H%M%S')}"


def model_and_data(config: FinetuningConfig) -> str:
    """What a configuration trains, in a name: ``SmolLM2-135M-Instruct-stdlib_qa``."""
    source = Path(config.data.sources[0].source)
    data = source.parent.name if source.stem in ("train", "data") else source.stem
    parts = [Path(config.model.id).name, data or source.stem]
    return "-".join("".join(c if c.isalnum() or c in "._-" else "-" for c in p) for p in parts)


@contextmanager
def new_output(output_dir: str | Path, name: str) -> Iterator[Path]:
    """Give a folder to fill; on leaving it becomes ``output_dir/name`` and ``latest``, at once.

    A run that is killed on the way leaves nothing under ``output_dir`` but its work folder; one
    whose output is refused leaves none of it there either, unless ``keep_unproven`` took it.
    """
    final = Path(output_dir) / name
    part = work_folder(output_dir) / name / "output"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)  # a merged model may be of many gigabytes
        raise
    part.rename(final)
    link = work_folder(output_dir) / name / "latest"
    link.unlink(missing_ok=True)
    link.symlink_to(name, target_is_directory=True)
    os.replace(link, Path(output_dir) / "latest")


def unproven(output: Path) -> Path:
    """Where a run that would have been ``output`` is kept if its exports are not proven."""
    return output.with_name(f"{output.name}{UNPROVEN}")


def keep_unproven(part: Path, output_dir: str | Path, name: str) -> Path:
    """Move what ``new_output`` gave to ``output_dir/<name>-unproven``; ``latest`` stays as it is.

    Returns:
        The folder; another try of the same name gets a number.
    """
    first = unproven(Path(output_dir) / name)
    numbered = (first.with_name(f"{first.name}-{number}") for number in count(2))
    kept = next(path for path in chain([first], numbered) if not path.exists())
    part.rename(kept)
    return kept


def remove_work(output_dir: str | Path, *names: str) -> None:
    """Remove the work folders of runs that are finished, or that a finished one continued."""
    for name in names:
        shutil.rmtree(work_folder(output_dir) / name, ignore_errors=True)
