"""Which trained model a command means by a VERSION: a run's folder or name, or one of the registry."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import RegistryError
from llm_engineering.registry.versions import PRODUCTION, model_name
from llm_engineering.talk.finished_run import FinishedRun, find_run, own_configuration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedVersion:
    """A finished run, and as what it is registered."""

    run: FinishedRun
    model: str
    """Name of the registered model; of a folder that is in no registry, its run's."""
    text: str
    """Which it is, in words."""


def is_folder_or_run(where: str, config: FinetuningConfig) -> bool:
    """Whether a VERSION names a folder or a run in ``run.output_dir``, so that no store is asked."""
    return bool(where) and (Path(where).is_dir() or (Path(config.run.output_dir) / where).is_dir())


@contextmanager
def trained_version(where: str, config: FinetuningConfig) -> Iterator[TrainedVersion]:
    """Find it, and take its files out of the store where they are not in ``run.output_dir``.

    Args:
        where: As ``--chat`` takes it, or the name or number of a registered version; empty or
            "production": the one in production.
        config: Says which model, and where runs are.

    Raises:
        RegistryError: There is no such version.
        TalkError: The folder holds none, or not what was trained.
    """
    if is_folder_or_run(where, config):
        run = find_run(where, config)
        own = own_configuration(run)
        model = run.name if own is None else model_name(own)
        yield TrainedVersion(run, model, f"{run.kind} of {run.name}, on {run.base.id}")
        return

    from llm_engineering.registry.version_files import write_version
    from llm_engineering.registry.versions import find_version, production_version

    model = model_name(config)
    if where in ("", PRODUCTION):
        version = production_version(model)
        if version is None:
            raise RegistryError(
                f"model {model} has no production version; --promote VERSION makes one, or name a "
                "version or a run's folder (outputs/latest: the newest run)"
            )
    else:
        version = find_version(model, where)
    text = f"{version.name}, version {version.number} of {model}"
    if where in ("", PRODUCTION):
        text += f", {PRODUCTION}"
    with tempfile.TemporaryDirectory(prefix="version-") as folder:
        name = str(version.name)
        here = Path(config.run.output_dir) / name
        if not (here / "manifest.json").is_file():
            here = Path(folder) / name
            logger.info("taking %s out of the store", version.name)
            write_version(version, here)
        run = find_run(str(here), config)
        yield TrainedVersion(run, model, f"{text}: {run.kind} on {run.base.id}")
