"""What happens to the data, top to bottom: read, check, select, tokenize, audit, store; as a stream."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.dataset import PreparedDataset, SplitWriter
from llm_engineering.data.objective_rows.objective_rows import Auditor, ObjectiveRows
from llm_engineering.data.objective_rows.preference_rows import PreferenceRows
from llm_engineering.data.objective_rows.supervised_rows import SupervisedRows
from llm_engineering.data.progress import row_bar
from llm_engineering.data.read.row import BadRow, BadRows
from llm_engineering.data.rows.row_store import RowStore, StoredRow
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.select.refusals import (
    Refuse,
    raise_data_error,
    refuse_empty,
    report_bad_rows,
)
from llm_engineering.data.select.row_index import RowIndex
from llm_engineering.data.select.selection import select_rows, used_sources
from llm_engineering.data.summary import DatasetSummary
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.model.chat_template import TemplateInputs, template_inputs
from llm_engineering.objectives import OBJECTIVES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llm_engineering.data.rows.row_store import RowNumbers

logger = logging.getLogger(__name__)

SPLITS = ("train", "held_out")

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")


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
    if OBJECTIVES[objective].is_preference:
        return _prepare(PreferenceRows(objective), data, model, seed, folder, refuse, trains)
    return _prepare(SupervisedRows(data.loss_on), data, model, seed, folder, refuse, trains)


def _prepare(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    folder: Path,
    refuse: Refuse,
    trains: bool,
) -> PreparedDataset:
    """Keep checked rows in a file beside the splits while they are made; failed splits go."""
    folder.mkdir(parents=True, exist_ok=True)
    store = RowStore(folder / "rows.arrow", objective_rows.to_json, objective_rows.from_json)
    try:
        return _prepare_stored(objective_rows, store, data, model, seed, folder, refuse, trains)
    except BaseException:
        for name in SPLITS:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise
    finally:
        store.close()
        store.path.unlink(missing_ok=True)


def _prepare_stored(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    folder: Path,
    refuse: Refuse,
    trains: bool,
) -> PreparedDataset:
    # Read and check, before the tokenizer, whose import takes seconds, is even loaded.
    index = RowIndex(store)
    index.read(objective_rows, data, seed)
    report_bad_rows(index.bad, data.on_bad_rows, refuse)

    # Select what is trained and what is held out.
    selection = select_rows(objective_rows, data, index, refuse)

    # Tokenize, audit and store.
    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    tokenizer = load_tokenizer(model, trains=trains)
    stop_ids = stop_token_ids(model, tokenizer)
    inputs = template_inputs(model, tokenizer.chat_template)
    notices = Counter[Notice]()
    bad, lost, digest = BadRows(), list[int](), hashlib.sha256()
    auditors: dict[str, Auditor[TokensT]] = {}
    digests: dict[str, str] = {}
    for name in SPLITS:
        auditor = auditors[name] = objective_rows.auditor(name, tokenizer, stop_ids=stop_ids)
        digest.update(name.encode())
        own_digest = hashlib.sha256(name.encode())
        batches = _tokenized(
            objective_rows,
            store,
            selection.rows[name],
            tokenizer,
            what=f"tokenizing {name.replace('_', '-')} rows",
            max_length=model.max_seq_length,
            stop_ids=stop_ids,
            inputs=inputs,
            notices=notices,
        )
        with SplitWriter(folder / name, objective_rows.columns) as writer:
            for batch in batches:
                prepared = []
                for row, training_rows in batch:
                    if isinstance(training_rows, UnusableRow):
                        bad.add(BadRow(row.origin, training_rows.reason))
                        lost.append(row.number)
                        continue
                    for tokens in training_rows:
                        auditor.add(row.origin, tokens)
                        trained = json.dumps(objective_rows.trained(tokens)).encode()
                        digest.update(trained)
                        own_digest.update(trained)
                        prepared.append(objective_rows.prepare(row, tokens))
                writer.add(prepared)
        digests[name] = own_digest.hexdigest()

    # Refuse what a run must not use.
    report_bad_rows(bad, data.on_bad_rows, refuse)
    audits = {name: auditor.audit() for name, auditor in auditors.items()}
    refuse_empty(audits["train"].rows, audits["held_out"].rows, data, refuse)
    for auditor in auditors.values():
        for reason in auditor.refusals(data.max_truncated_share):
            refuse(reason)

    # Say what the data is, and what the chat template makes of it.
    said = []
    for notice, count in notices.items():
        said.append(f"{count} {notice.what}: {notice.advice}")
        logger.log(notice.level, "%s", said[-1])
    if inputs.date is not None:
        said.append(f"the chat template prints the date, which is {inputs.date} in this run")
        logger.info("%s; model.chat_template_date keeps it for others", said[-1])
    listed = [*index.bad.rows, *bad.rows]
    summary = DatasetSummary(
        sources=used_sources(index, selection, lost),
        bad_rows=[f"{row.origin}: {row.reason}" for row in listed],
        bad_rows_unlisted=index.bad.count + bad.count - len(listed),
        contradictions=selection.contradictions,
        duplicates=selection.duplicates,
        leaks=selection.leaks,
        train=audits["train"],
        held_out=audits["held_out"],
        digest=digest.hexdigest(),
        held_out_digest=digests["held_out"],
        template_inputs=inputs,
        notices=said,
    )
    return PreparedDataset.write(folder, summary)


def _tokenized(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    numbers: RowNumbers,
    tokenizer: PreTrainedTokenizerBase,
    *,
    what: str,
    max_length: int,
    stop_ids: frozenset[int],
    inputs: TemplateInputs,
    notices: Counter[Notice],
) -> Iterator[list[tuple[StoredRow[ItemT], list[TokensT] | UnusableRow]]]:
    """The rows with these numbers and their tokens, in batches, with a progress bar."""
    bar = row_bar(what, len(numbers))
    for batch in store.read(numbers):
        tokens = objective_rows.tokenize(
            [row.item for row in batch],
            tokenizer,
            max_length=max_length,
            stop_ids=stop_ids,
            inputs=inputs,
            notices=notices,
        )
        yield list(zip(batch, tokens, strict=True))
        bar.update(len(batch))
    bar.close()
