"""``--inspect-data``: what would be trained, without a model's weights."""

from __future__ import annotations

import logging
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from llm_engineering.data.summary import DatasetSummary, ExampleRow
    from llm_engineering.data.tokens.audit import LabelAudit

ARTIFACT = "inspected_data"
_FIRST = 10  # lines of each finding
_TRAINED = "underline black on green"
_ROWS = 4  # examples; the page has more
_TEXT = 2000  # characters of a row that is shown


def run(config_path: Path, overrides: Sequence[str], file: str | None) -> None:
    """Prepare the configured data, or another source under the same settings, and show it.

    A page of it is written to the output folder, and kept in ZenML as an artifact.

    Args:
        config_path: The configuration file.
        overrides: Values of --set.
        file: A source in place of the configured ones, as of ``load_config``.

    Raises:
        DataError: A run would refuse the data; what was found is shown before.
    """
    config = load_config(config_path, overrides, file)
    set_up_terminal()

    from rich.console import Console

    console = Console(highlight=False)
    refusals: list[str] = []
    with (
        _quiet("llm_engineering"),  # what it would warn of is all shown below
        Console(stderr=True).status("reading"),
        tempfile.TemporaryDirectory() as folder,
    ):
        summary = _prepare(config, Path(folder) / "data", refusals)
    show(summary, console)
    share = config.data.held_out.fraction
    if file is not None and share is not None:
        console.print(
            f"  held out are {share:.0%} of these rows: the configuration's are of other data",
            style="dim",
        )
    # The rows are listed above: the last line of each reason says what to do about them.
    refusals = [reason.splitlines()[-1] for reason in refusals]
    page = _write_page(config, summary, refusals)
    console.print(f"  page  {page}", soft_wrap=True)
    if refusals:
        raise DataError("\n".join(["a run would refuse this data:", *refusals]))
    console.print("  a run would train on this data", style="green")


def show(summary: DatasetSummary, console: Console) -> None:
    """Print what was counted, how long rows are, what was found, and one row with its labels."""
    from rich.padding import Padding
    from rich.text import Text

    console.print(_sources(summary))
    console.print(_splits(summary))
    console.print(Text("  tokens in a training row", style="bold"))
    for line in _histogram(summary.train, console.width):
        console.print(line)
    console.print()
    for heading, lines in _to_know(summary):
        console.print(Text(f"  {heading}", style="bold yellow"))
        for told in lines:
            console.print(Padding(Text(shown(told)), (0, 0, 0, 4)))
        console.print()
    for name, lines, count in _findings(summary):
        console.print(f"  {name:<12}", Text(f"{count:,}", style="yellow" if count else "green"))
        for finding in lines[:_FIRST]:
            console.print(Padding(Text(shown(finding)), (0, 0, 0, 4)))
        if count > min(len(lines), _FIRST):
            console.print(f"    ... and {count - min(len(lines), _FIRST):,} more")
    if summary.examples:
        console.print()
        console.print(_rows_title(len(summary.examples)))
    for example in summary.examples[:_ROWS]:
        console.print(_row_title(example))
        console.print(Padding(_row(example, colours=console.color_system is not None), (1, 2)))
    if len(summary.examples) > _ROWS:
        console.print(f"  ... and {len(summary.examples) - _ROWS} more on the page")


def shown(text: str) -> str:
    """Text whose control and format characters are shown, so that none steers the terminal."""
    return "".join(c if c == "\n" or not _steers(c) else _symbol(c) for c in text)


def _prepare(config: FinetuningConfig, folder: Path, refusals: list[str]) -> DatasetSummary:
    from llm_engineering.data.prepare import prepare_data

    return prepare_data(
        config.data,
        config.model,
        objective=config.train.objective,
        folder=folder,
        refuse=refusals.append,
        trains=False,
        validates=config.train.validates,
        tokens=config.lora.trainable_tokens,
    ).summary


def _table(*columns: str, wide: int = 0) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    for number, name in enumerate(columns):
        left = number <= wide
        table.add_column(
            name,
            justify="left" if left else "right",
            overflow="fold" if number == 0 else "ellipsis",
            no_wrap=number > 0,
        )
    return table


def _sources(summary: DatasetSummary) -> Table:
    from rich.text import Text

    table = _table("source", "form", "read", "used", wide=1)
    for source in summary.sources:
        used = "–" if source.used is None else f"{source.used:,}"
        table.add_row(Text(shown(source.source)), source.form or "–", f"{source.rows:,}", used)
    return table


def _splits(summary: DatasetSummary) -> Table:
    table = _table("split", "rows", "tokens", "trained", "share", "longest", "cut")
    for name, audit in summary.splits:
        share = audit.trained_tokens / audit.tokens if audit.tokens else 0.0
        figures = [audit.rows, audit.tokens, audit.trained_tokens]
        table.add_row(
            name.lower(),
            *(f"{figure:,}" for figure in figures),
            f"{share:.0%}",
            f"{audit.longest_row:,}",
            f"{audit.truncated_rows:,}",
        )
    return table


def _histogram(audit: LabelAudit, width: int) -> list[Text]:
    from rich.text import Text

    if not audit.rows:
        return [Text("  no row", style="dim")]
    most = max(audit.rows_by_length)
    label = len(f"{audit.longest_row:,}")
    room = max(10, min(width, 100) - 2 * label - len(f"{most:,}") - 8)
    lines: list[Text] = []
    for number, count in enumerate(audit.rows_by_length):
        if not lines and not count:
            continue
        low, high = number * audit.length_bin + 1, (number + 1) * audit.length_bin
        bar = "█" * round(count / most * room) or ("▏" if count else "")
        line = Text().append(f"  {low:>{label},}–{high:<{label},} ", style="dim")
        line.append(bar, style="cyan")
        line.append(f" {count:,}" if count else "")
        lines.append(line)
    return lines


def _findings(summary: DatasetSummary) -> list[tuple[str, list[str], int]]:
    found = [("bad rows", summary.bad_rows, summary.bad_row_count)]
    for name, repeats in (
        ("contradicted", summary.contradictions),
        ("repeated", summary.duplicates),
        ("leaked", summary.leaks),
    ):
        if repeats is not None:
            found.append((name, repeats.first, repeats.count))
    return found


def _to_know(summary: DatasetSummary) -> list[tuple[str, list[str]]]:
    """What a reader should know, and what was not read of each source."""
    from llm_engineering.reporting.data_page import data_notices

    told = [("to know", data_notices(summary))]
    for one in summary.sources:
        unread = [
            f"{key} in {rows:,} row{'' if rows == 1 else 's'}"
            for key, rows in sorted(one.unread.items())
        ]
        told.append((f"not read of {shown(one.source)}", unread))
    return [(heading, lines) for heading, lines in told if lines]


def _rows_title(count: int) -> Text:
    from rich.text import Text

    what = "one training row" if count == 1 else "one training row a source"
    text = Text(f"  {what}, ", style="bold")
    text.append("trained tokens", style=_TRAINED)
    return text.append(" marked", style="not bold")


def _row_title(example: ExampleRow) -> Text:
    from rich.text import Text

    text = Text(f"  {shown(example.origin)}", style="dim")
    return text.append(", cut at model.max_seq_length" if example.cut else "", style="yellow")


def _row(example: ExampleRow, *, colours: bool) -> Text:
    """The row as the model sees it; where there are no colours, brackets mark what is trained."""
    from rich.text import Text

    text, left = Text(), _TEXT
    for piece in example.pieces:
        part = shown(piece.text[:left])
        if piece.trained:
            text.append(part if colours else f"⟦{part}⟧", style=_TRAINED)
        else:
            text.append(part, style="dim")
        left -= len(piece.text)
        if left <= 0:
            text.append(" ...")
            break
    return text


def _write_page(config: FinetuningConfig, summary: DatasetSummary, refusals: list[str]) -> Path:
    from llm_engineering.outputs import model_and_data
    from llm_engineering.reporting.data_page import render_data_page

    html = render_data_page(summary, refusals)
    path = Path(config.run.output_dir) / "inspected" / f"{model_and_data(config)}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")

    from zenml import save_artifact
    from zenml.types import HTMLString

    with _quiet("zenml", "zenml.artifacts.utils"):
        save_artifact(HTMLString(html), name=ARTIFACT)
    return path


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Only errors are logged."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")


def _symbol(character: str) -> str:
    if character == "\t":
        return "    "
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"U+{code:04X}"
