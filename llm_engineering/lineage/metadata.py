"""What a step shows of itself in ZenML, by the names that metrics.json has too.

None of it is worth a training: where ZenML cannot take it, that is said once, and tried again.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llm_engineering.lineage.links import not_a_link
from llm_engineering.lineage.loss_curve import LossCurve
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.reporting import formats

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN = 5.0  # each write is a request to the ZenML server
_LONGEST_PAUSE_S = 60.0
PATIENCE_S = 3600.0
"""How long the end of a step waits for a ZenML server that does not answer."""
_DIGITS = 5  # significant, of a figure that is shown


def show(group: str, figures: Mapping[str, Any], **target: Any) -> None:
    """Show figures of the running step, or of what ``target`` names, as ``log_metadata`` does.

    Numbers are rounded. Sizes (``..._bytes``) and links stand beside the group: only there ZenML
    has types for them. Its dashboard shows a size as bare bytes, so the group has it in words too.

    Args:
        group: Their title.
        figures: By name.
        target: Arguments of ``log_metadata`` that name another run, step or model version.
    """
    from zenml import log_metadata

    _insist(lambda: log_metadata(metadata=shown(group, figures), **target))


def shown(group: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as ZenML shows them: rounded and under a title, sizes and links by their types."""
    from zenml.metadata.metadata_types import StorageSize, Uri

    typed: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in figures.items():
        if name.endswith("_bytes"):
            size = name.removesuffix("_bytes")
            typed[size], plain[size] = StorageSize(value), formats.size(value)
        elif isinstance(value, str) and value.startswith(("https://", "http://")):
            typed[name] = Uri(value)
        elif isinstance(value, float):
            plain[name] = float(f"{value:.{_DIGITS}g}")
        else:
            plain[name] = not_a_link(value) if isinstance(value, str) else value
    return ({group: plain} if plain else {}) | typed


def show_job(record: TrainingRecord) -> None:
    """Show what a remote job did: the same figures as a local step, and what the job cost."""
    show("training", training_figures(record))
    if record.job is not None:
        job = record.job.model_dump(exclude={"packages", "python", "platform", "parity"})
        named = {f"job_{name}": value for name, value in job.items() if value is not None}
        show("job", named)
    _insist(lambda: LossCurve().draw(record))


def training_figures(record: TrainingRecord) -> dict[str, Any]:
    """A training's course and cost so far, by name."""
    figures: dict[str, Any] = {
        "train_steps": record.steps,
        "train_loss_last": record.points[-1].loss,
        "tokens_per_second": record.tokens_per_second,
        "train_tokens": record.train_tokens,
        "held_out_loss_before": record.before.loss,
        "peak_memory_bytes": record.peak_memory_bytes,
    }
    if record.planned_memory_bytes:
        figures["planned_memory_bytes"] = record.planned_memory_bytes
    if len(record.held_out) > 1:
        figures["held_out_loss_after"] = record.after.loss
    if record.held_out[-1].metrics.rewards is not None:
        figures |= record.held_out[-1].metrics.rewards.figures
    return figures


@contextmanager
def training_progress() -> Iterator[Callable[[TrainingRecord], None]]:
    """Keep the running step's figures and loss curve up to date; gives what is to be called for it.

    A thread writes, so that training never waits for ZenML. On the way out the last figures are
    written too, however long ZenML takes to answer again: without it the step could not end either.
    """
    writer = _Writer()
    context = contextvars.copy_context()  # the step's, which ZenML's functions look for
    thread = threading.Thread(target=context.run, args=(writer.run,), daemon=True)
    thread.start()
    try:
        yield writer.take
    except BaseException:
        writer.stop()
        raise
    writer.stop()
    thread.join()
    if writer.latest is not None:
        _insist(writer.write)


class _Writer:
    """Writes the newest state of a training from a thread of its own."""

    def __init__(self) -> None:
        self.latest: TrainingRecord | None = None
        self._curve = LossCurve()
        self._news = threading.Event()
        self._over = threading.Event()

    def take(self, record: TrainingRecord) -> None:
        """Note where training is; it goes on at once."""
        if record.points and record.held_out:
            news = {
                name: list(getattr(record, name)) for name in ("points", "held_out", "validation")
            }
            self.latest = record.model_copy(update=news)
            self._news.set()

    def stop(self) -> None:
        """Ask the thread to end; nothing more is written by it."""
        self._over.set()
        self._news.set()

    def run(self) -> None:
        """Write whenever there is news, with pauses that grow while ZenML does not answer."""
        pause, failed = _SECONDS_BETWEEN, False
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            if self._over.is_set():
                return
            try:
                with _retries_untold(told=failed):
                    self.write()
            except Exception as error:  # whatever it is, training matters more
                if not failed:
                    logger.warning(
                        "ZenML does not take this step's figures (%s); training goes on, and they "
                        "are written once it does", _first_line(error),
                    )  # fmt: skip
                pause, failed = min(2 * pause, _LONGEST_PAUSE_S), True
                self._news.set()
            else:
                if failed:
                    logger.info("ZenML takes this step's figures again")
                pause, failed = _SECONDS_BETWEEN, False
            self._over.wait(pause)

    def write(self) -> None:
        """Write figures and curve as they are now."""
        from zenml import log_metadata

        record = self.latest
        if record is not None:
            log_metadata(metadata=shown("training", training_figures(record)))
            self._curve.draw(record)


def _insist(write: Callable[[], None]) -> None:
    """Write, and where ZenML does not answer, again until it does or patience ends.

    What it refuses for another reason is told and left.
    """
    end, pause, told = time.monotonic() + PATIENCE_S, 1.0, False
    while True:
        try:
            with _retries_untold(told=told):
                return write()
        except Exception as error:
            if not _is_outage(error) or time.monotonic() > end:
                logger.warning("ZenML does not take this step's figures: %s", _first_line(error))
                return
            if not told:
                logger.warning(
                    "ZenML does not answer (%s); waiting for it, at most %d minutes",
                    _first_line(error), PATIENCE_S // 60,
                )  # fmt: skip
            told = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


@contextmanager
def _retries_untold(*, told: bool) -> Iterator[None]:
    """Keep ZenML's client from telling each of its five attempts, once an outage has been told."""
    of_requests = logging.getLogger("urllib3.connectionpool")
    before = of_requests.level
    if told:
        of_requests.setLevel(logging.ERROR)
    try:
        yield
    finally:
        of_requests.setLevel(before)


def _is_outage(error: Exception) -> bool:
    """Whether waiting may help: no connection to the server, or a locked local store."""
    from sqlalchemy.exc import OperationalError

    return isinstance(error, OSError | OperationalError)  # those of requests are OSErrors


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
