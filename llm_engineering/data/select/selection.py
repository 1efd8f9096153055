"""Selecting the rows that are trained and those that are held out; what repeats or leaks is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.rows.keys import spread
from llm_engineering.data.select.duplicates import (
    Matches,
    describe,
    equal_rows,
    no_rows,
    opposite_rows,
    shared_rows,
)
from llm_engineering.data.select.mixture import draw
from llm_engineering.data.select.near import near_duplicates, near_leaks
from llm_engineering.data.select.refusals import Refuse, report_repeats
from llm_engineering.data.select.row_index import RowIndex
from llm_engineering.data.select.split import first_of, is_held_out
from llm_engineering.data.summary import Repeats, SourceSummary
from llm_engineering.data.workers import Workers

if TYPE_CHECKING:
    from llm_engineering.data.rows.row_store import RowNumbers
    from llm_engineering.data.select.duplicates import Keys

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")

_BY_WEIGHT, _BY_MAX_ROWS, _FOR_VALIDATION = 1, 2, 3  # draws


@dataclass(frozen=True)
class Selection:
    """The rows of each split by their numbers, and what was found on selecting them."""

    rows: Mapping[str, RowNumbers]
    contradictions: Repeats | None
    duplicates: Repeats
    leaks: Repeats
    held_out_unused: int
    """Held-out rows beyond ``data.held_out.max_rows``."""


def select_rows(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    data: DataSettings,
    index: RowIndex[ItemT],
    workers: Workers,
    refuse: Refuse,
    validates: bool,
) -> Selection:
    """Select the rows of each split.

    Training rows that contradict one another are looked for first, then those that repeat an
    earlier one; then the sources' weights decide, and what is held out. Last, training rows that
    leak a held-out one: where the held-out rows have a source of their own, or a group has parted
    what is alike.

    Args:
        objective_rows: The objective's rows.
        data: What to do about them.
        index: All of them.
        workers: Who compares them.
        refuse: Hears of those that are an error.
        validates: Whether training looks at held-out rows, which then are a part of them.
    """
    import numpy

    source, store, seed = index.source, index.store, data.seed
    equal_keys, prompt_keys = index.equal_keys, index.prompt_keys
    train = numpy.flatnonzero(source < len(data.sources))
    threshold = data.near_duplicates

    def settle(
        what: str, advice: str, action: str, equal: Matches, alike: Matches, sign: str = "="
    ) -> tuple[RowNumbers, Repeats]:
        """Tell of training rows that were found; returns those left for training too."""
        found = describe(store, equal, alike, dropped=action == "drop", sign=sign)
        report_repeats(
            found,
            f"of {len(train)} training rows {what}",
            advice,
            error=action == "error",
            refuse=refuse,
        )
        return (_without(_without(train, equal), alike) if found.dropped else train), found

    contradictions = None
    if objective_rows.judges_answers:
        train, contradictions = settle(
            "say the opposite of another",
            "data.on_contradictions: drop leaves out both",
            data.on_contradictions,
            opposite_rows(train, equal_keys[train]),
            no_rows(),
            sign="!=",
        )

    equal, alike = equal_rows(train, equal_keys[train]), no_rows()
    if threshold:
        alike = near_duplicates(objective_rows, store, _without(train, equal), threshold, workers)
    train, duplicates = settle(
        "repeat an earlier one",
        "data.on_duplicates: drop leaves them out",
        data.on_duplicates,
        equal,
        alike,
    )

    weights = [one.weight for one in data.sources if one.weight is not None]
    if weights:
        train = train[draw(source[train], _order(equal_keys[train], seed, _BY_WEIGHT), weights)]
    if data.held_out.source:
        held_out = numpy.flatnonzero(source == len(data.sources))
    else:
        split_keys = index.split_keys(seed)[train]
        drawn = is_held_out(split_keys, data.held_out.fraction or 0.0)
        if len(train) > 1 and (split_keys == split_keys[0]).all():
            shared = "have the same " + (data.held_out.group or "first prompt")
            refuse(
                f"data.held_out.fraction: all {len(train)} training rows {shared}, and such rows are "
                "held out together; give data.held_out.source, or a data.held_out.group that parts "
                "them"
            )
        train, held_out = train[~drawn], train[drawn]
    splits, unused = {"held_out": held_out}, 0
    if validates and data.held_out.validation_fraction:
        looked_at = is_held_out(
            spread(index.split_keys(seed)[held_out], _FOR_VALIDATION),
            data.held_out.validation_fraction,
        )
        if looked_at.all() and len(held_out):
            refuse(
                f"data.held_out: {len(held_out)} rows, of which validation_fraction "
                f"({data.held_out.validation_fraction:g}) leaves none to judge by: give more "
                "held-out rows (those with one first prompt stay together), or set "
                "validation_fraction: 0, so that training is judged by rows it looked at"
            )
        splits = {"held_out": held_out[~looked_at], "validation": held_out[looked_at]}
    for name, rows in splits.items():
        chosen = first_of(_order(equal_keys[rows], seed, _BY_MAX_ROWS), data.held_out.max_rows)
        unused += len(rows) - len(chosen)
        splits[name] = rows[chosen]
    held_out = numpy.sort(numpy.concatenate(list(splits.values())))

    equal = shared_rows(train, prompt_keys[train], held_out, prompt_keys[held_out])
    alike = no_rows()
    if threshold:
        alike = near_leaks(
            objective_rows, store, _without(train, equal), threshold, workers, held_out
        )
    train, leaks = settle(
        objective_rows.leak,
        "the held-out loss would flatter; data.on_leaks: drop leaves them out of training",
        data.on_leaks,
        equal,
        alike,
    )
    return Selection({"train": train} | splits, contradictions, duplicates, leaks, unused)


def used_sources(
    index: RowIndex[ItemT], selection: Selection, lost: Sequence[int]
) -> list[SourceSummary]:
    """The sources with what is used of each.

    Args:
        index: All rows.
        selection: Those selected.
        lost: Numbers of selected rows that could not be used after all.
    """
    import numpy

    used = numpy.setdiff1d(numpy.concatenate(list(selection.rows.values())), lost)
    row = numpy.cumsum(index.begins)
    _, first = numpy.unique(row[used], return_index=True)
    counts = numpy.bincount(index.source[used[first]], minlength=len(index.sources))
    return [
        one.model_copy(update={"used": int(count)})
        for one, count in zip(index.sources, counts, strict=True)
    ]


def _order(equal_keys: Keys, seed: int, draw: int) -> Keys:
    """Numbers by which rows are drawn, other ones for each draw; what a row says decides its own."""
    return spread(spread(equal_keys, seed), draw)


def _without(rows: RowNumbers, matches: Matches) -> RowNumbers:
    import numpy

    return rows[~numpy.isin(rows, matches.rows)]
