"""``--compare``: several finished runs on one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import load_config
from llm_engineering.errors import ConfigError, RegistryError
from llm_engineering.talk.finished_run import MANIFEST, run_folder

_CONFIDENCE = 0.95


def run(names: Sequence[str], config_path: Path, overrides: Sequence[str]) -> None:
    """Write the page, and say which run is better.

    Args:
        names: Runs, by folder or name; the first is that which the others are held against.
        config_path: The configuration file, whose ``run.output_dir`` holds them.
        overrides: Values of --set.

    Raises:
        ConfigError: Fewer than two runs, too many, one twice, or one without its files.
        TalkError: There is no such run.
    """
    from llm_engineering.reporting.comparison import MOST_RUNS, render_comparison

    config = load_config(config_path, overrides)
    output_dir = Path(config.run.output_dir)
    if not 2 <= len(names) <= MOST_RUNS:
        raise ConfigError(
            f"--compare: {len(names)} run{'' if len(names) == 1 else 's'} given; give from two to "
            f"{MOST_RUNS}, by folder or name"
        )
    folders = [run_folder(name, output_dir).resolve() for name in names]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(f"--compare: {folder.name} is given twice; name each run once")
    set_up_terminal()
    runs = [_read(folder) for folder in folders]
    verdicts = _verdicts(runs)
    html = render_comparison(runs, verdicts)
    others = folders[1].name if len(folders) == 2 else f"{len(folders) - 1}-others"
    page = output_dir / "compared" / f"{folders[0].name}--{others}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html, encoding="utf-8")
    for verdict in verdicts:
        print(f"{verdict.name}: {verdict.text}")
    print(f"page  {page}")


def _read(folder: Path) -> Any:
    from llm_engineering.reporting.comparison import ComparedRun, outcome_of

    manifest, figures = _json(folder, MANIFEST), _json(folder, "metrics.json")
    if manifest is None or figures is None:
        raise ConfigError(
            f"--compare: {folder} has no readable {MANIFEST} and metrics.json; name the folder of a "
            "finished run, or write a registered one with --pull"
        )
    record, evaluation, missing = None, None, ""
    try:
        record, evaluation = _stored(manifest)
    except RegistryError as error:
        missing = f"its curve and answers are not shown: {error}"
    return ComparedRun(
        name=manifest["run"],
        manifest=manifest,
        figures=figures,
        record=record,
        evaluation=evaluation,
        outcome=outcome_of(_json(folder, "promotion.json")),
        missing=missing,
    )


def _stored(manifest: dict[str, Any]) -> tuple[Any, Any]:
    """A run's course and evaluation, which ZenML keeps with its version.

    Raises:
        RegistryError: They are not there any more, or of another version of the project.
    """
    from pydantic import ValidationError

    from llm_engineering.configuration import FinetuningConfig
    from llm_engineering.registry.versions import artifact, find_version, model_name

    try:
        config = FinetuningConfig.model_validate(manifest["config"])
    except ValidationError:
        raise RegistryError("it was made by another version of this project") from None
    version = find_version(model_name(config), manifest["run"])
    return artifact(version, "training_record"), artifact(version, "evaluation")


def _verdicts(runs: Sequence[Any]) -> list[Any]:
    """Each run held against the first by a paired bootstrap, where the rows are the same."""
    from llm_engineering.reporting.comparison import better, same_rows
    from llm_engineering.scoring.bootstrap import paired_bootstrap

    first, *others = runs
    found = []
    for one in others:
        if not same_rows(first, one):
            continue
        ours, theirs = one.evaluation.after.row_losses, first.evaluation.after.row_losses
        if len(ours) == len(theirs) and ours:
            told = paired_bootstrap(theirs, ours, confidence=_CONFIDENCE)
            found.append(better(one.name, first.name, told.share, told.at_least, _CONFIDENCE))
    return found


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
