"""What is wrong with the data: why a run must not use it, or a warning that it does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.read.row import BadRows
from llm_engineering.data.summary import Repeats, SourceSummary
from llm_engineering.errors import DataError

logger = logging.getLogger(__name__)

_SHOWN, _WARNED = 20, 5  # lines of a message
Refuse = Callable[[str], None]
"""Called with the reason why a run must not use the data."""


def raise_data_error(reason: str) -> None:
    """Refuse the data at the first reason.

    Raises:
        DataError: Always.
    """
    raise DataError(reason)


def report_bad_rows(bad: BadRows, on_bad_rows: str, refuse: Refuse) -> None:
    """Tell of rows that cannot be used.

    Args:
        bad: Those rows.
        on_bad_rows: As in ``data.on_bad_rows``.
        refuse: Hears of them where they are an error.
    """
    if not bad.count:
        return
    listed = [f"{row.origin}: {row.reason}" for row in bad.rows[:_SHOWN]]
    if bad.count > len(listed):
        listed.append(f"... and {bad.count - len(listed)} more")
    if on_bad_rows == "error":
        refuse(
            "\n".join(listed)
            + f"\n{bad.count} bad row(s). Mend them, or set data.on_bad_rows: skip to train without "
            "them (the report counts them)"
        )
    else:
        logger.warning("skipping %d bad row(s):\n%s", bad.count, "\n".join(listed))


def report_repeats(found: Repeats, what: str, advice: str, *, error: bool, refuse: Refuse) -> None:
    """Tell of rows that repeat, contradict or leak others.

    Args:
        found: Those rows.
        what: What they are, behind their number.
        advice: What to do about them.
        error: Whether they are one.
        refuse: Hears of them then.
    """
    if not found.count:
        return
    near = f" ({found.near} of them nearly)" if found.near else ""
    listed = found.first if error else found.first[:_WARNED]
    if found.count > len(listed):
        listed = [*listed, f"... and {found.count - len(listed)} more"]
    lines = "\n".join(listed)
    if error:
        refuse(f"{lines}\n{found.count} {what}{near}. Remove them: {advice}")
    elif found.dropped:
        logger.warning("%d %s%s, and are left out:\n%s", found.count, what, near, lines)
    else:
        logger.warning("%d %s%s: %s\n%s", found.count, what, near, advice, lines)


def report_unused_sources(
    sources: Sequence[SourceSummary], data: DataSettings, refuse: Refuse
) -> None:
    """Tell of a source of which no row is used, while others have some.

    Args:
        sources: Those of ``data.sources``, in their order, and what is used of each.
        data: Their settings.
        refuse: Hears of such a source that has a weight, whose share cannot be drawn.
    """
    if not any(found.used for found, _ in zip(sources, data.sources, strict=False)):
        return
    for number, source in enumerate(data.sources):
        if sources[number].used:
            continue
        what = (
            f"data.sources.{number} ({source.source}): of {sources[number].rows} rows none is used"
        )
        if source.weight is None:
            logger.warning("%s", what)
        else:
            refuse(
                f"{what}, and its weight {source.weight:g} asks for a share: mend the rows, or leave "
                "the source out"
            )


def refuse_empty(train: int, held_out: int, data: DataSettings, refuse: Refuse) -> None:
    """Refuse a split of no row."""
    if not train:
        names = ", ".join(source.source for source in data.sources)
        refuse(f"data.sources: no usable row is left to train on in {names}")
    if not held_out:
        refuse(
            f"data.held_out: no usable row is left in {data.held_out.source or 'the sources'}; "
            "the loss before and after could not be compared"
        )
