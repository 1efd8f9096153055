"""What became of every call of a schedule: one JSON line each."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from llm_engineering.outputs import unproven
from llm_engineering.scheduling.changes import Inputs
from llm_engineering.scheduling.whole_file import write_whole

KEPT_LINES = 500
"""Newest lines kept when the history is shortened; runs whose output is there stay too."""

Outcome = Literal["succeeded", "skipped", "failed", "interrupted"]


class Tick(BaseModel):
    """One call of a schedule."""

    started: str = Field(description="UTC, ISO 8601.")
    finished: str = Field("", description="UTC, ISO 8601.")
    outcome: Outcome = "interrupted"
    reason: str = Field("", description="Why it ran or was skipped; what failed.")
    runs: list[str] = Field(
        default_factory=list, description="Name of the run of each attempt; the last one counts."
    )
    inputs: Inputs | None = None
    output_dir: Path | None = Field(None, description="Absolute; holds <run>/.")
    version: str | None = Field(None, description="The model version that was registered.")
    promoted: bool | None = Field(None, description="Whether it became production.")
    log: str | None = Field(None, description="File name in logs/.")
    url: str | None = Field(None, description="The run in the ZenML dashboard.")

    @property
    def folders(self) -> list[Path]:
        """The output folder of each attempt, whether or not it is there; the last one counts."""
        return [self.output_dir / run for run in self.runs] if self.output_dir else []


def append_tick(folder: Path, tick: Tick) -> None:
    """Add one line; safe beside another process that does the same."""
    with (folder / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(tick.model_dump_json() + "\n")


def read_history(folder: Path) -> list[Tick]:
    """All ticks, oldest first; a line that a full disk or a kill left unfinished is passed over."""
    ticks = []
    try:
        lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            ticks.append(Tick.model_validate_json(line))
        except ValidationError:
            continue
    return ticks


def last_success(ticks: list[Tick]) -> Tick | None:
    """The newest tick that trained to the end; None before the first."""
    return next((tick for tick in reversed(ticks) if tick.outcome == "succeeded"), None)


def newest_start(ticks: list[Tick], now: datetime, created: str = "") -> datetime | None:
    """When the newest call before now came, or the schedule was asked for if that was later.

    None: never. A call that found a run going on is recorded before that run, which began earlier;
    and a clock that was ahead for a time has left calls of the future, which do not count.
    """
    texts = [created, *(tick.started for tick in ticks[-KEPT_LINES:])]
    starts = [datetime.fromisoformat(text) for text in texts if text]
    return max((start for start in starts if start <= now), default=None)


def shorten_history(folder: Path) -> None:
    """Drop old lines, now and then; never the newest success, nor one whose output is there."""
    ticks = read_history(folder)
    if len(ticks) <= 2 * KEPT_LINES:
        return
    newest = last_success(ticks)
    old, new = ticks[:-KEPT_LINES], ticks[-KEPT_LINES:]
    kept = [t for t in old if t is newest or any(map(_is_there, t.folders))]
    lines = "".join(t.model_dump_json() + "\n" for t in [*kept, *new])
    write_whole(folder / "history.jsonl", lines)


def _is_there(folder: Path) -> bool:
    return folder.is_dir() or unproven(folder).is_dir()
