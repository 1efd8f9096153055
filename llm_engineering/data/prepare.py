"""Preparing the data: read, check, choose, split, tokenize, audit, store; as a stream."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.dataset import DatasetSummary, PreparedDataset, SplitWriter
from llm_engineering.data.objective_rows import Auditor, RowKind
from llm_engineering.data.preference_rows import PreferenceRows
from llm_engineering.data.progress import row_bar
from llm_engineering.data.read.rows import BadRow, BadRows
from llm_engineering.data.rows.conversations import UnusableRowError
from llm_engineering.data.rows.row_store import Spool
from llm_engineering.data.select.messages import (
    Refuse,
    raise_data_error,
    refuse_empty,
    report_bad_rows,
)
from llm_engineering.data.select.row_index import CheckedRows
from llm_engineering.data.select.selection import choose_rows, used_sources
from llm_engineering.data.supervised_rows import SupervisedRows
from llm_engineering.objectives import OBJECTIVES

SPLITS = ("train", "held_out")


def prepare_data(
    data: DataSettings,
    model: ModelSettings,
    *,
    objective: ObjectiveName = "sft",
    seed: int,
    folder: Path,
    refuse: Refuse = raise_data_error,
    trains: bool = True,
) -> PreparedDataset:
    """Turn the configured sources into two tokenized, audited splits on disk.

    Args:
        data: Sources, held-out rows and what to do about bad, repeated and leaked rows.
        model: The base model whose tokenizer and chat template are used; no weight is read.
        objective: What the rows are: conversations, pairs of answers, or judged answers.
        seed: Chooses the held-out rows when ``data.held_out.fraction`` is set, and those drawn by
            weight.
        folder: Empty folder that receives the splits (Arrow) and ``summary.json``.
        refuse: Hears why a run must not use the data, and may let it go on.
        trains: False in a process that loads no model.

    Raises:
        DataError: A source is unreadable. Also, unless ``refuse`` lets it pass: a row is bad (all
            bad rows are listed by ``file:line``), a split is empty, the label audit fails, or rows
            are repeated, leaked or contradictory where that is an error.
    """
    kind: RowKind = (
        PreferenceRows(objective)
        if OBJECTIVES[objective].is_preference
        else SupervisedRows(data.loss_on)
    )
    folder.mkdir(parents=True, exist_ok=True)
    spool = Spool(folder / "rows.arrow")
    try:
        return _prepare(kind, data, model, seed, folder, spool, refuse, trains)
    except BaseException:
        for name in SPLITS:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise
    finally:
        spool.close()
        spool.path.unlink(missing_ok=True)


def _prepare(
    kind: RowKind,
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    folder: Path,
    spool: Spool,
    refuse: Refuse,
    trains: bool,
) -> PreparedDataset:
    # Rows are checked before the tokenizer, whose import takes seconds, is even loaded.
    checked = CheckedRows(spool)
    checked.read(kind, data, seed)
    report_bad_rows(checked.bad.rows, checked.bad.count, data.on_bad_rows, refuse)
    choice = choose_rows(kind, data, checked, refuse)

    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    tokenizer = load_tokenizer(model, trains=trains)
    stop_ids = stop_token_ids(model, tokenizer)
    bad, lost, sha = BadRows(), [], hashlib.sha256()
    auditors: dict[str, Auditor] = {}
    digests: dict[str, str] = {}
    for name in SPLITS:
        auditors[name] = kind.auditor(name, tokenizer, stop_ids=stop_ids)
        own = hashlib.sha256(name.encode())
        sha.update(name.encode())
        with SplitWriter(folder / name, kind.columns) as writer:
            rows = choice.rows[name]
            bar = row_bar(f"tokenizing {name.replace('_', '-')} rows", len(rows))
            for batch in spool.read(rows):
                bar.update(len(batch))
                tokenized = kind.tokenize(
                    [row.item for row in batch],
                    tokenizer,
                    max_length=model.max_seq_length,
                    stop_ids=stop_ids,
                )
                usable = []
                for spooled, tokens in zip(batch, tokenized, strict=True):
                    if isinstance(tokens, UnusableRowError):
                        bad.add(BadRow(spooled.origin, str(tokens)))
                        lost.append(spooled.index)
                        continue
                    auditors[name].add(spooled.origin, tokens)
                    digested = json.dumps(kind.trained(tokens)).encode()
                    sha.update(digested)
                    own.update(digested)
                    usable.append((spooled, tokens))
                writer.add(kind.store(usable))
            bar.close()
        digests[name] = own.hexdigest()
    report_bad_rows(bad.rows, bad.count, data.on_bad_rows, refuse)
    audits = {name: auditor.audit() for name, auditor in auditors.items()}
    refuse_empty(audits["train"].rows, audits["held_out"].rows, data, refuse)
    for auditor in auditors.values():
        for reason in auditor.refusals(data.max_truncated_share):
            refuse(reason)
    listed = [*checked.bad.rows, *bad.rows]
    summary = DatasetSummary(
        sources=used_sources(checked, choice, lost),
        bad_rows=[f"{row.origin}: {row.reason}" for row in listed],
        bad_rows_unlisted=checked.bad.count + bad.count - len(listed),
        contradictions=choice.contradictions,
        duplicates=choice.duplicates,
        leaks=choice.leaks,
        train=audits["train"],
        held_out=audits["held_out"],
        digest=sha.hexdigest(),
        held_out_digest=digests["held_out"],
    )
    return PreparedDataset.write(folder, {}, summary)
