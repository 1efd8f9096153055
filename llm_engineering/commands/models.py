"""``--models``, ``--promote`` and ``--rollback``: the registered adapters and their stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import load_config

if TYPE_CHECKING:
    from rich.table import Table
    from zenml.models import ModelVersionResponse

SERVED_STILL = (
    "what serves keeps its version: end --serve and start it again, and repeat --deploy sagemaker"
)
"""Told wherever the production version changes."""


def show() -> None:
    """Print every registered model's newest versions, with stages and figures.

    Below them its production version, and what a rollback would put back, where they are older.
    """
    set_up_terminal()

    from rich.console import Console
    from zenml.client import Client
    from zenml.utils.pagination_utils import depaginate

    from llm_engineering.registry.versions import newest_versions

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = 200
    shown = False
    # Of all models: ZenML tags what a run registers by its version, not by its model.
    for model in depaginate(Client().list_models):
        versions, total = newest_versions(model.name)
        if versions:
            older = _older_in_use(model.name, versions)
            console.print(f"\n[bold]{model.name}[/bold]", highlight=False)
            console.print(_table([*versions, *older]))
            if total > len(versions):
                left = total - len(versions) - len(older)
                console.print(f"  and {left} older: zenml model version list --model={model.name}")
            shown = True
    if not shown:
        print("no adapter is registered yet: --finetune makes the first version")


def _older_in_use(model: str, newest: list[ModelVersionResponse]) -> list[ModelVersionResponse]:
    """The production version and its rollback target, unless they are among the newest."""
    from llm_engineering.registry.versions import REPLACED, find_version, production_version

    production = production_version(model)
    if production is None:
        return []
    former = str(production.run_metadata.get(REPLACED) or "")
    used = [production, *([find_version(model, former)] if former else [])]
    known = {version.id for version in newest}
    return [version for version in used if version.id not in known]


def promote(version: str, config_path: Path, overrides: Sequence[str]) -> None:
    """Make a version of the configuration's model the production one.

    Raises:
        RegistryError: There is no such version, or it is in production already.
    """
    model = _model(config_path, overrides)

    from llm_engineering.registry.stages import promote_by_hand

    name, replaced = promote_by_hand(model, version)
    print(f"{name} is the production version of {model}")
    if replaced is not None:
        print(f"{replaced} is archived; --rollback puts it back")
        print(SERVED_STILL)


def rollback(config_path: Path, overrides: Sequence[str]) -> None:
    """Put the configuration's former production version back.

    Raises:
        RegistryError: There is no production version, or none before it.
    """
    model = _model(config_path, overrides)

    from llm_engineering.registry.stages import roll_back

    archived, restored = roll_back(model)
    print(f"{restored} is the production version of {model} again")
    print(f"{archived} is archived; the gate will not promote this adapter again")
    print(SERVED_STILL)


def _model(config_path: Path, overrides: Sequence[str]) -> str:
    config = load_config(config_path, overrides)
    set_up_terminal()

    from llm_engineering.registry.versions import model_name

    return model_name(config)


def _table(versions: list[ModelVersionResponse]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("No.", justify="right")
    table.add_column("Version", overflow="fold")
    table.add_column("Stage")
    table.add_column("Held-out loss")
    table.add_column("Held-out set")  # losses compare only where it is the same
    table.add_column("Registered (UTC)")
    for version in versions:
        figures = version.run_metadata
        stage = _stage(version)
        table.add_row(
            str(version.number),
            str(version.name),
            f"[green]{stage}[/green]" if stage == "production" else stage,
            f"{_loss(figures.get('held_out_loss_before'))} → "
            f"{_loss(figures.get('held_out_loss_after'))}",
            f"{figures.get('held_out_rows', '')} rows, {str(figures.get('held_out_digest'))[:6]}",
            f"{version.created:%Y-%m-%d %H:%M}",
        )
    return table


def _stage(version: ModelVersionResponse) -> str:
    from llm_engineering.registry.versions import ROLLED_BACK

    if version.run_metadata.get(ROLLED_BACK):
        return "rolled back"
    return str(version.stage or "-")


def _loss(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
