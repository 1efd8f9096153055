"""``--pull``: a registered version's files, out of the artifact store into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import load_config


def run(version: str, folder: Path, config_path: Path, overrides: Sequence[str]) -> None:
    """Write a version as a run's folder has it, wherever it was trained.

    Args:
        version: Name or number of a version of the configuration's model, or "production".
        folder: Where; must not be there yet.
        config_path: Says which model is meant.
        overrides: Values of --set.

    Raises:
        RegistryError: There is no such version, or the folder is there already.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()

    from llm_engineering.errors import RegistryError
    from llm_engineering.registry.version_files import write_version
    from llm_engineering.registry.versions import (
        PRODUCTION,
        find_version,
        model_name,
        production_version,
    )

    model = model_name(config)
    if version == PRODUCTION:
        found = production_version(model)
        if found is None:
            raise RegistryError(
                f"--pull {PRODUCTION}: model {model} has no production version; --models lists what "
                "there is, --promote VERSION makes one production"
            )
    else:
        found = find_version(model, version)
    write_version(found, folder)
    print(f"{found.name} (version {found.number} of {model}) is in {folder}")
    for part in sorted(folder.iterdir()):
        print(f"  {part.name}{'/' if part.is_dir() else ''}")
