"""What a failing rank leaves for the process that started it, and which failure was the first."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from llm_engineering import errors
from llm_engineering.errors import FinetuningError, TrainingError
from llm_engineering.planning.hardware import is_out_of_memory

OUT_OF_MEMORY = "OutOfMemoryError"
_LAST_LINES = 15


class Failure(BaseModel):
    """An exception that ended a rank."""

    rank: int
    kind: str
    message: str
    trace: str
    at: float

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Failure:
        """Describe an exception."""
        return cls(
            rank=rank,
            kind=OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__,
            message=str(error),
            trace="".join(traceback.format_exception(error)),
            at=time.time(),
        )

    def write(self, folder: Path) -> None:
        """Leave it in a folder; whole, or not at all."""
        part = folder / f"{self.rank}.part"
        part.write_text(self.model_dump_json(), encoding="utf-8")
        part.replace(folder / f"{self.rank}.failure.json")


def first_cause(folder: Path, ranks: int, exit_codes: Mapping[int, int]) -> BaseException:
    """The exception that tells why the ranks ended: of the same class as in one process, if ours.

    When one rank ends, the others fail too, at their next exchange with it. So an error of ours
    counts first, then a death without a word, and then whatever came first.

    Args:
        folder: Where ranks leave their failures.
        ranks: How many there were.
        exit_codes: Of the ranks of this host that ended by themselves; negative: by that signal.
    """
    left = [
        Failure.model_validate_json(path.read_bytes()) for path in folder.glob("*.failure.json")
    ]
    left.sort(key=lambda failure: failure.at)
    for failure in left:
        ours = getattr(errors, failure.kind, None)
        if isinstance(ours, type) and issubclass(ours, FinetuningError):
            return ours(failure.message)
        if failure.kind == OUT_OF_MEMORY:
            import torch

            return torch.OutOfMemoryError(failure.message)
    for rank, code in exit_codes.items():
        if code == -signal.SIGKILL:
            return TrainingError(
                f"rank {rank} of {ranks} was killed by SIGKILL, which often means that the host ran "
                "out of memory. Continue with --resume"
            )
        if code < 0 and code != -signal.SIGTERM:
            meanwhile = f"\nrank {left[0].rank} failed too:\n{left[0].trace}" if left else ""
            return TrainingError(
                f"rank {rank} of {ranks} was ended by {signal.Signals(-code).name}; the end of its "
                f"log:\n{_end_of_log(folder, rank)}{meanwhile.rstrip()}\nContinue with --resume"
            )
    if left:
        first = left[0]
        return TrainingError(f"rank {first.rank} of {ranks} failed:\n{first.trace.rstrip()}")
    rank, code = next(iter(exit_codes.items()), (0, 1))
    return TrainingError(
        f"rank {rank} of {ranks} ended with exit code {code}; the end of its log:\n"
        f"{_end_of_log(folder, rank)}"
    )


def _end_of_log(folder: Path, rank: int) -> str:
    logs = sorted(folder.glob(f"**/{rank}/stderr.log"))
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines() if logs else []
    return "\n".join(lines[-_LAST_LINES:])
