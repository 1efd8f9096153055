"""The production version's answers beside a run's own: what its version in the registry still has of them."""

from __future__ import annotations

from llm_engineering.errors import RegistryError
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.decision import Decision
from llm_engineering.registry.versions import (
    BASE_WEIGHTS_DIGEST,
    artifact,
    find_version,
    production_version,
    weights_digest,
)
from llm_engineering.reporting.production_answers import ProductionAnswers, production_answers


def answers_of_production(
    decision: Decision, lora: LoraRecipe, record: TrainingRecord, evaluation: Evaluation
) -> ProductionAnswers | None:
    """What production, as it was before a decision, answered to a run's rows.

    Args:
        decision: Of the gate, on the run's version.
        lora: The run's model.
        record: The run's training, with what production was measured to do, if it was.
        evaluation: The run's answers.

    Returns:
        None if there was no other version in production, or the run has no answers.
    """
    if not evaluation.samples and evaluation.answers is None:
        return None
    name, missing, notes = decision.production, "", list[str]()
    stored: Evaluation | None = None
    try:
        current = find_version(decision.model, name) if name else production_version(decision.model)
        if current is None or current.name == decision.version:
            return None
        name, figures = str(current.name), current.run_metadata
        if figures.get(BASE_WEIGHTS_DIGEST) != weights_digest(lora.model):
            notes.append(f"It adapts another base model ({figures.get('base_model')}).")
        stored = artifact(current, "evaluation")
    except RegistryError as reason:
        missing = str(reason)
    return production_answers(
        str(name), evaluation, stored, record.production, missing=missing, notes=notes
    )
