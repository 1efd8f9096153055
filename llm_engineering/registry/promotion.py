"""The gate: compare a saved version with production and the base model, and promote the better."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.registry import RegistrySettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import RegistryError
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.registry.checks import Candidate, Production, run_checks
from llm_engineering.registry.decision import Check, Decision
from llm_engineering.registry.learned_rows import learned_rows
from llm_engineering.registry.stages import promote_if_unchallenged
from llm_engineering.registry.versions import (
    ADAPTER_DIGEST,
    BASE_WEIGHTS_DIGEST,
    artifact,
    production_version,
    rolled_back_versions,
    weights_digest,
)
from llm_engineering.training.production import (
    ProductionAdapter,
    measure_production,
    require_switchable,
)

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse

logger = logging.getLogger(__name__)


def promote(
    model: str,
    version: str,
    settings: RegistrySettings,
    evaluate: EvaluateSettings,
    *,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    parity: list[ParityProof],
) -> Decision:
    """Decide on a version, and make it the production one if it passes every check.

    If another version is promoted while this one is compared, it is compared with that one.

    Args:
        model: Name of the ZenML model.
        version: Name of the version that was just saved.
        settings: The rules.
        evaluate: How production is evaluated, where it is again.
        dataset: The run's data; both versions are compared on its held-out rows.
        lora: The run's model.
        adapter: The run's adapter.
        record: Its training; production, where it is evaluated here, is noted in it.
        evaluation: Its held-out metrics, and the base model's.
        parity: The proofs of its exports.

    Returns:
        The decision, whatever it is.
    """
    if not settings.promote:
        reason = "registered only (registry.promote: false)"
        return Decision(model=model, version=version, promoted=False, reason=reason)
    while True:
        current = production_version(model)
        candidate = Candidate(
            summary=dataset.summary,
            adapter=adapter,
            record=record,
            evaluation=evaluation,
            rolled_back=_rolled_back(model),
            production=None
            if current is None
            else _with_answers(
                _production(current, dataset, lora, adapter, record, evaluate), current, settings
            ),
            parity=parity,
        )
        decision = _decide(model, version, candidate, settings)
        if not decision.promoted or promote_if_unchallenged(
            model, version, expected=decision.production, reason=decision.reason
        ):
            return decision
        logger.info("another version was promoted meanwhile; comparing again")


def _decide(model: str, version: str, candidate: Candidate, settings: RegistrySettings) -> Decision:
    checks = run_checks(candidate, settings)
    failed = [check for check in checks if not check.passed]
    if failed:
        reason = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    elif candidate.production is None:
        reason = f"the first version to pass all {len(checks)} checks"
    elif _was_compared(candidate.production.name, checks, settings):
        reason = f"better than {candidate.production.name}, and passed all {len(checks)} checks"
    else:
        reason = f"passed all {len(checks)} checks, none of which compares it with " + (
            candidate.production.name
        )
    return Decision(
        model=model,
        version=version,
        promoted=not failed,
        reason=reason,
        production=candidate.production.name if candidate.production else None,
        checks=checks,
    )


def _was_compared(production: str, checks: list[Check], settings: RegistrySettings) -> bool:
    """Whether a check held the version against production; a score may have been against the base."""
    return "better_than_production" in settings.checks or any(
        f" of {production};" in check.detail for check in checks
    )


def production_to_measure(
    model: str, dataset: PreparedDataset, lora: LoraRecipe
) -> ProductionAdapter | None:
    """The production version's adapter, if its losses on these held-out rows are not known.

    None too if it cannot be measured; the gate says why.
    """
    current = production_version(model)
    if current is None or _stored_losses(current, dataset) is not None:
        return None
    try:
        production = _adapter(current, lora)
        _require_unlearned(current, dataset)
        require_switchable(lora, production)
    except RegistryError:
        return None
    return production


def _stored_losses(version: ModelVersionResponse, dataset: PreparedDataset) -> list[float] | None:
    """A version's losses on these very held-out rows, if they are stored in a form of today."""
    if "prompt_ids" in dataset.split("held_out").column_names:
        return None  # a preference objective's loss is against the run's own reference model
    if version.run_metadata.get("held_out_digest") != dataset.summary.held_out_digest:
        return None
    try:
        stored: Evaluation = artifact(version, "evaluation")
    except RegistryError as reason:
        logger.info("%s", reason)
        return None
    return stored.after.row_losses


def _adapter(current: ModelVersionResponse, lora: LoraRecipe) -> ProductionAdapter:
    figures = current.run_metadata
    if figures.get(BASE_WEIGHTS_DIGEST) != weights_digest(lora.model):
        raise RegistryError(
            f"it adapts another base model ({figures.get('base_model')}), whose loss is counted on "
            "other tokens; promote by hand (--promote) after a comparison of your own"
        )
    return ProductionAdapter(str(current.name), artifact(current, "adapter"))


def _require_unlearned(current: ModelVersionResponse, dataset: PreparedDataset) -> None:
    """Refuse a comparison on rows that production was trained on, as with another ``data.seed``."""
    learned = learned_rows(artifact(current, "dataset"), dataset)
    if learned:
        rows = len(dataset.split("held_out"))
        raise RegistryError(
            f"it was trained on {learned} of these {rows} held-out rows, on which its loss would "
            "flatter; keep data.seed and what is held out, or promote by hand (--promote)"
        )


def _production(
    current: ModelVersionResponse,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluate: EvaluateSettings,
) -> Production:
    """Production's losses on this run's held-out rows: as stored, or measured again."""
    name = str(current.name)
    try:
        production = _adapter(current, lora)
        stored = _stored_losses(current, dataset)
        if stored is not None:
            return Production(name, stored)
        _require_unlearned(current, dataset)
        require_switchable(lora, production)
        if record.evaluation is None:
            logger.info("evaluating %s on this run's held-out rows", name)
            record.production = measure_production(
                lora, adapter, production, dataset, record, evaluate
            )
            return Production(name, record.production.metrics.row_losses)
        there = record.production
        if there is None or there.version != name:
            raise RegistryError(
                "its losses on these held-out rows are not known: where this run was trained another "
                "version was measured, or this one could not be (the run's log says why); run again "
                "with --no-cache, or promote by hand (--promote)"
            )
        return Production(name, there.metrics.row_losses)
    except RegistryError as reason:
        return Production(name, None, str(reason))


def _with_answers(
    production: Production, current: ModelVersionResponse, settings: RegistrySettings
) -> Production:
    """Production with its stored answers, where a check asks for a score."""
    if not settings.scores:
        return production
    try:
        stored: Evaluation = artifact(current, "evaluation")
    except RegistryError as reason:
        logger.info("%s", reason)
        return production
    return replace(production, answers=stored.answers)


def _rolled_back(model: str) -> dict[str, str]:
    return {
        str(version.run_metadata[ADAPTER_DIGEST]): str(version.name)
        for version in rolled_back_versions(model)
    }
