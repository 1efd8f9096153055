"""Changing the production version: forward, by the gate or by hand, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llm_engineering.errors import RegistryError
from llm_engineering.registry.lock import promotion_lock
from llm_engineering.registry.versions import (
    PRODUCTION,
    REPLACED,
    ROLLED_BACK,
    find_version,
    production_version,
    require_artifact,
)

if TYPE_CHECKING:
    from zenml.models import ModelVersionResponse


def promote_if_unchallenged(model: str, version: str, *, expected: str | None, reason: str) -> bool:
    """Make a version the production one, unless it is no longer ``expected`` that it replaces.

    Args:
        model: Name of the ZenML model.
        version: Name of its version.
        expected: Name of the production version that it was compared with; None: there was none.
        reason: Kept with the version.

    Returns:
        False if another version was promoted meanwhile; nothing is changed then.
    """
    with promotion_lock(model):
        current = production_version(model)
        if (current.name if current else None) != expected:
            return False
        _promote(find_version(model, version), current, reason)
    return True


def promote_by_hand(model: str, name_or_number: str) -> tuple[str, str | None]:
    """Make a version the production one, whatever the gate said of it.

    Returns:
        The version's name, and that of the one it replaced.

    Raises:
        RegistryError: There is no such version, its adapter was pruned, or it is the production one
            already.
    """
    with promotion_lock(model):
        version, current = find_version(model, name_or_number), production_version(model)
        if current is not None and current.id == version.id:
            raise RegistryError(f"{version.name} is the production version of {model} already")
        require_artifact(version, "adapter")
        _promote(version, current, "promoted by hand")
    return str(version.name), str(current.name) if current else None


def roll_back(model: str) -> tuple[str, str]:
    """Put the version back that the production one replaced; the gate will not undo it.

    Returns:
        The names of the version that is archived, and of the one that is production again.

    Raises:
        RegistryError: There is no production version, it replaced none, or that one's adapter is gone.
    """
    with promotion_lock(model):
        current = production_version(model)
        if current is None:
            raise RegistryError(f"model {model} has no production version to roll back")
        former = str(current.run_metadata.get(REPLACED) or "")
        if not former:
            raise RegistryError(f"{current.name} is the first production version of {model}")
        previous = find_version(model, former)
        require_artifact(previous, "adapter")
        previous.set_stage(PRODUCTION, force=True)
        _note(current, {ROLLED_BACK: True, "rolled_back_at": _now()})
    return str(current.name), str(previous.name)


def _promote(
    version: ModelVersionResponse, current: ModelVersionResponse | None, reason: str
) -> None:
    # First what a rollback needs, then the stage: a promotion that is cut short stays undone.
    _note(
        version,
        {
            REPLACED: current.name if current else "",
            ROLLED_BACK: False,
            "promoted_at": _now(),
            "promotion_reason": reason,
        },
    )
    version.set_stage(PRODUCTION, force=True)  # archives the former one in the same transaction


def _note(version: ModelVersionResponse, metadata: dict[str, Any]) -> None:
    from zenml import log_metadata

    log_metadata(metadata=metadata, model_version_id=version.id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
