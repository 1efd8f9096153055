"""Step: prepare data."""

from typing import Annotated

from zenml import get_step_context, step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.prepare import prepare_data as prepare
from llm_engineering.lineage.metadata import show
from llm_engineering.model.evaluation.samples import require_tool_calls
from llm_engineering.outputs import work_folder


@step
def prepare_data(
    data: DataSettings,
    model: ModelSettings,
    trainable_tokens: list[str],
    objective: ObjectiveName,
    output_dir: str,
    fingerprints: list[str],
    validates: bool = False,
    scored_tool_calls: int = 0,
) -> Annotated[PreparedDataset, "dataset"]:
    """Read, check, split, tokenize and audit the data; no weight is loaded."""
    run = get_step_context().pipeline_run.name
    folder = work_folder(output_dir) / run / "data"
    dataset = prepare(
        data,
        model,
        objective=objective,
        folder=folder,
        validates=validates,
        tokens=trainable_tokens,
    )
    require_tool_calls(dataset, scored_tool_calls)
    show("data", dataset.summary.figures)
    return dataset
