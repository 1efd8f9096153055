"""A finished run, as its report and its model card describe it."""

from __future__ import annotations

from dataclasses import dataclass

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.summary import DatasetSummary
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.decision import Decision
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.reporting.previous_run import PreviousRun
from llm_engineering.reporting.production_answers import ProductionAnswers
from llm_engineering.reporting.row_changes import RowChanges


@dataclass(frozen=True)
class RunReport:
    """Everything that the report and the model card of one run are written from."""

    name: str
    config: FinetuningConfig
    summary: DatasetSummary
    lora: LoraRecipe
    record: TrainingRecord
    evaluation: Evaluation
    manifest: Manifest
    promotion: Decision | None = None
    link: str | None = None
    """The run's page in ZenML's dashboard; None: ZenML has no server."""
    rows: RowChanges | None = None
    """Held-out rows that gained most and least; None: not known."""
    previous: PreviousRun | None = None
    """The run before of the same model and source; None: there is none in this output folder."""
    production: ProductionAnswers | None = None
    """What the production version answered; None: there is no other, or the gate comes later."""
