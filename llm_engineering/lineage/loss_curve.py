"""The loss while it falls: an artifact of the running step whose picture is drawn again and again."""

from __future__ import annotations

import time

from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.reporting.loss_page import render_loss_page

NAME = "loss_curve"
_SECONDS_BETWEEN = 30.0


class LossCurve:
    """One artifact version; ZenML's dashboard reads its file anew at each look."""

    def __init__(self) -> None:
        self._uri: str | None = None
        self._drawn = 0.0
        self._shown = (-1, -1)

    def draw(self, record: TrainingRecord) -> None:
        """Draw the curve, at most every half a minute, and at once when training ends."""
        shown = (len(record.points), len(record.held_out))
        ended = len(record.held_out) > 1 and record.held_out[-1].step >= record.steps
        if shown == self._shown or (
            not ended and time.monotonic() - self._drawn < _SECONDS_BETWEEN
        ):
            return
        page = render_loss_page(record)
        if self._uri is None:
            self._uri = self._save(page)
        else:
            from zenml.io import fileio

            with fileio.open(self._uri, "w") as file:
                file.write(page)
        self._drawn, self._shown = time.monotonic(), shown

    @staticmethod
    def _save(page: str) -> str | None:
        from zenml import save_artifact
        from zenml.types import HTMLString

        saved = save_artifact(HTMLString(page), name=NAME)
        pictures = saved.visualizations or []
        return pictures[0].uri if pictures else None
