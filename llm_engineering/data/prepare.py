"""What happens to the data, top to bottom: read, check, select, tokenize, audit, store; as a stream."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.dataset import PreparedDataset, SplitWriter
from llm_engineering.data.objective_rows.objective_rows import Auditor, ObjectiveRows
from llm_engineering.data.objective_rows.preference_rows import PreferenceRows
from llm_engineering.data.objective_rows.supervised_rows import SupervisedRows
from llm_engineering.data.prepare_batch import PrepareBatch, SourcedBatch
from llm_engineering.data.progress import row_bar
from llm_engineering.data.rows.row_store import RowStore
from llm_engineering.data.select.refusals import (
    Refuse,
    raise_data_error,
    refuse_empty,
    report_bad_rows,
    report_unused_sources,
)
from llm_engineering.data.select.row_index import RowIndex
from llm_engineering.data.select.selection import select_rows, used_sources
from llm_engineering.data.summary import DatasetSummary, ExampleRow
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.workers import Workers
from llm_engineering.model.chat_template import TemplateInputs, template_inputs
from llm_engineering.objectives import OBJECTIVES

if TYPE_CHECKING:
    from llm_engineering.data.rows.row_store import RowNumbers

logger = logging.getLogger(__name__)

SPLITS = ("train", "held_out", "validation")
_MOST_EXAMPLES = 20  # sources whose first row is shown

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")


def prepare_data(
    data: DataSettings,
    model: ModelSettings,
    *,
    objective: ObjectiveName = "sft",
    folder: Path,
    refuse: Refuse = raise_data_error,
    trains: bool = True,
    validates: bool = False,
    tokens: Sequence[str] = (),
) -> PreparedDataset:
    """Turn the configured sources into tokenized, audited splits on disk.

    Args:
        data: Sources, held-out rows, the seed that draws rows, and what to do about bad, repeated and
            leaked rows.
        model: The base model whose tokenizer and chat template are used; no weight is read.
        objective: What the rows are: conversations, pairs of answers, or judged answers.
        folder: Empty folder that receives the splits (Arrow) and ``summary.json``.
        refuse: Hears why a run must not use the data, and may let it go on.
        trains: False in a process that loads no model.
        validates: Whether training looks at held-out rows, which then are a split of their own.
        tokens: ``lora.trainable_tokens``, which the tokenizer may lack.

    Raises:
        DataError: A source is unreadable. Also, unless ``refuse`` lets it pass: a row is bad (all
            bad rows are listed by ``file:line``), a split is empty, the label audit fails, or rows
            are repeated, leaked or contradictory where that is an error.
    """
    rows = data, model, tokens, folder, refuse, trains, validates
    if OBJECTIVES[objective].is_preference:
        return _prepare(PreferenceRows(objective), *rows)
    return _prepare(SupervisedRows(data.loss_on), *rows)


def _prepare(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    data: DataSettings,
    model: ModelSettings,
    tokens: Sequence[str],
    folder: Path,
    refuse: Refuse,
    trains: bool,
    validates: bool,
) -> PreparedDataset:
    """Keep checked rows in a file beside the splits while they are made; failed splits go."""
    folder.mkdir(parents=True, exist_ok=True)
    store = RowStore(folder / "rows.arrow", objective_rows.from_json)
    try:
        with Workers(data.num_proc) as workers:
            return _prepare_stored(
                objective_rows,
                store,
                workers,
                data,
                model,
                tokens,
                folder,
                refuse,
                trains,
                validates,
            )
    except BaseException:
        for name in SPLITS:
            shutil.rmtree(folder / name, ignore_errors=True)
        raise
    finally:
        store.remove()


def _prepare_stored(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    workers: Workers,
    data: DataSettings,
    model: ModelSettings,
    tokens: Sequence[str],
    folder: Path,
    refuse: Refuse,
    trains: bool,
    validates: bool,
) -> PreparedDataset:
    # Read and check, before the tokenizer, whose import takes seconds, is even loaded.
    index = RowIndex(store)
    index.read(objective_rows, data, workers)
    bad = index.bad
    if refuse is raise_data_error and data.on_bad_rows == "error":
        report_bad_rows(bad, data.on_bad_rows, refuse)

    # Select what is trained and what is held out.
    selection = select_rows(objective_rows, data, index, workers, refuse, validates)

    # Tokenize, audit and store.
    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    tokenizer = load_tokenizer(model, tokens=tokens, trains=trains)
    stop_ids = stop_token_ids(model, tokenizer)
    inputs = template_inputs(model, tokenizer.chat_template)
    template_notices = Counter[Notice]()
    lost, digest = list[int](), hashlib.sha256()
    auditors: dict[str, Auditor[TokensT]] = {}
    digests: dict[str, str] = {}
    examples: dict[int, ExampleRow] = {}
    first_cut: ExampleRow | None = None
    for name, numbers in selection.rows.items():
        auditor = auditors[name] = objective_rows.auditor(name, tokenizer, stop_ids=stop_ids)
        digest.update(name.encode())
        own_digest = hashlib.sha256(name.encode())
        bar = row_bar(f"tokenizing {name.replace('_', '-')} rows", len(numbers))
        with SplitWriter(folder / name, objective_rows.columns) as writer:
            prepare = PrepareBatch(
                objective_rows,
                tokenizer,
                name,
                model.max_seq_length,
                stop_ids,
                inputs,
                writer.schema,
            )
            batches = _sourced(store, numbers, index)
            for batch, prepared in workers.map(
                prepare, batches, rows=len(numbers), size=store.size_of(numbers)
            ):
                writer.add(prepared.table)
                auditor.merge(prepared.auditor)
                digest.update(prepared.trained)
                own_digest.update(prepared.trained)
                for row in prepared.bad:
                    bad.add(row)
                lost += prepared.lost
                template_notices.update(prepared.notices)
                if name == "train":
                    examples = prepared.examples | examples
                    first_cut = first_cut or prepared.cut
                bar.update(len(batch.stored.numbers))
        bar.close()
        digests[name] = own_digest.hexdigest()

    # Refuse what a run must not use.
    report_bad_rows(bad, data.on_bad_rows, refuse)
    audits = {name: auditor.audit() for name, auditor in auditors.items()}
    sources = used_sources(index, selection, lost)
    report_unused_sources(sources, data, refuse)
    rows = {name: audit.rows for name, audit in audits.items()}
    held_out_rows = min(rows["held_out"], rows.get("validation", rows["held_out"]))
    refuse_empty(rows["train"], held_out_rows, data, refuse)
    for auditor in auditors.values():
        for reason in auditor.refusals(data.max_truncated_share):
            refuse(reason)

    # Say what the data is.
    summary = DatasetSummary(
        sources=sources,
        bad_rows=[f"{row.origin}: {row.reason}" for row in bad.rows],
        bad_rows_unlisted=bad.count - len(bad.rows),
        contradictions=selection.contradictions,
        duplicates=selection.duplicates,
        leaks=selection.leaks,
        train=audits["train"],
        held_out=audits["held_out"],
        validation=audits.get("validation"),
        held_out_unused=selection.held_out_unused,
        examples=_examples(examples, first_cut),
        digest=digest.hexdigest(),
        held_out_digest=digests["held_out"],
        template_inputs=inputs,
        notices=_told(template_notices, inputs),
    )
    return PreparedDataset.write(folder, summary)


def _sourced(
    store: RowStore[ItemT], numbers: RowNumbers, index: RowIndex[ItemT]
) -> Iterator[SourcedBatch]:
    """The rows with these numbers, each with its source's."""
    source = index.source
    for stored in store.batches(numbers):
        yield SourcedBatch(stored, source[stored.numbers].tolist())


def _told(notices: Mapping[Notice, int], inputs: TemplateInputs) -> list[str]:
    """What the chat template makes of the rows that wants to be known, which is logged too."""
    told = []
    for notice, count in notices.items():
        told.append(f"{count} {notice.what}: {notice.advice}")
        logger.log(notice.level, "%s", told[-1])
    if inputs.date is not None:
        told.append(f"the chat template prints the date, which is {inputs.date} in this run")
        logger.info("%s; model.chat_template_date keeps it for others", told[-1])
    return told


def _examples(by_source: Mapping[int, ExampleRow], cut: ExampleRow | None) -> list[ExampleRow]:
    """A row of each source, in their order, and one that was cut if none of those was."""
    found = [row for _, row in sorted(by_source.items())][:_MOST_EXAMPLES]
    return found if cut is None or any(row.cut for row in found) else [*found, cut]
