"""Choosing the rows that are trained and those that are held out; what repeats or leaks is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.dataset import SourceSummary
from llm_engineering.data.objective_rows import RowKind
from llm_engineering.data.select.duplicates import (
    Pairs,
    Repeats,
    describe,
    equal_rows,
    no_rows,
    opposite_rows,
    shared_rows,
)
from llm_engineering.data.select.messages import Refuse, report_repeats
from llm_engineering.data.select.mixture import draw
from llm_engineering.data.select.row_index import CheckedRows
from llm_engineering.data.select.split import is_held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Choice:
    """The rows of each split by their numbers, and what was found on choosing them."""

    rows: dict[str, NDArray[Any]]
    contradictions: Repeats | None
    duplicates: Repeats
    leaks: Repeats


def choose_rows(kind: RowKind, data: DataSettings, checked: CheckedRows, refuse: Refuse) -> Choice:
    """Choose the rows of both splits.

    Training rows that contradict one another are looked for first, then those that repeat an
    earlier one; then the sources' weights decide, and what is held out. Last, training rows that
    leak a held-out one: where the held-out rows have a source of their own, or a group or a
    difference in case or spaces has parted what is alike.

    Args:
        kind: The objective's rows.
        data: What to do about them.
        checked: All of them.
        refuse: Hears of those that are an error.
    """
    import numpy

    source, place, exact, leaking = checked.source, checked.place, checked.exact, checked.leaks
    train = numpy.flatnonzero(source < len(data.sources))
    near = data.near_duplicates

    def settle(
        what: str, advice: str, action: str, equal: Pairs, alike: Pairs, sign: str = "="
    ) -> tuple[NDArray[Any], Repeats]:
        """Tell of training rows that were found; returns those left for training too."""
        found = describe(checked.spool, equal, alike, dropped=action == "drop", sign=sign)
        report_repeats(
            found,
            f"of {len(train)} training rows {what}",
            advice,
            error=action == "error",
            refuse=refuse,
        )
        return (_without(_without(train, equal), alike) if found.dropped else train), found

    contradictions = None
    if kind.may_contradict:
        train, contradictions = settle(
            "say the opposite of another",
            "data.on_contradictions: drop leaves out both",
            data.on_contradictions,
            opposite_rows(train, exact[train]),
            no_rows(),
            sign="!=",
        )

    equal, alike = equal_rows(train, exact[train]), no_rows()
    if near:
        alike = kind.near_duplicates(checked.spool, _without(train, equal), near)
    train, duplicates = settle(
        "repeat an earlier one",
        "data.on_duplicates: drop leaves them out",
        data.on_duplicates,
        equal,
        alike,
    )

    weights = [one.weight for one in data.sources if one.weight is not None]
    if weights:
        train = train[draw(source[train], place[train], weights)]
    if data.held_out.source:
        held_out = numpy.flatnonzero(source == len(data.sources))
    else:
        held = is_held_out(place[train], data.held_out.fraction or 0.0)
        train, held_out = train[~held], train[held]
    held_out = held_out[: data.held_out.max_rows]

    equal, alike = shared_rows(train, leaking[train], held_out, leaking[held_out]), no_rows()
    if near:
        alike = kind.near_leaks(checked.spool, _without(train, equal), near, held_out)
    train, leaks = settle(
        kind.leak,
        "the held-out loss would flatter; data.on_leaks: drop leaves them out of training",
        data.on_leaks,
        equal,
        alike,
    )
    return Choice({"train": train, "held_out": held_out}, contradictions, duplicates, leaks)


def used_sources(checked: CheckedRows, choice: Choice, lost: list[int]) -> list[SourceSummary]:
    """The sources with what is used of each.

    Args:
        checked: All rows.
        choice: Those chosen.
        lost: Numbers of chosen rows that could not be used after all.
    """
    import numpy

    used = numpy.setdiff1d(numpy.concatenate(list(choice.rows.values())), lost)
    row = numpy.cumsum(checked.begins)
    _, first = numpy.unique(row[used], return_index=True)
    counts = numpy.bincount(checked.source[used[first]], minlength=len(checked.sources))
    return [
        one.model_copy(update={"used": int(count)})
        for one, count in zip(checked.sources, counts, strict=True)
    ]


def _without(rows: NDArray[Any], pairs: Pairs) -> NDArray[Any]:
    import numpy

    left: NDArray[Any] = rows[~numpy.isin(rows, pairs.rows)]
    return left
