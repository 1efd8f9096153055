"""Preparing the data: read, check, choose, split, tokenize, audit, store; as a stream."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.schema import DataSettings, ModelSettings
from llm_engineering.data.audit import LabelAuditor
from llm_engineering.data.conversation import UnusableRowError, to_conversation
from llm_engineering.data.dataset import (
    DatasetSummary,
    PreparedDataset,
    SourceSummary,
    SplitWriter,
)
from llm_engineering.data.duplicates import (
    Pairs,
    Repeats,
    describe,
    equal_rows,
    near_rows,
    no_rows,
    shared_rows,
    text_key,
)
from llm_engineering.data.forms import Form, form_of
from llm_engineering.data.mixture import draw
from llm_engineering.data.rows import BadRow, BadRows
from llm_engineering.data.sources import read_rows
from llm_engineering.data.split import is_held_out, place_of, place_of_group
from llm_engineering.data.spool import Spool
from llm_engineering.data.tokenization import TokenizedRow, tokenize_all
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

SPLITS = ("train", "held_out")
_SHOWN, _WARNED = 20, 5  # lines of a message
Refuse = Callable[[str], None]
"""Called with the reason why a run must not use the data."""


def prepare_data(
    data: DataSettings, model: ModelSettings, *, seed: int, folder: Path
) -> PreparedDataset:
    """Turn the configured sources into two tokenized, audited splits on disk.

    Args:
        data: Sources, held-out rows and what to do about bad, repeated and leaked rows.
        model: The base model whose tokenizer and chat template are used; no weight is read.
        seed: Chooses the held-out rows when ``data.held_out.fraction`` is set, and those drawn by
            weight.
        folder: Empty folder that receives the splits (Arrow) and ``summary.json``.

    Raises:
        DataError: A source is unreadable, a row is bad (all bad rows are listed by
            ``file:line``), a split is empty, the label audit fails, or rows are repeated or leaked
            where that is an error.
    """

    def refuse(reason: str) -> None:
        raise DataError(reason)

    return prepare_refusing(data, model, seed=seed, folder=folder, refuse=refuse)


def prepare_refusing(
    data: DataSettings,
    model: ModelSettings,
    *,
    seed: int,
    folder: Path,
    refuse: Refuse,
    trains: bool = True,
) -> PreparedDataset:
    """As ``prepare_data``; ``refuse`` hears why the data cannot be used, and may let it go on.

    ``trains`` is False in a process that loads no model.

    Raises:
        DataError: A source is unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spool = Spool(folder / "rows.arrow")
    try:
        return _prepare(data, model, seed, folder, spool, refuse, trains)
    except BaseException:
        for name in SPLITS:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise
    finally:
        spool.close()
        spool.path.unlink(missing_ok=True)


def _prepare(
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    folder: Path,
    spool: Spool,
    refuse: Refuse,
    trains: bool,
) -> PreparedDataset:
    # Rows are checked before the tokenizer, whose import takes seconds, is even loaded.
    read = _read(data, seed, spool)
    spool.close()
    _report_bad_rows(read.bad.rows, read.bad.count, data.on_bad_rows, refuse)
    chosen = _choose(data, read, spool, refuse)

    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    tokenizer = load_tokenizer(model, trains=trains)
    stop_ids = stop_token_ids(model, tokenizer)
    bad, sha = BadRows(), hashlib.sha256()
    auditors: dict[str, LabelAuditor] = {}
    digests: dict[str, str] = {}
    for name in SPLITS:
        auditors[name] = LabelAuditor(tokenizer, stop_ids=stop_ids, loss_on=data.loss_on)
        own = hashlib.sha256(name.encode())
        sha.update(name.encode())
        with SplitWriter(folder / name) as writer:
            rows = chosen.rows[name]
            bar = _bar(f"tokenizing {name.replace('_', '-')} rows", len(rows))
            for batch in spool.read(rows):
                bar.update(len(batch))
                tokenized = tokenize_all(
                    [row.conversation for row in batch],
                    tokenizer,
                    max_length=model.max_seq_length,
                    loss_on=data.loss_on,
                    stop_ids=stop_ids,
                )
                usable = []
                for spooled, row in zip(batch, tokenized, strict=True):
                    if isinstance(row, UnusableRowError):
                        bad.add(BadRow(spooled.origin, str(row)))
                        read.lost[spooled.index] = 1
                        continue
                    auditors[name].add(spooled.origin, row)
                    # What is trained and evaluated: token ids and labels, in order.
                    digested = json.dumps([row.input_ids, row.labels]).encode()
                    sha.update(digested)
                    own.update(digested)
                    usable.append((spooled.origin, spooled.messages, row))
                writer.add(_columns(usable))
            bar.close()
        digests[name] = own.hexdigest()
    _report_bad_rows(bad.rows, bad.count, data.on_bad_rows, refuse)
    audits = {name: auditor.audit() for name, auditor in auditors.items()}
    _refuse_empty(audits["train"].rows, audits["held_out"].rows, data, refuse)
    for auditor in auditors.values():
        for reason in auditor.refusals(data.max_truncated_share):
            refuse(reason)
    listed = [*read.bad.rows, *bad.rows]
    summary = DatasetSummary(
        sources=_used(read, chosen),
        bad_rows=[f"{row.origin}: {row.reason}" for row in listed],
        bad_rows_unlisted=read.bad.count + bad.count - len(listed),
        duplicates=chosen.duplicates,
        leaks=chosen.leaks,
        train=audits["train"],
        held_out=audits["held_out"],
        digest=sha.hexdigest(),
        held_out_digest=digests["held_out"],
    )
    return PreparedDataset.write(folder, {}, summary)


@dataclass
class _Read:
    """What was read: figures of each good row, by its number in the spool."""

    sources: list[SourceSummary] = field(default_factory=list)
    bad: BadRows = field(default_factory=BadRows)
    source: array[int] = field(default_factory=lambda: array("H"))
    exact: array[int] = field(default_factory=lambda: array("Q"))
    place: array[int] = field(default_factory=lambda: array("Q"))
    text: array[int] = field(default_factory=lambda: array("Q"))
    lost: dict[int, int] = field(default_factory=dict)  # rows found bad on tokenizing


@dataclass(frozen=True)
class _Chosen:
    """The rows of each split, and what was found on choosing them."""

    rows: dict[str, NDArray[Any]]
    duplicates: Repeats
    leaks: Repeats


def _read(data: DataSettings, seed: int, spool: Spool) -> _Read:
    """Read every source into the spool, the held-out rows' own last."""
    read = _Read()
    held = data.held_out
    for source in data.sources:
        rows = read_rows(source.source, split=source.split, revision=source.revision)
        chosen = islice(rows, source.max_rows)
        _read_source(source.source, chosen, source.form, held.group, seed, spool, read)
    if held.source:
        rows = read_rows(held.source, split=held.split, revision=held.revision)
        _read_source(held.source, rows, None, None, seed, spool, read)
    return read


def _read_source(
    name: str,
    rows: Any,
    form: Form | None,
    group: str | None,
    seed: int,
    spool: Spool,
    read: _Read,
) -> None:
    number, count = len(read.sources), 0
    stated, first = form, ""
    bar = _bar(f"reading {name}")
    for row in rows:
        count += 1
        bar.update()
        if isinstance(row, BadRow):
            read.bad.add(row)
            continue
        try:
            found = stated or form_of(row.values)
            if form is not None and found != form:
                raise UnusableRowError(
                    f"is of the form {found}, and {first} is {form}; a source has one form: make "
                    f"two of it, or state its form"
                )
            conversation = to_conversation(row.values, found)
            exact = place_of(conversation, seed)
            place = exact if group is None else place_of_group(row.values, group, seed)
        except UnusableRowError as reason:
            read.bad.add(BadRow(row.origin, str(reason)))
            continue
        if form is None:
            form, first = found, row.origin
        spool.add(row.origin, conversation)
        read.source.append(number)
        read.exact.append(exact)
        read.text.append(text_key(conversation))
        if group is not None:
            read.place.append(place)
    bar.close()
    read.sources.append(SourceSummary(source=name, rows=count, form=form))


def _bar(what: str, total: int | None = None) -> Any:
    """A progress bar in a terminal, after two seconds."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" rows", delay=2, disable=None, leave=False)


def _choose(data: DataSettings, read: _Read, spool: Spool, refuse: Refuse) -> _Chosen:
    """Which rows are trained, and which are held out."""
    import numpy

    source = numpy.frombuffer(read.source, dtype="uint16") if read.source else numpy.zeros(0, "u2")
    exact = numpy.frombuffer(read.exact, dtype="uint64") if read.exact else numpy.zeros(0, "u8")
    text = numpy.frombuffer(read.text, dtype="uint64") if read.text else numpy.zeros(0, "u8")
    place = numpy.frombuffer(read.place, dtype="uint64") if read.place else exact
    train = numpy.flatnonzero(source < len(data.sources))
    threshold = data.near_duplicates

    candidates = len(train)
    equal = equal_rows(train, exact[train])
    near = no_rows()
    if threshold:
        near = near_rows(spool, _without(train, equal), threshold)
    duplicates = describe(spool, equal, near, dropped=data.on_duplicates == "drop")
    if duplicates.dropped:
        train = _without(_without(train, equal), near)
    _report_repeats(
        duplicates,
        f"of {candidates} training rows repeat an earlier one",
        "data.on_duplicates: drop leaves them out",
        error=data.on_duplicates == "error",
        refuse=refuse,
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

    equal = shared_rows(train, text[train], held_out, text[held_out])
    near = no_rows()
    if threshold:
        near = near_rows(spool, _without(train, equal), threshold, held_out)
    leaks = describe(spool, equal, near, dropped=data.on_leaks == "drop")
    candidates = len(train)
    if leaks.dropped:
        train = _without(_without(train, equal), near)
    _report_repeats(
        leaks,
        f"of {candidates} training rows are held out too",
        "the held-out loss would flatter; data.on_leaks: drop leaves them out of training",
        error=data.on_leaks == "error",
        refuse=refuse,
    )
    return _Chosen({"train": train, "held_out": held_out}, duplicates, leaks)


def _without(rows: NDArray[Any], pairs: Pairs) -> NDArray[Any]:
    import numpy

    left: NDArray[Any] = rows[~numpy.isin(rows, pairs.rows)]
    return left


def _used(read: _Read, chosen: _Chosen) -> list[SourceSummary]:
    import numpy

    source = numpy.frombuffer(read.source, dtype="uint16") if read.source else numpy.zeros(0, "u2")
    counts = numpy.zeros(len(read.sources), dtype=int)
    for rows in chosen.rows.values():
        counts += numpy.bincount(source[rows], minlength=len(counts))
    for index in read.lost:
        counts[source[index]] -= 1
    return [
        one.model_copy(update={"used": int(count)})
        for one, count in zip(read.sources, counts, strict=True)
    ]


def _report_repeats(found: Repeats, what: str, advice: str, *, error: bool, refuse: Refuse) -> None:
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
        logger.warning("leaving out %d %s%s:\n%s", found.count, what, near, lines)
    else:
        logger.warning("%d %s%s: %s\n%s", found.count, what, near, advice, lines)


def _report_bad_rows(rows: list[BadRow], count: int, on_bad_rows: str, refuse: Refuse) -> None:
    if not count:
        return
    listed = [f"{row.origin}: {row.reason}" for row in rows[:_SHOWN]]
    if count > len(listed):
        listed.append(f"... and {count - len(listed)} more")
    if on_bad_rows == "error":
        refuse(
            "\n".join(listed)
            + f"\n{count} bad row(s). Mend them, or set data.on_bad_rows: skip to train without "
            "them (the report counts them)"
        )
    else:
        logger.warning("skipping %d bad row(s):\n%s", count, "\n".join(listed))


def _refuse_empty(train: int, held_out: int, data: DataSettings, refuse: Refuse) -> None:
    if not train:
        names = ", ".join(source.source for source in data.sources)
        refuse(f"data.sources: no usable row is left to train on in {names}")
    if not held_out:
        refuse(
            f"data.held_out: no usable row is left in {data.held_out.source or 'the sources'}; "
            "the loss before and after could not be compared"
        )


def _columns(rows: list[tuple[str, str, TokenizedRow]]) -> dict[str, list[Any]]:
    return {
        "input_ids": [row.input_ids for _, _, row in rows],
        "labels": [row.labels for _, _, row in rows],
        "origin": [origin for origin, _, _ in rows],
        "messages": [messages for _, messages, _ in rows],
        "prompt_tokens": [row.prompt_tokens for _, _, row in rows],
        "answer": [row.answer for _, _, row in rows],
    }
