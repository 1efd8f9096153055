"""Why a run failed whose steps ran in other processes: what ZenML noted of the step that did."""

from __future__ import annotations

from llm_engineering import errors
from llm_engineering.errors import FinetuningError, TrainingError

_LAST_LINES = 15


def failure_of(run: str) -> FinetuningError | None:
    """The error that ended a run, of the class that the step raised if that is one of ours.

    Args:
        run: Name of a run.

    Returns:
        The error; None if ZenML knows no failed step of such a run.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    try:
        steps = Client().get_pipeline_run(run).steps
    except KeyError:
        return None
    for name, step in steps.items():
        if step.status != ExecutionStatus.FAILED:
            continue
        noted = step.exception_info
        if noted is None:
            return TrainingError(
                f"step {name} of {run} ended without a word: its process was killed, or could not "
                f"begin; its log: zenml pipeline runs list --name {run}, or the orchestrator's"
            )
        kind = getattr(errors, (noted.source or "").rpartition(".")[2], None)
        if isinstance(kind, type) and issubclass(kind, FinetuningError):
            return kind(f"{noted.message}\n(step {name} of {run})")
        trace = "\n".join(noted.traceback.rstrip().splitlines()[-_LAST_LINES:])
        return TrainingError(f"step {name} of {run} failed:\n{trace}")
    return None
