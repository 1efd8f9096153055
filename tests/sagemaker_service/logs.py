"""A container's output on its way to CloudWatch Logs."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

GROUP = "/aws/sagemaker/TrainingJobs"
FLUSH_S = 0.1
# Of one event, in characters; the service's own is 256 KiB with its overhead.
EVENT_LENGTH = 250_000
CALL_EVENTS = 1000


class LogStream:
    """Sends each line of a pipe to a new stream of the group, in batches, as they come."""

    def __init__(self, job_name: str, host: str, logs: Any, delay_s: float) -> None:
        self.name = _new_stream(f"{job_name}/{host}", logs)
        self._logs = logs
        self._delay_s = delay_s
        self._lines: Queue[tuple[int, str] | None] = Queue()
        self._threads: list[Thread] = []

    def follow(self, pipe: IO[bytes]) -> None:
        """Start sending what comes through ``pipe``, until it is closed."""
        for work in (lambda: self._read(pipe), self._send):
            self._threads.append(Thread(target=work, daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Return once everything is sent; the delay goes on after the job has ended."""
        reader, sender = self._threads
        reader.join()
        if not self._delay_s:
            sender.join()

    def _read(self, pipe: IO[bytes]) -> None:
        last = 0
        for raw in pipe:
            line = raw.decode(errors="replace").rstrip("\r\n")
            last = max(last, time.time_ns() // 1_000_000)
            for start in range(0, len(line), EVENT_LENGTH):
                self._lines.put((last, line[start : start + EVENT_LENGTH]))
        self._lines.put(None)

    def _send(self) -> None:
        ended = False
        while not ended:
            batch: list[tuple[int, str]] = []
            item = self._lines.get()
            time.sleep(FLUSH_S)
            while item is not None:
                batch.append(item)
                try:
                    item = self._lines.get_nowait()
                except Empty:
                    break
            else:
                ended = True
            if batch:
                time.sleep(self._delay_s)
                self._put(batch)

    def _put(self, lines: list[tuple[int, str]]) -> None:
        for start in range(0, len(lines), CALL_EVENTS):
            self._logs.put_log_events(
                logGroupName=GROUP,
                logStreamName=self.name,
                logEvents=[
                    {"timestamp": when, "message": text}
                    for when, text in lines[start : start + CALL_EVENTS]
                ],
            )


def _new_stream(prefix: str, logs: Any) -> str:
    """Make ``PREFIX-SECONDS``, later by a second for each stream that has the name already."""
    seconds = int(time.time())
    while True:
        name = f"{prefix}-{seconds}"
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=GROUP)
        try:
            logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
            return name
        except logs.exceptions.ResourceAlreadyExistsException:
            seconds += 1
