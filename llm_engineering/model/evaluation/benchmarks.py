"""Benchmarks by EleutherAI's lm-evaluation-harness, before and after."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.errors import ScoringError
from llm_engineering.model.evaluation.benchmark_tasks import is_file, task_of_file
from llm_engineering.model.evaluation.inference import inference, random_numbers_kept

logger = logging.getLogger(__name__)

Measured = dict[tuple[str, str], tuple[float, float | None, bool, int]]
"""By task and metric: value, standard error, whether more is better, rows."""


class Benchmark(BaseModel):
    """One metric of one task, of the base model and of the adapter."""

    task: str
    metric: str = Field(
        description="As the harness names it; its filter behind a comma, unless none."
    )
    before: float
    after: float
    before_error: float | None = Field(
        None, description="Standard error of before; None: no figure."
    )
    after_error: float | None = None
    higher_is_better: bool = True
    rows: int

    @property
    def lost(self) -> float:
        """What was forgotten, as a share of the base model's figure; negative: gained."""
        worse = self.before - self.after if self.higher_is_better else self.after - self.before
        return worse / abs(self.before) if self.before else float(worse > 0)


def measure_benchmarks(
    model: Any, tokenizer: Any, names: Sequence[str], *, batch_size: int, limit: int | None
) -> Measured:
    """Evaluate a model on the tasks; random numbers of others are left as they were.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer; no chat template is applied, as the harness's figures are published.
        names: Tasks, or YAML files of tasks.
        batch_size: Rows in one forward pass.
        limit: The first so many rows of each task; None: all.

    Raises:
        ScoringError: A task's data cannot be had, or it cannot be evaluated.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tasks = [task_of_file(name) if is_file(name) else name for name in names]
    with _all_random_numbers_kept(), inference(model):
        try:
            results = simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=tasks,
                limit=limit,
                log_samples=False,
                bootstrap_iters=100,
            )
        except Exception as error:  # whatever a task, its data or the Hub raises
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ScoringError(
                f"evaluate.benchmarks: {', '.join(names)} cannot be evaluated ({reason}); a task by "
                "name reads its data from the Hub, one in a YAML file can read local files "
                "(dataset_path: json). What was trained comes from the cache"
            ) from error
    if results is None:
        raise ScoringError("evaluate.benchmarks: the harness gave no results")
    return _figures(results)


def compared(before: Measured, after: Measured) -> list[Benchmark]:
    """Both models' figures, metric by metric."""
    return [
        Benchmark(
            task=task,
            metric=metric,
            before=before[task, metric][0],
            after=value,
            before_error=before[task, metric][1],
            after_error=error,
            higher_is_better=higher,
            rows=rows,
        )
        for (task, metric), (value, error, higher, rows) in after.items()
    ]


def _figures(results: Mapping[str, Any]) -> Measured:
    found: Measured = {}
    for task, figures in results["results"].items():
        better = results.get("higher_is_better", {}).get(task, {})
        rows = results.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in figures.items():
            metric, _, filtered = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not filtered:
                continue
            error = figures.get(f"{metric}_stderr,{filtered}")
            name = metric if filtered == "none" else key
            is_number = isinstance(error, int | float)
            found[task, name] = (
                float(value),
                float(error) if is_number else None,
                better.get(metric) is not False,
                int(rows),
            )
    return found


@contextmanager
def _all_random_numbers_kept() -> Iterator[None]:
    """The harness seeds Python's, NumPy's and PyTorch's generators."""
    import numpy

    python, arrays = random.getstate(), numpy.random.get_state()
    try:
        with random_numbers_kept():
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
