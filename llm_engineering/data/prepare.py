"""Preparing the data: read, check, split, tokenize, audit, store."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.schema import DataSettings, ModelSettings
from llm_engineering.data.audit import audit_labels
from llm_engineering.data.conversation import Message, UnusableRowError, to_conversation
from llm_engineering.data.dataset import DatasetSummary, PreparedDataset, SourceSummary
from llm_engineering.data.sources import BadRow, Row, read_rows
from llm_engineering.data.tokenization import TokenizedRow, tokenize
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_SHOWN_BAD_ROWS = 20
_Conversation = tuple[str, list[Message]]  # where it came from, and what it says


def prepare_data(
    data: DataSettings, model: ModelSettings, *, seed: int, folder: Path
) -> PreparedDataset:
    """Turn the configured sources into two tokenized, audited splits on disk.

    Args:
        data: Sources, held-out rows and what to do about bad rows.
        model: The base model whose tokenizer and chat template are used; no weight is read.
        seed: Chooses the held-out rows when ``data.held_out.fraction`` is set.
        folder: Empty folder that receives the splits (Arrow) and ``summary.json``.

    Raises:
        DataError: A source is unreadable, a row is bad (all bad rows are listed by
            ``file:line``), a split is empty, or the label audit fails.
    """
    # Rows are checked before the tokenizer, whose import takes seconds, is even loaded.
    bad: list[BadRow] = []
    sources: list[SourceSummary] = []
    train: list[_Conversation] = []
    for source in data.sources:
        rows = read_rows(source.source, split=source.split, revision=source.revision)
        train += _conversations(source.source, islice(rows, source.max_rows), sources, bad)
    if data.held_out.source:
        rows = read_rows(data.held_out.source, split=data.held_out.split)
        held_out = _conversations(data.held_out.source, rows, sources, bad)
    else:
        train, held_out = _split(train, data.held_out.fraction or 0.0, seed)
    held_out = held_out[: data.held_out.max_rows]
    _report_bad_rows(bad, data.on_bad_rows)

    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    reported = len(bad)
    tokenizer = load_tokenizer(model)
    stop_ids = stop_token_ids(model, tokenizer)
    tokenized = {
        "train": _tokenize_all(train, tokenizer, data, model, stop_ids, bad),
        "held_out": _tokenize_all(held_out, tokenizer, data, model, stop_ids, bad),
    }
    _report_bad_rows(bad[reported:], data.on_bad_rows)
    _refuse_empty(tokenized, data)
    audits = {
        split: audit_labels(
            [row for _, _, row in rows],
            [origin for origin, _, _ in rows],
            tokenizer,
            stop_ids=stop_ids,
            loss_on=data.loss_on,
            max_truncated_share=data.max_truncated_share,
        )
        for split, rows in tokenized.items()
    }
    summary = DatasetSummary(
        sources=sources,
        bad_rows=[f"{row.origin}: {row.reason}" for row in bad],
        train=audits["train"],
        held_out=audits["held_out"],
        digest=_digest(tokenized),
        held_out_digest=_digest({"held_out": tokenized["held_out"]}),
    )
    columns = {split: _columns(rows) for split, rows in tokenized.items()}
    return PreparedDataset.write(folder, columns, summary)


def _conversations(
    name: str, rows: Iterable[Row | BadRow], sources: list[SourceSummary], bad: list[BadRow]
) -> list[_Conversation]:
    read, usable = 0, []
    for row in rows:
        read += 1
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            usable.append((row.origin, to_conversation(row.values)))
        except UnusableRowError as reason:
            bad.append(BadRow(row.origin, str(reason)))
    sources.append(SourceSummary(source=name, rows=read))
    return usable


def _split(
    rows: list[_Conversation], fraction: float, seed: int
) -> tuple[list[_Conversation], list[_Conversation]]:
    """Hold out about ``fraction`` of the rows, at least one; both parts keep the rows' order.

    A row's place follows from its own text, so that data that grows never moves a trained row
    among the held-out ones, and equal rows stay on one side.
    """
    if not rows:
        return [], []
    places = [_place(conversation, seed) for _, conversation in rows]
    limit = max(fraction, min(places))
    return (
        [row for row, place in zip(rows, places, strict=True) if place > limit],
        [row for row, place in zip(rows, places, strict=True) if place <= limit],
    )


def _place(conversation: list[Message], seed: int) -> float:
    """A number from 0 to 1, evenly spread, that the text and the seed decide."""
    text = json.dumps([seed, conversation], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _tokenize_all(
    rows: Sequence[_Conversation],
    tokenizer: PreTrainedTokenizerBase,
    data: DataSettings,
    model: ModelSettings,
    stop_ids: frozenset[int],
    bad: list[BadRow],
) -> list[tuple[str, list[Message], TokenizedRow]]:
    tokenized = []
    for origin, conversation in rows:
        try:
            row = tokenize(
                conversation,
                tokenizer,
                max_length=model.max_seq_length,
                loss_on=data.loss_on,
                stop_ids=stop_ids,
            )
        except UnusableRowError as reason:
            bad.append(BadRow(origin, str(reason)))
        else:
            tokenized.append((origin, conversation, row))
    return tokenized


def _report_bad_rows(bad: Sequence[BadRow], on_bad_rows: str) -> None:
    if not bad:
        return
    listed = [f"{row.origin}: {row.reason}" for row in bad[:_SHOWN_BAD_ROWS]]
    if len(bad) > _SHOWN_BAD_ROWS:
        listed.append(f"... and {len(bad) - _SHOWN_BAD_ROWS} more")
    if on_bad_rows == "error":
        raise DataError(
            "\n".join(listed)
            + f"\n{len(bad)} bad row(s). Mend them, or set data.on_bad_rows: skip to train without "
            "them (the report counts them)"
        )
    logger.warning("skipping %d bad row(s):\n%s", len(bad), "\n".join(listed))


def _refuse_empty(tokenized: dict[str, list[Any]], data: DataSettings) -> None:
    if not tokenized["train"]:
        names = ", ".join(source.source for source in data.sources)
        raise DataError(f"data.sources: no usable row is left to train on in {names}")
    if not tokenized["held_out"]:
        raise DataError(
            f"data.held_out: no usable row is left in {data.held_out.source or 'the sources'}; "
            "the loss before and after could not be compared"
        )


def _columns(rows: Sequence[tuple[str, list[Message], TokenizedRow]]) -> dict[str, list[Any]]:
    return {
        "input_ids": [row.input_ids for _, _, row in rows],
        "labels": [row.labels for _, _, row in rows],
        "origin": [origin for origin, _, _ in rows],
        "messages": [json.dumps(messages, ensure_ascii=False) for _, messages, _ in rows],
    }


def _digest(tokenized: dict[str, list[tuple[str, list[Message], TokenizedRow]]]) -> str:
    """SHA-256 over what is trained and evaluated: token ids and labels, in order."""
    sha = hashlib.sha256()
    for split, rows in tokenized.items():
        sha.update(split.encode())
        for _, _, row in rows:
            sha.update(json.dumps([row.input_ids, row.labels]).encode())
    return sha.hexdigest()
