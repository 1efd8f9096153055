"""Choosing the rows that are trained and those that are held out; what repeats or leaks is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.schema import DataSettings
from llm_engineering.data.checked_rows import CheckedRows
from llm_engineering.data.dataset import SourceSummary
from llm_engineering.data.duplicates import (
    Pairs,
    Repeats,
    describe,
    equal_rows,
    no_rows,
    opposite_rows,
    shared_rows,
)
from llm_engineering.data.findings import Refuse, report_repeats
from llm_engineering.data.mixture import draw
from llm_engineering.data.row_kind import RowKind
from llm_engineering.data.split import is_held_out

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

    spool, source, place = checked.spool, checked.source, checked.place
    exact, leaking = checked.exact, checked.leaks
    train = numpy.flatnonzero(source < len(data.sources))
    near = data.near_duplicates

    candidates, contradictions = len(train), None
    if kind.may_contradict:
        opposite = opposite_rows(train, exact[train])
        contradictions = describe(
            spool, opposite, no_rows(), dropped=data.on_contradictions == "drop", sign="!="
        )
        report_repeats(
            contradictions,
            f"of {candidates} training rows say the opposite of another",
            "data.on_contradictions: drop leaves out both",
            error=data.on_contradictions == "error",
            refuse=refuse,
        )
        if contradictions.dropped:
            train = _without(train, opposite)

    candidates, equal, alike = len(train), equal_rows(train, exact[train]), no_rows()
    if near:
        alike = kind.near_duplicates(spool, _without(train, equal), near)
    duplicates = describe(spool, equal, alike, dropped=data.on_duplicates == "drop")
    report_repeats(
        duplicates,
        f"of {candidates} training rows repeat an earlier one",
        "data.on_duplicates: drop leaves them out",
        error=data.on_duplicates == "error",
        refuse=refuse,
    )
    if duplicates.dropped:
        train = _without(_without(train, equal), alike)

    weights = [one.weight for one in data.sources if one.weight is not None]
    if weights:
        train = train[draw(source[train], place[train], weights)]
    if data.held_out.source:
        held_out = numpy.flatnonzero(source == len(data.sources))
    else:
        held = is_held_out(place[train], data.held_out.fraction or 0.0)
        train, held_out = train[~held], train[held]
    held_out = held_out[: data.held_out.max_rows]

    candidates, alike = len(train), no_rows()
    equal = shared_rows(train, leaking[train], held_out, leaking[held_out])
    if near:
        alike = kind.near_leaks(spool, _without(train, equal), near, held_out)
    leaks = describe(spool, equal, alike, dropped=data.on_leaks == "drop")
    report_repeats(
        leaks,
        f"of {candidates} training rows {kind.leak}",
        "the held-out loss would flatter; data.on_leaks: drop leaves them out of training",
        error=data.on_leaks == "error",
        refuse=refuse,
    )
    if leaks.dropped:
        train = _without(_without(train, equal), alike)
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
