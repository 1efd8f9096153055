"""What a data source is: what can be learned of its rows, in which form, how many and how long."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from llm_engineering.configuration.data import Column, DataSettings, RowForm
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.columns import map_columns, proposed_columns
from llm_engineering.data.rows.conversations import LABELS, to_conversation
from llm_engineering.data.rows.forms import form_of, is_preference
from llm_engineering.data.rows.preferences import to_preferences
from llm_engineering.data.rows.unread import Unread, count_unread
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.errors import DataError, ModelError
from llm_engineering.model.base_model import known_positions

CHARACTERS_A_TOKEN = 3
"""Where there is no tokenizer to count with: English text has four, code and other languages fewer."""
_LONGEST = 131_072  # tokens, of a model that does not say how many positions it has
_LOOKED_AT = 1000  # rows, until one that can be used tells the form


@dataclass(frozen=True)
class Look:
    """What was seen of a source."""

    objective: ObjectiveName
    form: RowForm | None
    """None: pairs of answers, or judged answers."""
    columns: dict[Column, str]
    """As ``data.sources[].columns``; empty where the rows use names that are known."""
    rows: int
    """That can be used."""
    bad_rows: list[str]
    """``file:line: reason`` of each row that cannot."""
    longest: int
    """Tokens of the longest row; of the longest that the model has positions for, where it is cut."""
    cut: int
    """Rows longer than that."""
    why_estimated: str | None
    """Why the tokens are estimated by characters; None: the model's tokenizer counted them."""
    positions: int | None
    """Tokens that the model was made for, if it is known."""
    unread: dict[str, int] = field(default_factory=dict)
    """What the rows hold and nothing reads, and in how many."""


def look_at(source: str, model: str) -> Look:
    """Look at every row of a source.

    Args:
        source: As ``data.sources[].source``.
        model: As ``model.id``; its tokenizer counts the tokens, if it can be had.

    Raises:
        DataError: The source cannot be read, or no row of it can be learned from.
    """
    objective, form, columns = _recognised(source)
    try:
        positions = known_positions(ModelSettings(id=model))
    except ModelError as error:  # the Hub is out of reach, or the model is
        return _estimated(source, objective, form, columns, str(error))
    return _counted(source, objective, form, columns, model, positions)


def _recognised(source: str) -> tuple[ObjectiveName, RowForm | None, dict[Column, str]]:
    """Told by the first row that can be used.

    Raises:
        DataError: None of the first rows can.
    """
    first = ""
    seen = 0
    for row in islice(read_rows(source), _LOOKED_AT):
        seen += 1
        if not isinstance(row, Row):
            first = first or f"{row.origin}: {row.reason}"
            continue
        try:
            return _of_row(row.values)
        except UnusableRowError as reason:
            first = first or f"{row.origin}: {reason}"
    if not seen:
        raise DataError(f"data source {source}: holds no row")
    raise DataError(
        f"data source {source}: none of the first {seen:,} rows can be learned from. {first}; "
        "docs/data.md shows the forms that a row may have"
    )


def _of_row(values: dict[str, object]) -> tuple[ObjectiveName, RowForm | None, dict[Column, str]]:
    if is_preference(values):
        to_preferences(values, "dpo")
        return "dpo", None, {}
    if any(isinstance(values.get(name), bool) for name in LABELS):
        to_preferences(values, "kto")
        return "kto", None, {}
    columns: dict[Column, str] = {}
    try:
        form = form_of(values)
    except UnusableRowError:
        columns = proposed_columns(values) or {}
        if not columns:
            raise
        form = form_of(map_columns(values, columns, set()))
    to_conversation(map_columns(values, columns, set()), form)
    return "sft", form, columns


def _counted(
    source: str,
    objective: ObjectiveName,
    form: RowForm | None,
    columns: dict[Column, str],
    model: str,
    positions: int | None,
) -> Look:
    """By the very preparation of a run, so that what is told is what a run will find."""
    from llm_engineering.data.prepare import prepare_data

    data = DataSettings.model_validate(
        {
            "sources": [{"source": source, "columns": columns}],
            "held_out": {"fraction": 0.1},
            "on_bad_rows": "skip",
            "max_truncated_share": 1.0,
        }
    )
    settings = ModelSettings(id=model, max_seq_length=min(positions or _LONGEST, _LONGEST))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        summary = prepare_data(
            data,
            settings,
            objective=objective,
            folder=Path(folder) / "data",
            refuse=lambda reason: None,  # a run says it; here the data is only looked at
            trains=False,
        ).summary
    return Look(
        objective=objective,
        form=form,
        columns=columns,
        rows=summary.sources[0].rows - summary.bad_row_count,
        bad_rows=summary.bad_rows,
        longest=max(split.longest_row for _, split in summary.splits),
        cut=sum(split.truncated_rows for _, split in summary.splits),
        why_estimated=None,
        positions=positions,
        unread=summary.sources[0].unread,
    )


def _estimated(
    source: str,
    objective: ObjectiveName,
    form: RowForm | None,
    columns: dict[Column, str],
    why: str,
) -> Look:
    """By the characters of each row's texts."""
    rows, longest, bad = 0, 0, []
    unread: Counter[str] = Counter()
    for row in read_rows(source, unread=unread):
        if not isinstance(row, Row):
            bad.append(f"{row.origin}: {row.reason}")
            continue
        try:
            names: Unread = set()
            values = map_columns(row.values, columns, names)
            if objective == "sft":
                to_conversation(values, form, names)
            else:
                to_preferences(values, objective, names)
        except UnusableRowError as reason:
            bad.append(f"{row.origin}: {reason}")
            continue
        count_unread(unread, names)
        rows += 1
        longest = max(longest, -(-_characters(row.values) // CHARACTERS_A_TOKEN))
    return Look(objective, form, columns, rows, bad, longest, 0, why, None, dict(unread))


@contextmanager
def _quiet() -> Iterator[None]:
    """What the preparation would warn of is in the file that is written, and printed once."""
    ours = logging.getLogger("llm_engineering")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0
