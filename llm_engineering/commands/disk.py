"""``--disk``: what takes how much room, and what the policy of ``schedule.retention`` would remove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config

if TYPE_CHECKING:
    from llm_engineering.scheduling.history import Tick
    from llm_engineering.scheduling.retention import Verdict


def show(config_path: Path, overrides: Sequence[str]) -> None:
    """Print every run's folder with its size, age and why it stays, and what else is large.

    Nothing is removed: the next scheduled run does that, for the runs that its schedule made.

    Raises:
        ConfigError: The configuration is wrong; it names the output folder and the policy.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from llm_engineering.scheduling.disk_use import folder_bytes, free_bytes, other_places

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Size", justify="right")
    table.add_column("Changed")
    table.add_column("Folder", overflow="fold")
    table.add_column("Stays")
    goes = total = 0
    for verdict in _verdicts(config):
        size = folder_bytes(verdict.folder)
        total += size
        goes += 0 if verdict.reason else size
        changed = datetime.fromtimestamp(verdict.folder.stat().st_mtime)
        stays = verdict.reason or "[yellow]no: the policy removes it[/yellow]"
        table.add_row(_shown(size), f"{changed:%Y-%m-%d}", str(verdict.folder), stays)
    for name, folder in other_places():
        table.add_row(_shown(folder_bytes(folder)), "", str(folder), name)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = 200
    console.print(table)
    print(f"{_shown(total)} in runs, of which schedule.retention would remove {_shown(goes)} now")
    print(f"{_shown(free_bytes(Path(config.run.output_dir)))} are free there")


def _verdicts(config: FinetuningConfig) -> Iterator[Verdict]:
    """All folders of runs: as their schedule judges them; by hand, those that no schedule made."""
    import time

    from llm_engineering.scheduling.disk_use import run_folders
    from llm_engineering.scheduling.retention import Verdict, judge, versions_in_use

    outputs, used = Path(config.run.output_dir).resolve(), versions_in_use()
    judged: dict[Path, Verdict] = {}
    for ticks in _histories(outputs):
        for verdict in judge(ticks, config.schedule.retention, used, time.time()):
            judged[verdict.folder] = verdict
    for folder in run_folders(outputs):
        by_hand = Verdict(folder, used.get(folder.name, "made by hand: no schedule removes it"))
        yield judged.get(folder, by_hand)


def _histories(outputs: Path) -> Iterator[list[Tick]]:
    from llm_engineering.scheduling.history import read_history
    from llm_engineering.scheduling.schedules import read_schedule, schedule_names

    for name in schedule_names():
        ticks = read_history(read_schedule(name).folder)
        if any(tick.output_dir == outputs for tick in ticks):
            yield ticks


def _shown(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
