"""Every row of an optimizer step weighs the same, however the step is split into micro-batches.

trl's preference losses are means over a micro-batch, and transformers takes the mean of these means:
where the last micro-batch of an epoch holds fewer rows, its rows would weigh more than others.
"""

from __future__ import annotations

from typing import Any


def weighing_rows_equally(trainer: type) -> type:
    """A trainer class whose loss is the mean over the step's rows.

    Args:
        trainer: One whose ``compute_loss`` gives the mean over a micro-batch, and whose batches have
            ``input_ids`` of the shape ``(sequences, tokens)``, equally many sequences a row.
    """

    class EqualRows(trainer):
        _sequences_in_step = 0

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            self._sequences_in_step = sum(len(batch["input_ids"]) for batch in batches)
            return batches, items

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            sequences = len(inputs["input_ids"])  # before trl takes the batch apart
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            # transformers divides by the number of micro-batches.
            split = self.current_gradient_accumulation_steps
            return loss * (sequences * split / self._sequences_in_step)

    return EqualRows
